//! Lists a folder: every object, in the store's order or in that of names.

use std::path::PathBuf;
use std::{fs, io};

use futures::stream::{BoxStream, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectMeta, Result as StoreResult};

use super::found::{FoundEntry, FoundObject, FoundOther};
use super::{Folder, Listed, Listing, StoreError, StoreErrorKind, ordered};
use crate::key::ImageKey;
use crate::skipped::SkipReason;

/// Objects in a page of most stores' listings.
const PAGE_OBJECTS: usize = 1000;

impl Folder {
    /// Every object below `folder` (`""` for all), in the store's order. An item is an
    /// error if one entry cannot be read; the others follow if the store can go on.
    pub fn list(&self, folder: &str) -> BoxStream<'static, Result<Listed, StoreError>> {
        let prefix = match self.path(folder) {
            Ok(prefix) => prefix,
            Err(error) => return futures::stream::once(async { Err(error) }).boxed(),
        };
        self.listed(folder, self.list_plainly(&prefix))
    }

    /// As [`Folder::list`], but in the order of paths as text, and faster for many objects: several
    /// ranges are listed at once, in bounded memory. A store that cannot start at a name is listed in
    /// its own order.
    pub fn list_in_order(&self, folder: &str) -> BoxStream<'static, Result<Listed, StoreError>> {
        match self.path(folder) {
            Ok(prefix) => self.listed(folder, self.list_entries(&prefix)),
            Err(error) => futures::stream::once(async { Err(error) }).boxed(),
        }
    }

    /// The names of the objects directly in this folder. Local names that are no text are left out.
    ///
    /// # Errors
    /// As the store says.
    pub async fn names(&self) -> Result<Vec<String>, StoreError> {
        let root = Some(&self.root).filter(|root| !root.as_ref().is_empty());
        let names = match &self.listing {
            Listing::Local => local_names(PathBuf::from(format!("/{}", self.root))).await,
            Listing::Seekable(_) | Listing::Plain => {
                let found = self.store.list_with_delimiter(root).await;
                found.map(|found| names_below(&self.root, found.objects))
            }
        };
        names.map_err(|source| self.error("list", "", source))
    }

    /// True if anything lies below this folder, by one request at most, or if that is not told: a user who
    /// may not list may still read, and be told that an object is not there. False if there is no such
    /// folder, or, in a file system, if it has hidden entries only: so is a folder in which nothing is
    /// mounted.
    ///
    /// # Errors
    /// As the store says, but for [`StoreErrorKind::AccessDenied`].
    pub async fn may_have_anything(&self) -> Result<bool, StoreError> {
        let found = match &self.listing {
            Listing::Local => has_local_entries(PathBuf::from(format!("/{}", self.root))).await,
            Listing::Seekable(_) | Listing::Plain => {
                let root = Some(&self.root).filter(|root| !root.is_root());
                let first = self.store.list(root).next().await;
                first.transpose().map(|first| first.is_some())
            }
        };
        match found.map_err(|source| self.error("list", "", source)) {
            Err(error) if error.kind() == StoreErrorKind::AccessDenied => Ok(true),
            told => told,
        }
    }

    /// Up to `most` images, spread over the first page of a listing.
    ///
    /// # Errors
    /// As the store says.
    pub async fn sample_images(&self, most: usize) -> Result<Vec<ImageKey>, StoreError> {
        let entries = match &self.listing {
            Listing::Local => self.list_entries(&self.root),
            Listing::Seekable(_) | Listing::Plain => self.list_plainly(&self.root),
        };
        let keys = entries.take(PAGE_OBJECTS).try_filter_map(|entry| async move {
            Ok(match entry {
                FoundEntry::Object(object) if !object.is_folder_marker() => {
                    ImageKey::from_name(&object.name).ok()
                }
                FoundEntry::Object(_) | FoundEntry::Skipped(_) => None,
            })
        });
        let keys = keys.try_collect::<Vec<_>>().await;
        let keys = keys.map_err(|source| self.error("list", "", source))?;
        let step = keys.len().div_ceil(most.max(1)).max(1);
        Ok(keys.into_iter().step_by(step).collect())
    }

    /// Every entry below `prefix`, in order if the store can do that.
    pub(super) fn list_entries(
        &self,
        prefix: &Path,
    ) -> BoxStream<'static, StoreResult<FoundEntry>> {
        match &self.listing {
            Listing::Plain => self.list_plainly(prefix),
            Listing::Seekable(store) => ordered::list(store.clone(), prefix),
            Listing::Local => ordered::list_local(PathBuf::from(format!("/{prefix}"))),
        }
    }

    fn list_plainly(&self, prefix: &Path) -> BoxStream<'static, StoreResult<FoundEntry>> {
        let prefix_bytes = bytes_before_names(prefix);
        let found = self.store.list(Some(prefix).filter(|prefix| !prefix.is_root()));
        let entry = move |meta: ObjectMeta| FoundObject::in_store(meta, prefix_bytes);
        found
            .try_filter_map(move |meta| async move { Ok(entry(meta).map(FoundEntry::Object)) })
            .boxed()
    }

    /// The objects among entries. Names that are no text, objects in place of folders, and files that
    /// the store is still writing, are nothing that Camshaft wrote; but a folder that can't be read
    /// may have any number of objects.
    fn listed(
        &self,
        folder: &str,
        found: BoxStream<'static, StoreResult<FoundEntry>>,
    ) -> BoxStream<'static, Result<Listed, StoreError>> {
        let place = self.name_of(folder);
        let is_local = matches!(self.listing, Listing::Local);
        found
            .map(move |entry| {
                let failed = |source| StoreError::new("list", place.clone(), source);
                match entry.map_err(failed)? {
                    FoundEntry::Object(object) if is_local && is_unfinished(&object.name) => {
                        Ok(None)
                    }
                    FoundEntry::Object(object) => Ok(listed(object)),
                    FoundEntry::Skipped(other) => match other.reason {
                        SkipReason::Unreadable => Err(failed(unreadable(&other))),
                        _ => Ok(None),
                    },
                }
            })
            .try_filter_map(|listed| async { Ok(listed) })
            .boxed()
    }
}

