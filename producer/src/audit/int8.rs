//! Whether an audit is computed in 8 bits: as the run in OUT, or if it was asked for and agrees with f32.

use std::sync::Arc;

use camshaft_common::model::Agreement;
use camshaft_common::store::StoreOptions;
use camshaft_model::{
    KernelChoice, ModelError, ModelFiles, Precision, PrecisionError, int8_kernel,
};
use camshaft_worker::config::EngineConfig;
use camshaft_worker::pipeline::model_files;
use tokio_util::sync::CancellationToken;

use super::AuditError;
use crate::calibrate::{CalibrateError, Calibrating};
use crate::calibration::{self, FoundCalibration};
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
    let of_results = inheritance::record_of_results(&run.out, stores).await;
    let of_results = of_results.map_err(EnqueuePlanError::from)?;
    if calibration::goes_on_without(run, of_results.as_ref()) {
        otherwise(engine);
        return Ok(files);
    }
    if of_results.is_some() {
        return Err(CalibrateError::OtherResults(run.out.clone()).into());
    }
    if !run.dry_run {
        // A person may end it while it calibrates or compares.
        cancel_on_signal(stop.clone()).map_err(AuditError::Signals)?;
    }
    let calibrating = Calibrating { files: &files, source, limits: engine.image_limits };
    if let Some(found) = find_or_make(run, &calibrating, min, stores, stop).await? {
        let taken = calibration::take(run, &found, min, stores).await;
        if let Some(reference) = taken.map_err(CalibrateError::from)? {
            return Ok(files
                .calibrated_by(reference, &found.json)
                .map_err(CalibrateError::from)?);
        }
    }
    otherwise(engine);
    Ok(files)
}

/// The calibration that is there, with its agreement on these images, or else a new one. `None` if there is
/// none, which is told.
async fn find_or_make(
    run: &RunConfig,
    calibrating: &Calibrating<'_>,
    min: MinAgreement,
    stores: &StoreOptions,
    stop: &CancellationToken,
) -> Result<Option<FoundCalibration>, CalibrateError> {
    match calibration::find(calibrating.files.identity(), &run.out, stores).await? {
        // What can be read only once is not compared.
        Some(found) if run.dry_run || calibrating.source.is_standard_input() => Ok(Some(found)),
        Some(found) => {
            let here = calibrating.compare(&found, stores, stop).await?;
            let agreement =
                here.map_or(found.agreement, |here| deciding(min, found.agreement, here));
            Ok(Some(FoundCalibration { agreement, ..found }))
        }
        None if run.dry_run => {
            print_line("int8 would be calibrated on images of SOURCE first");
            Ok(None)
        }
        None => match calibrating.write(&run.out, stores, stop).await {
            // Each image fails with its own reason.
            Err(CalibrateError::NoImages) => {
                print_line("Not computed in int8: no image could be read to calibrate it");
                Ok(None)
            }
            written => written.map(Some),
        },
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
