//! Image keys: the name of an image below SOURCE, checked to be harmless.
//!
//! A key is parsed when it enters (from a listing, a list file, a message) and never built from
//! unchecked text after that. So no key leads out of SOURCE or OUT.
//!
//! A file or an object may have a name that no key can have: one that is not UTF-8, has control
//! characters, or has a segment that is empty, `.` or `..`. Its key has such segments escaped: `%=`,
//! then the segment with those bytes (and `%`) percent-encoded. All other names are their own keys,
//! whatever they look like. A segment that begins as an escaped one is escaped too, so that every
//! name has one key, and every key one name.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};

/// The longest name. Stores allow 1 KiB, Linux 4 KiB, and a line of a list twice as much.
const MAX_NAME_BYTES: usize = 8 * 1024;
/// The longest key: each byte of its name takes three if it is escaped, and each `/` has at most
/// two marks beside it.
const MAX_KEY_BYTES: usize = 4 * MAX_NAME_BYTES;

/// The start of an escaped segment.
const ESCAPED: &str = "%=";
/// The start of a result's name that has a digest in place of its key: see
/// [`layout`](crate::layout). No segment of a key begins so.
pub(crate) const SHORTENED: &str = "%~";

/// The key of an image below its SOURCE: relative, `/`-separated, extension kept.
///
/// Keys are in the order of their names, byte by byte.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ImageKey(String);

/// Why a text is not an image key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImageKeyError {
    /// The key has no characters.
    #[error("an image key is empty")]
    Empty,
    /// The name is longer than any store's.
    #[error("image key of {bytes} bytes is longer than {limit}: {start}…")]
    TooLong {
        /// Length of the name or key.
        bytes: usize,
        /// The longest.
        limit: usize,
        /// Its first characters.
        start: String,
    },
    /// The key has a segment that is empty, `.` or `..`, or starts with `/`.
    #[error("image key {0:?} is not a plain relative path: segments may not be empty, '.' or '..'")]
    NotRelative(String),
    /// The key has a control character.
    #[error("image key {0:?} has a control character")]
    ControlCharacter(String),
    /// A segment begins with `%=` or `%~` and is not what Camshaft writes there.
    #[error("image key {0:?} is not escaped as Camshaft escapes keys")]
    NotEscaped(String),
}

