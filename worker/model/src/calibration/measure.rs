//! Makes a calibration: runs a model in f32 on some images, and compares it in 8 bits on others.
//!
//! Does not find, read or decode images.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use camshaft_common::explain::{ExplainOptions, Target};
use camshaft_common::model::Agreement;
use camshaft_kernels::{ActivationStatistics, BatchInput, BatchShape, RangeRule};
use rayon::prelude::*;

use super::Calibration;
use crate::compute::{ComputeDevice, ComputeSettings, KernelChoice, Precision, PrecisionError};
use crate::error::ModelError;
use crate::explain::{ExplainRequest, ExplainedImage};
use crate::model::Model;
use crate::model_files::ModelFiles;

/// Images that the network takes at once for a comparison.
const BATCH: usize = 8;

/// Images for a calibration: bytes `[H, W, 3]` of each, resized by the model's input rule.
#[derive(Clone, Copy, Debug)]
pub struct CalibrationImages<'a> {
    /// They calibrate. At least one.
    pub calibrating: &'a [Vec<u8>],
    /// On these 8 bits are compared with f32. At least one.
    pub compared: &'a [Vec<u8>],
}

/// Shared with the caller while [`calibrate`] works.
#[derive(Debug, Default)]
pub struct CalibrationProgress {
    /// Images that calibrated or were compared.
    pub done: AtomicU64,
    /// Set it to end early.
    pub stop: AtomicBool,
}

impl CalibrationProgress {
    fn check_stop(&self) -> Result<(), ModelError> {
        if self.stop.load(Relaxed) { Err(ModelError::GivenUp) } else { Ok(()) }
    }
}

/// Calibrates a model, and measures how far 8 bits are from f32.
///
/// # Errors
/// If the model can't be loaded or run in f32 or in 8 bits on this CPU, or if `progress.stop` is set.
pub fn calibrate(
    files: &ModelFiles,
    images: CalibrationImages<'_>,
    progress: &CalibrationProgress,
) -> Result<Calibration, ModelError> {
    calibrate_by(RangeRule::Largest, files, images, progress)
}

/// The same by another rule, to compare them.
///
/// # Errors
/// As [`calibrate`].
pub fn calibrate_by(
    rule: RangeRule,
    files: &ModelFiles,
    images: CalibrationImages<'_>,
    progress: &CalibrationProgress,
) -> Result<Calibration, ModelError> {
    let files = files.without_calibration();
    let exact = load(&files, Precision::F32)?;
    let statistics = exact.activation_statistics(rule, images.calibrating, progress)?;
    let count = images.calibrating.len() as u64;
    let mut calibration = Calibration::of_statistics(files.identity(), rule, count, statistics);
    let rounded = load(&files.with_calibration(calibration.clone()), Precision::Int8)?;
    calibration.head.agreement = compare(&exact, &rounded, images.compared, progress)?;
    Ok(calibration)
}

/// Measures how far 8 bits are from f32 on these images, of a model with its calibration.
///
/// # Errors
/// As [`calibrate`].
pub fn compare_calibrated(
    files: &ModelFiles,
    images: &[Vec<u8>],
    progress: &CalibrationProgress,
) -> Result<Agreement, ModelError> {
    let exact = load(&files.without_calibration(), Precision::F32)?;
    compare(&exact, &load(files, Precision::Int8)?, images, progress)
}

fn load(files: &ModelFiles, precision: Precision) -> Result<Model, ModelError> {
    let settings = ComputeSettings { precision, kernel: KernelChoice::Auto, largest_batch: BATCH };
    Model::load(files, &ComputeDevice::Cpu, settings)
}

