//! What the manifest of the run's previous enqueue or audit says of an image that SOURCE has now.

use camshaft_common::manifest::ManifestImages;
use chrono::{DateTime, Utc};

use crate::images::found_image::FoundImage;

/// An image as it was, compared with what it is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PreviousImage {
    /// True if the image has another content now, or has come or gone.
    pub(crate) has_other_content: bool,
    /// True if the image has another label now, or none, or one that it had not.
    pub(crate) has_other_label: bool,
    /// True if the entity tags tell whether the content is the same: a time tells less.
    pub(crate) has_etags: bool,
    /// True if it is known what the image was like, or that it was not there.
    pub(crate) is_known: bool,
    /// A result counts if it was written at this time or later; any result if it is `None`.
    pub(crate) since: Option<DateTime<Utc>>,
}

impl PreviousImage {
    /// `None` if the manifest doesn't have the image.
    #[must_use]
    pub(crate) fn of(previous: &ManifestImages, image: &FoundImage) -> Option<Self> {
        let before = previous.get(&image.key)?;
        let has_other_content = match (before.is_absent(), image.is_absent) {
            (true, true) => false,
            (true, false) => image.was_seen(),
            (false, true) => before.is_known(),
            (false, false) => !before.may_have_content(image.etag.as_deref(), image.size_bytes),
        };
        Some(Self {
            has_other_content,
            has_other_label: !before.has_label(image.label.as_deref()),
            has_etags: before.has_etag() && image.etag.is_some(),
            is_known: before.is_known(),
            since: before.since(),
        })
    }

    /// True if the image has another content or another label now.
    #[must_use]
    pub(crate) fn is_changed(&self) -> bool {
        self.has_other_content || self.has_other_label
    }
}

#[cfg(test)]
mod tests {
    use camshaft_common::key::ImageKey;
    use camshaft_common::manifest::ManifestEntry;

    use super::*;

    /// The entity tag of an image that is not there.
    const ABSENT: &str = "absent";

    fn is_changed(source: &str, before: (&str, u64, &str), now: (&str, u64, &str)) -> bool {
        let mut previous = ManifestImages::of(Some(&source.parse().unwrap()));
        let key = ImageKey::parse("a.jpg").unwrap();
        let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let size = |size: u64| Some(size).filter(|size| *size > 0);
        previous.insert(&ManifestEntry {
            key: key.clone(),
            etag: text(before.0),
            size: size(before.1),
            absent: before.0 == ABSENT,
            label: text(before.2),
            since: None,
        });
        let image = FoundImage {
            key,
            etag: text(now.0),
            size_bytes: size(now.1),
            last_modified: None,
            is_absent: now.0 == ABSENT,
            label: text(now.2),
        };
        PreviousImage::of(&previous, &image).unwrap().is_changed()
    }

    #[test]
    fn another_content_or_label_is_a_change_and_an_unknown_content_is_none() {
        let bucket = "s3://bucket/images";
        for (before, now, expected) in [
            (("\"a-1\"", 3, "cat"), ("\"a-1\"", 3, "cat"), false),
            (("\"a-1\"", 3, "cat"), ("\"b-1\"", 3, "cat"), true),
            (("", 3, "cat"), ("", 3, "cat"), false),
            (("", 3, "cat"), ("", 4, "cat"), true),
            (("\"a-1\"", 3, "cat"), ("\"a-1\"", 3, "dog"), true),
            (("\"a-1\"", 3, "cat"), ("\"a-1\"", 3, ""), true),
            (("", 0, "cat"), ("\"a-1\"", 3, "cat"), false),
            (("", 0, ""), ("", 0, ""), false),
            ((ABSENT, 0, ""), ("\"a-1\"", 3, ""), true),
            (("\"a-1\"", 3, ""), (ABSENT, 0, ""), true),
            ((ABSENT, 0, ""), (ABSENT, 0, ""), false),
            (("", 0, ""), (ABSENT, 0, ""), false),
            ((ABSENT, 0, ""), ("", 0, ""), false),
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
