//! Access to object stores: local folders, S3 and S3-compatible servers, Google Cloud
//! Storage and Azure, all through `object_store`.
//!
//! Owns opening a [`Location`], reading, writing and listing, and the meaning of stores' errors. Only
//! the programs' `main` reads the stores' environment variables, as [`StoreOptions`].

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::TryStreamExt;
use object_store::list::PaginatedListStore;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    Attribute, Attributes, BackoffConfig, ClientOptions, GetResult, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMultipartOptions, PutOptions, RetryConfig, WriteMultipart,
};
use tracing::warn;

use crate::location::{AZURE_SCHEMES, Location};
use crate::tls;

mod authorities;
mod aws_files;
mod clouds;
mod connector;
mod credential_process;
mod deletion;
mod error;
mod error_codes;
mod error_kind;
mod found;
mod images;
mod listed_names;
mod listing;
mod ordered;
mod settings;
#[cfg(test)]
mod tests;

use authorities::{Authorities, CA_BUNDLE};
use ordered::Seekable;

pub use authorities::CaBundleError;
pub use error::StoreError;
pub use error_kind::StoreErrorKind;
pub use images::{ListedImage, SkippedEntry, SourceEntry};

/// Size of a large object's parts: S3 takes 10,000 of at least 5 MiB.
const PART_BYTES: usize = 16 * 1024 * 1024;
/// Parts of one object that are written at a time.
const PARTS_AT_ONCE: usize = 4;

/// The end of the names of S3 Express buckets. These list in no order and cannot start at a name.
const S3_EXPRESS_SUFFIX: &str = "--x-s3";

/// Media type of JSON results.
pub const JSON: &str = "application/json";
/// Media type of files with a JSON object on each line.
pub const JSON_LINES: &str = "application/x-ndjson";
/// Media type of tables.
pub const PARQUET: &str = "application/vnd.apache.parquet";

/// The environment variables that configure stores: `AWS_…`, `GOOGLE_…`, `AZURE_…`, and the
/// Hugging Face Hub, `HF_…`.
#[derive(Clone, Default)]
pub struct StoreOptions {
    variables: Vec<(String, String)>,
    authorities: Authorities,
}

impl StoreOptions {
    /// The options in this process's environment. For `main` only: nothing else reads it.
    ///
    /// # Errors
    /// If `AWS_CA_BUNDLE` names no bundle of certificates.
    pub fn from_environment() -> Result<Self, CaBundleError> {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Self::from_variables(std::env::vars_os().filter_map(text)).with_ca_bundle()
    }

    /// Keeps the variables of an environment that configure stores. Addresses lose their user and
    /// password: stores have other variables for them, and HTTP clients log addresses.
    pub fn from_variables(variables: impl IntoIterator<Item = (String, String)>) -> Self {
        let of_store =
            |name: &str| ["AWS_", "GOOGLE_", "AZURE_"].iter().any(|p| name.starts_with(p));
        let wanted = |name: &str| {
            of_store(name)
                || name.starts_with("HF_")
                // They tell where the hub's cache and token are, and AWS's own files.
                || ["HOME", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME"].contains(&name)
        };
        let kept = |(name, value): (String, String)| {
            if !of_store(&name) {
                return (name, value);
            }
            // Values from files and secrets often have the end of a line.
            let value = value.trim();
            let without_user =
                settings::without_user(value).filter(|_| settings::is_address(&name));
            if without_user.is_some() {
                warn!(variable = name, "user and password of a store's address are left out");
            }
            (name, without_user.unwrap_or_else(|| value.to_owned()))
        };
        let variables = variables.into_iter().filter(|(name, _)| wanted(name)).map(kept).collect();
        Self { variables, authorities: Authorities::default() }
    }

    /// Trusts the authorities in the file that `AWS_CA_BUNDLE` names, if it is set: S3 is trusted with
    /// these only, other stores with these and the system's.
    ///
    /// # Errors
    /// If it names no bundle of certificates.
    pub fn with_ca_bundle(mut self) -> Result<Self, CaBundleError> {
        if let Some(path) = self.variable(CA_BUNDLE) {
            self.authorities = Authorities::read(path.as_ref())?;
        }
        Ok(self)
    }

    /// The value of a variable, if it is set and not empty.
    pub(crate) fn variable(&self, name: &str) -> Option<&str> {
        let (_, value) = self.variables.iter().find(|(known, _)| known == name)?;
        (!value.is_empty()).then_some(value)
    }

    /// The options that a builder understands, by the builder's own key type. An empty variable counts as
    /// not set.
    fn for_builder<K: std::str::FromStr>(&self) -> impl Iterator<Item = (K, &str)> {
        self.variables.iter().filter_map(|(name, value)| {
            let key = name.to_ascii_lowercase().parse().ok()?;
            (!value.is_empty()).then_some((key, value.as_str()))
        })
    }
}

impl fmt::Debug for StoreOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.variables.iter().map(|(name, _)| name).collect();
        write!(f, "StoreOptions({names:?}, values hidden)")
    }
}

