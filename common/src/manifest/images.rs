//! The images of a manifest, to be compared with results, and with what SOURCE has now.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use chrono::{DateTime, Utc};
use futures::TryStreamExt;

use super::{ManifestEntry, ManifestError, read};
use crate::entity_tag;
use crate::key::ImageKey;
use crate::key_hash::{ImageKeyHasher, KeyHash};
use crate::location::Location;
use crate::run::{Generation, RunRecord};
use crate::store::Folder;

/// The images of a run. Each takes 41 to 82 bytes here.
#[derive(Debug, Default)]
pub struct ManifestImages {
    by_key: HashMap<KeyHash, Fingerprint>,
    hasher: ImageKeyHasher,
    texts: RandomState,
    /// True if entity tags are those of this machine's files.
    has_local_etags: bool,
}

/// What the manifest says of an image. Two texts have the same hash by chance once in 10^19 times.
#[derive(Clone, Copy, Debug)]
struct Fingerprint {
    content: Content,
    label: u64,
    /// In milliseconds; [`KEPT`] if any result counts.
    since: i64,
}

const KEPT: i64 = i64::MIN;

/// Which content an image had, in eight bytes: an odd hash of its entity tag, or an even number if only
/// its size is known or it was not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Content(u64);

impl Content {
    const UNKNOWN: Self = Self(0);
    /// No size is a multiple of four.
    const ABSENT: Self = Self(4);

    fn is_etag(self) -> bool {
        self.0 & 1 == 1
    }

    /// True unless both are known by the same means, and differ. An entity tag tells more than a size:
    /// a store that unpacks what it sends lists other sizes than are read.
    fn may_be(self, etag: Self, size: Self) -> bool {
        let other = if self.is_etag() { etag } else { size };
        [self, other].contains(&Self::UNKNOWN) || self == other
    }
}

/// An image of a manifest.
#[derive(Clone, Copy, Debug)]
pub struct ManifestImage<'a> {
    images: &'a ManifestImages,
    fingerprint: Fingerprint,
}

impl ManifestImages {
    /// Reads the manifest that `run.json` names; `None` if it names none.
    ///
    /// # Errors
    /// If the manifest can't be read.
    pub async fn read(out: &Folder, record: &RunRecord) -> Result<Option<Self>, ManifestError> {
        let Some((generation, images)) = record.listed_manifest() else { return Ok(None) };
        let place = record.images_place();
        Self::read_generation(out, generation, Some(images), place.as_ref()).await.map(Some)
    }

    /// Reads the manifest of a generation, with `images` images if that number is known, of a SOURCE at
    /// this place.
    ///
    /// # Errors
    /// If the manifest can't be read.
    pub async fn read_generation(
        out: &Folder,
        generation: Generation,
        images: Option<u64>,
        place: Option<&Location>,
    ) -> Result<Self, ManifestError> {
        let mut this = Self::of(place);
        let mut entries = read(out, generation, images);
        while let Some(entry) = entries.try_next().await? {
            this.insert(&entry);
        }
        Ok(this)
    }

    /// No image yet, of a SOURCE at this place.
    #[must_use]
    pub fn of(place: Option<&Location>) -> Self {
        let has_local_etags = place.is_some_and(|place| place.local_path().is_some());
        Self { has_local_etags, ..Self::default() }
    }

    /// Adds an image.
    pub fn insert(&mut self, entry: &ManifestEntry) {
        let ManifestEntry { key, etag, size, absent, label, since } = entry;
        let content = match self.content_of_etag(etag.as_deref()) {
            _ if *absent => Content::ABSENT,
            Content::UNKNOWN => self.content_of_size(*size),
            content => content,
        };
        let label = self.texts.hash_one(label.as_deref());
        let since = since.map_or(KEPT, |since| since.timestamp_millis());
        let hash = self.hasher.hash(key);
        self.by_key.insert(hash, Fingerprint { content, label, since });
    }

