//! What a cluster of maps is, as the page shows it. Describes it only; `shortcuts` fills it in.

use camshaft_common::shortcuts::ShortcutProof;
use serde::Serialize;

use crate::overview::MeanMap;
use crate::predictions::ImageExample;

/// Images of a class whose maps are alike.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Cluster {
    pub(crate) id: u32,
    /// The class that the maps explain.
    pub(crate) class: String,
    pub(crate) images: u64,
    /// The cluster's share of the images of its class.
    pub(crate) share: f64,
    /// The share of the cluster's labelled images whose prediction is their label.
    pub(crate) accuracy: Option<f64>,
    pub(crate) mean_probability: f64,
    /// The mean probability of the class's images outside the cluster.
    pub(crate) rest_mean_probability: f64,
    /// The chance that the model is surer of an image of the cluster than of another of the class.
    pub(crate) surer: f64,
    /// The false discovery rate at which the model counts as surer, or as less sure.
    pub(crate) q: f64,
    /// The Hellinger distance of the cluster's mean map to that of the rest of the class, 0 to 1.
    pub(crate) distance: f32,
    /// Whether the cluster looks like a shortcut.
    pub(crate) shortcut: bool,
    /// Where most of the attention lies; if `steady`, the corner.
    pub(crate) place: Option<&'static str>,
    pub(crate) map: MeanMap,
    /// What the cluster is, in a sentence.
    pub(crate) reason: String,
    /// Filled in at the end, from `example_rows`.
    #[serde(skip)]
    pub(crate) examples: Vec<ImageExample>,
    /// Whether all of the cluster's maps have attention in one corner, where hardly any other map
    /// of the class has: something always lies there, unlike what is photographed.
    pub(crate) steady: bool,
    /// What `--prove-shortcuts` measured of it, if it did.
    pub(crate) proof: Option<ShortcutProof>,
    /// What a head learns without the cluster, if it has a proof.
    pub(crate) refit: Option<HeadRefit>,
    /// The rows nearest to the middle of the cluster.
    #[serde(skip)]
    pub(super) example_rows: Vec<u32>,
}

/// How well heads tell a class's images outside a cluster from images of other classes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct HeadRefit {
    /// Images judged: half of the class, half of others.
    pub(crate) images: u64,
    /// The share that the head fitted without the cluster tells rightly.
    pub(crate) accuracy_without: f64,
    /// The share that the head fitted with it tells rightly.
    pub(crate) accuracy_with: f64,
}

impl HeadRefit {
    /// The result in a sentence.
    pub(crate) fn describe(&self) -> String {
        let Self { images, accuracy_without, accuracy_with } = self;
        format!(
            "A head fitted without these images is right about {:.1} % of {images} others, with them \
             about {:.1} %",
            accuracy_without * 100.0,
            accuracy_with * 100.0
        )
    }
}