impl ImageKey {
    /// Checks a text and takes it as a key.
    ///
    /// # Errors
    /// If the text is empty, too long, has control characters, is not a plain relative path, or is
    /// escaped in another way than [`Self::from_name`] does.
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
            return Err(too_long(text.as_bytes(), MAX_KEY_BYTES));
        }
        if text.chars().any(char::is_control) {
            return Err(ImageKeyError::ControlCharacter(text));
        }
        for segment in text.split('/') {
            if matches!(segment, "" | "." | "..") {
                return Err(ImageKeyError::NotRelative(text));
            }
            let is_right = match segment.strip_prefix(ESCAPED) {
                Some(escaped) => escape(&unescape(escaped)).as_deref() == Some(segment),
                None => !segment.starts_with(SHORTENED),
            };
            if !is_right {
                return Err(ImageKeyError::NotEscaped(text));
            }
        }
        Ok(Self(text))
    }

    /// The key of a file or object with this name below SOURCE. Names that no key can have are
    /// escaped.
    ///
    /// # Errors
    /// If the name is longer than any store's.
    ///
    /// ```
    /// use camshaft_common::key::ImageKey;
    ///
    /// let key = ImageKey::from_name(b"cat/caf\xe9 100%.jpg").unwrap();
    /// assert_eq!(key.as_str(), "cat/%=caf%E9 100%25.jpg");
    /// assert_eq!(&*key.name(), b"cat/caf\xe9 100%.jpg");
    /// assert_eq!(ImageKey::from_name(b"a%2e.jpg").unwrap().as_str(), "a%2e.jpg");
    /// ```
    pub fn from_name(name: &[u8]) -> Result<Self, ImageKeyError> {
        if name.len() > MAX_NAME_BYTES {
            return Err(too_long(name, MAX_NAME_BYTES));
        }
        let mut text = String::with_capacity(name.len());
        for (at, segment) in name.split(|byte| *byte == b'/').enumerate() {
            if at > 0 {
                text.push('/');
            }
            match (escape(segment), str::from_utf8(segment)) {
                (None, Ok(plain)) => text.push_str(plain),
                (escaped, _) => text.push_str(&escaped.unwrap_or_default()),
            }
        }
        Ok(Self(text))
    }

    /// The key that a line of a list means: the line itself if it is a key, else that of a file with
    /// this name.
    ///
    /// # Errors
    /// If the line is longer than any store's names.
    pub fn from_list(text: &str) -> Result<Self, ImageKeyError> {
        Self::parse(text).or_else(|_| Self::from_name(text.as_bytes()))
    }

    /// The key as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of the file or object below SOURCE. Not always UTF-8.
    #[must_use]
    pub fn name(&self) -> Cow<'_, [u8]> {
        if !self.0.contains(ESCAPED) {
            return Cow::Borrowed(self.0.as_bytes());
        }
        let mut name = Vec::with_capacity(self.0.len());
        for (at, segment) in self.0.split('/').enumerate() {
            if at > 0 {
                name.push(b'/');
            }
            match segment.strip_prefix(ESCAPED) {
                Some(escaped) => name.extend(unescape(escaped)),
                None => name.extend(segment.as_bytes()),
            }
        }
        Cow::Owned(name)
    }

    /// The path of the file below a folder on this machine. `None` if no file can have that path: it
    /// has a segment that is empty, `.` or `..`, or a NUL.
    #[must_use]
    pub fn local_path(&self) -> Option<PathBuf> {
        let name = self.name();
        let climbs = |segment: &[u8]| matches!(segment, b"" | b"." | b"..");
        if name.contains(&0) || name.split(|byte| *byte == b'/').any(climbs) {
            return None;
        }
        Some(PathBuf::from(OsStr::from_bytes(&name)))
    }

    /// The name of the folder that the image lies in. In a data set of class folders this is its
    /// class.
    #[must_use]
    pub fn folder(&self) -> Option<&str> {
        let (folders, _name) = self.0.rsplit_once('/')?;
        folders.rsplit('/').next()
    }

    /// Whether a segment starts with a dot, as in `.DS_Store` and `.git/…`. `.` and `..` do not
    /// count: they are no names of hidden files.
    #[must_use]
    pub fn is_hidden(&self) -> bool {
        let name = self.name();
        let is_hidden =
            |segment: &[u8]| segment.starts_with(b".") && !matches!(segment, b"." | b"..");
        name.split(|byte| *byte == b'/').any(is_hidden)
    }
}

fn too_long(name: &[u8], limit: usize) -> ImageKeyError {
    let text = String::from_utf8_lossy(name);
    let start = text.chars().filter(|c| !c.is_control()).take(60).collect();
    ImageKeyError::TooLong { bytes: name.len(), limit, start }
}

/// The escaped form of a segment that needs one.
fn escape(segment: &[u8]) -> Option<String> {
    let is_plain = str::from_utf8(segment).is_ok_and(|text| {
        !matches!(text, "" | "." | "..")
            && !text.starts_with(ESCAPED)
            && !text.starts_with(SHORTENED)
            && !text.chars().any(char::is_control)
    });
    if is_plain {
        return None;
    }
    let mut escaped = ESCAPED.to_owned();
    if matches!(segment, b"." | b"..") {
        escaped.push_str(&encoded(segment));
        return Some(escaped);
    }
    for chunk in segment.utf8_chunks() {
        for character in chunk.valid().chars() {
            if character == '%' || character.is_control() {
                escaped.push_str(&encoded(character.encode_utf8(&mut [0; 4]).as_bytes()));
            } else {
                escaped.push(character);
            }
        }
        escaped.push_str(&encoded(chunk.invalid()));
    }
    Some(escaped)
}

fn encoded(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("%{byte:02X}")).collect()
}

fn unescape(escaped: &str) -> Vec<u8> {
    percent_decode_str(escaped).collect()
}

impl Ord for ImageKey {
    fn cmp(&self, other: &Self) -> Ordering {
        self.name().cmp(&other.name())
    }
}

