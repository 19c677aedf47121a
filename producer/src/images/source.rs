//! SOURCE: where images come from, as a stream of keys with what is known of each.
//!
//! Owns listing a folder or prefix, in the order of its keys, and reading a list file. Which of the images are to be
//! done is [`selection`](crate::images::selection)'s business.

use std::str::FromStr;

use camshaft_common::key::{ImageKey, ImageKeyError};
use camshaft_common::location::{Location, LocationError};
use camshaft_common::store::{Folder, StoreError, StoreOptions};
use chrono::{DateTime, Utc};
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};

use crate::images::list_file::{self, ListFileError};

/// SOURCE as given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceArgument {
    /// Everything below a place.
    Place(Location),
    /// The keys in a file (`-`: standard input), below `--base`.
    List(String),
}

/// Where labels come from.
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
pub enum LabelRule {
    /// The name of the folder an image lies in, where a list doesn't say.
    #[default]
    Folder,
    /// Images have no labels.
    None,
}

/// An image of SOURCE.
#[derive(Clone, Debug, PartialEq)]
pub struct FoundImage {
    /// Its key.
    pub key: ImageKey,
    /// The store's entity tag, where it was listed.
    pub etag: Option<String>,
    /// Its size, where it was listed.
    pub size_bytes: Option<u64>,
    /// When it was last written, where it was listed.
    pub last_modified: Option<DateTime<Utc>>,
    /// Its given class.
    pub label: Option<String>,
}

