//! Which files of SOURCE are images: arguments that several commands have.

use camshaft_common::image_files::{Glob, GlobError, ImageFiles};
use clap::Args;

use super::UsageError;
use crate::images::source_config::{SourceConfig, SourceConfigError};

/// Which files are images.
#[derive(Args, Debug)]
pub(crate) struct ImageFileArgs {
    /// Take only files that match as images, and not those of image types by name: '*.jpg', or with
    /// a slash for the whole key, 'cat/**'. ** is any number of folders, {a,b} one of several.
    /// Repeatable
    #[arg(long, env = "CAMSHAFT_INCLUDE", value_name = "GLOB", value_delimiter = '\n',
          value_parser = parse_glob)]
    pub(crate) include: Vec<Option<Glob>>,
    /// Leave out files that match, as for --include. Repeatable
    #[arg(long, env = "CAMSHAFT_EXCLUDE", value_name = "GLOB", value_delimiter = '\n',
          value_parser = parse_glob)]
    pub(crate) exclude: Vec<Option<Glob>>,
}

impl ImageFileArgs {
    pub(super) fn resolve(self, source: &SourceConfig) -> Result<ImageFiles, UsageError> {
        let [include, exclude] =
            [self.include, self.exclude].map(|globs| globs.into_iter().flatten().collect());
        let image_files = ImageFiles { include, exclude };
        if matches!(source, SourceConfig::List { .. }) && image_files != ImageFiles::default() {
            return Err(SourceConfigError::GlobsWithList.into());
        }
        Ok(image_files)
    }
}

/// A glob; none for an empty line, such as the last one of a variable.
fn parse_glob(text: &str) -> Result<Option<Glob>, GlobError> {
    if text.trim().is_empty() { Ok(None) } else { text.parse().map(Some) }
}
