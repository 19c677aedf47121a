//! Image keys: the name of an image below SOURCE, checked to be harmless.
//!
//! A key is parsed when it enters (from a listing, a list file, a message) and never built from
//! unchecked text after that. So no key leads out of SOURCE or OUT.

use std::fmt;

use serde::{Deserialize, Serialize};

/// S3's limit on a key. The results' prefixes and suffixes need some of it.
const MAX_KEY_BYTES: usize = 960;

/// The key of an image below its SOURCE: relative, `/`-separated, extension kept.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ImageKey(String);

/// Why a text is not an image key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImageKeyError {
    /// The key has no characters.
    #[error("an image key is empty")]
    Empty,
    /// The key would not fit the store once the results' prefix and suffix are added.
    #[error("image key of {bytes} bytes is longer than {MAX_KEY_BYTES}: {start}…")]
    TooLong {
        /// Length of the key.
        bytes: usize,
        /// Its first characters.
        start: String,
    },
    /// The key has a segment that is empty, `.` or `..`, or starts with `/`.
    #[error("image key {0:?} is not a plain relative path: segments may not be empty, '.' or '..'")]
    NotRelative(String),
    /// The key has a control character.
    #[error("image key {0:?} has a control character")]
    ControlCharacter(String),
}

impl ImageKey {
    /// Checks a text and takes it as a key.
    ///
    /// # Errors
    /// If the text is empty, too long, has control characters, or is not a plain relative path.
    ///
    /// ```
    /// use camshaft_common::key::ImageKey;
    ///
    /// let key = ImageKey::parse("cat/a.jpg").unwrap();
    /// assert_eq!(key.folder(), Some("cat"));
    /// assert!(ImageKey::parse("../secret.jpg").is_err());
    /// ```
    pub fn parse(text: impl Into<String>) -> Result<Self, ImageKeyError> {
        let text = text.into();
        if text.is_empty() {
            return Err(ImageKeyError::Empty);
        }
        if text.len() > MAX_KEY_BYTES {
            let start = text.chars().take(60).collect();
            return Err(ImageKeyError::TooLong { bytes: text.len(), start });
        }
        if text.chars().any(char::is_control) {
            return Err(ImageKeyError::ControlCharacter(text));
        }
        if text.split('/').any(|segment| matches!(segment, "" | "." | "..")) {
            return Err(ImageKeyError::NotRelative(text));
        }
        Ok(Self(text))
    }

    /// The key as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of the folder that the image lies in. In a data set of class folders this is its
    /// class.
    #[must_use]
    pub fn folder(&self) -> Option<&str> {
        let (folders, _name) = self.0.rsplit_once('/')?;
        folders.rsplit('/').next()
    }

    /// Whether a segment starts with a dot, as in `.DS_Store` and `.git/…`.
    #[must_use]
    pub fn is_hidden(&self) -> bool {
        self.0.split('/').any(|segment| segment.starts_with('.'))
    }
}

impl fmt::Display for ImageKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for ImageKey {
    type Error = ImageKeyError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(text)
    }
}

impl From<ImageKey> for String {
    fn from(key: ImageKey) -> Self {
        key.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn folder_is_the_last_one() {
        assert_eq!(ImageKey::parse("train/cat/a.jpg").unwrap().folder(), Some("cat"));
        assert_eq!(ImageKey::parse("a.jpg").unwrap().folder(), None);
    }

    #[test]
    fn keys_that_could_leave_their_folder_are_refused() {
        for text in [
            "",
            "/a.jpg",
            "../a.jpg",
            "a/../b.jpg",
            "a//b.jpg",
            "a/",
            "./a.jpg",
            "a\0.jpg",
            "a\n.jpg",
        ] {
            assert!(ImageKey::parse(text).is_err(), "{text:?} was taken");
        }
        assert!(ImageKey::parse("x".repeat(MAX_KEY_BYTES + 1)).is_err());
    }

    #[test]
    fn unusual_names_are_kept_as_they_are() {
        for text in ["a b%2e#é?.jpg", "..jpg", "a/...b", "猫/写真.png", "back\\slash.jpg"] {
            assert_eq!(ImageKey::parse(text).unwrap().as_str(), text);
        }
    }

    proptest! {
        #[test]
        fn keys_survive_json(text in "[^\\p{Cc}/]{1,20}(/[^\\p{Cc}/]{1,20}){0,3}") {
            prop_assume!(text.split('/').all(|s| s != "." && s != ".."));
            let key = ImageKey::parse(text).unwrap();
            let json = serde_json::to_string(&key).unwrap();
            prop_assert_eq!(serde_json::from_str::<ImageKey>(&json).unwrap(), key);
        }
    }
}
