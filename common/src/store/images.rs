//! The images in a folder: listed and read by their keys.
//!
//! Keys may stand for names that `object_store` can't hold. Local files are read here by their real
//! names; in other stores, some names can't be asked for, and then only that image fails.

use std::fs::{self, File};
use std::io;
use std::path::{Path as FilePath, PathBuf};

use chrono::{DateTime, Utc};
use futures::stream::{BoxStream, StreamExt, TryStreamExt};
use object_store::path::{Path, PathPart};
use object_store::{Attributes, GetResult, GetResultPayload, ObjectMeta, ObjectStoreExt};

use super::found::{FoundEntry, FoundObject, FoundOther};
use super::ordered::etag;
use super::{FetchedObject, Folder, Listed, Listing, OpenedObject, StoreError};
use crate::key::{ImageKey, ImageKeyError};
use crate::printable::printable;
use crate::skipped::SkipReason;

/// A file or object that may be an image.
#[derive(Clone, Debug, PartialEq)]
pub struct ListedImage {
    /// Its key.
    pub key: ImageKey,
    /// Entity tag, if the store has them.
    pub etag: Option<String>,
    /// Size in bytes.
    pub size_bytes: u64,
    /// When it was last written.
    pub last_modified: DateTime<Utc>,
}

/// Something in a folder that can be no image.
#[derive(Clone, Debug, PartialEq)]
pub struct SkippedEntry {
    /// Its name below the folder, safe on a terminal.
    pub name: String,
    /// Why it can be no image.
    pub reason: SkipReason,
    /// What the system says about it.
    pub detail: Option<String>,
}

/// What lies in a folder.
#[derive(Clone, Debug, PartialEq)]
pub enum SourceEntry {
    /// A file or object.
    Image(ListedImage),
    /// Something else.
    Skipped(SkippedEntry),
}

impl Folder {
    /// Everything below this folder, in the order of keys if the store can do that. An item is an
    /// error only if the listing can't go on.
    pub fn list_images(&self) -> BoxStream<'static, Result<SourceEntry, StoreError>> {
        let place = self.location.to_string();
        let failed = move |source| StoreError::new("list", place.clone(), source);
        self.list_entries(&self.root).map_ok(source_entry).map_err(failed).boxed()
    }

    /// As [`Folder::get`], of an image.
    ///
    /// # Errors
    /// As [`Folder::get`].
    pub async fn get_image(
        &self,
        key: &ImageKey,
        max_bytes: u64,
    ) -> Result<FetchedObject, StoreError> {
        self.open_image(key, max_bytes).await?.read().await
    }

    /// As [`Folder::open_object`], of an image.
    ///
    /// # Errors
    /// As [`Folder::open_object`]; [`StoreErrorKind::Unusable`](super::StoreErrorKind::Unusable) if
    /// the key names nothing that can ever be read.
    pub async fn open_image(
        &self,
        key: &ImageKey,
        max_bytes: u64,
    ) -> Result<OpenedObject, StoreError> {
        let failed = |source| self.error("read", key.as_str(), source);
        let found = match &self.listing {
            Listing::Local => open_local(self.local_file(key)).await,
            Listing::Seekable(_) | Listing::Plain => match self.object_path(key) {
                Ok(path) => self.store.get(&path).await,
                Err(error) => Err(error),
            },
        };
        let found = found.map_err(failed)?;
        if found.meta.size > max_bytes {
            let place = self.name_of(key.as_str());
            return Err(StoreError::too_large(place, found.meta.size, max_bytes));
        }
        Ok(OpenedObject { found, place: self.name_of(key.as_str()) })
    }

    /// As [`Folder::head`], of an image.
    ///
    /// # Errors
    /// As [`Folder::open_image`].
    pub async fn head_image(&self, key: &ImageKey) -> Result<Listed, StoreError> {
        let failed = |source| self.error("read", key.as_str(), source);
        let path = key.as_str().to_owned();
        let meta = match &self.listing {
            Listing::Local => open_local(self.local_file(key)).await.map(|found| found.meta),
            Listing::Seekable(_) | Listing::Plain => match self.object_path(key) {
                Ok(path) => self.head_at(&path).await,
                Err(error) => Err(error),
            },
        };
        let ObjectMeta { size, e_tag, last_modified, .. } = meta.map_err(failed)?;
        Ok(Listed { path, etag: e_tag, size_bytes: size, last_modified })
    }

    /// The path of an image's file; `None` if no file can have it.
    fn local_file(&self, key: &ImageKey) -> Option<PathBuf> {
        Some(FilePath::new("/").join(self.root.as_ref()).join(key.local_path()?))
    }

    /// The path of an image's object, if `object_store` can ask for it.
    fn object_path(&self, key: &ImageKey) -> object_store::Result<Path> {
        let name = key.name();
        let unusable = || {
            unusable("stores can't be asked for a name with '.', '..' or a control character in it")
        };
        let mut path = self.root.clone();
        for segment in str::from_utf8(&name).map_err(|_| unusable())?.split('/') {
            let part = PathPart::parse(segment).map_err(|_| unusable())?;
            // A path has no `/` at its start.
            if segment.is_empty() && path.is_root() {
                return Err(unusable());
            }
            path = path.join(part);
        }
        Ok(path)
    }
}

