//! Lists the images that have no prediction: each failure is a finding that says what to do.
//!
//! What stops a training is more urgent than what a setting of the audit caused.

use super::finding::{FindingKind, RowFinding};
use crate::table::{TableError, TableReader};

/// The failures that are listed. If a store is out of reach, a million images fail alike.
const MAX_LISTED: usize = 100_000;

/// Finds the failures.
pub(super) fn find(
    table: &TableReader,
    notes: &mut Vec<String>,
) -> Result<Vec<RowFinding>, TableError> {
    let (mut found, mut failed, mut start) = (Vec::new(), 0_u64, 0);
    for group in 0..table.groups() {
        let failures = table.texts(group, "failure")?;
        let messages = table.texts(group, "failure_message")?;
        for (at, (class, message)) in failures.into_iter().zip(messages).enumerate() {
            let Some(class) = class else { continue };
            failed += 1;
            if found.len() == MAX_LISTED {
                continue;
            }
            let (score, advice) = urgency(&class);
            let message = message.unwrap_or_default();
            let message = message.trim_end_matches('.');
            let reason = format!("Failed, {}: {message}. {advice}", class.replace('-', " "));
            let finding = RowFinding::new(start + at, FindingKind::Failure, score, reason);
            found.push(RowFinding { failure: Some(class), ..finding });
        }
        start += table.rows_in_group(group);
    }
    if failed > MAX_LISTED as u64 {
        notes.push(format!(
            "{failed} images failed; {MAX_LISTED} of them are findings, predictions.parquet has all"
        ));
    }
    Ok(found)
}

/// The score of a class of failures, and what to do. `docs/results.md` lists the classes.
fn urgency(class: &str) -> (f32, &'static str) {
    match class {
        "undecodable" => (0.95, "Replace or remove the file: it would break a training"),
        "not-found" => (0.8, "Remove it from the list of images, or restore it"),
        "access-denied" => (0.75, "Allow the audit to read it, or restore it from the archive"),
        "unsupported" => (0.7, "Convert it, or leave it out with --exclude"),
        "too-large" => (0.6, "Make it smaller, or raise the limit that it names"),
        "explain-failed" => (0.55, "Look at the picture, and at the options of the explanation"),
        _ => (0.5, "Audit it again"),
    }
}
