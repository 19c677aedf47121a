//! Reads `shortcuts.json`, and tells whether its proofs are of this run.
//!
//! The file may be old, of another run, or written by anyone who can write to OUT: it is read up to a
//! limit, and what does not fit is left out with a note, never an error. Does not match proofs with
//! clusters: `findings` does.

use camshaft_common::layout::SHORTCUTS_FILE;
use camshaft_common::run::{RunRecord, SCHEMA};
use camshaft_common::shortcuts::{MAX_SHORTCUTS_BYTES, ShortcutProof, ShortcutsRecord};
use camshaft_common::store::{Folder, StoreError, StoreErrorKind};

/// The proofs of a run, and why they are left out if they are.
#[derive(Debug, Default)]
pub(crate) struct StoredProofs {
    pub(crate) proofs: Vec<ShortcutProof>,
    pub(crate) note: Option<String>,
}

impl StoredProofs {
    /// Reads the proofs of the run in OUT; none if nothing was measured.
    ///
    /// # Errors
    /// If the store can't be read.
    pub(crate) async fn read(out: &Folder, run: &RunRecord) -> Result<Self, StoreError> {
        match out.get(SHORTCUTS_FILE, MAX_SHORTCUTS_BYTES).await {
            Ok(object) => Ok(Self::of(&object.bytes, run)),
            Err(error) => match error.kind() {
                StoreErrorKind::NotFound => Ok(Self::default()),
                StoreErrorKind::TooLarge
                | StoreErrorKind::AccessDenied
                | StoreErrorKind::ArchivedOrEncrypted
                | StoreErrorKind::Unusable => Ok(Self::without(&error.to_string())),
                _ => Err(error),
            },
        }
    }

    fn of(json: &[u8], run: &RunRecord) -> Self {
        let record = match serde_json::from_slice::<ShortcutsRecord>(json) {
            Ok(record) => record,
            Err(error) => return Self::without(&format!("it can't be read ({error})")),
        };
        if record.schema != SCHEMA {
            return Self::without(&format!("its schema is {}, not {SCHEMA}", record.schema));
        }
        if record.run != run.run {
            return Self::without("it is of another run");
        }
        let is_other_model = record.model.as_ref().is_some_and(|model| {
            let of_run = &run.model;
            (&model.digest, &model.config_digest) != (&of_run.digest, &of_run.config_digest)
        });
        if is_other_model {
            return Self::without("it is of another model than the run's");
        }
        Self { proofs: record.proofs, note: None }
    }

    fn without(reason: &str) -> Self {
        let note = format!(
            "{SHORTCUTS_FILE} is left out: {reason}; camshaft audit --prove-shortcuts writes it anew"
        );
        Self { proofs: Vec::new(), note: Some(note) }
    }
}

#[cfg(test)]
mod tests {
    use camshaft_common::run::RunId;
    use camshaft_common::store::{JSON, StoreOptions};
    use serde_json::{Value, json};

    use super::*;
    use crate::findings::shortcut_tests::proof;
    use crate::run_images::tests::run;

    fn record(run: &RunRecord) -> Value {
        let model = &run.model;
        json!({
            "schema": SCHEMA, "run": run.run,
            "model": {"name": model.name, "digest": model.digest,
                "config_digest": model.config_digest, "precision": "f32", "kernel": "candle",
                "device": "cpu"},
            "settings": {"images": 50, "confidence": 0.95, "significance": 0.01,
                "smallest_effect": 0.1, "smallest_sample": 10},
            "proofs": [proof("cat/000.jpg", None, "confirmed")], "left_out": []
        })
    }

    fn read(record: &Value, run: &RunRecord) -> StoredProofs {
        StoredProofs::of(record.to_string().as_bytes(), run)
    }

    #[test]
    fn proofs_of_the_runs_model_count() {
        let run = run();
        let mut record = record(&run);
        // A newer version may write more.
        record["proofs"][0]["more"] = json!({"any": ["thing"]});
        let read = read(&record, &run);
        assert_eq!((read.proofs.len(), read.note), (1, None));
    }

    #[test]
    fn stale_and_foreign_proofs_are_left_out_with_the_reason() {
        let run = run();
        let other = format!("sha256:{}", "0".repeat(64));
        let stale: [(&[&str], Value, &str); 5] = [
            (&["run"], json!(RunId::generate()), "another run"),
            (&["model", "digest"], json!(other), "another model"),
            (&["model", "config_digest"], json!(other), "another model"),
            (&["schema"], json!(2), "schema is 2"),
            (&["proofs"], json!([{"class": "cat"}]), "can't be read"),
        ];
        for (place, value, reason) in stale {
            let mut record = record(&run);
            let field = place.iter().fold(&mut record, |at, name| &mut at[*name]);
            *field = value;
            let read = read(&record, &run);
            let note = read.note.unwrap();
            assert!(read.proofs.is_empty() && note.contains(reason), "{note}");
            assert!(note.contains("--prove-shortcuts"), "{note}");
        }
    }

    #[tokio::test]
    async fn a_hostile_file_is_a_note_and_no_error() {
        let directory = tempfile::tempdir().unwrap();
        let location = directory.path().to_str().unwrap().parse().unwrap();
        let out = Folder::open(&location, &StoreOptions::default()).unwrap();
        let run = run();
        let absent = StoredProofs::read(&out, &run).await.unwrap();
        assert!(absent.proofs.is_empty() && absent.note.is_none());
        let large = vec![b'['; usize::try_from(MAX_SHORTCUTS_BYTES).unwrap() + 1];
        for hostile in [b"".to_vec(), b"{\"schema\":".to_vec(), vec![b'['; 100_000], large] {
            out.put(SHORTCUTS_FILE, hostile, JSON).await.unwrap();
            let read = StoredProofs::read(&out, &run).await.unwrap();
            assert!(read.proofs.is_empty() && read.note.is_some());
        }
    }
}
