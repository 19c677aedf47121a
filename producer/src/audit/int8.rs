//! Whether an audit is computed in 8 bits: as the run in OUT, or if it was asked for and agrees with f32.

use std::sync::Arc;

use camshaft_common::model::ModelFilesError;
use camshaft_common::store::StoreOptions;
use camshaft_model::{ModelFiles, Precision};
use camshaft_worker::config::EngineConfig;
use camshaft_worker::pipeline::model_files::{self, ModelUnavailable};
use tokio_util::sync::CancellationToken;

use super::AuditError;
use crate::calibrate::{CalibrateError, Calibrating};
use crate::calibration::{self, Int8Wish};
use crate::enqueue::request::RunConfig;
use crate::images::source::Source;
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
        let noted = calibration::note_recorded(run, files.identity(), stores).await;
        noted.map_err(|error: ModelFilesError| ModelUnavailable::from(error))?;
        engine.compute.precision = Precision::Int8;
        return Ok(files);
    }
    let Int8Wish::Yes(min) = run.int8_wish else { return Ok(files) };
    let found = calibration::find(files.identity(), &run.out, stores).await;
    let found = match found.map_err(CalibrateError::from)? {
        Some(found) => found,
        None if run.dry_run => {
            print_line("int8 would be calibrated on images of SOURCE first");
            engine.compute.precision = Precision::Auto;
            return Ok(files);
        }
        None => {
            let (limits, limit) = (engine.image_limits, run.limit);
            Calibrating { files: &files, source, limits, limit }
                .write(&run.out, stores, stop)
                .await?
        }
    };
    if !calibration::take(run, found, min) {
        engine.compute.precision = Precision::Auto;
        return Ok(files);
    }
    Ok(model_files::read(&run.model, stores).await?)
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
    engine.compute.precision = Precision::Auto;
    (Arc::new(files.without_calibration()), engine)
}
