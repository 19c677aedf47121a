//! The measures in `trust.json` that a report can use: those of its run, its model and its maps.
//!
//! Downstream: the page, which says in a sentence whether the maps can be trusted.

use camshaft_common::layout::TRUST_FILE;
use camshaft_common::prediction::ModelRecord;
use camshaft_common::run::{RunId, RunRecord};
use camshaft_common::trust::TrustRecord;

use crate::stored_record::MeasuredRecord;

impl MeasuredRecord for TrustRecord {
    const FILE: &'static str = TRUST_FILE;
    // It names each image of a sample of up to 65,535, with keys of up to a kilobyte, and has some ten
    // kilobytes for each method and layer.
    const MAX_BYTES: u64 = 128 * 1024 * 1024;
    const OPTION: &'static str = "--trust-sample";

    fn schema(&self) -> u32 {
        self.schema
    }

    fn run(&self) -> RunId {
        self.run
    }

    fn model(&self) -> Option<&ModelRecord> {
        Some(&self.model)
    }

    fn is_of_maps(&self, run: &RunRecord) -> bool {
        let (explain, of_run) = (&self.explain, &run.explain);
        (&explain.method, &explain.layer) == (&of_run.method, &of_run.layer)
    }
}

#[cfg(test)]
mod tests {
    use camshaft_common::run::SCHEMA;
    use serde_json::{Value, json};

    use super::*;
    use crate::run_images::tests::run;
    use crate::stored_record::StoredRecord;
    use crate::stored_record::tests::{check_damaged, check_stale};

    fn record(run: &RunRecord) -> Value {
        let model = &run.model;
        let estimate = json!({"mean": 0.2, "low": 0.1, "high": 0.3, "n": 20});
        let measures = json!({
            "average_drop": estimate, "average_increase": estimate, "deletion_auc": estimate,
            "insertion_auc": estimate, "road": estimate, "deletion_curve": [1.0],
            "insertion_curve": [0.0]
        });
        let redrawn = json!({"rank_correlation": estimate, "flat": 0.0, "verdict": "passed"});
        let mut map = measures.clone();
        map["method"] = json!("grad-cam");
        map["layer"] = json!("layer4");
        map["random_maps"] = measures;
        map["over_random"] = json!({
            "average_drop": estimate, "deletion_auc": estimate, "insertion_auc": estimate,
            "road": estimate, "verdict": "unclear"
        });
        map["sanity"] = json!({"head": redrawn, "last_stage": redrawn});
        map["warnings"] = json!(["a larger sample may tell"]);
        json!({
            "schema": SCHEMA, "run": run.run, "explain": run.explain,
            "model": {"name": model.name, "digest": model.digest,
                "config_digest": model.config_digest, "precision": "f32", "kernel": "candle",
                "device": "cpu"},
            "sample": {"asked": 20, "measured": 20, "left_out": 0, "keys": ["cat/a.jpg"]},
            "settings": {"confidence": 0.95, "curve_steps": 28, "blur_sigma": 14.0,
                "road_percentiles": [20, 40, 60, 80], "road_noise": 0.01, "redraws": 3,
                "hardly_changed": 0.7},
            "maps": [map]
        })
    }

    fn read(record: &Value, run: &RunRecord) -> StoredRecord<TrustRecord> {
        StoredRecord::<TrustRecord>::of(record.to_string().as_bytes(), run)
    }

    #[test]
    fn a_measurement_of_the_runs_maps_reaches_the_page() {
        let run = run();
        let read = read(&record(&run), &run);
        assert_eq!(read.note, None);
        let record = read.record.unwrap();
        let facts = serde_json::to_value(crate::page::TrustFacts::new(&record)).unwrap();
        assert_eq!(facts["images"], 20);
        let map = &facts["maps"][0];
        assert_eq!((&map["road"]["mean"], &map["road_verdict"]), (&json!(0.2), &json!("unclear")));
        assert_eq!(map["warnings"], json!(["a larger sample may tell"]));
    }

    #[test]
    fn stale_and_foreign_measurements_are_left_out_with_the_reason() {
        let other = format!("sha256:{}", "0".repeat(64));
        let stale: [(&[&str], Value, &str); 6] = [
            (&["run"], json!(RunId::generate()), "another run"),
            (&["model", "digest"], json!(other), "another model"),
            (&["model", "config_digest"], json!(other), "another model"),
            (&["explain", "method"], json!("eigen-cam"), "other maps"),
            (&["schema"], json!(2), "schema is 2"),
            (&["maps"], json!([{"method": "grad-cam"}]), "can't be read"),
        ];
        check_stale::<TrustRecord>(record, &stale);
    }

    #[tokio::test]
    async fn a_damaged_file_is_a_note_and_no_error() {
        check_damaged::<TrustRecord>(None).await;
    }
}
