//! The keys of a manifest, without what is known of each.

use std::collections::HashSet;

use futures::TryStreamExt;

use super::{ManifestError, read};
use crate::key::ImageKey;
use crate::key_hash::{ImageKeyHasher, KeyHash};
use crate::run::RunRecord;
use crate::store::Folder;

/// The images of a run. Each takes 16 to 34 bytes here.
#[derive(Debug, Default)]
pub struct ManifestKeys {
    hashes: HashSet<KeyHash>,
    hasher: ImageKeyHasher,
}

impl ManifestKeys {
    /// Reads the keys of the manifest that `run.json` names; `None` if it names none.
    ///
    /// # Errors
    /// If the manifest can't be read.
    pub async fn read(out: &Folder, record: &RunRecord) -> Result<Option<Self>, ManifestError> {
        let Some((generation, images)) = record.listed_manifest() else { return Ok(None) };
        let mut keys = Self::default();
        let mut entries = read(out, generation, Some(images));
        while let Some(entry) = entries.try_next().await? {
            keys.hashes.insert(keys.hasher.hash(&entry.key));
        }
        Ok(Some(keys))
    }

    /// True if the run has an image with this key.
    #[must_use]
    pub fn contains(&self, key: &ImageKey) -> bool {
        self.hashes.contains(&self.hasher.hash(key))
    }
}
