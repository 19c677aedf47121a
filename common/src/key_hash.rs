//! Keys of images as hashes: so a set of millions takes the same memory whatever the keys' length.

use std::hash::{BuildHasher, RandomState};

use crate::key::ImageKey;

/// The hash of a key, with a secret of this process: nobody can construct two keys with the same
/// hash. Among a billion keys, two have the same hash by chance once in 10^20 times.
pub type KeyHash = [u64; 2];

/// Hashes keys. Hashes of different hashers can't be compared, except those of a clone.
#[derive(Clone, Debug, Default)]
pub struct ImageKeyHasher([RandomState; 2]);

impl ImageKeyHasher {
    /// The hash of a key.
    #[must_use]
    pub fn hash(&self, key: &ImageKey) -> KeyHash {
        self.0.each_ref().map(|hasher| hasher.hash_one(key))
    }
}
