//! The options of how a report judges labels, which `report` and `audit` share.

use camshaft_report::LabelOptions;
use clap::Args;

/// How the report judges labels.
#[derive(Args, Clone, Debug)]
pub(crate) struct LabelAuditArgs {
    /// Keep this share of the images out of all findings, above 0 and up to 0.5, and say how accurate
    /// heads are on them that learn from the others, with and without the suspected labels. By the
    /// hash of their keys, so that the same images are kept out each time
    #[arg(long, env = "CAMSHAFT_HOLDOUT", value_name = "SHARE", value_parser = holdout_share)]
    pub(crate) holdout: Option<f64>,
    /// Images with the same N-th folder in their key are of one kind, such as one patient's: no head
    /// that judges one of them has seen another. 1 is the first folder
    #[arg(long, env = "CAMSHAFT_GROUP_BY", value_name = "N", value_parser = folder_number)]
    pub(crate) group_by: Option<usize>,
}

impl LabelAuditArgs {
    pub(crate) fn resolve(&self) -> LabelOptions {
        LabelOptions { holdout: self.holdout, group_by: self.group_by }
    }
}

/// A share of the images for `--holdout`.
fn holdout_share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(share) if share > 0.0 && share <= 0.5 => Ok(share),
        _ => Err("a share above 0 and up to 0.5 is needed, such as 0.1".to_owned()),
    }
}

/// The place of a folder in a key, for `--group-by`.
fn folder_number(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number @ 1..) => Ok(number),
        _ => Err("folders are counted from 1, such as 2 for train/patient-7/a.jpg".to_owned()),
    }
}
