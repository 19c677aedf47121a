//! Chooses images by the hash of their keys: spread over the data set whatever its order, and the same
//! ones each time.

use std::collections::BTreeSet;

use sha2::{Digest, Sha256};

/// The `count` images with the smallest hashes, of those that are added.
pub(crate) struct SmallestHashes {
    count: usize,
    rows: BTreeSet<(u64, u32)>,
}

impl SmallestHashes {
    pub(crate) fn new(count: usize) -> Self {
        Self { count, rows: BTreeSet::new() }
    }

    pub(crate) fn add(&mut self, hash: u64, row: u32) {
        let is_full = self.rows.len() == self.count;
        if is_full && self.rows.last().is_none_or(|(largest, _)| *largest < hash) {
            return;
        }
        self.rows.insert((hash, row));
        if self.rows.len() > self.count {
            self.rows.pop_last();
        }
    }

    /// Hashes and rows, in the order of the hashes.
    pub(crate) fn rows(&self) -> &BTreeSet<(u64, u32)> {
        &self.rows
    }

    /// As [`Self::rows`].
    pub(crate) fn into_rows(self) -> Vec<(u64, u32)> {
        self.rows.into_iter().collect()
    }
}

/// The hash that chooses images.
pub(crate) fn hash_of(key: &str) -> u64 {
    let digest = Sha256::digest(key);
    let (first, _) = digest.as_slice().split_first_chunk().expect("a digest has 32 bytes");
    u64::from_be_bytes(*first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_hashes_are_kept() {
        let mut smallest = SmallestHashes::new(2);
        for (hash, row) in [(5, 1), (3, 2), (9, 3), (1, 4)] {
            smallest.add(hash, row);
        }
        assert_eq!(smallest.into_rows(), [(1, 4), (3, 2)]);
    }
}
