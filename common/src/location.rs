//! Locations: the places that SOURCE, OUT and a model folder may name.
//!
//! Parses them only; [`crate::store`] opens them.

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use object_store::path::Path as StorePath;
use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};
use url::Url;

use crate::printable::printable;

/// Schemes of Azure's URLs. What stands before the host there is a container and no user:
/// `az://container@account/…`.
pub(crate) const AZURE_SCHEMES: [&str; 3] = ["az", "abfs", "abfss"];

/// A folder on disk or a prefix in a bucket, as an absolute URL without credentials.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Location(Url);

/// Why a text is not a place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LocationError {
    /// No characters.
    #[error("a path or URL is empty")]
    Empty,
    /// The URL cannot be parsed. It is not shown, since it may hold a password.
    #[error("not a valid URL: {0}")]
    Malformed(url::ParseError),
    /// The kind of store is unknown.
    #[error(
        "{scheme}:// is not supported; use a path, file://, s3://, gs:// or az:// (another S3 server: s3:// with AWS_ENDPOINT_URL)"
    )]
    Scheme {
        /// The scheme.
        scheme: String,
    },
    /// The URL has a user or password, which would end up in logs and messages.
    #[error("credentials don't belong in a URL; set the store's environment variables instead")]
    Credentials,
    /// The URL has a query or fragment, which no store's address has.
    #[error("a store's URL has no '?' or '#' part; write them as %3F and %23")]
    QueryOrFragment,
    /// The URL of a store names no bucket.
    #[error("the URL names no bucket; use {scheme}://BUCKET/PREFIX")]
    NoBucket {
        /// The scheme.
        scheme: String,
    },
    /// The decoded path has `..` or an empty segment, or is not UTF-8: no store has such a path.
    #[error("{0:?} is no path in a store: segments may not be empty, '.' or '..', encoded or not")]
    StorePath(String),
    /// A `file://` URL names another machine, or the path is not UTF-8.
    #[error("not a local path: {0:?}")]
    NotLocal(String),
}

impl Location {
    /// A folder on this machine.
    fn from_path(path: &std::path::Path) -> Result<Self, LocationError> {
        let not_local = || LocationError::NotLocal(path.display().to_string());
        let absolute = without_parents(&std::path::absolute(path).map_err(|_| not_local())?);
        absolute.to_str().ok_or_else(not_local)?;
        Url::from_file_path(&absolute).map(Self).map_err(|()| not_local())
    }

    fn from_url(mut url: Url) -> Result<Self, LocationError> {
        let scheme = url.scheme().to_owned();
        match scheme.as_str() {
            "file" => {
                let path = url
                    .to_file_path()
                    .map_err(|()| LocationError::NotLocal(url.path().to_owned()))?;
                return Self::from_path(&path);
            }
            "s3" | "s3a" | "gs" => {}
            azure if AZURE_SCHEMES.contains(&azure) => {}
            _ => return Err(LocationError::Scheme { scheme }),
        }
        let has_users = !AZURE_SCHEMES.contains(&scheme.as_str());
        if url.password().is_some() || (has_users && !url.username().is_empty()) {
            return Err(LocationError::Credentials);
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(LocationError::QueryOrFragment);
        }
        if url.host_str().is_none_or(str::is_empty) {
            return Err(LocationError::NoBucket { scheme });
        }
        let trimmed = url.path().trim_end_matches('/').to_owned();
        // Read as the store will read it: `%2f..%2f` is no way out of a prefix.
        StorePath::from_url_path(&trimmed)
            .map_err(|_| LocationError::StorePath(trimmed.clone()))?;
        url.set_path(&trimmed);
        Ok(Self(url))
    }

    /// The place as a URL.
    #[must_use]
    pub fn as_url(&self) -> &Url {
        &self.0
    }

    /// The place as other programs take it: a path, or a URL whose path is not percent-encoded. It has no `/` at
    /// its end: a name in it comes after one.
    ///
    /// ```
    /// use camshaft_common::location::Location;
    ///
    /// let place: Location = "s3://bucket/my%20images/".parse().unwrap();
    /// assert_eq!(place.plain_text(), "s3://bucket/my images");
    /// ```
    #[must_use]
    pub fn plain_text(&self) -> String {
        let path = self.decoded_path();
        let path = path.trim_end_matches('/');
        if self.0.scheme() == "file" {
            return path.to_owned();
        }
        let user = match self.0.username() {
            "" => String::new(),
            // A container's name, not a user's: credentials are refused.
            container => format!("{container}@"),
        };
        format!("{}://{user}{}{path}", self.0.scheme(), self.0.host_str().unwrap_or_default())
    }