    /// What the manifest says of an image; `None` if it doesn't have it.
    #[must_use]
    pub fn get(&self, key: &ImageKey) -> Option<ManifestImage<'_>> {
        let fingerprint = *self.by_key.get(&self.hasher.hash(key))?;
        Some(ManifestImage { images: self, fingerprint })
    }

    fn content_of_etag(&self, etag: Option<&str>) -> Content {
        let etag = etag.map(|etag| entity_tag::comparable(etag, self.has_local_etags));
        etag.map_or(Content::UNKNOWN, |etag| Content(self.texts.hash_one(etag) | 1))
    }

    fn content_of_size(&self, size: Option<u64>) -> Content {
        size.map_or(Content::UNKNOWN, |size| Content((self.texts.hash_one(size) | 1) << 1))
    }
}

impl ManifestImage<'_> {
    /// A result counts if it was written at this time or later. `None` if a result was there and kept,
    /// whichever enqueue or audit it is of.
    #[must_use]
    pub fn since(&self) -> Option<DateTime<Utc>> {
        let since = self.fingerprint.since;
        (since != KEPT).then(|| DateTime::from_timestamp_millis(since)).flatten()
    }

    /// True if it is known what the image was like, or that it was not there. A list names images at
    /// which nobody looks.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.fingerprint.content != Content::UNKNOWN
    }

    /// True if the entity tag of the image is known.
    #[must_use]
    pub fn has_etag(&self) -> bool {
        self.fingerprint.content.is_etag()
    }

    /// True if the image was looked for and not there.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        self.fingerprint.content == Content::ABSENT
    }

    /// False if the image had another content than one with this entity tag and size.
    #[must_use]
    pub fn may_have_content(&self, etag: Option<&str>, size: Option<u64>) -> bool {
        // Its failure may be of an object that was there once.
        if self.is_absent() {
            return true;
        }
        let (etag, size) = (self.images.content_of_etag(etag), self.images.content_of_size(size));
        self.fingerprint.content.may_be(etag, size)
    }

    /// True if the image had this label, or none.
    #[must_use]
    pub fn has_label(&self, label: Option<&str>) -> bool {
        self.images.texts.hash_one(label) == self.fingerprint.label
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_is_compared_by_what_both_sides_know() {
        let key = ImageKey::parse("a.jpg").unwrap();
        let quoted = Some("\"1f-5a-3\"");
        for (place, (etag, size), (now_etag, now_size), same) in [
            ("s3://bucket", (quoted, Some(3)), (quoted, Some(3)), true),
            ("s3://bucket", (quoted, Some(3)), (Some("1f-5a-3"), Some(3)), true),
            ("s3://bucket", (quoted, Some(3)), (quoted, Some(4)), true),
            ("s3://bucket", (quoted, Some(3)), (Some("\"20-5a-3\""), Some(3)), false),
            ("/images", (quoted, Some(3)), (Some("\"20-5a-3\""), Some(3)), true),
            ("/images", (quoted, Some(3)), (Some("\"1f-59-3\""), Some(3)), false),
            ("/images", (quoted, Some(3)), (None, Some(4)), true),
            ("s3://bucket", (None, Some(3)), (quoted, Some(3)), true),
            ("s3://bucket", (None, Some(3)), (quoted, Some(4)), false),
            ("s3://bucket", (None, None), (quoted, Some(4)), true),
            ("s3://bucket", (quoted, Some(3)), (None, None), true),
        ] {
            let mut images = ManifestImages::of(Some(&place.parse().unwrap()));
            let etag = etag.map(str::to_owned);
            let (label, since) = (Some("cat".to_owned()), None);
            images.insert(&ManifestEntry {
                key: key.clone(),
                etag: etag.clone(),
                size,
                absent: false,
                label,
                since,
            });
            let image = images.get(&key).unwrap();
            let asked = format!("{place} {etag:?} {size:?}, {now_etag:?} {now_size:?}");
            assert_eq!(image.may_have_content(now_etag, now_size), same, "{asked}");
            assert!(image.has_label(Some("cat")) && image.since().is_none());
            assert!(!image.has_label(Some("dog")) && !image.has_label(None));
        }
    }
}
