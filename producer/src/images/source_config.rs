//! What the user says about SOURCE, checked but not yet opened.

use std::str::FromStr;

use camshaft_common::location::{Location, LocationError};
use camshaft_common::run::RunRecord;

use crate::images::list_columns::ListColumns;

/// The argument SOURCE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SourceArgument {
    /// A folder, a prefix of a bucket, or one file.
    Place(Location),
    /// `list:PATH`: a file of keys; `-` is standard input.
    List(String),
}

impl FromStr for SourceArgument {
    type Err = LocationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_prefix("list:") {
            Some("") => Err(LocationError::Empty),
            Some(path) => Ok(Self::List(path.to_owned())),
            None => text.parse().map(Self::Place),
        }
    }
}

/// Where labels come from: `--labels`.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    clap::ValueEnum,
    serde::Serialize,
    serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LabelRule {
    /// A list's label, or else the name of the folder that the image lies in.
    #[default]
    Folder,
    /// Images have no labels.
    None,
}

/// SOURCE and `--base`, which belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SourceConfig {
    /// A folder, a prefix of a bucket, or one file.
    Place(Location),
    /// A list of keys.
    List {
        /// The file; `-` is standard input.
        path: String,
        /// The folder or prefix that the keys are below.
        base: Location,
        /// Which of its columns are keys and labels.
        columns: ListColumns,
    },
}

/// SOURCE and `--base` do not go together.
#[derive(Debug, thiserror::Error)]
pub enum SourceConfigError {
    /// `list:` without `--base`.
    #[error("a list of keys needs --base: the folder or URL that its keys are below")]
    BaseMissing,
    /// `--include` or `--exclude` with `list:`.
    #[error(
        "--include and --exclude choose files of a folder, and a list names its images; leave them out"
    )]
    GlobsWithList,
    /// `--base` without `list:`.
    #[error("--base goes with list:PATH, and SOURCE is {0}; leave out --base")]
    BaseWithoutList(String),
    /// `--key-column` or `--label-column` without `list:`.
    #[error("--key-column and --label-column go with list:PATH, and SOURCE is {0}; leave them out")]
    ColumnsWithoutList(String),
}

impl SourceConfig {
    /// Puts both arguments together.
    ///
    /// # Errors
    /// If a list has no base, or if something else has one.
    pub(crate) fn new(
        argument: SourceArgument,
        base: Option<Location>,
    ) -> Result<Self, SourceConfigError> {
        match (argument, base) {
            (SourceArgument::List(path), Some(base)) => {
                Ok(Self::List { path, base, columns: ListColumns::default() })
            }
            (SourceArgument::List(_), None) => Err(SourceConfigError::BaseMissing),
            (SourceArgument::Place(place), None) => Ok(Self::Place(place)),
            (SourceArgument::Place(place), Some(_)) => {
                Err(SourceConfigError::BaseWithoutList(place.to_string()))
            }
        }
    }

    /// The same with the columns that the user names.
    ///
    /// # Errors
    /// If the user names columns and it is no list.
    pub(crate) fn with_columns(self, columns: ListColumns) -> Result<Self, SourceConfigError> {
        match self {
            Self::List { path, base, .. } => Ok(Self::List { path, base, columns }),
            Self::Place(_) if columns.is_empty() => Ok(self),
            Self::Place(place) => Err(SourceConfigError::ColumnsWithoutList(place.to_string())),
        }
    }

    /// The columns that the user names, as `run.json` records them.
    #[must_use]
    pub(crate) fn columns(&self) -> ListColumns {
        match self {
            Self::Place(_) => ListColumns::default(),
            Self::List { columns, .. } => columns.clone(),
        }
    }

    /// The argument SOURCE as `run.json` records it.
    #[must_use]
    pub(crate) fn argument(&self) -> String {
        match self {
            Self::Place(place) => place.as_url().to_string(),
            Self::List { path, .. } => format!("list:{path}"),
        }
    }

    /// `--base` as `run.json` records it.
    #[must_use]
    pub(crate) fn base(&self) -> Option<&Location> {
        match self {
            Self::Place(_) => None,
            Self::List { base, .. } => Some(base),
        }
    }

    /// True if SOURCE and `--base` are those of a record. The columns may be others.
    #[must_use]
    pub(crate) fn is_of(&self, record: &RunRecord) -> bool {
        record.source == self.argument() && record.base.as_ref() == self.base()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_list_has_a_base_and_it_must_have_one() {
        let base: Location = "s3://bucket/images".parse().unwrap();
        let list: SourceArgument = "list:keys.csv".parse().unwrap();
        let place: SourceArgument = "s3://bucket/images".parse().unwrap();

        let error = SourceConfig::new(list.clone(), None).unwrap_err();
        assert!(error.to_string().contains("needs --base"), "{error}");
        let error = SourceConfig::new(place.clone(), Some(base.clone())).unwrap_err();
        assert!(error.to_string().contains("leave out --base"), "{error}");

        let columns = ListColumns { key: Some("path".to_owned()), label: None };
        let folder = SourceConfig::new(place.clone(), None).unwrap();
        let error = folder.with_columns(columns.clone()).unwrap_err();
        assert!(error.to_string().contains("--key-column"), "{error}");

        let list = SourceConfig::new(list, Some(base.clone())).unwrap();
        let list = list.with_columns(columns).unwrap();
        assert_eq!(list.columns().key.as_deref(), Some("path"));
        assert_eq!((list.argument().as_str(), list.base()), ("list:keys.csv", Some(&base)));
        let place = SourceConfig::new(place, None).unwrap();
        assert_eq!((place.argument().as_str(), place.base()), ("s3://bucket/images", None));
    }
}