    /// The path, if it is a place on this machine.
    #[must_use]
    pub fn local_path(&self) -> Option<PathBuf> {
        (self.0.scheme() == "file").then(|| self.0.to_file_path().ok()).flatten()
    }

    /// Its last path segment as the URL writes it, or the bucket's name.
    #[must_use]
    pub fn name(&self) -> &str {
        let last = self.0.path().rsplit('/').find(|segment| !segment.is_empty());
        last.or_else(|| self.0.host_str()).unwrap_or("model")
    }

    /// The place that this one lies in, and its own name there, decoded; `None` for a bucket and
    /// for the root of this machine's files.
    #[must_use]
    pub fn split_last(&self) -> Option<(Self, String)> {
        let (parent, name) = self.0.path().rsplit_once('/')?;
        let name = percent_decode_str(name).decode_utf8().ok()?.into_owned();
        if name.is_empty() || name.contains('/') {
            return None;
        }
        let mut folder = self.0.clone();
        folder.set_path(parent);
        Some((Self(folder), name))
    }

    /// A file or folder in this one. The name is one that needs no encoding in a URL.
    #[must_use]
    pub fn join(&self, name: &str) -> Self {
        let mut joined = self.0.clone();
        joined.set_path(&format!("{}/{name}", self.0.path().trim_end_matches('/')));
        Self(joined)
    }

    /// The path of `self` below `outer`: `Some("")` if both are the same place, `None` if `self` is
    /// not below `outer`.
    #[must_use]
    pub fn below(&self, outer: &Self) -> Option<String> {
        let same_store = self.0.scheme() == outer.0.scheme()
            && self.0.host_str() == outer.0.host_str()
            && self.0.username() == outer.0.username();
        // Decoded, since one place can be written in several ways.
        let (inner, outer) = (self.decoded_path(), outer.decoded_path());
        let rest = inner.strip_prefix(outer.trim_end_matches('/'))?;
        if !same_store || !(rest.is_empty() || rest.starts_with('/')) {
            return None;
        }
        Some(rest.trim_matches('/').to_owned())
    }

    /// The same place without symbolic links in its path, as far as the path exists.
    #[must_use]
    pub fn resolved(&self) -> Self {
        let resolved = self.local_path().and_then(|path| {
            let existing = path.ancestors().find(|ancestor| ancestor.exists())?;
            let rest = path.strip_prefix(existing).ok()?;
            let real = existing.canonicalize().ok()?;
            // `join` with nothing would add a `/`.
            let real = if rest.as_os_str().is_empty() { real } else { real.join(rest) };
            Url::from_file_path(real).ok().map(Self)
        });
        resolved.unwrap_or_else(|| self.clone())
    }

    fn decoded_path(&self) -> Cow<'_, str> {
        percent_decode_str(self.0.path()).decode_utf8_lossy()
    }
}

/// Takes the `..` out of an absolute path. The part before a `..` is resolved if it exists: the
/// parent of a linked folder is the parent of the link's target.
fn without_parents(path: &std::path::Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        if component == std::path::Component::ParentDir {
            plain = plain.canonicalize().unwrap_or(plain);
            plain.pop();
        } else {
            plain.push(component);
        }
    }
    plain
}

impl FromStr for Location {
    type Err = LocationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() {
            return Err(LocationError::Empty);
        }
        if text.contains("://") {
            Self::from_url(Url::parse(text).map_err(LocationError::Malformed)?)
        } else {
            Self::from_path(std::path::Path::new(text))
        }
    }
}

impl TryFrom<String> for Location {
    type Error = LocationError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Location> for String {
    fn from(location: Location) -> Self {
        location.0.to_string()
    }
}

impl Location {
    /// A text that is read as this place again: a path if it is on this machine, else the URL. If the
    /// path has control characters, it is a URL, too.
    #[must_use]
    pub fn to_text(&self) -> String {
        let shown = self.to_string();
        match shown.parse::<Self>() {
            Ok(same) if same == *self => shown,
            _ => self.0.to_string(),
        }
    }
}

impl fmt::Display for Location {
    /// A path if it is on this machine, else the URL. Safe on a terminal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.local_path() {
            Some(path) => f.write_str(&printable(&path.display().to_string())),
            None => self.0.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn location(text: &str) -> Location {
        text.parse().unwrap()
    }

