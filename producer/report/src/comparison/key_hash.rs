//! Keys of two runs are compared by their hashes: those of a run's images then fit into memory.

use std::hash::{DefaultHasher, Hasher};

/// A hash of 64 bits. Two of a million keys have the same hash once in 40 million runs.
pub(super) fn hash_key(key: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(key.as_bytes());
    hasher.finish()
}
