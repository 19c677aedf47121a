//! Where another program finds an image: a root, and the image's name below it.
//!
//! A path and `s3://bucket/prefix` are followed by the name as it is, as Python's libraries and other
//! programs take it. After `https://…`, and after an address with a query, such as Label Studio's
//! `/data/local-files/?d=`, the name is percent-encoded, since a browser reads it.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};

/// What a URL has as it is, beside letters and digits.
const ENCODED: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

/// The start of addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressRoot {
    /// With what stands before the name: a `/`, or the `=` of a query.
    start: String,
    is_encoded: bool,
}

impl AddressRoot {
    /// The root of a path or URL. A `/` is added to it if it has no end of that kind.
    ///
    /// ```
    /// use camshaft_exchange::AddressRoot;
    ///
    /// let of = |root, name: &str| AddressRoot::new(root).of(name.as_bytes());
    /// assert_eq!(of("s3://data/pets", "cat/a b.jpg"), "s3://data/pets/cat/a b.jpg");
    /// assert_eq!(of("https://images.example/pets/", "cat/a b.jpg"), "https://images.example/pets/cat/a%20b.jpg");
    /// assert_eq!(of("/data/local-files/?d=pets", "cat/a&b.jpg"), "/data/local-files/?d=pets/cat/a%26b.jpg");
    /// ```
    #[must_use]
    pub fn new(root: &str) -> Self {
        let ends = ['/', '=', '?', '&'];
        let slash = if root.ends_with(ends) { "" } else { "/" };
        let lower = root.to_ascii_lowercase();
        let is_encoded =
            lower.starts_with("http://") || lower.starts_with("https://") || root.contains('?');
        Self { start: format!("{root}{slash}"), is_encoded }
    }

    /// The address of the file with this name below the root. A name that is no text is percent-encoded
    /// also where names usually are not.
    #[must_use]
    pub fn of(&self, name: &[u8]) -> String {
        match str::from_utf8(name) {
            Ok(name) if !self.is_encoded => format!("{}{name}", self.start),
            _ => format!("{}{}", self.start, percent_encode(name, ENCODED)),
        }
    }
}
