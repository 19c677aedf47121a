//! Whether an audit is computed in 8 bits: as the run in OUT, or if it was asked for and agrees with f32.

use std::sync::Arc;

use camshaft_common::model::Agreement;
use camshaft_common::run::RunRecord;
use camshaft_common::store::{Folder, StoreError, StoreOptions};
use camshaft_model::{
    KernelChoice, ModelError, ModelFiles, Precision, PrecisionError, int8_kernel,
};
use camshaft_worker::config::EngineConfig;
use camshaft_worker::pipeline::model_files;
use tokio_util::sync::CancellationToken;

use super::AuditError;
use crate::calibrate::{CalibrateError, Calibrating};
use crate::calibration;
use crate::enqueue::inheritance;
use crate::enqueue::plan::EnqueuePlanError;
use crate::enqueue::request::RunConfig;
use crate::images::source::Source;
use crate::int8_wish::{Int8Wish, LEAST_COMPARED, MinAgreement};
use crate::interrupt::cancel_on_signal;
use crate::terminal::output::print_line;

/// Reads the model, and decides. Calibrates it if there is no calibration yet.
///
/// # Errors
/// If the model can't be read or calibrated.
pub(super) async fn settle(
    run: &mut RunConfig,
    engine: &mut EngineConfig,
    source: &Source,
    stores: &StoreOptions,
    stop: &CancellationToken,
) -> Result<ModelFiles, AuditError> {
    let files = model_files::read(&run.model, stores).await?;
    if files.calibration().is_some() {
        engine.compute.precision = Precision::Int8;
        return Ok(files);
    }
    let Int8Wish::Yes(min) = run.int8_wish else { return Ok(files) };
    // All that would refuse the run comes before its calibration.
    files.check(&run.explain)?;
    if engine.compute.device.may_be_gpu() {
        return Err(CalibrateError::from(ModelError::from(PrecisionError::Gpu)).into());
    }
    let kernel = int8_kernel(engine.compute.kernel).map_err(ModelError::from);
    let _exists = kernel.map_err(CalibrateError::from)?;
    if holds_other_results(run, stores).await.map_err(EnqueuePlanError::from)? {
        return Err(CalibrateError::OtherResults(run.out.clone()).into());
    }
    let found = calibration::find(files.identity(), &run.out, stores).await;
    let limits = engine.image_limits;
    let calibrating = Calibrating { files: &files, source, limits };
    let found = match found.map_err(CalibrateError::from)? {
        Some(mut found) => {
            // It was made on other images, or with another OUT in mind: these decide.
            if !run.dry_run && !source.is_standard_input() {
                cancel_on_signal(stop.clone()).map_err(AuditError::Signals)?;
                let here = calibrating.compare(&found, stores, stop).await?;
                found.agreement =
                    here.map_or(found.agreement, |here| deciding(min, found.agreement, here));
            }
            found
        }
        None if run.dry_run => {
            print_line("int8 would be calibrated on images of SOURCE first");
            otherwise(engine);
            return Ok(files);
        }
        None => {
            // A person may end it here already.
            cancel_on_signal(stop.clone()).map_err(AuditError::Signals)?;
            match calibrating.write(&run.out, stores, stop).await {
                // Each image fails with its own reason.
                Err(CalibrateError::NoImages) => {
                    print_line("Not computed in int8: no image could be read to calibrate it");
                    otherwise(engine);
                    return Ok(files);
                }
                written => written?,
            }
        }
    };
    let taken = calibration::take(run, &found, min, stores).await;
    match taken.map_err(CalibrateError::from)? {
        None => {
            otherwise(engine);
            Ok(files)
        }
        Some(reference) => {
            Ok(files.calibrated_by(reference, &found.json).map_err(CalibrateError::from)?)
        }
    }
}

/// Of what a calibration says of its own images, and what these images say, that which decides: few images
/// can't speak for it, but against it.
fn deciding(min: MinAgreement, of_calibration: Agreement, here: Agreement) -> Agreement {
    if here.images < LEAST_COMPARED && min.is_met_by_few(&here) { of_calibration } else { here }
}

/// Computes not in 8 bits. A kernel that was named computes nothing else.
fn otherwise(engine: &mut EngineConfig) {
    engine.compute.precision = Precision::Auto;
    engine.compute.kernel = KernelChoice::Auto;
}

/// True if OUT has results that are not in 8 bits, or of another run. Where 8 bits did not agree, a run
/// goes on without them.
async fn holds_other_results(run: &RunConfig, stores: &StoreOptions) -> Result<bool, StoreError> {
    let out = Folder::open(&run.out, stores)?;
    let Ok(Some(record)) = RunRecord::read(&out).await else { return Ok(false) };
    let fell_back = record.int8.is_some_and(|int8| !int8.used);
    Ok(!fell_back && inheritance::has_results(&out).await?)
}

/// The same model and engine, not in 8 bits.
pub(super) fn without(
    files: &Arc<ModelFiles>,
    engine: &EngineConfig,
) -> (Arc<ModelFiles>, EngineConfig) {
    if files.calibration().is_none() {
        return (Arc::clone(files), engine.clone());
    }
    let mut engine = engine.clone();
    otherwise(&mut engine);
    (Arc::new(files.without_calibration()), engine)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_images_speak_against_a_calibration_and_not_for_it() {
        let agreement = |images, top_class| Agreement {
            images,
            top_class,
            median_cosine: 1.0,
            least_cosine: 1.0,
            logit_error: 0.0,
        };
        let (min, of_calibration) = (MinAgreement::default(), agreement(200, 1.0));
        for (here, decides) in [
            (agreement(3, 1.0), of_calibration),
            (agreement(3, 0.6), agreement(3, 0.6)),
            (agreement(100, 0.99), agreement(100, 0.99)),
            (agreement(100, 1.0), agreement(100, 1.0)),
        ] {
            assert_eq!(deciding(min, of_calibration, here), decides);
        }
        assert!(!min.is_met_by(&agreement(3, 1.0)) && min.is_met_by(&of_calibration));
    }
}