fn source_entry(entry: FoundEntry) -> SourceEntry {
    match entry {
        FoundEntry::Object(object) if object.is_folder_marker() => {
            skipped(&object.name, SkipReason::FolderMarker, None)
        }
        FoundEntry::Object(object) => {
            let FoundObject { name, etag, size_bytes, last_modified } = object;
            match ImageKey::from_name(&name) {
                Ok(key) => SourceEntry::Image(ListedImage { key, etag, size_bytes, last_modified }),
                Err(error) => skipped(&name, SkipReason::Unreadable, Some(error.to_string())),
            }
        }
        FoundEntry::Skipped(FoundOther { name, reason, detail }) => skipped(&name, reason, detail),
    }
}

fn skipped(name: &[u8], reason: SkipReason, detail: Option<String>) -> SourceEntry {
    let (name, end) = name.strip_suffix(b"/").map_or((name, ""), |folder| (folder, "/"));
    let name = match ImageKey::from_name(name) {
        Ok(key) => printable(key.as_str()).into_owned(),
        Err(ImageKeyError::TooLong { start, .. }) => format!("{start}…"),
        Err(error) => error.to_string(),
    };
    SourceEntry::Skipped(SkippedEntry { name: name + end, reason, detail })
}

async fn open_local(path: Option<PathBuf>) -> object_store::Result<GetResult> {
    let Some(path) = path else { return Err(unusable("no file can have this name")) };
    let opened = tokio::task::spawn_blocking(move || {
        // Before it is opened: to open a named pipe waits for somebody to write to it.
        let facts = fs::metadata(&path)?;
        if facts.is_dir() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "it is a folder"));
        }
        if !facts.is_file() {
            let what = "it is a pipe, a socket or a device, and no file";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        let file = File::open(&path)?;
        let facts = file.metadata()?;
        Ok((file, facts, path))
    });
    let opened = opened.await.map_err(|_panic| unusable("reading it ended with a panic"))?;
    let (file, facts, path) = opened.map_err(local_error)?;
    let meta = ObjectMeta {
        location: Path::default(),
        last_modified: facts.modified().map_err(local_error)?.into(),
        size: facts.len(),
        e_tag: Some(etag(&facts)),
        version: None,
    };
    Ok(GetResult {
        payload: GetResultPayload::File(file, path),
        range: 0..meta.size,
        meta,
        attributes: Attributes::default(),
        extensions: Default::default(),
    })
}

