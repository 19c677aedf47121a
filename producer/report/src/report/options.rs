//! What a caller chooses of a report.

use camshaft_common::location::Location;

use crate::findings::LabelOptions;

/// What a report holds besides what every report holds.
#[derive(Clone, Debug)]
pub struct ReportOptions {
    /// Whether to write `predictions.csv` as well.
    pub csv: bool,
    /// Whether the tables hold embeddings.
    pub embeddings: bool,
    /// The number of findings that get thumbnails, the most urgent ones.
    pub thumbnails: usize,
    /// Where another run is, to compare this one with.
    pub compare_with: Option<Location>,
    /// How labels are judged.
    pub labels: LabelOptions,
}

impl Default for ReportOptions {
    fn default() -> Self {
        Self {
            csv: false,
            embeddings: false,
            thumbnails: 10_000,
            compare_with: None,
            labels: LabelOptions::default(),
        }
    }
}
