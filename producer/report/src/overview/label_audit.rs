//! How labels were judged, in numbers. Describes them only; the search for label errors counts.

use serde::Serialize;

use crate::statistics::proportion::{share, wilson_interval};

/// How the heads that judge labels were fitted, and how well they know the labels of images that they
/// have not seen.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LabelAudit {
    /// What the heads see of an image: `embeddings` or `sketches`.
    pub features: &'static str,
    /// The numbers of each image.
    pub dimensions: usize,
    /// The number of folds, each judged by a head that was fitted to the others.
    pub folds: u8,
    /// The strength of the regularisation, the best of several.
    pub strength: f64,
    /// The images that are judged.
    pub images: u64,
    /// The number of their labels.
    pub classes: u64,
    /// How often the heads' most probable class is the given label.
    pub accuracy: MeasuredShare,
    /// How often the model's is, and the heads' on the same images, where labels mean classes of the
    /// model; none if no label does.
    pub model: Option<ModelAgainstHeads>,
    /// Whether the model's configuration says that all its layers were trained. If they were on these
    /// images, what the heads see of an image already knows its label.
    pub all_layers_trained: bool,
    /// The hold-out, if there is one.
    pub holdout: Option<HoldoutAccuracy>,
}

/// The model and the held-out heads on the same images.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ModelAgainstHeads {
    /// How often the model's most probable class is the given label.
    pub model: MeasuredShare,
    /// How often the heads' is.
    pub heads: MeasuredShare,
    /// Whether the model has probably learnt these very labels by heart.
    pub memorised: bool,
}

/// Accuracy on images that no head has seen and no finding is about.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct HoldoutAccuracy {
    /// Of a head that was fitted to all other images.
    pub before: MeasuredShare,
    /// Of a head that was fitted to them without the suspected labels.
    pub after: MeasuredShare,
}

/// A share of images, and Wilson's 95 % interval of it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct MeasuredShare {
    /// The share.
    pub share: f64,
    /// The lower end.
    pub low: f64,
    /// The upper end.
    pub high: f64,
    /// The number of images it is a share of.
    pub images: u64,
}

impl MeasuredShare {
    /// The share of `part` in `images`; none without images.
    pub(crate) fn of(part: u64, images: u64) -> Option<Self> {
        let share = share(part, images)?;
        let (low, high) = wilson_interval(share, images);
        Some(Self { share, low, high, images })
    }
}
