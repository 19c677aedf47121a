//! An image of SOURCE, with what is known before it is read.

use camshaft_common::key::ImageKey;
use camshaft_common::store::{self, Listed};
use chrono::{DateTime, Utc};

use crate::images::list_lines::ListedImage;
use crate::images::source_config::LabelRule;

/// An image of SOURCE. A list names its images; only a store knows the rest of them.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct FoundImage {
    /// Its key.
    pub(crate) key: ImageKey,
    /// The store's entity tag, if a store listed it or its object was looked at.
    pub(crate) etag: Option<String>,
    /// Its size, if a store listed it or its object was looked at.
    pub(crate) size_bytes: Option<u64>,
    /// When it was last written, if a store listed it or its object was looked at.
    pub(crate) last_modified: Option<DateTime<Utc>>,
    /// True if a list names it, and its object was looked for and is not there.
    pub(crate) is_absent: bool,
    /// Its given class.
    pub(crate) label: Option<String>,
}

impl FoundImage {
    /// The image, labelled as `rule` says.
    #[must_use]
    pub(crate) fn with_label(mut self, rule: LabelRule) -> Self {
        match rule {
            LabelRule::None => self.label = None,
            LabelRule::Folder if self.label.is_none() => {
                self.label = self.key.folder().map(str::to_owned);
            }
            LabelRule::Folder => {}
        }
        self
    }

    /// The image, with what is known of its object.
    #[must_use]
    pub(super) fn with_object(self, object: Listed) -> Self {
        let Listed { path: _, etag, size_bytes, last_modified } = object;
        let (size_bytes, last_modified) = (Some(size_bytes), Some(last_modified));
        Self { etag, size_bytes, last_modified, is_absent: false, ..self }
    }

    /// The image, if its object is not there.
    #[must_use]
    pub(super) fn without_object(self) -> Self {
        Self { is_absent: true, ..self }
    }

    /// True if a store has told what it is like.
    #[must_use]
    pub(super) fn was_seen(&self) -> bool {
        self.size_bytes.is_some()
    }
}

impl From<store::ListedImage> for FoundImage {
    fn from(listed: store::ListedImage) -> Self {
        let store::ListedImage { key, etag, size_bytes, last_modified } = listed;
        Self {
            key,
            etag,
            size_bytes: Some(size_bytes),
            last_modified: Some(last_modified),
            is_absent: false,
            label: None,
        }
    }
}

impl From<ListedImage> for FoundImage {
    fn from(ListedImage { key, label, split: _, line: _ }: ListedImage) -> Self {
        Self { key, etag: None, size_bytes: None, last_modified: None, is_absent: false, label }
    }
}
