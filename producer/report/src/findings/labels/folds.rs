//! Divides images into folds, so that the head that judges an image has seen neither it nor one of its
//! group.
//!
//! Images that are duplicates of each other are one group, and so are those with the same folder at
//! the place in the path that the user names. The fold of a group follows from the hashes of its
//! images' keys: an image has the same fold in every report.

use std::collections::HashMap;

use sha2::{Digest, Sha256};

use super::super::finding::RowFinding;
use crate::error::ReportError;
use crate::similarity::disjoint_sets::DisjointSets;
use crate::table::TableReader;

/// The number of folds.
pub(super) const FOLDS: u8 = 5;
/// The fold of images in the hold-out, which no head learns from.
pub(super) const HELD_OUT: u8 = u8::MAX;

/// Where each image belongs.
#[derive(Debug)]
pub(super) struct Folds {
    /// By row: below [`FOLDS`], or [`HELD_OUT`].
    pub(super) of_row: Vec<u8>,
    /// By row, a number between 0 and 1 that samples are drawn by.
    pub(super) draws: Vec<f32>,
}

impl Folds {
    /// Assigns all rows. `holdout` is the share of the hold-out, `part` the folder that groups images,
    /// counted from 1. An error if no key has as many folders.
    pub(super) fn assign(
        table: &TableReader,
        duplicates: &[RowFinding],
        holdout: f64,
        part: Option<usize>,
    ) -> Result<Self, ReportError> {
        let mut sets = DisjointSets::new(table.rows());
        for found in duplicates {
            if let Some(other) = found.other {
                sets.unite(found.row as usize, other as usize);
            }
        }
        let (mut hashes, mut folders) = (Vec::with_capacity(table.rows()), HashMap::new());
        let mut example = None;
        for group in 0..table.groups() {
            for key in table.texts(group, "key")? {
                let key = key.unwrap_or_default();
                if let Some(folder) = part.and_then(|part| folder(&key, part)) {
                    let row = hashes.len();
                    sets.unite(*folders.entry(folder.to_owned()).or_insert(row), row);
                }
                hashes.push(KeyHash::of(&key));
                example.get_or_insert(key);
            }
        }
        if let (Some(part), true, Some(example)) = (part, folders.is_empty(), example) {
            return Err(ReportError::NoSuchFolder { part, example });
        }
        let draws = hashes.iter().map(|hash| hash.draw).collect();
        for (first, others) in sets.groups() {
            // The least hash is that of the same key, in whatever order the store lists them.
            let members = || [first].into_iter().chain(others.iter().copied());
            let least = members().map(|row| hashes[row]).min_by_key(|hash| hash.group);
            members().for_each(|row| hashes[row] = least.expect("a group has images"));
        }
        let fold = |hash: &KeyHash| match hash.share() < holdout {
            true => HELD_OUT,
            false => hash.fold,
        };
        Ok(Self { of_row: hashes.iter().map(fold).collect(), draws })
    }
}

/// The `part`-th folder of a key, counted from 1; none if the key has fewer.
fn folder(key: &str, part: usize) -> Option<&str> {
    let (folders, _name) = key.rsplit_once('/')?;
    folders.split('/').nth(part.checked_sub(1)?)
}

/// What follows from an image's key.
#[derive(Clone, Copy)]
struct KeyHash {
    group: u64,
    fold: u8,
    draw: f32,
}

impl KeyHash {
    /// By SHA-256, which is the same on every machine and in every version.
    fn of(key: &str) -> Self {
        let hash = Sha256::digest(key.as_bytes());
        let number = |at: usize| u64::from_le_bytes(std::array::from_fn(|byte| hash[at + byte]));
        let fold = (number(8) % u64::from(FOLDS)) as u8;
        Self { group: number(0), fold, draw: (number(16) >> 40) as f32 / (1_u32 << 24) as f32 }
    }

    /// A number between 0 and 1.
    fn share(self) -> f64 {
        // Another part of the hash than the order of a group's members.
        (self.group.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_counted_from_the_first() {
        assert_eq!(folder("train/p7/a.jpg", 2), Some("p7"));
        assert_eq!(folder("train/p7/a.jpg", 3), None);
        assert_eq!(folder("train/p7/a.jpg", 0), None);
        assert_eq!(folder("a.jpg", 1), None);
    }

    #[test]
    fn folds_and_shares_of_keys_are_even() {
        let hashes: Vec<_> = (0..5000).map(|at| KeyHash::of(&format!("cat/{at}.jpg"))).collect();
        for fold in 0..FOLDS {
            let count = hashes.iter().filter(|hash| hash.fold == fold).count();
            assert!((900..1100).contains(&count), "{count} in fold {fold}");
        }
        let held_out = hashes.iter().filter(|hash| hash.share() < 0.1).count();
        assert!((430..570).contains(&held_out), "{held_out}");
        let drawn = hashes.iter().filter(|hash| hash.draw < 0.3).count();
        assert!((1400..1600).contains(&drawn), "{drawn}");
    }
}
