//! What a caller chooses of a report.

use camshaft_common::location::Location;

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
    /// The share of images that no finding is about, 0 to 1 without both; none for no hold-out.
    pub holdout: Option<f64>,
    /// The folder of an image's key, counted from 1, whose images are judged together.
    pub group_by: Option<usize>,
}

impl Default for ReportOptions {
    fn default() -> Self {
        Self {
            csv: false,
            embeddings: false,
            thumbnails: 1000,
            compare_with: None,
            holdout: None,
            group_by: None,
        }
    }
}
