//! What is known of a calibration for 8 bits without looking at its scales: whose it is, and how far 8
//! bits are from f32.
//!
//! Upstream: `calibration.json`. Downstream: a producer, which decides whether a run is computed in 8 bits,
//! and `run.json`. `camshaft-model` reads the scales.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{FileDigest, ModelIdentity};
use crate::run::SCHEMA;

/// The name of the file, in a model's folder or in OUT.
pub const CALIBRATION_FILE: &str = "calibration.json";

/// The most bytes of it. That of a ResNet-152 has some hundred kilobytes.
pub const MAX_CALIBRATION_BYTES: u64 = 64 << 20;

/// The head of the file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CalibrationHead {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The model's files, which must be the same when it is used.
    pub model: CalibratedModel,
    /// How the largest values of images become one: `largest`.
    pub rule: String,
    /// Images from which the activations come.
    pub images: u64,
    /// How far 8 bits are from f32.
    pub agreement: Agreement,
}

/// The model of a calibration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CalibratedModel {
    /// Its name, for people.
    pub name: String,
    /// The digest of its weights.
    pub digest: FileDigest,
}

/// How far a network in 8 bits is from f32, on images that did not calibrate it where there are others.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Agreement {
    /// Images that were compared.
    pub images: u64,
    /// The share of images whose most probable class is the same.
    pub top_class: f64,
    /// The median over images of the cosine similarity of `layer4`'s Grad-CAM maps for f32's class.
    /// Images without heat in f32 don't count.
    pub median_cosine: f64,
    /// The least of them.
    pub least_cosine: f64,
    /// The mean over images and classes of the absolute difference of logits.
    pub logit_error: f64,
}

impl fmt::Display for Agreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { images, top_class, median_cosine, least_cosine, .. } = self;
        write!(
            f,
            "on {images} images the top class is f32's for {:.1} %, and the cosine similarity of maps is \
             {median_cosine:.4} in the median, {least_cosine:.4} at least",
            100.0 * top_class
        )
    }
}

/// What a run in 8 bits was, or was not.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Int8Outcome {
    /// How far 8 bits are from f32.
    pub agreement: Agreement,
    /// False if that was too far, so that the run is computed in another precision.
    pub used: bool,
}

impl fmt::Display for Int8Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { agreement, used } = self;
        match used {
            true => write!(f, "Computed in int8: {agreement}"),
            false => write!(f, "Not computed in int8: {agreement}"),
        }
    }
}

/// A calibration can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CalibrationError {
    /// It can't be read.
    #[error("the calibration can't be read: {0}; make it anew with camshaft calibrate")]
    Unreadable(String),
    /// It was made by another version.
    #[error(
        "the calibration has schema {0}, and this version reads {SCHEMA}; make it anew with camshaft \
         calibrate"
    )]
    Schema(u32),
    /// It is another model's.
    #[error(
        "the calibration is that of another model ({0}), or of other files of this one; make it anew \
         with camshaft calibrate"
    )]
    OtherModel(String),
}

impl CalibrationHead {
    /// Reads the head of a model's file. `model` may be with or without this calibration.
    ///
    /// # Errors
    /// If the file can't be used, or is another model's.
    pub fn read(json: &[u8], model: &ModelIdentity) -> Result<Self, CalibrationError> {
        #[derive(Deserialize)]
        struct Versioned {
            schema: u32,
        }
        let unreadable = |error: serde_json::Error| CalibrationError::Unreadable(error.to_string());
        let Versioned { schema } = serde_json::from_slice(json).map_err(unreadable)?;
        if schema != SCHEMA {
            return Err(CalibrationError::Schema(schema));
        }
        let read: Self = serde_json::from_slice(json).map_err(unreadable)?;
        // Scales depend on the weights. What the configuration says of the input, the images tell.
        if read.model.digest != model.digest {
            return Err(CalibrationError::OtherModel(read.model.name));
        }
        Ok(read)
    }
}
