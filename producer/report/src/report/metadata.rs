//! What every table of a report says of its run, in the file's metadata.
//!
//! Names and values in text, which DuckDB, pandas and Polars read. `docs/report.md` has the names.

use camshaft_common::run::RunRecord;

/// The names and values of a run's tables. None of them is a secret.
pub(super) fn table_metadata(run: &RunRecord) -> Vec<(String, String)> {
    let images = run.images_place().map(|place| place.plain_text());
    [
        ("run", Some(run.run.to_string())),
        ("model", Some(run.model.name.clone())),
        ("model_digest", Some(run.model.digest.to_string())),
        ("source", Some(run.source_without_secrets())),
        ("images", images),
        ("version", Some(env!("CARGO_PKG_VERSION").to_owned())),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((format!("camshaft.{name}"), value?)))
    .collect()
}
