//! The records that a worker writes for an image: a prediction, or a failure.
//!
//! Field names are fixed, since users read these files; `docs/results.md` explains them.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::camera::Camera;
use crate::decoded_scale::DecodedScale;
use crate::explain::{FusedLayers, Method};
use crate::finite::finite;
use crate::key::ImageKey;
use crate::label::LabelProblem;
use crate::measure::{Embedding, ImageMeasures};
use crate::model::FileDigest;
use crate::run::{Generation, RunId};

/// The largest record that is read, of a prediction or a failure. No record that Camshaft writes is
/// as large.
pub const MAX_RECORD_BYTES: u64 = 16 * 1024 * 1024;

/// `predictions/<image key>.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PredictionRecord {
    /// [`crate::run::SCHEMA`].
    pub schema: u32,
    /// The run that wrote it.
    pub run: RunId,
    /// The enqueue or audit whose job it was. Absent if the job has none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub generation: Option<Generation>,
    /// The image it is about.
    pub image: ImageRecord,
    /// The model it comes from.
    pub model: ModelRecord,
    /// The most probable classes, every explained one, and the label's, most probable first.
    pub predictions: Vec<ClassPrediction>,
    /// Entropy of the softmax over all classes, divided by ln(classes): 0 if the model is sure of one
    /// class, 1 if all classes are equally probable.
    /// Absent in older results.
    #[serde(skip_serializing_if = "Option::is_none", default, deserialize_with = "finite")]
    pub entropy: Option<f32>,
    /// The image's embedding. Absent in older results.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub embedding: Option<Embedding>,
    /// One for each method, layer and target class, in this order.
    pub explanations: Vec<Explanation>,
    /// How long each stage worked on this image, without the time it waited.
    pub timings_ms: StageTimings,
    /// The name of the worker that wrote it.
    pub worker: String,
    /// When the work was finished.
    pub finished_at: DateTime<Utc>,
}

/// The image as it was when its record was written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ImageRecord {
    /// Its key below SOURCE.
    pub key: ImageKey,
    /// The store's entity tag, if it has one.
    pub etag: Option<String>,
    /// Size of the file; unknown if it could not be read.
    pub bytes: Option<u64>,
    /// Columns of pixels after its EXIF orientation; unknown if it could not be decoded.
    pub width: Option<u32>,
    /// Rows of pixels after its EXIF orientation; unknown if it could not be decoded.
    pub height: Option<u32>,
    /// The scale at which it was decoded for the network, its measures and its overlays. Absent if every
    /// pixel was decoded, in failures, and in older results.
    #[serde(skip_serializing_if = "DecodedScale::is_full", default)]
    pub decoded_scale: DecodedScale,
    /// The part of the image that the network saw and that maps cover: left, top, right and bottom
    /// edge as shares of width and height. Absent if it is the whole image.
    #[serde(skip_serializing_if = "Option::is_none", default, deserialize_with = "finite")]
    pub region: Option<[f32; 4]>,
    /// Its label, as a folder or list gives it, if it has one.
    pub label: Option<String>,
    /// Index of the class that the label means. Absent if it means none, if there is no label, in
    /// failures, and in older results.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub class: Option<usize>,
    /// Why the label means no class of the model. Absent if it means one, and where `class` cannot be
    /// known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub label_problem: Option<LabelProblem>,
    /// SHA-256 of the file; unknown if it could not be read.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub digest: Option<FileDigest>,
    /// Measures of its pixels; unknown if it could not be decoded.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub measures: Option<ImageMeasures>,
    /// The camera that its EXIF metadata name. Absent if they name none, and in older results.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub camera: Option<Camera>,
}

/// The model a result comes from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelRecord {
    /// Short name.
    pub name: String,
    /// SHA-256 of the weights file.
    pub digest: FileDigest,
    /// SHA-256 of the config file.
    pub config_digest: FileDigest,
    /// Number format the network ran in.
    pub precision: String,
    /// The kernel that computed the convolutions: one of the CPU's, or candle.
    pub kernel: String,
    /// Device it ran on.
    pub device: String,
}

/// The score of one class.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassPrediction {
    /// Class index.
    pub class: usize,
    /// Class name.
    pub label: String,
    /// Softmax of the logits, 0 to 1.
    #[serde(deserialize_with = "finite")]
    pub probability: f32,
    /// The network's output before softmax.
    #[serde(deserialize_with = "finite")]
    pub logit: f32,
}

