//! A line of a manifest.

use std::io::{self, BufRead, Read};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::key::ImageKey;

/// The longest line: the longest key and label, of which JSON may write one byte as six.
const MAX_LINE_BYTES: u64 = 512 * 1024;

/// An image of a run, and what counts as its result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestEntry {
    /// The image below SOURCE.
    pub key: ImageKey,
    /// The store's entity tag when it was listed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub etag: Option<String>,
    /// Its size in bytes when it was listed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub size: Option<u64>,
    /// True if the list names it, and its object was looked for and not there.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub absent: bool,
    /// Its label, as a folder or list gives it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub label: Option<String>,
    /// A result counts if it was written at this time of the store's clock or later, in milliseconds
    /// since 1970. Absent if the image has a result that was kept.
    #[serde(
        with = "chrono::serde::ts_milliseconds_option",
        skip_serializing_if = "Option::is_none",
        default
    )]
    pub since: Option<DateTime<Utc>>,
}

impl ManifestEntry {
    /// True if a result that was written at this time is a result of the image.
    #[must_use]
    pub fn counts(&self, written: DateTime<Utc>) -> bool {
        self.since.is_none_or(|since| written >= since)
    }

    /// Roughly, the memory that its texts take.
    pub(super) fn text_bytes(&self) -> usize {
        let length = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        self.key.as_str().len() + length(&self.etag) + length(&self.label)
    }

    /// Appends the entry's line.
    pub(super) fn write(&self, text: &mut Vec<u8>) {
        serde_json::to_writer(&mut *text, self).expect("an entry has only strings and numbers");
        text.push(b'\n');
    }

    /// Reads the next line; `None` at the end. `line` is room for it.
    pub(super) fn read(
        lines: &mut impl BufRead,
        line: &mut Vec<u8>,
    ) -> io::Result<Option<ManifestEntry>> {
        line.clear();
        // A file without line ends may have any size: no more is read than a line may have.
        if Read::take(lines, MAX_LINE_BYTES).read_until(b'\n', line)? == 0 {
            return Ok(None);
        }
        Ok(Some(serde_json::from_slice(line)?))
    }
}
