//! `trust.json`: measures of how faithful a run's maps are, taken on a sample.
//!
//! Owns the file's fields; `docs/trust.md` defines them. Does not measure: `camshaft-trust` does.

use serde::{Deserialize, Serialize};

use crate::explain::ExplainOptions;
use crate::finite::finite;
use crate::key::ImageKey;
use crate::prediction::ModelRecord;
use crate::run::RunId;

/// `OUT/trust.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrustRecord {
    /// [`crate::run::SCHEMA`].
    pub schema: u32,
    /// The run whose maps these are.
    pub run: RunId,
    /// The model they come from, and what it ran on for the measurement.
    pub model: ModelRecord,
    /// The options they were made with.
    pub explain: ExplainOptions,
    /// Which images were looked at.
    pub sample: TrustSample,
    /// What the measures were taken with.
    pub settings: TrustSettings,
    /// One for each method and layer of the run.
    pub maps: Vec<MapTrust>,
}

/// Which images were looked at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrustSample {
    /// Images asked for.
    pub asked: u64,
    /// Images measured.
    pub measured: u64,
    /// Images of the sample that could no longer be read or explained.
    pub left_out: u64,
    /// Those measured, in the order of the sample.
    pub keys: Vec<ImageKey>,
}

/// What the measures were taken with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrustSettings {
    /// Of every interval: 0.95.
    pub confidence: f64,
    /// Steps of a deletion or insertion; each moves the same share of the pixels.
    pub curve_steps: usize,
    /// Standard deviation of the blur that pixels are inserted into, in input pixels.
    #[serde(deserialize_with = "finite")]
    pub blur_sigma: f32,
    /// ROAD keeps the pixels below these percentiles.
    pub road_percentiles: Vec<u8>,
    /// Standard deviation of the noise on imputed pixels, which are 0 to 1.
    #[serde(deserialize_with = "finite")]
    pub road_noise: f32,
    /// Networks drawn for each part of the sanity check.
    pub redraws: usize,
    /// The rank correlation at which a map counts as hardly changed.
    pub hardly_changed: f64,
}

/// The measures of one method at one layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MapTrust {
    /// How the maps were computed.
    pub method: String,
    /// Whose output they weigh.
    pub layer: String,
    /// The measures.
    #[serde(flatten)]
    pub faithfulness: Faithfulness,
    /// Those of maps of random values, of the same size, for the same images and classes.
    pub random_maps: Faithfulness,
    /// The differences between both.
    pub over_random: OverRandom,
    /// Whether the maps depend on what the network has learnt.
    pub sanity: Sanity,
    /// Reasons not to trust the maps, as sentences; empty if there are none.
    pub warnings: Vec<String>,
}

/// How well maps tell which pixels the network's answer rests on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Faithfulness {
    /// Share of the probability that is lost if only the hot pixels stay, 0 to 1; less is better.
    pub average_drop: Estimate,
    /// Share of the images whose probability rises if only the hot pixels stay.
    pub average_increase: Estimate,
    /// Area under the probability as pixels are deleted, hottest first; less is better.
    pub deletion_auc: Estimate,
    /// Area under the probability as pixels are inserted, hottest first; more is better.
    pub insertion_auc: Estimate,
    /// ROAD, least relevant first minus most relevant first; more is better, 0 is chance.
    pub road: Estimate,
    /// Mean probability at each step of the deletion, the whole image first.
    pub deletion_curve: Vec<f64>,
    /// Mean probability at each step of the insertion, the blurred image first.
    pub insertion_curve: Vec<f64>,
}

/// Mean differences to random maps for the same images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OverRandom {
    /// Below 0 is better.
    pub average_drop: Estimate,
    /// Below 0 is better.
    pub deletion_auc: Estimate,
    /// Above 0 is better.
    pub insertion_auc: Estimate,
    /// Above 0 is better.
    pub road: Estimate,
    /// The verdict on `road`: passed if its interval is above 0, failed if the interval is below.
    pub verdict: Verdict,
}

/// Whether maps depend on what the network has learnt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sanity {
    /// Against the network with a re-drawn head.
    pub head: Redrawn,
    /// Against the network with a re-drawn last stage.
    pub last_stage: Redrawn,
}

/// Maps of the trained network against those of one with a part re-drawn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Redrawn {
    /// Spearman's, between both maps of an image for the same class: 1 the same order.
    pub rank_correlation: Estimate,
    /// Share of the re-drawn networks' maps that are the same everywhere, zero for instance:
    /// their correlation counts as 0.
    pub flat: f64,
    /// Passed if the maps change, failed if they hardly change.
    pub verdict: Verdict,
}

/// A mean of the sample with its confidence interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The mean; null if there is no image.
    pub mean: Option<f64>,
    /// The interval's lower end; null if the sample is too small for one.
    pub low: Option<f64>,
    /// Its upper end.
    pub high: Option<f64>,
    /// Images behind it.
    pub n: u64,
}

/// The result of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The whole interval is on the good side.
    Passed,
    /// The whole interval is on the bad side.
    Failed,
    /// The interval has both: a larger sample may tell.
    Unclear,
}