impl PartialOrd for ImageKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
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
        for text in
            ["a b%2e#é?.jpg", "..jpg", "a/...b", "猫/写真.png", "back\\slash.jpg", "%25=", "a%=b"]
        {
            assert_eq!(ImageKey::parse(text).unwrap().as_str(), text);
            assert_eq!(ImageKey::from_name(text.as_bytes()).unwrap().as_str(), text);
        }
    }

    #[test]
    fn names_that_no_key_can_have_are_escaped_and_come_back() {
        for (name, key) in [
            (&b"caf\xe9.jpg"[..], "%=caf%E9.jpg"),
            (b"a\nb\t%.jpg", "%=a%0Ab%09%25.jpg"),
            (b"x\x1b[31m/a.jpg", "%=x%1B[31m/a.jpg"),
            ("n\u{85}l.jpg".as_bytes(), "%=n%C2%85l.jpg"),
            (b"a//b.jpg", "a/%=/b.jpg"),
            (b"/a.jpg", "%=/a.jpg"),
            (b"a/../b", "a/%=%2E%2E/b"),
            (b"a/./b", "a/%=%2E/b"),
            (b"", "%="),
            (b"%=x.jpg", "%=%25=x.jpg"),
            (b"%~x.jpg", "%=%25~x.jpg"),
        ] {
            let parsed = ImageKey::from_name(name).unwrap();
            assert_eq!(parsed.as_str(), key);
            assert_eq!(&*parsed.name(), name);
            assert_eq!(ImageKey::parse(key).unwrap(), parsed);
        }
        // Each name has one key only.
        for text in ["%=a.jpg", "%=%e9", "%=%41%E9", "%~a.jpg", "a/%=", "%=a%2Fb%E9"] {
            let parsed = ImageKey::parse(text);
            assert!(text == "a/%=" || parsed.is_err(), "{text:?} was taken");
        }
    }

    #[test]
    fn an_escaped_key_leads_to_no_other_folder() {
        for name in [&b"../secret.jpg"[..], b"a/../../b.jpg", b"/etc/passwd", b"a//b", b"a\0b", b""]
        {
            assert_eq!(ImageKey::from_name(name).unwrap().local_path(), None, "{name:?}");
        }
        let path = ImageKey::from_name(b"cat/a\xff.jpg").unwrap().local_path().unwrap();
        assert_eq!(path.as_os_str().as_bytes(), b"cat/a\xff.jpg");
    }

    #[test]
    fn hidden_files_are_hidden_in_any_writing() {
        for (name, hidden) in [
            (&b".git/x"[..], true),
            (b"a/.x\xff", true),
            (b"a/../x", false),
            (b"a.b/x", false),
            (b"./x", false),
        ] {
            assert_eq!(ImageKey::from_name(name).unwrap().is_hidden(), hidden, "{name:?}");
        }
    }

    proptest! {
        #[test]
        fn keys_survive_json(text in "[^\\p{Cc}/]{1,20}(/[^\\p{Cc}/]{1,20}){0,3}") {
            prop_assume!(text.split('/').all(|s| s != "." && s != ".." && !s.starts_with('%')));
            let key = ImageKey::parse(text).unwrap();
            let json = serde_json::to_string(&key).unwrap();
            prop_assert_eq!(serde_json::from_str::<ImageKey>(&json).unwrap(), key);
        }

        #[test]
        fn every_name_has_a_key_of_its_own_in_the_same_order(
            one in proptest::collection::vec(odd_byte(), 0..12),
            other in proptest::collection::vec(odd_byte(), 0..12),
        ) {
            let [a, b] = [&one, &other].map(|name| ImageKey::from_name(name).unwrap());
            prop_assert_eq!(&*a.name(), &one[..]);
            prop_assert_eq!(&ImageKey::parse(a.as_str()).unwrap(), &a);
            prop_assert_eq!(a.cmp(&b), one.cmp(&other));
            prop_assert_eq!(a == b, one == other);
        }
    }

    fn odd_byte() -> impl Strategy<Value = u8> {
        prop_oneof![
            proptest::sample::select(b"a./%=~2E\n\xff\xc3\xa9\x00".to_vec()),
            proptest::num::u8::ANY
        ]
    }
}
