//! The calibration of a model for 8 bits: what its activations are on a sample of images, and how far
//! 8 bits are from f32 on other images.
//!
//! Owns the file `calibration.json`. [`measure`] makes it; the kernels make scales of it. Upstream: the
//! producer, or a job's reference to the file. Downstream: [`Model`](crate::Model).

mod measure;

use camshaft_common::model::{
    Agreement, CalibratedModel, CalibrationError, CalibrationHead, ModelIdentity,
};
use camshaft_common::run::SCHEMA;
use camshaft_kernels::{ActivationStatistics, PointStatistics, RangeRule};
use serde::{Deserialize, Serialize};

pub use measure::{
    CalibrationImages, CalibrationProgress, calibrate, calibrate_by, compare_calibrated,
};

/// The file that holds it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    #[serde(flatten)]
    head: CalibrationHead,
    /// The activations, by layer.
    points: Vec<CalibratedPoint>,
}

/// The activations of one layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct CalibratedPoint {
    layer: String,
    /// The largest value of each channel.
    largest: Vec<f32>,
    /// The mean of each channel.
    mean: Vec<f32>,
}

impl Calibration {
    /// Reads the file of a model.
    ///
    /// # Errors
    /// As [`CalibrationHead::read`].
    pub fn read(json: &[u8], model: &ModelIdentity) -> Result<Self, CalibrationError> {
        CalibrationHead::read(json, model)?;
        let unreadable = |error: serde_json::Error| CalibrationError::Unreadable(error.to_string());
        serde_json::from_slice(json).map_err(unreadable)
    }

    /// The file's content.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a calibration has only strings and numbers")
    }

    /// How far 8 bits are from f32.
    #[must_use]
    pub fn agreement(&self) -> &Agreement {
        &self.head.agreement
    }

    /// What the kernels take.
    pub(crate) fn statistics(&self) -> ActivationStatistics {
        let points = self.points.iter().map(|point| PointStatistics {
            name: point.layer.clone(),
            largest: point.largest.clone(),
            mean: point.mean.clone(),
        });
        ActivationStatistics { points: points.collect() }
    }

    fn of_statistics(
        model: &ModelIdentity,
        rule: RangeRule,
        images: u64,
        found: ActivationStatistics,
    ) -> Self {
        let ModelIdentity { name, digest, .. } = model.clone();
        let points = found.points.into_iter().map(|point| CalibratedPoint {
            layer: point.name,
            largest: point.largest,
            mean: point.mean,
        });
        let agreement = Agreement {
            images: 0,
            top_class: 0.0,
            median_cosine: 0.0,
            least_cosine: 0.0,
            logit_error: 0.0,
        };
        let head = CalibrationHead {
            schema: SCHEMA,
            model: CalibratedModel { name, digest },
            rule: rule.name().to_owned(),
            images,
            agreement,
        };
        Self { head, points: points.collect() }
    }
}

#[cfg(test)]
mod tests;