fn listed(object: FoundObject) -> Option<Listed> {
    if object.is_folder_marker() {
        return None;
    }
    let FoundObject { name, etag, size_bytes, last_modified } = object;
    Some(Listed { path: String::from_utf8(name).ok()?, etag, size_bytes, last_modified })
}

/// True for `name#123`: the store writes a local file under such a name before it renames it.
fn is_unfinished(name: &[u8]) -> bool {
    let Some(at) = name.iter().rposition(|byte| matches!(byte, b'#' | b'/')) else { return false };
    let suffix = &name[at + 1..];
    name[at] == b'#' && !suffix.is_empty() && suffix.iter().all(u8::is_ascii_digit)
}

/// The names of objects in the folder `root`.
fn names_below(root: &Path, objects: Vec<ObjectMeta>) -> Vec<String> {
    let before = bytes_before_names(root);
    let found = objects.into_iter().filter_map(|meta| FoundObject::in_store(meta, before));
    found.filter_map(listed).map(|object| object.path).collect()
}

/// The number of bytes of an object's name before its name below `prefix`.
fn bytes_before_names(prefix: &Path) -> usize {
    if prefix.is_root() { 0 } else { prefix.as_ref().len() + 1 }
}

/// The names of the files in a folder; none if there is no folder.
async fn local_names(folder: PathBuf) -> StoreResult<Vec<String>> {
    read_local(move || {
        let mut names = Vec::new();
        for entry in entries_of(folder)?.into_iter().flatten() {
            let entry = entry?;
            if fs::metadata(entry.path()).is_ok_and(|facts| facts.is_file()) {
                names.extend(entry.file_name().into_string().ok());
            }
        }
        Ok(names)
    })
    .await
}

/// True if a folder has an entry that is not hidden.
async fn has_local_entries(folder: PathBuf) -> StoreResult<bool> {
    read_local(move || {
        for entry in entries_of(folder)?.into_iter().flatten() {
            if !entry?.file_name().as_encoded_bytes().starts_with(b".") {
                return Ok(true);
            }
        }
        Ok(false)
    })
    .await
}

/// The entries of a folder; `None` if there is no folder.
fn entries_of(folder: PathBuf) -> io::Result<Option<fs::ReadDir>> {
    use io::ErrorKind::{NotADirectory, NotFound};
    match fs::read_dir(folder) {
        Err(error) if matches!(error.kind(), NotFound | NotADirectory) => Ok(None),
        entries => entries.map(Some),
    }
}

async fn read_local<T: Send + 'static>(
    read: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> StoreResult<T> {
    let reading = tokio::task::spawn_blocking(read);
    let read = reading.await.unwrap_or_else(|panic| Err(io::Error::other(panic)));
    read.map_err(|error| object_store::Error::Generic { store: "file", source: error.into() })
}

fn unreadable(other: &FoundOther) -> object_store::Error {
    let name = String::from_utf8_lossy(&other.name);
    let detail = other.detail.as_deref().unwrap_or_default();
    let source = io::Error::other(format!("{name}: {detail}"));
    object_store::Error::Generic { store: "file", source: source.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StoreOptions;

    #[tokio::test]
    async fn a_folder_that_is_empty_or_not_there_has_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("images");
        let location = place.to_str().unwrap().parse().unwrap();
        let folder = Folder::open(&location, &StoreOptions::default()).unwrap();
        assert!(!folder.may_have_anything().await.unwrap(), "not there");
        fs::create_dir(&place).unwrap();
        assert!(!folder.may_have_anything().await.unwrap(), "empty");
        fs::write(place.join(".keep"), "").unwrap();
        assert!(!folder.may_have_anything().await.unwrap(), "hidden");
        fs::create_dir(place.join("cat")).unwrap();
        assert!(folder.may_have_anything().await.unwrap());
    }

    #[tokio::test]
    async fn a_sample_of_images_is_spread_over_a_listing() {
        let directory = tempfile::tempdir().unwrap();
        let location = directory.path().to_str().unwrap().parse().unwrap();
        let folder = Folder::open(&location, &StoreOptions::default()).unwrap();
        assert!(folder.sample_images(4).await.unwrap().is_empty());
        for number in 0..10 {
            fs::write(directory.path().join(format!("{number}.jpg")), "").unwrap();
        }
        let sample = folder.sample_images(4).await.unwrap();
        let names: Vec<_> = sample.iter().map(ImageKey::as_str).collect();
        assert_eq!(names, ["0.jpg", "3.jpg", "6.jpg", "9.jpg"]);
    }

    #[test]
    fn an_unfinished_file_is_told_by_its_last_name() {
        for (name, unfinished) in [
            ("a.json#1", true),
            ("a#1/b.json", false),
            ("a#1x", false),
            ("a#", false),
            ("a", false),
        ] {
            assert_eq!(is_unfinished(name.as_bytes()), unfinished, "{name}");
        }
    }
}