impl Model {
    /// What the activations are on these images.
    fn activation_statistics(
        &self,
        rule: RangeRule,
        images: &[Vec<u8>],
        progress: &CalibrationProgress,
    ) -> Result<ActivationStatistics, ModelError> {
        let input = &self.config().input;
        let shape = BatchShape { images: 1, height: input.height, width: input.width };
        let (precision, kernel) = (Precision::Int8, KernelChoice::Auto);
        let backbone = self.network().backbone();
        let backbone = backbone.ok_or(PrecisionError::Unavailable { precision, kernel })?;
        let values = &self.network().pixel_input().values;
        let of_image = |bytes: &Vec<u8>| {
            progress.check_stop()?;
            let found = backbone.statistics(BatchInput::Pixels { bytes, values }, shape);
            progress.done.fetch_add(1, Relaxed);
            Ok(found)
        };
        let all = images.par_iter().map(of_image).collect::<Result<Vec<_>, ModelError>>()?;
        Ok(ActivationStatistics::of_images(&all, rule))
    }
}

/// Compares the most probable classes and the maps of two models of the same network.
fn compare(
    exact: &Model,
    rounded: &Model,
    images: &[Vec<u8>],
    progress: &CalibrationProgress,
) -> Result<Agreement, ModelError> {
    let (mut count, mut same, mut cosines, mut errors) = (0, 0, Vec::new(), Vec::new());
    for images in images.chunks(BATCH) {
        progress.check_stop()?;
        let top = ExplainOptions { target: Target::Top(1), ..ExplainOptions::default() };
        let expected = explain(exact, images, &vec![top; images.len()])?;
        // For the same classes, whichever 8 bits find most probable.
        let options: Vec<_> = expected
            .iter()
            .map(|image| {
                let class = image.as_ref().map(|image| image.predictions[0].label.clone());
                let target = class.map_or(Target::Top(1), Target::Class);
                ExplainOptions { target, ..ExplainOptions::default() }
            })
            .collect();
        let found = explain(rounded, images, &options)?;
        for (expected, found) in expected.into_iter().zip(found) {
            // An image that can't be explained in f32 says nothing of 8 bits.
            let Some(expected) = expected else { continue };
            count += 1;
            let Some(found) = found else {
                cosines.push(0.0);
                continue;
            };
            same += u64::from(found.predictions[0].class == expected.predictions[0].class);
            cosines.extend(cosine(&expected, &found));
            errors.extend(logit_errors(&expected, &found));
        }
        progress.done.fetch_add(images.len() as u64, Relaxed);
    }
    cosines.sort_by(f64::total_cmp);
    Ok(Agreement {
        images: count,
        top_class: same as f64 / count.max(1) as f64,
        median_cosine: cosines.get(cosines.len() / 2).copied().unwrap_or(1.0),
        least_cosine: cosines.first().copied().unwrap_or(1.0),
        logit_error: errors.iter().sum::<f64>() / errors.len().max(1) as f64,
    })
}

/// Explains images, of which none is kept waiting. An image that can't be explained is none.
fn explain(
    model: &Model,
    images: &[Vec<u8>],
    options: &[ExplainOptions],
) -> Result<Vec<Option<ExplainedImage>>, ModelError> {
    let requests = options.iter().map(|options| ExplainRequest { options, label: None });
    let (pixels, requests) = (images.concat(), requests.collect::<Vec<_>>());
    let started = model.begin_batch(&pixels, &requests)?;
    let results = model.finish_batch(started, &pixels, &requests, &|| true)?;
    Ok(results.into_iter().map(Result::ok).collect())
}

/// The cosine similarity of the first maps; none if the first has no heat.
fn cosine(a: &ExplainedImage, b: &ExplainedImage) -> Option<f64> {
    let (a, b) = (&a.explanations.first()?.map.values, &b.explanations.first()?.map.values);
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    };
    let (own, other) = (dot(a, a).sqrt(), dot(b, b).sqrt());
    (own > 0.0).then(|| if other > 0.0 { dot(a, b) / (own * other) } else { 0.0 })
}

/// The differences of the logits of the classes that both list.
fn logit_errors(a: &ExplainedImage, b: &ExplainedImage) -> Vec<f64> {
    let of = |class: usize| b.predictions.iter().find(|other| other.class == class);
    let pairs = a.predictions.iter().filter_map(|one| Some((one.logit, of(one.class)?.logit)));
    pairs.map(|(a, b)| f64::from((a - b).abs())).collect()
}