/// A map of where the network looked for one class.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// The CAM method.
    pub method: Method,
    /// The target layer, or several fused.
    pub layer: FusedLayers,
    /// Class index.
    pub class: usize,
    /// Class name.
    pub label: String,
    /// The overlay's path under OUT; null if no overlay was asked for.
    pub overlay: Option<String>,
    /// The map itself.
    pub map: MapRecord,
    /// Its largest value.
    #[serde(deserialize_with = "finite")]
    pub max: f32,
    /// Its sum.
    #[serde(deserialize_with = "finite")]
    pub mass: f32,
    /// Entropy of the map as a distribution, divided by ln(cells): 0 if all heat is in one cell, 1 if
    /// the map is flat.
    #[serde(deserialize_with = "finite")]
    pub entropy: f32,
    /// Centre of mass (x, y), 0 to 1 from the left and top edge.
    #[serde(deserialize_with = "finite")]
    pub centroid: [f32; 2],
    /// Share of the mass in the outermost ring of cells.
    #[serde(deserialize_with = "finite")]
    pub border_share: f32,
}

/// A rectified map at the layer's own resolution, before scaling.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MapRecord {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// Row by row.
    #[serde(deserialize_with = "finite")]
    pub values: Vec<f32>,
}

/// Milliseconds of work for one image. `model` is its share of the batch's time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StageTimings {
    /// Reading it from the store.
    pub fetch: f64,
    /// Decoding it and making the network's input.
    pub decode: f64,
    /// Network and map.
    pub model: f64,
    /// Drawing and encoding the overlays.
    pub overlay: f64,
    /// Writing the overlays to the store.
    pub store: f64,
}

/// `failures/<image key>.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FailureRecord {
    /// [`crate::run::SCHEMA`].
    pub schema: u32,
    /// The run that wrote it.
    pub run: RunId,
    /// The enqueue or audit whose job it was. Absent if the job has none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub generation: Option<Generation>,
    /// The image it is about.
    pub image: ImageRecord,
    /// Why it can't be done.
    pub error: FailureReason,
    /// Which try found out.
    pub attempts: u32,
    /// The worker that found out.
    pub worker: String,
    /// When.
    pub finished_at: DateTime<Utc>,
}

/// Why an image can't be done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FailureReason {
    /// The kind, for counting.
    pub class: FailureClass,
    /// The particulars, for a person.
    pub message: String,
}

/// Kinds of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureClass {
    /// An image by its first bytes, but corrupt, truncated or empty.
    Undecodable,
    /// Not an image, or of a kind that isn't read.
    Unsupported,
    /// More bytes or pixels than the limits allow.
    TooLarge,
    /// Gone since it was listed.
    NotFound,
    /// The store forbids reading it, or it is archived, or encrypted with a key that can't be used.
    AccessDenied,
    /// The network or the map gave no finite numbers, or the target class doesn't exist.
    ExplainFailed,
}

impl FailureClass {
    /// Every one.
    pub const ALL: [Self; 6] = [
        Self::Undecodable,
        Self::Unsupported,
        Self::TooLarge,
        Self::NotFound,
        Self::AccessDenied,
        Self::ExplainFailed,
    ];
}

impl std::fmt::Display for FailureClass {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Undecodable => "undecodable",
            Self::Unsupported => "unsupported",
            Self::TooLarge => "too-large",
            Self::NotFound => "not-found",
            Self::AccessDenied => "access-denied",
            Self::ExplainFailed => "explain-failed",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failure_classes_print_as_they_serialise() {
        for class in FailureClass::ALL {
            assert_eq!(serde_json::to_value(class).unwrap(), class.to_string());
        }
    }
    #[test]
    fn numbers_that_would_be_infinite_are_refused() {
        for name in ["probability", "logit"] {
            let mut class = serde_json::json!({
                "class": 0, "label": "cat", "probability": 1.0, "logit": 3.4e38,
            });
            assert!(serde_json::from_value::<ClassPrediction>(class.clone()).is_ok());
            class[name] = 3.5e38.into();
            let error = serde_json::from_value::<ClassPrediction>(class).unwrap_err();
            assert_eq!(error.to_string(), "a number is beyond 3.4028235e38");
        }
        let map = serde_json::json!({"height": 1, "width": 2, "values": [0.5, -1e39]});
        assert!(serde_json::from_value::<MapRecord>(map).is_err());
    }
}
