//! Whether a run is computed in 8 bits: finds the calibration that `--precision int8` needs, and asks
//! whether 8 bits agree with f32 well enough.
//!
//! Does not make calibrations: [`calibrate`](crate::calibrate) does. Upstream: the options of `audit` and
//! `enqueue`. Downstream: the model's options, which travel in jobs.

use bytes::Bytes;
use camshaft_common::location::Location;
use camshaft_common::model::{
    Agreement, CALIBRATION_FILE, CalibrationError, CalibrationHead, CalibrationReference,
    FileDigest, Int8Outcome, MAX_CALIBRATION_BYTES, ModelIdentity, ModelReference,
    folder_of_weights,
};
use camshaft_common::run::RunRecord;
use camshaft_common::store::{Folder, JSON, StoreError, StoreErrorKind, StoreOptions};

use crate::enqueue::request::RunConfig;
use crate::int8_wish::{LEAST_COMPARED, MinAgreement};
use crate::terminal::output::print_line;

/// A calibration that was found, and what it says.
#[derive(Clone, Debug)]
pub(crate) struct FoundCalibration {
    pub(crate) reference: CalibrationReference,
    pub(crate) agreement: Agreement,
    /// The file.
    pub(crate) json: Bytes,
}

impl FoundCalibration {
    /// Of the file's content.
    ///
    /// # Errors
    /// If it is no calibration, or another model's.
    pub(crate) fn of(
        place: Location,
        json: Bytes,
        model: &ModelIdentity,
    ) -> Result<Self, CalibrationError> {
        let agreement = CalibrationHead::read(&json, model)?.agreement;
        let reference = CalibrationReference { place, digest: FileDigest::of(&json) };
        Ok(Self { reference, agreement, json })
    }
}

/// Finds the calibration of a model: in OUT, or else in the model's folder. One of another model there is
/// passed over, and told.
///
/// # Errors
/// If a place can't be read.
pub(crate) async fn find(
    model: &ModelIdentity,
    out: &Location,
    stores: &StoreOptions,
) -> Result<Option<FoundCalibration>, StoreError> {
    let of_model = folder_of(&model.reference);
    for folder in [Some(out.clone()), of_model].into_iter().flatten() {
        let folder_of_files = Folder::open(&folder, stores)?;
        let content = match folder_of_files.get(CALIBRATION_FILE, MAX_CALIBRATION_BYTES).await {
            Ok(content) => content.bytes,
            Err(error) if error.kind() == StoreErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let place = folder.join(CALIBRATION_FILE);
        match FoundCalibration::of(place.clone(), content, model) {
            Ok(found) => return Ok(Some(found)),
            Err(error) => print_line(&format!("{place} is not used: {error}")),
        }
    }
    Ok(None)
}

/// The folder in which a model's files are, if it is in one.
pub(crate) fn folder_of(model: &ModelReference) -> Option<Location> {
    match model {
        ModelReference::Folder(place) => {
            Some(folder_of_weights(place).map_or_else(|| place.clone(), |(folder, _)| folder))
        }
        ModelReference::Bundled | ModelReference::Hub(_) => None,
    }
}

/// Takes a calibration for a run if it agrees, and notes it. One that lies elsewhere is copied into OUT, so
/// that the run keeps its own.
///
/// # Errors
/// If it can't be copied.
pub(crate) async fn take(
    run: &mut RunConfig,
    found: &FoundCalibration,
    min: MinAgreement,
    stores: &StoreOptions,
) -> Result<Option<CalibrationReference>, StoreError> {
    let FoundCalibration { mut reference, agreement, json } = found.clone();
    let used = min.is_met_by(&agreement);
    let outcome = Int8Outcome { agreement, used };
    run.int8 = Some(outcome);
    if used {
        let own = run.out.join(CALIBRATION_FILE);
        if reference.place != own && !run.dry_run {
            Folder::open(&run.out, stores)?.put(CALIBRATION_FILE, json, JSON).await?;
            reference.place = own;
        }
        print_line(&outcome.to_string());
        run.model.options.calibration = Some(reference.clone());
        Ok(Some(reference))
    } else {
        print_line(&format!(
            "{outcome}; --min-agreement asks for {min}, on {LEAST_COMPARED} images at least. bf16 \
             instead, or f32 on a CPU without it"
        ));
        Ok(None)
    }
}

/// True if the results in OUT are not in 8 bits because these did not agree. The run goes on so, however well
/// they would agree by now: its results are all of one kind.
pub(crate) fn goes_on_without(run: &mut RunConfig, of_results: Option<&RunRecord>) -> bool {
    let fell_back = of_results.and_then(|record| record.int8).filter(|outcome| !outcome.used);
    if let Some(outcome) = fell_back {
        print_line(&format!("As the results in OUT. {outcome}"));
        run.int8 = fell_back;
    }
    fell_back.is_some()
}

/// Lets a run whose OUT was moved take the calibration that is there now, if it is the same one.
pub(crate) async fn relocate(run: &mut RunConfig, stores: &StoreOptions) {
    let own = run.out.join(CALIBRATION_FILE);
    if let Some(reference) = &mut run.model.options.calibration
        && reference.place != own
    {
        let moved = CalibrationReference { place: own, digest: reference.digest.clone() };
        // Whatever is wrong with the recorded one is told when it is read.
        if moved.read(stores).await.is_ok() {
            *reference = moved;
        }
    }
}
