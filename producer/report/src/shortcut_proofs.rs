//! The proofs in `shortcuts.json` that a report can use: those of its run and its model.
//!
//! Does not match proofs with clusters: `findings` does.

use camshaft_common::layout::SHORTCUTS_FILE;
use camshaft_common::prediction::ModelRecord;
use camshaft_common::run::RunId;
use camshaft_common::shortcuts::{MAX_SHORTCUTS_BYTES, ShortcutsRecord};

use crate::stored_record::MeasuredRecord;

impl MeasuredRecord for ShortcutsRecord {
    const FILE: &'static str = SHORTCUTS_FILE;
    const MAX_BYTES: u64 = MAX_SHORTCUTS_BYTES;
    const OPTION: &'static str = "--prove-shortcuts";

    fn schema(&self) -> u32 {
        self.schema
    }

    fn run(&self) -> RunId {
        self.run
    }

    fn model(&self) -> Option<&ModelRecord> {
        self.model.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use camshaft_common::run::{RunRecord, SCHEMA};
    use serde_json::{Value, json};

    use super::*;
    use crate::findings::shortcut_tests::proof;
    use crate::run_images::tests::run;
    use crate::stored_record::StoredRecord;
    use crate::stored_record::tests::{check_damaged, check_stale};

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

    fn read(record: &Value, run: &RunRecord) -> StoredRecord<ShortcutsRecord> {
        StoredRecord::<ShortcutsRecord>::of(record.to_string().as_bytes(), run)
    }

    #[test]
    fn proofs_of_the_runs_model_count() {
        let run = run();
        let mut record = record(&run);
        // A newer version may write more.
        record["proofs"][0]["more"] = json!({"any": ["thing"]});
        let read = read(&record, &run);
        assert_eq!((read.record.unwrap().proofs.len(), read.note), (1, None));
    }

    #[test]
    fn stale_and_foreign_proofs_are_left_out_with_the_reason() {
        let other = format!("sha256:{}", "0".repeat(64));
        let stale: [(&[&str], Value, &str); 5] = [
            (&["run"], json!(RunId::generate()), "another run"),
            (&["model", "digest"], json!(other), "another model"),
            (&["model", "config_digest"], json!(other), "another model"),
            (&["schema"], json!(2), "schema is 2"),
            (&["proofs"], json!([{"class": "cat"}]), "can't be read"),
        ];
        check_stale::<ShortcutsRecord>(record, &stale);
    }

    #[tokio::test]
    async fn a_hostile_file_is_a_note_and_no_error() {
        let large = vec![b'['; usize::try_from(MAX_SHORTCUTS_BYTES).unwrap() + 1];
        check_damaged::<ShortcutsRecord>(Some(large)).await;
    }
}
