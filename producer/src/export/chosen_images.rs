//! Which images are exported, and what was found about them, held by key.
//!
//! Upstream: `findings.parquet`. Downstream: [`exported_images`](super::exported_images) and
//! [`vocabulary`](super::vocabulary).

use std::collections::{HashMap, HashSet};

use camshaft_exchange::ExportFinding;
use camshaft_table::TableReader;

use super::ExportError;

/// Columns of `findings.parquet`.
const FINDING_COLUMNS: [&str; 7] =
    ["key", "kind", "problem", "score", "reason", "suggested", "held_out_probability"];

/// An error if a table of the report lacks one of these columns.
pub(super) fn lacks(
    table: &TableReader,
    columns: &[&'static str],
    out: &str,
) -> Result<(), ExportError> {
    match columns.iter().find(|column| !table.has_column(column)) {
        Some(column) => Err(ExportError::OldReport { out: out.to_owned(), column }),
        None => Ok(()),
    }
}

/// What was found about an image.
#[derive(Debug, Default)]
pub(super) struct ImageNotes {
    pub(super) findings: Vec<ExportFinding>,
    /// The label that the most urgent finding with one suggests, and its probability.
    pub(super) suggested: Option<(String, Option<f32>)>,
}

/// What was found about all images, by key.
#[derive(Debug, Default)]
pub(super) struct FindingNotes(HashMap<String, ImageNotes>);

impl FindingNotes {
    /// Reads `findings.parquet`, whose most urgent findings come first.
    pub(super) fn read(table: &TableReader, out: &str) -> Result<Self, ExportError> {
        lacks(table, &FINDING_COLUMNS, out)?;
        let mut notes: HashMap<String, ImageNotes> = HashMap::new();
        for group in 0..table.groups() {
            let texts = |name| table.texts(group, name);
            let (keys, kinds) = (texts("key")?, texts("kind")?);
            let (problems, reasons) = (texts("problem")?, texts("reason")?);
            let (suggested, scores) = (texts("suggested")?, table.floats(group, "score")?);
            let probabilities = table.floats(group, "held_out_probability")?;
            let rows = keys.into_iter().zip(kinds).zip(problems).zip(reasons).zip(suggested);
            for (row, ((((key, kind), problem), reason), suggested)) in rows.enumerate() {
                let (Some(key), Some(kind)) = (key, kind) else { continue };
                let image = notes.entry(key).or_default();
                let (score, reason) = (scores[row], reason.unwrap_or_default());
                image.findings.push(ExportFinding { kind, problem, score, reason });
                if let Some(label) = suggested
                    && image.suggested.is_none()
                {
                    let probability = Some(probabilities[row]).filter(|p| !p.is_nan());
                    image.suggested = Some((label, probability));
                }
            }
        }
        Ok(Self(notes))
    }

    /// What was found about an image.
    pub(super) fn of(&self, key: &str) -> Option<&ImageNotes> {
        self.0.get(key)
    }

    /// The labels that findings suggest.
    pub(super) fn suggested(&self) -> impl Iterator<Item = &str> {
        self.0.values().filter_map(|notes| Some(notes.suggested.as_ref()?.0.as_str()))
    }
}

/// Which images are exported.
#[derive(Debug)]
pub(super) enum ChosenImages {
    All,
    WithFindings,
    Keys(HashSet<String>),
}

impl ChosenImages {
    pub(super) fn has(&self, key: &str, notes: &FindingNotes) -> bool {
        match self {
            Self::All => true,
            Self::WithFindings => notes.0.contains_key(key),
            Self::Keys(keys) => keys.contains(key),
        }
    }
}