    #[test]
    fn the_last_segment_is_split_off() {
        for (text, folder, name) in [
            ("/models/w.pth", "/models", "w.pth"),
            ("/w x.pth", "/", "w x.pth"),
            ("s3://bucket/w%2B.pth", "s3://bucket", "w+.pth"),
            ("az://container@account/a/b.pth", "az://container@account/a", "b.pth"),
        ] {
            assert_eq!(location(text).split_last(), Some((location(folder), name.to_owned())));
        }
        for text in ["/", "s3://bucket", "s3://bucket/a%2Fb"] {
            assert_eq!(location(text).split_last(), None, "{text}");
        }
    }

    #[test]
    fn paths_become_absolute_and_survive_json() {
        let place = location("some dir/#1%");
        assert!(place.local_path().unwrap().is_absolute());
        assert!(place.local_path().unwrap().ends_with("some dir/#1%"));
        let json = serde_json::to_string(&place).unwrap();
        assert!(json.starts_with("\"file:///"), "{json}");
        assert_eq!(serde_json::from_str::<Location>(&json).unwrap(), place);
    }

    #[test]
    fn parent_folders_are_resolved_through_links() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().canonicalize().unwrap();
        std::fs::create_dir_all(root.join("real/deep")).unwrap();
        std::os::unix::fs::symlink(root.join("real/deep"), root.join("link")).unwrap();
        let text = |path: &str| root.join(path).to_str().unwrap().to_owned();
        assert_eq!(location(&text("real/deep/../x")), location(&text("real/x")));
        assert_eq!(location(&text("link/../x")), location(&text("real/x")));
        assert_eq!(location(&text("nowhere/../x")), location(&text("x")));
        assert_eq!(location("/../x"), location("/x"));
    }

    #[test]
    fn a_resolved_place_has_no_links_and_need_not_exist() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().canonicalize().unwrap();
        std::fs::create_dir(root.join("real")).unwrap();
        std::os::unix::fs::symlink("real", root.join("link")).unwrap();
        let place = |path: &str| location(root.join(path).to_str().unwrap());
        assert_eq!(place("link").resolved(), place("real"));
        assert_eq!(place("link/new/out").resolved(), place("real/new/out"));
        assert_eq!(location("s3://bucket/a").resolved(), location("s3://bucket/a"));
    }

    #[test]
    fn a_place_is_shown_without_control_characters() {
        assert_eq!(location("/a\u{1b}[2J\nb").to_string(), "/a\\u{1b}[2J\\nb");
    }

    #[test]
    fn a_trailing_slash_changes_nothing() {
        assert_eq!(location("s3://bucket/a/"), location("s3://bucket/a"));
        assert_eq!(location("/data/a/"), location("file:///data/a"));
    }

    #[test]
    fn what_is_no_place_is_refused() {
        for text in [
            "",
            "http://169.254.169.254/latest",
            "ftp://host/x",
            "s3://",
            "s3://key:secret@bucket/x",
            "s3://bucket/x?versionId=1",
            "memory:///x",
            "file://otherhost/x",
            "s3://bucket/a%2f..%2fb",
            "s3://bucket/a%2f%2e%2e",
            "s3://bucket/a//b",
            "s3://bucket/%ff",
        ] {
            let error = text.parse::<Location>().expect_err(text);
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }

    #[test]
    fn below_tells_nesting() {
        let outer = location("s3://bucket/data");
        assert_eq!(location("s3://bucket/data/out/x").below(&outer).as_deref(), Some("out/x"));
        assert_eq!(location("s3://bucket/data").below(&outer).as_deref(), Some(""));
        assert_eq!(location("s3://bucket/d%61ta/x").below(&outer).as_deref(), Some("x"));
        assert_eq!(location("s3://bucket/data%2fx").below(&outer).as_deref(), Some("x"));
        assert_eq!(location("s3://bucket/database").below(&outer), None);
        assert_eq!(location("s3://other/data/x").below(&outer), None);
        assert_eq!(location("s3://bucket/x").below(&location("s3://bucket")).as_deref(), Some("x"));
    }
}