/// Why images can't be found.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// A store's answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A list file's content.
    #[error(transparent)]
    List(#[from] ListFileError),
    /// A store has an object whose name can't be a key.
    #[error("an object in SOURCE can't be audited: {0}; rename it")]
    Key(#[from] ImageKeyError),
    /// A run's record names a SOURCE that can't be read.
    #[error("the run's SOURCE can't be listed again: {0}")]
    Argument(#[from] LocationError),
    /// `list:` without `--base`.
    #[error("a list of keys needs --base: the folder or URL that its keys are below")]
    BaseMissing,
    /// `--base` without `list:`.
    #[error("--base goes with list:PATH; {0} is a place by itself")]
    BaseWithoutList(String),
    /// No such folder.
    #[error("SOURCE {0} doesn't exist")]
    Missing(String),
    /// SOURCE and OUT are one place.
    #[error("OUT is SOURCE itself; choose another --out, a folder below it for instance")]
    OutIsSource,
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

/// SOURCE, opened: where images lie, and which are meant.
#[derive(Debug)]
pub struct Source {
    folder: Folder,
    keys: Keys,
    labels: LabelRule,
    /// Results of OUT below SOURCE are no images.
    excluded_prefix: Option<String>,
}

#[derive(Debug)]
enum Keys {
    All,
    One(ImageKey),
    Listed(String),
}

impl Source {
    /// Opens SOURCE and makes sure that it is there.
    ///
    /// # Errors
    /// Where it is not, or doesn't go with `base` or `out`.
    pub fn open(
        argument: SourceArgument,
        base: Option<Location>,
        out: &Location,
        labels: LabelRule,
        stores: &StoreOptions,
    ) -> Result<Self, SourceError> {
        let (location, keys) = match (argument, base) {
            (SourceArgument::List(path), Some(base)) => (base, Keys::Listed(path)),
            (SourceArgument::List(_), None) => return Err(SourceError::BaseMissing),
            (SourceArgument::Place(place), Some(_)) => {
                return Err(SourceError::BaseWithoutList(place.to_string()));
            }
            (SourceArgument::Place(place), None) => {
                single_file(&place)?.unwrap_or((place, Keys::All))
            }
        };
        if location.local_path().is_some_and(|path| !path.exists()) {
            return Err(SourceError::Missing(location.to_string()));
        }
        let excluded_prefix = match out.below(&location) {
            Some(path) if path.is_empty() => return Err(SourceError::OutIsSource),
            Some(path) => Some(format!("{path}/")),
            None => None,
        };
        let folder = Folder::open(&location, stores)?;
        Ok(Self { folder, keys, labels, excluded_prefix })
    }

    /// Where labels come from.
    #[must_use]
    pub fn labels(&self) -> LabelRule {
        self.labels
    }

    /// The place keys are below.
    #[must_use]
    pub fn location(&self) -> &Location {
        self.folder.location()
    }

    /// Whether images come in the order of a list, which may be any and have a key twice; else
    /// they come in that of their keys.
    #[must_use]
    pub fn is_list(&self) -> bool {
        matches!(self.keys, Keys::Listed(_))
    }

    /// Whether the list is a file that can be read twice and has `key` at `position`, from 1: it
    /// is then taken for the one that was read before.
    pub async fn lists_at(&self, position: u64, key: &ImageKey) -> bool {
        let Keys::Listed(path) = &self.keys else { return false };
        let (Ok(before), true) =
            (usize::try_from(position.saturating_sub(1)), std::path::Path::new(path).is_file())
        else {
            return false;
        };
        let mut images = list_file::read(path.clone()).skip(before);
        // What can't be read is told when it is read for good.
        matches!(images.try_next().await, Ok(Some(image)) if image.key == *key)
    }

    /// Every image, as they are found. Hidden files and OUT's own are none; every other
    /// file is one, so that what can't be read shows up as a failure instead of missing
    /// from the audit.
    pub fn images(&self) -> BoxStream<'static, Result<FoundImage, SourceError>> {
        let labels = self.labels;
        let found = match &self.keys {
            Keys::All => self.list(),
            Keys::One(key) => {
                let (folder, key) = (self.folder.clone(), key.clone());
                stream::once(async move { Ok(listed(folder.head(key.as_str()).await?)?) }).boxed()
            }
            Keys::Listed(path) => list_file::read(path.clone()).map_err(Into::into).boxed(),
        };
        found.map_ok(move |image| label(image, labels)).boxed()
    }

    fn list(&self) -> BoxStream<'static, Result<FoundImage, SourceError>> {
        let excluded = self.excluded_prefix.clone();
        self.folder
            .list_in_order("")
            .map_err(SourceError::from)
            .and_then(|object| async move { Ok(listed(object)?) })
            .try_filter(move |image| {
                let own = excluded.as_deref().is_some_and(|p| image.key.as_str().starts_with(p));
                std::future::ready(!own && !image.key.is_hidden())
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

fn listed(object: camshaft_common::store::Listed) -> Result<FoundImage, ImageKeyError> {
    Ok(FoundImage {
        key: ImageKey::parse(object.path)?,
        etag: object.etag,
        size_bytes: Some(object.size_bytes),
        last_modified: Some(object.last_modified),
        label: None,
    })
}

fn label(mut image: FoundImage, rule: LabelRule) -> FoundImage {
    match rule {
        LabelRule::None => image.label = None,
        LabelRule::Folder if image.label.is_none() => {
            image.label = image.key.folder().map(str::to_owned);
        }
        LabelRule::Folder => {}
    }
    image
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(directory: &std::path::Path, out: &str) -> Vec<(String, Option<String>)> {
        let place: SourceArgument = directory.to_str().unwrap().parse().unwrap();
        let out = out.parse().unwrap();
        let source =
            Source::open(place, None, &out, LabelRule::Folder, &StoreOptions::default()).unwrap();
        let images = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut keys: Vec<_> = images
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
    fn out_may_not_be_source() {
        let directory = tempfile::tempdir().unwrap();
        let text = directory.path().to_str().unwrap();
        let error = Source::open(
            text.parse().unwrap(),
            None,
            &text.parse().unwrap(),
            LabelRule::None,
            &StoreOptions::default(),
        );
        assert!(matches!(error, Err(SourceError::OutIsSource)));
    }
}
