//! Whether a run is computed in 8 bits: finds the calibration that `--precision int8` needs, and asks
//! whether 8 bits agree with f32 well enough.
//!
//! Does not make calibrations: [`calibrate`](crate::calibrate) does. Upstream: the options of `audit` and
//! `enqueue`. Downstream: the model's options, which travel in jobs.

use std::fmt;
use std::str::FromStr;

use camshaft_common::location::Location;
use camshaft_common::model::{
    Agreement, CALIBRATION_FILE, CalibrationError, CalibrationHead, CalibrationReference,
    FileDigest, Int8Outcome, ModelFilesError, ModelIdentity, ModelReference, folder_of_weights,
};
use camshaft_common::store::{Folder, JSON, StoreError, StoreErrorKind, StoreOptions};

use crate::enqueue::request::RunConfig;
use crate::terminal::output::print_line;

/// The most bytes of a calibration.
const MAX_BYTES: u64 = 64 << 20;

/// Images that have to be compared, at least.
const LEAST_COMPARED: u64 = 20;

/// How well 8 bits have to agree with f32: the value of `--min-agreement`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct MinAgreement {
    /// The share of images with the same most probable class.
    pub(crate) top_class: f64,
    /// The median cosine similarity of maps.
    pub(crate) median_cosine: f64,
}

impl MinAgreement {
    /// True if 8 bits agree that well.
    fn is_met_by(self, found: &Agreement) -> bool {
        // A few images agree by chance. Who asks for no agreement is not asked for images either.
        let asks_for_none = self.top_class == 0.0 && self.median_cosine == 0.0;
        let enough = asks_for_none || found.images >= LEAST_COMPARED;
        enough && found.top_class >= self.top_class && found.median_cosine >= self.median_cosine
    }
}

impl Default for MinAgreement {
    fn default() -> Self {
        Self { top_class: 0.995, median_cosine: 0.99 }
    }
}

impl fmt::Display for MinAgreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},{}", self.top_class, self.median_cosine)
    }
}

/// A text that is no agreement.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no agreement; write the share of images with the same class, as 0.995, or that and the \
     cosine similarity of maps, as 0.995,0.99"
)]
pub(crate) struct ParseAgreementError(String);

impl FromStr for MinAgreement {
    type Err = ParseAgreementError;

    fn from_str(text: &str) -> Result<Self, ParseAgreementError> {
        let share = |part: &str| {
            let share = part.trim().parse::<f64>().ok().filter(|share| (0.0..=1.0).contains(share));
            share.ok_or_else(|| ParseAgreementError(text.to_owned()))
        };
        let (top_class, cosine) = text.split_once(',').unwrap_or((text, ""));
        let median_cosine = match cosine {
            "" => Self::default().median_cosine,
            cosine => share(cosine)?,
        };
        Ok(Self { top_class: share(top_class)?, median_cosine })
    }
}

/// What is to be done about 8 bits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Int8Wish {
    /// Nothing was said: the run in OUT decides.
    Unsaid,
    /// Another precision was asked for.
    No,
    /// `--precision int8`.
    Yes(MinAgreement),
}

/// A calibration that was found, and what it says.
#[derive(Clone, Debug)]
pub(crate) struct FoundCalibration {
    pub(crate) reference: CalibrationReference,
    pub(crate) agreement: Agreement,
}

impl FoundCalibration {
    /// Of the file's content.
    ///
    /// # Errors
    /// If it is no calibration, or another model's.
    pub(crate) fn of(
        place: Location,
        json: &[u8],
        model: &ModelIdentity,
    ) -> Result<Self, CalibrationError> {
        let agreement = CalibrationHead::read(json, model)?.agreement;
        let reference = CalibrationReference { place, digest: FileDigest::of(json) };
        Ok(Self { reference, agreement })
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
        let content = match Folder::open(&folder, stores)?.get(CALIBRATION_FILE, MAX_BYTES).await {
            Ok(content) => content.bytes,
            Err(error) if error.kind() == StoreErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let place = folder.join(CALIBRATION_FILE);
        match FoundCalibration::of(place.clone(), &content, model) {
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

/// Takes a calibration for a run if it agrees, and notes it. True if it is taken. One that lies elsewhere
/// is copied into OUT, so that the run keeps its own.
///
/// # Errors
/// If it can't be copied.
pub(crate) async fn take(
    run: &mut RunConfig,
    found: FoundCalibration,
    min: MinAgreement,
    stores: &StoreOptions,
) -> Result<bool, ModelFilesError> {
    let FoundCalibration { mut reference, agreement } = found;
    let used = min.is_met_by(&agreement);
    let outcome = Int8Outcome { agreement, used };
    run.int8 = Some(outcome);
    if used {
        let own = run.out.join(CALIBRATION_FILE);
        if reference.place != own && !run.dry_run {
            let json = reference.read(stores).await?;
            Folder::open(&run.out, stores)?.put(CALIBRATION_FILE, json, JSON).await?;
            reference.place = own;
        }
        print_line(&outcome.to_string());
        run.model.options.calibration = Some(reference);
    } else {
        print_line(&format!(
            "{outcome}; --min-agreement asks for {min}, on {LEAST_COMPARED} images at least. bf16 \
             instead, or f32 on a CPU without it"
        ));
    }
    Ok(used)
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

/// Notes how well the calibration agrees that a run goes on with.
///
/// # Errors
/// If it can't be read.
pub(crate) async fn note_recorded(
    run: &mut RunConfig,
    model: &ModelIdentity,
    stores: &StoreOptions,
) -> Result<(), ModelFilesError> {
    if let Some(reference) = &run.model.options.calibration {
        let json = reference.read(stores).await?;
        // A worker tells what is wrong with it.
        if let Ok(head) = CalibrationHead::read(&json, model) {
            run.int8 = Some(Int8Outcome { agreement: head.agreement, used: true });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agreements_are_read_as_they_are_written() {
        let both = MinAgreement { top_class: 0.9, median_cosine: 0.5 };
        assert_eq!("0.9,0.5".parse(), Ok(both));
        assert_eq!(both.to_string().parse(), Ok(both));
        let class = MinAgreement { top_class: 1.0, ..MinAgreement::default() };
        assert_eq!("1".parse(), Ok(class));
        for text in ["", "x", "1.1", "-0.1", "0.9,", "0.9,2", "0.9,0.9,0.9", "nan"] {
            let parsed = text.parse::<MinAgreement>();
            assert!(parsed.is_err() || text == "0.9,", "{text:?}: {parsed:?}");
        }
    }
}
