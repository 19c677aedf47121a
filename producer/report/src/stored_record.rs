//! Reads what an audit measured after its last image: `trust.json` and `shortcuts.json`.
//!
//! The file may be old, of another run, or written by anyone who can write to OUT: it is read up to a
//! limit, and one that does not fit is left out with a note, never an error. Does not measure: `camshaft
//! audit` does. Downstream: the findings and the page.

use camshaft_common::prediction::ModelRecord;
use camshaft_common::run::{RunId, RunRecord, SCHEMA};
use camshaft_common::store::{Folder, StoreError, StoreErrorKind};
use serde::de::DeserializeOwned;

/// A record that `camshaft audit` writes beside the results.
pub(crate) trait MeasuredRecord: DeserializeOwned {
    /// Its name below OUT.
    const FILE: &'static str;
    /// The largest file that is read.
    const MAX_BYTES: u64;
    /// The option of `camshaft audit` that writes it.
    const OPTION: &'static str;

    /// The version of its fields.
    fn schema(&self) -> u32;
    /// The run that it is of.
    fn run(&self) -> RunId;
    /// The model that it is of; none if nothing was measured.
    fn model(&self) -> Option<&ModelRecord>;
    /// Whether it is of maps that the run makes.
    fn is_of_maps(&self, _run: &RunRecord) -> bool {
        true
    }
}

/// The record of a run, and why it is left out if it is.
#[derive(Debug)]
pub(crate) struct StoredRecord<R> {
    /// None if nothing was measured.
    pub(crate) record: Option<R>,
    pub(crate) note: Option<String>,
}

impl<R: MeasuredRecord> StoredRecord<R> {
    /// Reads the record of the run in OUT; none if nothing was measured.
    ///
    /// # Errors
    /// If the store can't be read.
    pub(crate) async fn read(out: &Folder, run: &RunRecord) -> Result<Self, StoreError> {
        match out.get(R::FILE, R::MAX_BYTES).await {
            Ok(object) => Ok(Self::of(&object.bytes, run)),
            Err(error) => match error.kind() {
                StoreErrorKind::NotFound => Ok(Self { record: None, note: None }),
                StoreErrorKind::TooLarge
                | StoreErrorKind::AccessDenied
                | StoreErrorKind::ArchivedOrEncrypted
                | StoreErrorKind::Unusable => Ok(Self::without(&error.to_string())),
                _ => Err(error),
            },
        }
    }

    /// The record in a file of the run in OUT.
    pub(crate) fn of(json: &[u8], run: &RunRecord) -> Self {
        let record = match serde_json::from_slice::<R>(json) {
            Ok(record) => record,
            Err(error) => return Self::without(&format!("it can't be read ({error})")),
        };
        if record.schema() != SCHEMA {
            return Self::without(&format!("its schema is {}, not {SCHEMA}", record.schema()));
        }
        if record.run() != run.run {
            return Self::without("it is of another run");
        }
        let is_other_model = record.model().is_some_and(|model| {
            let of_run = &run.model;
            (&model.digest, &model.config_digest) != (&of_run.digest, &of_run.config_digest)
        });
        if is_other_model {
            return Self::without("it is of another model than the run's");
        }
        if !record.is_of_maps(run) {
            return Self::without("it is of other maps than the run's");
        }
        Self { record: Some(record), note: None }
    }

    fn without(reason: &str) -> Self {
        let (file, option) = (R::FILE, R::OPTION);
        let note = format!("{file} is left out: {reason}; camshaft audit {option} writes it anew");
        Self { record: None, note: Some(note) }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use camshaft_common::store::{JSON, StoreOptions};
    use serde_json::Value;

    use super::*;
    use crate::run_images::tests::run;

    /// Checks that a record in which one field is another is left out, with a reason and the option.
    pub(crate) fn check_stale<R: MeasuredRecord>(
        record: impl Fn(&RunRecord) -> Value,
        stale: &[(&[&str], Value, &str)],
    ) {
        let run = run();
        for (place, value, reason) in stale {
            let mut record = record(&run);
            let field = place.iter().fold(&mut record, |at, name| &mut at[*name]);
            *field = value.clone();
            let read = StoredRecord::<R>::of(record.to_string().as_bytes(), &run);
            let note = read.note.unwrap();
            assert!(read.record.is_none() && note.contains(reason), "{note}");
            assert!(note.contains(R::OPTION), "{note}");
        }
    }

    /// Checks that files that are damaged, or made to do harm, are left out with a note and are no error.
    pub(crate) async fn check_damaged<R: MeasuredRecord>(more: Option<Vec<u8>>) {
        let directory = tempfile::tempdir().unwrap();
        let location = directory.path().to_str().unwrap().parse().unwrap();
        let out = Folder::open(&location, &StoreOptions::default()).unwrap();
        let run = run();
        let absent = StoredRecord::<R>::read(&out, &run).await.unwrap();
        assert!(absent.record.is_none() && absent.note.is_none());
        let damaged = [b"".to_vec(), b"{\"schema\":".to_vec(), vec![b'['; 100_000]];
        for content in damaged.into_iter().chain(more) {
            out.put(R::FILE, content, JSON).await.unwrap();
            let read = StoredRecord::<R>::read(&out, &run).await.unwrap();
            assert!(read.record.is_none() && read.note.is_some());
        }
    }
}
