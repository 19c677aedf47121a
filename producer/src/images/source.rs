//! SOURCE, opened: a stream of its images.
//!
//! Owns listing a folder or a prefix of a bucket in the order of its keys, and reading a list.
//! Does not decide which images get a job: that is [`selection`](crate::images::selection).

use std::path::Path;

use camshaft_common::key::{ImageKey, ImageKeyError};
use camshaft_common::location::{Location, LocationError};
use camshaft_common::run::RunRecord;
use camshaft_common::store::{Folder, StoreError, StoreOptions};
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};

use crate::images::found_image::FoundImage;
use crate::images::list_file::{self, ListFileError};
use crate::images::source_config::{LabelRule, SourceArgument, SourceConfig, SourceConfigError};

/// Why images can't be found.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The list can't be read.
    #[error(transparent)]
    List(#[from] ListFileError),
    /// A store has an object whose name can't be a key.
    #[error("an object in SOURCE can't be audited: {0}; rename it")]
    Key(#[from] ImageKeyError),
    /// `run.json` names a SOURCE that can't be read.
    #[error("the run's SOURCE can't be listed again: {0}")]
    Recorded(#[from] LocationError),
    /// `run.json` names a list without its base, or a base without a list.
    #[error("the run's SOURCE can't be listed again: {0}")]
    RecordedBase(#[from] SourceConfigError),
    /// No such folder.
    #[error("SOURCE {0} doesn't exist; is the path right?")]
    Missing(String),
    /// No such folder, of a list's keys.
    #[error("--base {0} doesn't exist; is the path right?")]
    BaseMissing(String),
    /// SOURCE and OUT are one place.
    #[error("OUT is SOURCE itself; choose another --out, a folder below it for instance")]
    OutIsSource,
    /// The folder of a list's keys and OUT are one place.
    #[error("OUT is --base itself; choose another --out, a folder below it for instance")]
    OutIsBase,
}

/// SOURCE, opened: where its images are, and which files count as its images.
#[derive(Debug)]
pub(crate) struct Source {
    folder: Folder,
    keys: Keys,
    labels: LabelRule,
    /// OUT may be below SOURCE: the results below this prefix are no images.
    excluded_prefix: Option<String>,
}

#[derive(Debug)]
enum Keys {
    All,
    One(ImageKey),
    /// The path of a list.
    Listed(String),
}

impl Source {
    /// Opens SOURCE and makes sure that it is there.
    ///
    /// # Errors
    /// If it is not there, or if it is `out` itself.
    pub(crate) fn open(
        config: SourceConfig,
        labels: LabelRule,
        out: &Location,
        stores: &StoreOptions,
    ) -> Result<Self, SourceError> {
        let (location, keys) = match config {
            SourceConfig::List { path, base } => (base, Keys::Listed(path)),
            SourceConfig::Place(place) => single_file(&place)?.unwrap_or((place, Keys::All)),
        };
        let is_base = matches!(keys, Keys::Listed(_));
        if location.local_path().is_some_and(|path| !path.exists()) {
            let missing = if is_base { SourceError::BaseMissing } else { SourceError::Missing };
            return Err(missing(location.to_string()));
        }
        let excluded_prefix = match out.below(&location) {
            Some(path) if path.is_empty() && is_base => return Err(SourceError::OutIsBase),
            Some(path) if path.is_empty() => return Err(SourceError::OutIsSource),
            Some(path) => Some(format!("{path}/")),
            None => None,
        };
        let folder = Folder::open(&location, stores)?;
        Ok(Self { folder, keys, labels, excluded_prefix })
    }

    /// Opens the SOURCE that `run.json` names, for its keys only: images get no labels.
    ///
    /// # Errors
    /// If `run.json` names nothing that can be a SOURCE, and as [`Self::open`].
    pub(crate) fn open_recorded(
        record: &RunRecord,
        out: &Location,
        stores: &StoreOptions,
    ) -> Result<Self, SourceError> {
        let argument: SourceArgument = record.source.parse()?;
        let config = SourceConfig::new(argument, record.base.clone())?;
        Self::open(config, LabelRule::None, out, stores)
    }

    /// Where labels come from.
    #[must_use]
    pub(crate) fn labels(&self) -> LabelRule {
        self.labels
    }

    /// The folder or prefix that keys are below.
    #[must_use]
    pub(crate) fn location(&self) -> &Location {
        self.folder.location()
    }

    /// True if images come in the order of a list, which may be any order and may name a key
    /// twice. Otherwise they come in the order of their keys.
    #[must_use]
    pub(crate) fn is_list(&self) -> bool {
        matches!(self.keys, Keys::Listed(_))
    }

    /// True if SOURCE is a list in a file and has `key` at `position`, counted from 1. The list
    /// then counts as the one that an earlier process read. Standard input can't be read twice.
    pub(crate) async fn lists_at(&self, position: u64, key: &ImageKey) -> bool {
        let Keys::Listed(path) = &self.keys else { return false };
        let Ok(images_before) = usize::try_from(position.saturating_sub(1)) else { return false };
        if !Path::new(path).is_file() {
            return false;
        }
        let mut images = list_file::read(path.clone()).skip(images_before);
        // An error is reported later, when `images` reads the same list.
        matches!(images.try_next().await, Ok(Some(image)) if image.key == *key)
    }

    /// Every image, as it is found. Hidden files and the results in OUT are left out. Every other
    /// file counts as an image, so that one that can't be read becomes a failure and is not
    /// silently missing from the audit.
    pub(crate) fn images(&self) -> BoxStream<'static, Result<FoundImage, SourceError>> {
        let labels = self.labels;
        let found = match &self.keys {
            Keys::All => self.list(),
            Keys::One(key) => {
                let (folder, key) = (self.folder.clone(), key.clone());
                let image = async move {
                    let object = folder.head(key.as_str()).await?;
                    Ok(FoundImage::from_object(object)?)
                };
                stream::once(image).boxed()
            }
            Keys::Listed(path) => list_file::read(path.clone()).map_err(Into::into).boxed(),
        };
        found.map_ok(move |image| image.with_label(labels)).boxed()
    }

    fn list(&self) -> BoxStream<'static, Result<FoundImage, SourceError>> {
        let excluded = self.excluded_prefix.clone();
        self.folder
            .list_in_order("")
            .map_err(SourceError::from)
            .and_then(|object| async move { Ok(FoundImage::from_object(object)?) })
            .try_filter(move |image| {
                let in_out = excluded.as_deref().is_some_and(|p| image.key.as_str().starts_with(p));
                std::future::ready(!in_out && !image.key.is_hidden())
            })
            .boxed()
    }
}

/// `audit photo.jpg`: one file is a source of one image.
fn single_file(place: &Location) -> Result<Option<(Location, Keys)>, SourceError> {
    let Some(path) = place.local_path().filter(|path| path.is_file()) else {
        return Ok(None);
    };
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Ok(None);
    };
    let missing = || SourceError::Missing(place.to_string());
    let folder = folder.to_str().and_then(|text| text.parse().ok()).ok_or_else(missing)?;
    let key = ImageKey::parse(name.to_str().ok_or_else(missing)?)?;
    Ok(Some((folder, Keys::One(key))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(place: &str, out: &str, labels: LabelRule) -> Result<Source, SourceError> {
        let config = SourceConfig::Place(place.parse().unwrap());
        Source::open(config, labels, &out.parse().unwrap(), &StoreOptions::default())
    }

    fn keys(place: &Path, out: &str) -> Vec<(String, Option<String>)> {
        let source = open(place.to_str().unwrap(), out, LabelRule::Folder).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut keys: Vec<_> = runtime
            .block_on(source.images().try_collect::<Vec<_>>())
            .unwrap()
            .into_iter()
            .map(|image| (image.key.to_string(), image.label))
            .collect();
        keys.sort();
        keys
    }

    #[test]
    fn folders_are_labels_and_results_and_hidden_files_are_no_images() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["cat/a.jpg", ".DS_Store", "cat/.b.jpg.swp", "c.png", "out/overlays/c.png.jpg"]
        {
            let path = directory.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "x").unwrap();
        }
        let out = directory.path().join("out");
        assert_eq!(
            keys(directory.path(), out.to_str().unwrap()),
            [("c.png".into(), None), ("cat/a.jpg".into(), Some("cat".into()))]
        );
        assert_eq!(
            keys(&directory.path().join("cat/a.jpg"), "/elsewhere"),
            [("a.jpg".into(), None)]
        );
    }

    #[test]
    fn what_is_wrong_with_a_base_is_not_blamed_on_source() {
        let open = |base: &str, out: &str| {
            let base = base.parse().unwrap();
            let config = SourceConfig::List { path: "keys.csv".to_owned(), base };
            let out = out.parse().unwrap();
            let opened = Source::open(config, LabelRule::None, &out, &StoreOptions::default());
            opened.unwrap_err().to_string()
        };
        let missing = open("/nonexistent", "/out");
        assert_eq!(missing, "--base /nonexistent doesn't exist; is the path right?");
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().to_str().unwrap();
        assert!(open(place, place).starts_with("OUT is --base itself"));
    }

    #[test]
    fn out_may_not_be_source() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().to_str().unwrap();
        let error = open(place, place, LabelRule::None);
        assert!(matches!(error, Err(SourceError::OutIsSource)));
    }
}