/// An open place in a store. Paths given to its methods are relative to it.
#[derive(Clone, Debug)]
pub struct Folder {
    store: Arc<dyn ObjectStore>,
    root: Path,
    location: Location,
    takes_attributes: bool,
    listing: Listing,
}

/// How a store's objects are listed in the order of their names.
#[derive(Clone)]
enum Listing {
    /// A local folder: the names are sorted here.
    Local,
    /// Several ranges of names are listed at once.
    Seekable(Seekable),
    /// One page after the other, in the store's order.
    Plain,
}

impl fmt::Debug for Listing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Local => "Local",
            Self::Seekable(_) => "Seekable",
            Self::Plain => "Plain",
        })
    }
}

/// An object found by [`Folder::list`].
#[derive(Clone, Debug, PartialEq)]
pub struct Listed {
    /// Path below the listed folder.
    pub path: String,
    /// Entity tag, if the store has them.
    pub etag: Option<String>,
    /// Size in bytes.
    pub size_bytes: u64,
    /// When it was last written.
    pub last_modified: DateTime<Utc>,
}

/// An object's content as it was when read.
#[derive(Clone, Debug)]
pub struct FetchedObject {
    /// The content.
    pub bytes: Bytes,
    /// Entity tag, if the store has them.
    pub etag: Option<String>,
}

/// An object that was found and whose content is not yet read.
#[derive(Debug)]
pub struct OpenedObject {
    found: GetResult,
    place: String,
}

impl OpenedObject {
    /// Size of the content.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.found.meta.size
    }

    /// Reads the content whole.
    ///
    /// # Errors
    /// As the store says.
    pub async fn read(self) -> Result<FetchedObject, StoreError> {
        let Self { found, place } = self;
        let etag = found.meta.e_tag.clone();
        let bytes = found.bytes().await;
        let bytes = bytes.map_err(|source| StoreError::new("read", place, source))?;
        Ok(FetchedObject { bytes, etag })
    }

    /// Reads the content into a temporary file, as it comes, so that it may be larger than memory. The
    /// file is at its start.
    ///
    /// # Errors
    /// As the store says, or if the file can't be written.
    pub async fn into_file(self) -> Result<File, StoreError> {
        let Self { found, place } = self;
        let failed = |source| StoreError::new("read", place.clone(), source);
        let unwritten = |source: io::Error| {
            let source = object_store::Error::Generic { store: "file", source: source.into() };
            StoreError::new("copy", place.clone(), source)
        };
        let mut file = tempfile::tempfile().map_err(unwritten)?;
        let mut chunks = found.into_stream();
        while let Some(chunk) = chunks.try_next().await.map_err(failed)? {
            // Blocks little: a temporary file is written to the disk's cache.
            file.write_all(&chunk).map_err(unwritten)?;
        }
        file.seek(SeekFrom::Start(0)).map_err(unwritten)?;
        Ok(file)
    }
}

