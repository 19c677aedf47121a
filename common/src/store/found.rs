//! What a listing finds, before its names become keys.

use chrono::{DateTime, Utc};
use object_store::ObjectMeta;

use super::listed_names;
use crate::skipped::SkipReason;

/// The end of the names of Hadoop's folders.
const HADOOP_FOLDER: &[u8] = b"_$folder$";

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

    /// True for an object that stands for a folder. Its name is empty (for the listed folder itself)
    /// or ends in `/`, as stores' consoles make them; or Hadoop made it, and it is empty.
    pub(super) fn is_folder_marker(&self) -> bool {
        self.name.is_empty()
            || self.name.ends_with(b"/")
            || (self.size_bytes == 0 && self.name.ends_with(HADOOP_FOLDER))
    }
}

#[cfg(test)]
mod tests {
    use object_store::path::Path;

    use super::*;

    #[test]
    fn an_object_in_place_of_a_folder_is_told_by_its_name() {
        for (name, size, is_marker) in [
            ("", 0, true),
            ("cat/", 0, true),
            ("cat/", 11, true),
            ("cat_$folder$", 0, true),
            ("cat_$folder$", 11, false),
            ("cat", 0, false),
            ("cat/a.jpg", 0, false),
        ] {
            let object = FoundObject {
                name: name.into(),
                etag: None,
                size_bytes: size,
                last_modified: DateTime::UNIX_EPOCH,
            };
            assert_eq!(object.is_folder_marker(), is_marker, "{name} of {size} bytes");
        }
    }

    #[test]
    fn the_marker_of_the_listed_folder_has_no_name_and_breaks_nothing() {
        let object = |location| ObjectMeta {
            location,
            last_modified: DateTime::UNIX_EPOCH,
            size: 0,
            e_tag: None,
            version: None,
        };
        let found = |location: &str| {
            FoundObject::in_store(object(Path::parse(location).unwrap()), "images/".len())
        };
        assert_eq!(found("%=images%2F").unwrap().name, b"");
        assert_eq!(found("images/a.jpg").unwrap().name, b"a.jpg");
        assert_eq!(found("images"), None);
    }
}
