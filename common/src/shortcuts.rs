//! `shortcuts.json`: whether clusters of maps that look like shortcuts are shortcuts, as
//! `--prove-shortcuts` measured it.
//!
//! Owns the file's fields; `docs/trust.md` defines them. Does not measure: `camshaft-trust` does.
//! Downstream: the report, which shows each proof with its cluster.

use serde::{Deserialize, Serialize};

use crate::finite::finite;
use crate::key::ImageKey;
use crate::prediction::ModelRecord;
use crate::run::RunId;
use crate::trust::Estimate;

/// The largest file that is read. A proof takes some two kilobytes, and a run has a few.
pub const MAX_SHORTCUTS_BYTES: u64 = 4 * 1024 * 1024;

/// `OUT/shortcuts.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShortcutsRecord {
    /// [`crate::run::SCHEMA`].
    pub schema: u32,
    /// The run whose clusters these are.
    pub run: RunId,
    /// The model that was measured, and what it ran on; null if there was nothing to measure.
    pub model: Option<ModelRecord>,
    /// The limits of the verdicts.
    pub settings: ProofSettings,
    /// One for each cluster that was measured.
    pub proofs: Vec<ShortcutProof>,
    /// The flagged clusters that could not be measured.
    pub left_out: Vec<UnprovedCluster>,
}

/// The limits of the verdicts.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProofSettings {
    /// Images of other classes that were asked for, for each cluster.
    pub images: u64,
    /// Of every interval: 0.95.
    pub confidence: f64,
    /// A difference with a smaller p-value is significant.
    pub significance: f64,
    /// A smaller difference between two rates is no shortcut, however significant it is.
    pub smallest_effect: f64,
    /// With fewer images there is no verdict.
    pub smallest_sample: u64,
}

/// What was measured of a cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShortcutProof {
    /// The class that the cluster's maps explain.
    pub class: String,
    /// Images of the cluster when it was measured.
    pub images: u64,
    /// Where the pasted patches are from: the most typical images of the cluster.
    pub patches: Vec<PatchSource>,
    /// The images of other classes.
    pub sample: ProofSample,
    /// The cluster's patches.
    pub patch: PatchEffect,
    /// The first control: random places of other images of the class.
    pub random_place: ControlEffect,
    /// The second control: where the model looks most in other images of the class.
    pub usual_place: ControlEffect,
    /// What follows from it.
    pub verdict: ProofVerdict,
}

/// Where a patch is cut out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PatchSource {
    /// The image.
    pub key: ImageKey,
    /// SHA-256 of its file, if the run knows it: the proof is of this content.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub digest: Option<String>,
    /// Left, top, right and bottom edge, as shares of the part of the image that the network sees.
    #[serde(deserialize_with = "finite")]
    pub region: [f32; 4],
}

/// The images of other classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProofSample {
    /// Images chosen: as many as were asked for, or all there are.
    pub chosen: u64,
    /// Images measured.
    pub measured: u64,
    /// Images that could not be read, or that the model takes for the class as they are.
    pub left_out: u64,
}

/// What patches do to the images that they are pasted into.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PatchEffect {
    /// Images that become the class.
    pub flips: u64,
    /// Their share, with Wilson's interval.
    pub rate: Estimate,
    /// By how much the probability of the class rises, −1 to 1.
    pub probability_rise: Estimate,
}

/// What a control does, and how much more the patch does.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ControlEffect {
    /// What the control does.
    #[serde(flatten)]
    pub effect: PatchEffect,
    /// The patch's rate minus the control's.
    pub difference: Estimate,
    /// The p-value of McNemar's exact test of the difference.
    pub p: f64,
}

/// Whether a cluster is a shortcut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProofVerdict {
    /// The patch turns other images into the class, clearly more than both controls.
    Confirmed,
    /// The patch does hardly more than a random place of the class's images.
    Refuted,
    /// Neither: too few images, or the patch does no more than where the model usually looks.
    Undecided,
}

impl ProofVerdict {
    /// The word that stands in tables and files.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Confirmed => "confirmed",
            Self::Refuted => "refuted",
            Self::Undecided => "undecided",
        }
    }
}

/// A flagged cluster that could not be measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnprovedCluster {
    /// The class that its maps explain.
    pub class: String,
    /// Images of the cluster.
    pub images: u64,
    /// Why not, in words.
    pub reason: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdicts_name_is_what_the_file_says() {
        for verdict in [ProofVerdict::Confirmed, ProofVerdict::Refuted, ProofVerdict::Undecided] {
            assert_eq!(serde_json::to_value(verdict).unwrap(), verdict.name());
        }
    }

    #[test]
    fn a_region_beyond_all_numbers_is_refused() {
        let patch = |edge: &str| {
            let json = format!(r#"{{"key":"a.jpg","region":[0.0,0.0,{edge},1.0]}}"#);
            serde_json::from_str::<PatchSource>(&json)
        };
        assert_eq!(patch("0.5").unwrap().region, [0.0, 0.0, 0.5, 1.0]);
        assert!(patch("1e39").is_err() && patch("null").is_err());
    }
}