fn local_error(error: io::Error) -> object_store::Error {
    // Another file is in the place of one of its folders.
    if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) {
        return object_store::Error::NotFound { path: String::new(), source: error.into() };
    }
    object_store::Error::Generic { store: "file", source: error.into() }
}

fn unusable(reason: &'static str) -> object_store::Error {
    local_error(io::Error::new(io::ErrorKind::InvalidInput, reason))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    use super::*;
    use crate::store::{StoreErrorKind, StoreOptions};

    fn folder(place: &str) -> Folder {
        Folder::open(&place.parse().unwrap(), &StoreOptions::default()).unwrap()
    }

    fn key(name: &[u8]) -> ImageKey {
        ImageKey::from_name(name).unwrap()
    }

    #[tokio::test]
    async fn files_with_odd_names_are_listed_and_read() {
        let directory = tempfile::tempdir().unwrap();
        let long = "x".repeat(255);
        let mut names: Vec<&[u8]> =
            vec![b"a\xff.jpg", b"b\n\t.jpg", b"%=c.jpg", b"d%2e.jpg", b"photo#1", long.as_bytes()];
        for name in &names {
            fs::write(directory.path().join(OsStr::from_bytes(name)), name).unwrap();
        }
        let folder = folder(directory.path().to_str().unwrap());
        let listed: Vec<_> = folder.list_images().try_collect().await.unwrap();
        names.sort_unstable();
        assert_eq!(listed.len(), names.len());
        for (entry, name) in listed.into_iter().zip(names) {
            let SourceEntry::Image(image) = entry else { panic!("{entry:?}") };
            assert_eq!(image.key, key(name));
            let read = folder.get_image(&image.key, 1000).await.unwrap();
            assert_eq!((&*read.bytes, read.etag), (name, image.etag.clone()));
            let head = folder.head_image(&image.key).await.unwrap();
            assert_eq!((head.etag, head.size_bytes), (image.etag, name.len() as u64));
        }
    }

    #[tokio::test]
    async fn what_can_never_be_read_is_told_from_what_may_come() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        std::os::unix::fs::symlink("loop", at("loop")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        fs::create_dir(at("folder")).unwrap();
        fs::write(at("file"), "0123456789").unwrap();
        let folder = folder(directory.path().to_str().unwrap());
        let long = "x".repeat(256);
        for (name, kind) in [
            (&b"loop"[..], StoreErrorKind::Unusable),
            (b"socket", StoreErrorKind::Unusable),
            (b"../file", StoreErrorKind::Unusable),
            (b"folder//x", StoreErrorKind::Unusable),
            (b"a\0", StoreErrorKind::Unusable),
            (long.as_bytes(), StoreErrorKind::Unusable),
            (b"folder", StoreErrorKind::NotFound),
            (b"file/x", StoreErrorKind::NotFound),
            (b"nothing", StoreErrorKind::NotFound),
            (b"file", StoreErrorKind::TooLarge),
        ] {
            let error = folder.get_image(&key(name), 5).await.unwrap_err();
            assert_eq!(error.kind(), kind, "{error}");
            assert!(!error.to_string().contains(char::is_control), "{error}");
        }
    }

    #[test]
    fn a_bucket_is_asked_for_every_name_that_it_can_be_asked_for() {
        let prefix = folder("s3://bucket/some/prefix");
        for (name, path) in [
            (&b"a//b.jpg"[..], "some/prefix/a//b.jpg"),
            (b"/a", "some/prefix//a"),
            (b"a/", "some/prefix/a/"),
            (b"%=a", "some/prefix/%=a"),
            (b"a%2e", "some/prefix/a%2e"),
        ] {
            assert_eq!(prefix.object_path(&key(name)).unwrap().as_ref(), path);
        }
        for name in [&b"a/../b"[..], b"./a", b"a\tb", b"a\xff"] {
            assert!(prefix.object_path(&key(name)).is_err(), "{name:?}");
        }
        assert!(folder("s3://bucket").object_path(&key(b"/a")).is_err());
    }
}
