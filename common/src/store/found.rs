//! What a listing finds, before its names become keys.

use chrono::{DateTime, Utc};
use object_store::ObjectMeta;

use super::listed_names;
use crate::skipped::SkipReason;

/// An object, or an entry that is not one.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum FoundEntry {
    Object(FoundObject),
    Skipped(FoundOther),
}

/// An object.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct FoundObject {
    /// Its name below the listed folder. In a file system not always UTF-8.
    pub(super) name: Vec<u8>,
    pub(super) etag: Option<String>,
    pub(super) size_bytes: u64,
    pub(super) last_modified: DateTime<Utc>,
}

/// An entry of a file system that is neither a file nor a folder with files.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct FoundOther {
    /// Its name below the listed folder; a folder's ends in `/`.
    pub(super) name: Vec<u8>,
    pub(super) reason: SkipReason,
    /// What the system says about it.
    pub(super) detail: Option<String>,
}

impl FoundObject {
    /// An object of a store, found below a prefix that has `prefix_bytes`, its `/` included. `None`
    /// if its name does not go on behind the prefix.
    pub(super) fn in_store(meta: ObjectMeta, prefix_bytes: usize) -> Option<Self> {
        let name = listed_names::name_of(&meta.location).as_bytes().get(prefix_bytes..)?.to_owned();
        Some(Self {
            name,
            etag: meta.e_tag,
            size_bytes: meta.size,
            last_modified: meta.last_modified,
        })
    }

    /// True for an empty object whose name is empty or ends in `/`.
    pub(super) fn is_folder_marker(&self) -> bool {
        self.size_bytes == 0 && (self.name.is_empty() || self.name.ends_with(b"/"))
    }
}
