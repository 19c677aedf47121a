//! From what a list calls an image to its key: `./` before a key, absolute paths and URLs below
//! `--base`.

use std::path::{Component, Path, PathBuf};

use camshaft_common::key::{ImageKey, ImageKeyError};
use camshaft_common::location::Location;

/// A text of a list names no image below the base.
#[derive(Debug, thiserror::Error)]
pub enum ListKeyError {
    /// It is no key.
    #[error(transparent)]
    Key(#[from] ImageKeyError),
    /// It is a path or URL of another place.
    #[error("{text:?} is not below --base, {base}")]
    NotBelowBase {
        /// The text.
        text: String,
        /// The base.
        base: String,
    },
}

/// The place that the keys of a list are below.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyBase {
    base: Location,
    /// How paths of images begin, if it is on this machine: as it was given, and without links.
    paths: Vec<PathBuf>,
    /// How URLs of images begin, if it is in a store: with plain characters, which is how stores'
    /// programs write them, and percent-encoded.
    urls: [String; 2],
}

impl KeyBase {
    /// The images below `base`.
    #[must_use]
    pub fn new(base: &Location) -> Self {
        let path = base.local_path();
        let without_links = path.as_ref().and_then(|path| path.canonicalize().ok());
        let encoded = with_slash(&plain_scheme(base.as_url().as_str()));
        let plain = percent_encoding::percent_decode_str(&encoded).decode_utf8_lossy().into_owned();
        let paths = path.into_iter().chain(without_links).collect();
        Self { base: base.clone(), paths, urls: [plain, encoded] }
    }

    /// The key of the image that a list calls `text`.
    ///
    /// # Errors
    /// If it is no key, or a place that is not below the base.
    pub fn key(&self, text: &str) -> Result<ImageKey, ListKeyError> {
        let mut text = text;
        while let Some(rest) = text.strip_prefix("./") {
            text = rest;
        }
        let below = if text.starts_with('/') {
            self.below_path(Path::new(text))
        } else if has_scheme(text) {
            self.below_url(text)
        } else {
            return Ok(ImageKey::from_list(text)?);
        };
        let not_below =
            || ListKeyError::NotBelowBase { text: text.to_owned(), base: self.base.to_string() };
        Ok(ImageKey::from_list(&below.ok_or_else(not_below)?)?)
    }

    fn below_path(&self, path: &Path) -> Option<String> {
        let rest = self.paths.iter().find_map(|base| path.strip_prefix(base).ok())?;
        // A `..` is left for the key to refuse.
        let segments = rest.components().filter(|part| !matches!(part, Component::CurDir));
        let segments: Option<Vec<_>> = segments.map(|part| part.as_os_str().to_str()).collect();
        Some(segments?.join("/"))
    }

    fn below_url(&self, text: &str) -> Option<String> {
        if let Some(path) = text.strip_prefix("file://") {
            let decoded = percent_encoding::percent_decode_str(path).decode_utf8().ok()?;
            return self.below_path(Path::new(&*decoded));
        }
        let text = plain_scheme(text);
        let [plain, encoded] = &self.urls;
        if let Some(rest) = text.strip_prefix(plain.as_str()) {
            return Some(rest.to_owned());
        }
        let rest = text.strip_prefix(encoded.as_str())?;
        Some(percent_encoding::percent_decode_str(rest).decode_utf8().ok()?.into_owned())
    }
}

/// True for `scheme://…`.
fn has_scheme(text: &str) -> bool {
    text.split_once("://").is_some_and(|(scheme, _)| {
        !scheme.is_empty() && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric())
    })
}

/// The URL with `s3://` for `s3a://`, which is Hadoop's name for the same.
fn plain_scheme(url: &str) -> String {
    match url.strip_prefix("s3a://") {
        Some(rest) => format!("s3://{rest}"),
        None => url.to_owned(),
    }
}

fn with_slash(url: &str) -> String {
    format!("{}/", url.trim_end_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(base: &str, text: &str) -> Result<String, ListKeyError> {
        KeyBase::new(&base.parse().unwrap()).key(text).map(String::from)
    }

    #[test]
    fn paths_and_urls_below_the_base_are_keys() {
        for (base, text, expected) in [
            ("/data", "cat/a.jpg", "cat/a.jpg"),
            ("/data", "./cat/a.jpg", "cat/a.jpg"),
            ("/data", "././a.jpg", "a.jpg"),
            ("/data/", "/data/cat/a.jpg", "cat/a.jpg"),
            ("/data", "/data//cat/./a b.jpg", "cat/a b.jpg"),
            ("/data", "file:///data/a%20b.jpg", "a b.jpg"),
            ("/", "/data/a.jpg", "data/a.jpg"),
            ("s3://b/images", "s3://b/images/cat/a.jpg", "cat/a.jpg"),
            ("s3://b/images/", "s3a://b/images/a b%20c.jpg", "a b%20c.jpg"),
            ("s3://b", "s3://b/a.jpg", "a.jpg"),
            ("s3://b/my%20images", "s3://b/my images/a b.jpg", "a b.jpg"),
            ("s3://b/my%20images", "s3://b/my%20images/a%20b.jpg", "a b.jpg"),
            ("/data", "a:b.jpg", "a:b.jpg"),
        ] {
            assert_eq!(key(base, text).unwrap(), expected, "{text} below {base}");
        }
    }

    #[test]
    fn other_places_are_refused() {
        for (base, text) in [
            ("/data", "/database/a.jpg"),
            ("/data", "/other/a.jpg"),
            ("/data", "s3://b/a.jpg"),
            ("s3://b/images", "/data/a.jpg"),
            ("s3://b/images", "s3://b/images2/a.jpg"),
            ("s3://b/images", "s3://c/images/a.jpg"),
            ("s3://b/images", "https://b.s3.amazonaws.com/images/a.jpg"),
        ] {
            let error = key(base, text).unwrap_err();
            assert!(matches!(error, ListKeyError::NotBelowBase { .. }), "{text}: {error}");
        }
        for (base, text) in [
            ("/data", "../a.jpg"),
            ("/data", "/data/../a.jpg"),
            ("/data", "/data"),
            ("s3://b/images", "s3://b/images/../a.jpg"),
            ("s3://b", "s3://b//a.jpg"),
        ] {
            // A key that no file can have: it fails alone.
            assert!(key(base, text).unwrap().contains("%="), "{text}");
        }
    }

    #[test]
    fn a_path_through_a_link_is_below_what_it_links_to() {
        let directory = tempfile::tempdir().unwrap();
        let (real, link) = (directory.path().join("real"), directory.path().join("link"));
        std::fs::create_dir(&real).unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        let base = KeyBase::new(&link.to_str().unwrap().parse().unwrap());
        for folder in [link, real.canonicalize().unwrap()] {
            let text = folder.join("a.jpg");
            assert_eq!(base.key(text.to_str().unwrap()).unwrap().as_str(), "a.jpg");
        }
    }
}