impl Folder {
    /// Opens a place. No request is made yet.
    ///
    /// # Errors
    /// If the store's configuration is incomplete or contradictory.
    pub fn open(location: &Location, options: &StoreOptions) -> Result<Self, StoreError> {
        let failed = |source| StoreError::of_settings(location.to_string(), source);
        let url = location.as_url();
        let root = Path::from_url_path(url.path())
            .map_err(|source| failed(object_store::Error::from(source)))?;
        let (store, listing): (Arc<dyn ObjectStore>, _) = match url.scheme() {
            "file" => (Arc::new(LocalFileSystem::new()), Listing::Local),
            "gs" => seekable(clouds::google(url, options).map_err(failed)?),
            azure if AZURE_SCHEMES.contains(&azure) => {
                (Arc::new(clouds::azure(url, options).map_err(failed)?), Listing::Plain)
            }
            _ => {
                let store = clouds::s3(url, options).map_err(failed)?;
                if url.host_str().is_some_and(|bucket| bucket.ends_with(S3_EXPRESS_SUFFIX)) {
                    (Arc::new(store), Listing::Plain)
                } else {
                    seekable(store)
                }
            }
        };
        let takes_attributes = url.scheme() != "file";
        Ok(Self { store, root, location: location.clone(), takes_attributes, listing })
    }

    /// The place it opens.
    #[must_use]
    pub fn location(&self) -> &Location {
        &self.location
    }

    /// Reads an object whole, unless it is larger than `max_bytes`.
    ///
    /// # Errors
    /// [`StoreErrorKind::TooLarge`] before the content is read; else as the store says.
    pub async fn get(&self, path: &str, max_bytes: u64) -> Result<FetchedObject, StoreError> {
        self.open_object(path, max_bytes).await?.read().await
    }

    /// Asks for an object, unless it is larger than `max_bytes`, without reading its content.
    ///
    /// # Errors
    /// [`StoreErrorKind::TooLarge`]; else as the store says.
    pub async fn open_object(
        &self,
        path: &str,
        max_bytes: u64,
    ) -> Result<OpenedObject, StoreError> {
        let failed = |source| self.error("read", path, source);
        let found = self.store.get(&self.path(path)?).await.map_err(failed)?;
        if found.meta.size > max_bytes {
            return Err(StoreError::too_large(self.name_of(path), found.meta.size, max_bytes));
        }
        Ok(OpenedObject { found, place: self.name_of(path) })
    }

    /// Writes an object. Readers see all of it or nothing.
    ///
    /// # Errors
    /// As the store says.
    pub async fn put(
        &self,
        path: &str,
        content: impl Into<Bytes>,
        content_type: &'static str,
    ) -> Result<(), StoreError> {
        let attributes = self.attributes(content_type);
        let options = PutOptions { attributes, ..PutOptions::default() };
        self.store
            .put_opts(&self.path(path)?, content.into().into(), options)
            .await
            .map_err(|source| self.error("write", path, source))?;
        Ok(())
    }

    /// Writes a local file as an object, in parts, so that it may be larger than memory. Readers see
    /// all of it or nothing.
    ///
    /// # Errors
    /// If the file cannot be read or the store fails.
    pub async fn put_file(
        &self,
        path: &str,
        mut file: File,
        content_type: &'static str,
    ) -> Result<(), StoreError> {
        let failed = |source| self.error("write", path, source);
        let unread = |source: io::Error| {
            failed(object_store::Error::Generic { store: "file", source: source.into() })
        };
        let attributes = self.attributes(content_type);
        let options = PutMultipartOptions { attributes, ..PutMultipartOptions::default() };
        let upload = self.store.put_multipart_opts(&self.path(path)?, options).await;
        let mut upload = WriteMultipart::new_with_chunk_size(upload.map_err(failed)?, PART_BYTES);
        loop {
            let mut part = Vec::with_capacity(PART_BYTES);
            // Blocks little: the file was just written and is in the disk's cache.
            Read::by_ref(&mut file)
                .take(PART_BYTES as u64)
                .read_to_end(&mut part)
                .map_err(unread)?;
            if part.is_empty() {
                break;
            }
            upload.wait_for_capacity(PARTS_AT_ONCE).await.map_err(failed)?;
            upload.put(part.into());
        }
        upload.finish().await.map_err(failed)?;
        Ok(())
    }

