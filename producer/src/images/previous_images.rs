//! The images of the run's previous enqueue or audit, from its manifest: what they were like, and since
//! when their results count.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use camshaft_common::entity_tag;
use camshaft_common::key_hash::{ImageKeyHasher, KeyHash};
use camshaft_common::location::Location;
use camshaft_common::manifest::{self, ManifestEntry, ManifestError};
use camshaft_common::run::Generation;
use camshaft_common::store::Folder;
use chrono::{DateTime, Utc};
use futures::TryStreamExt;

use crate::images::found_image::FoundImage;

/// The images of a manifest. There may be millions: each takes 47 to 94 bytes here.
#[derive(Debug)]
pub(crate) struct PreviousImages {
    by_key: HashMap<KeyHash, Fingerprint>,
    hasher: ImageKeyHasher,
    texts: RandomState,
    /// True if entity tags are those of this machine's files.
    has_local_etags: bool,
}

/// What an image was like. Two images have the same hash by chance once in 10^19 times.
#[derive(Clone, Copy, Debug)]
struct Fingerprint {
    /// Of its entity tag and size, or [`UNKNOWN`], or [`GONE`].
    content: u64,
    label: u64,
    /// In milliseconds; [`KEPT`] if any result counts.
    since: i64,
}

/// A list named the image, and nobody looked at its object.
const UNKNOWN: u64 = 0;
/// There was no object.
const GONE: u64 = 1;
const KEPT: i64 = i64::MIN;

/// What the previous manifest says of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PreviousImage {
    /// True if the image has another content or another label now.
    pub(crate) is_changed: bool,
    /// True if it is known what the image was like, or that it was not there.
    pub(crate) is_known: bool,
    /// A result counts if it was written at this time or later; any result if it is `None`.
    pub(crate) since: Option<DateTime<Utc>>,
}

impl PreviousImages {
    /// No image yet, of a SOURCE at this place.
    #[must_use]
    pub(super) fn new(source: &Location) -> Self {
        Self {
            by_key: HashMap::new(),
            hasher: ImageKeyHasher::default(),
            texts: RandomState::new(),
            has_local_etags: source.local_path().is_some(),
        }
    }

    /// Reads a manifest of `images` images, if that number is known.
    ///
    /// # Errors
    /// If the manifest can't be read.
    pub(crate) async fn read(
        out: &Folder,
        generation: Generation,
        images: Option<u64>,
        source: &Location,
    ) -> Result<Self, ManifestError> {
        let mut previous = Self::new(source);
        let mut entries = manifest::read(out, generation, images);
        while let Some(entry) = entries.try_next().await? {
            previous.insert(&entry);
        }
        Ok(previous)
    }

    pub(super) fn insert(&mut self, entry: &ManifestEntry) {
        let ManifestEntry { key, etag, size, gone, label, since } = entry;
        let fingerprint = Fingerprint {
            content: self.content(etag.as_deref(), *size, *gone),
            label: self.texts.hash_one(label),
            since: since.map_or(KEPT, |since| since.timestamp_millis()),
        };
        self.by_key.insert(self.hasher.hash(key), fingerprint);
    }

    /// What the manifest says of an image; `None` if it doesn't have it.
    #[must_use]
    pub(crate) fn get(&self, image: &FoundImage) -> Option<PreviousImage> {
        let before = self.by_key.get(&self.hasher.hash(&image.key))?;
        let has_other_label = self.texts.hash_one(&image.label) != before.label;
        let is_changed = self.differs(image, before) || has_other_label;
        let is_known = before.content != UNKNOWN;
        let since = (before.since != KEPT).then_some(before.since);
        let since = since.and_then(DateTime::from_timestamp_millis);
        Some(PreviousImage { is_changed, is_known, since })
    }

    /// True if the image has another content than the manifest says.
    #[must_use]
    pub(crate) fn has_other_content(&self, image: &FoundImage) -> bool {
        let before = self.by_key.get(&self.hasher.hash(&image.key));
        before.is_some_and(|before| self.differs(image, before))
    }

    fn differs(&self, image: &FoundImage, before: &Fingerprint) -> bool {
        let content = self.content(image.etag.as_deref(), image.size_bytes, image.is_gone);
        ![content, before.content].contains(&UNKNOWN) && content != before.content
    }

    fn content(&self, etag: Option<&str>, size: Option<u64>, is_gone: bool) -> u64 {
        if is_gone {
            return GONE;
        }
        if etag.is_none() && size.is_none() {
            return UNKNOWN;
        }
        let etag = etag.map(|etag| entity_tag::comparable(etag, self.has_local_etags));
        self.texts.hash_one((etag, size)).max(GONE + 1)
    }
}

#[cfg(test)]
mod tests {
    use camshaft_common::key::ImageKey;

    use super::*;

    /// The entity tag of an image that is not there.
    const GONE: &str = "gone";

    fn is_changed(source: &str, before: (&str, u64, &str), now: (&str, u64, &str)) -> bool {
        let mut previous = PreviousImages::new(&source.parse().unwrap());
        let key = ImageKey::parse("a.jpg").unwrap();
        let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let size = |size: u64| Some(size).filter(|size| *size > 0);
        previous.insert(&ManifestEntry {
            key: key.clone(),
            etag: text(before.0),
            size: size(before.1),
            gone: before.0 == GONE,
            label: text(before.2),
            since: None,
        });
        let image = FoundImage {
            key,
            etag: text(now.0),
            size_bytes: size(now.1),
            last_modified: None,
            is_gone: now.0 == GONE,
            label: text(now.2),
        };
        previous.get(&image).unwrap().is_changed
    }

    #[test]
    fn another_content_or_label_is_a_change_and_an_unknown_content_is_none() {
        let bucket = "s3://bucket/images";
        for (before, now, expected) in [
            (("\"a-1\"", 3, "cat"), ("\"a-1\"", 3, "cat"), false),
            (("\"a-1\"", 3, "cat"), ("\"b-1\"", 3, "cat"), true),
            (("\"a-1\"", 3, "cat"), ("\"a-1\"", 4, "cat"), true),
            (("\"a-1\"", 3, "cat"), ("\"a-1\"", 3, "dog"), true),
            (("\"a-1\"", 3, "cat"), ("\"a-1\"", 3, ""), true),
            (("", 0, "cat"), ("\"a-1\"", 3, "cat"), false),
            (("", 0, ""), ("", 0, ""), false),
            ((GONE, 0, ""), ("\"a-1\"", 3, ""), true),
            (("\"a-1\"", 3, ""), (GONE, 0, ""), true),
            ((GONE, 0, ""), (GONE, 0, ""), false),
            (("", 0, ""), (GONE, 0, ""), false),
            ((GONE, 0, ""), ("", 0, ""), false),
        ] {
            assert_eq!(is_changed(bucket, before, now), expected, "{before:?} {now:?}");
        }
    }

    #[test]
    fn a_local_file_with_another_inode_is_the_same_and_with_another_time_is_not() {
        let before = ("\"1f-5a-3\"", 3, "cat");
        for (etag, changed) in [("\"20-5a-3\"", false), ("\"1f-59-3\"", true)] {
            assert_eq!(is_changed("/images", before, (etag, 3, "cat")), changed, "{etag}");
        }
    }
}