    /// Removes an object, if it is there.
    ///
    /// # Errors
    /// As the store says, but never because it is absent.
    pub async fn delete(&self, path: &str) -> Result<(), StoreError> {
        match self.store.delete(&self.path(path)?).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(source) => Err(self.error("delete", path, source)),
        }
    }

    /// Whether an object is there.
    ///
    /// # Errors
    /// As the store says, but never because it is absent.
    pub async fn exists(&self, path: &str) -> Result<bool, StoreError> {
        match self.head_at(&self.path(path)?).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(source) => Err(self.error("read", path, source)),
        }
    }

    /// An object's size, entity tag and time, without its content.
    ///
    /// # Errors
    /// As the store says, absence included.
    pub async fn head(&self, path: &str) -> Result<Listed, StoreError> {
        let ObjectMeta { size, e_tag, last_modified, .. } =
            self.head_at(&self.path(path)?)
                .await
                .map_err(|source| self.error("read", path, source))?;
        Ok(Listed { path: path.to_owned(), etag: e_tag, size_bytes: size, last_modified })
    }

    /// An object's facts. The answer to `HEAD` has no text: if the store refuses, it is asked for the
    /// object itself, to hear why.
    async fn head_at(&self, path: &Path) -> object_store::Result<ObjectMeta> {
        let refused = match self.store.head(path).await {
            Err(error) if error::is_unexplained_refusal(&error) => error,
            answered => return answered,
        };
        Err(self.store.get(path).await.err().unwrap_or(refused))
    }

    /// The attributes to write an object with, if the store keeps them.
    fn attributes(&self, content_type: &'static str) -> Attributes {
        let mut attributes = Attributes::new();
        if self.takes_attributes {
            attributes.insert(Attribute::ContentType, content_type.into());
        }
        attributes
    }

    /// The object's address within the store, kept to the letter: `Path::from` would
    /// percent-encode characters that real keys have.
    fn path(&self, relative: &str) -> Result<Path, StoreError> {
        let whole = match (self.root.as_ref(), relative) {
            ("", relative) => relative.to_owned(),
            (root, "") => root.to_owned(),
            (root, relative) => format!("{root}/{relative}"),
        };
        Path::parse(whole)
            .map_err(|source| self.error("use", relative, object_store::Error::from(source)))
    }

    fn name_of(&self, path: &str) -> String {
        match path {
            "" => self.location.to_string(),
            path => format!("{}/{path}", self.location),
        }
    }

    fn error(&self, action: &'static str, path: &str, source: object_store::Error) -> StoreError {
        StoreError::new(action, self.name_of(path), source)
    }
}

fn seekable<S: ObjectStore + PaginatedListStore>(store: S) -> (Arc<dyn ObjectStore>, Listing) {
    let store = Arc::new(store);
    (Arc::clone(&store) as _, Listing::Seekable(store))
}

/// A few quick repetitions. An error that lasts longer is answered by the queue's retry delays, so
/// that it does not hold a worker's slot.
fn retry() -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(3),
            base: 2.0,
        },
        max_retries: 4,
        retry_timeout: Duration::from_secs(30),
    }
}

fn client_options() -> ClientOptions {
    // It builds its client without asking us again.
    tls::install_crypto_provider();
    ClientOptions::new()
        .with_connect_timeout(Duration::from_secs(5))
        .with_timeout(Duration::from_secs(60))
}
