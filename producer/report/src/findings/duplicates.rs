//! Searches for duplicates: images with the same file, or with nearly the same picture.
//!
//! Files with the same digest are duplicates. Two kinds of pairs are candidates: images whose
//! perceptual hashes are a few bits apart, and images whose embeddings point in nearly the same
//! direction (by the signs of a random projection: SimHash, Charikar 2002). A candidate is a
//! duplicate if hashes and embeddings together are close enough: the closer one is, the less the
//! other has to be.

use std::collections::HashSet;

use camshaft_common::label::fold;

use super::finding::{Problem, RowFinding};
use crate::predictions::sketches::{self, CentredSketches};
use crate::predictions::{ImageClasses, NO_NAME};
use crate::similarity::close_hashes;
use crate::similarity::disjoint_sets::DisjointSets;
use crate::table::{TableError, TableReader};

/// The most bits by which the perceptual hashes of a candidate differ. A picture that is encoded
/// again or resized stays below.
const MAX_HASH_BITS: u32 = 7;
/// The most bits by which the signs of the embeddings of a candidate differ.
const MAX_SIGN_BITS: u32 = 7;
/// How close the embeddings of a duplicate are, by how far apart its hashes are.
const CLOSE_ENOUGH: [CloseEnough; 4] = [
    CloseEnough { max_hash_bits: 2, min_cosine: 0.80 },
    CloseEnough { max_hash_bits: 4, min_cosine: 0.90 },
    CloseEnough { max_hash_bits: 7, min_cosine: 0.95 },
    CloseEnough { max_hash_bits: 16, min_cosine: 0.985 },
];
/// The most bits by which the hashes of a duplicate differ if there are no embeddings.
const MAX_HASH_BITS_ALONE: u32 = 3;
/// The least entropy of brightness of a picture whose hash says anything.
const MIN_INFORMATION: f32 = 0.2;
/// The most candidates of each kind. Nobody could look through more.
const MAX_PAIRS: usize = 4_000_000;

/// A pair of thresholds that make a candidate a duplicate.
struct CloseEnough {
    max_hash_bits: u32,
    /// The least cosine of the two centred sketches.
    min_cosine: f32,
}

/// Searches all images. Of a group of duplicates, the first image gets no finding.
pub(super) fn find(
    table: &TableReader,
    classes: &ImageClasses,
    notes: &mut Vec<String>,
) -> Result<Vec<RowFinding>, TableError> {
    let rows = table.rows();
    let mut sets = DisjointSets::new(rows);
    let digests = digests(table)?;
    if digests.contains(&0) {
        let without = digests.iter().filter(|digest| **digest == 0).count();
        notes.push(format!(
            "duplicates were not looked for in {without} images: their files could not be read, or \
             their results are of an older version"
        ));
    }
    unite_equal(&digests, &mut sets);
    let hashes = PictureHashes::read(table)?;
    let sketches = CentredSketches::new(table)?;
    let signs = sketches.as_ref().map(|sketches| sketches.signs(table)).transpose()?;

    let mut candidates = CandidatePairs::default();
    candidates.add(&hashes.hashes, &hashes.usable, MAX_HASH_BITS);
    if let Some(signs) = &signs {
        candidates.add(&signs.bits, &signs.exists, MAX_SIGN_BITS);
    }
    if candidates.truncated {
        notes.push("too many images are alike: not all near duplicates were looked for".to_owned());
    }
    let needed: HashSet<u32> =
        candidates.pairs.iter().flat_map(|&(one, other)| [one, other]).collect();
    let sketches = sketches.as_ref().map(|all| all.of_rows(table, &needed)).transpose()?;
    for (one, other) in candidates.pairs {
        let cosine = sketches
            .as_ref()
            .and_then(|all| Some(sketches::cosine(all.get(&one)?, all.get(&other)?)));
        let (one, other) = (one as usize, other as usize);
        let usable = hashes.usable[one] && hashes.usable[other];
        let hash_bits = (hashes.hashes[one] ^ hashes.hashes[other]).count_ones();
        if usable && is_duplicate(hash_bits, cosine) {
            sets.unite(one, other);
        }
    }
    Ok(describe(&mut sets, &digests, classes))
}

/// Whether a candidate is a duplicate, by its hashes and embeddings together.
fn is_duplicate(hash_bits: u32, cosine: Option<f32>) -> bool {
    match cosine {
        Some(cosine) => CLOSE_ENOUGH
            .iter()
            .any(|limit| hash_bits <= limit.max_hash_bits && cosine >= limit.min_cosine),
        None => hash_bits <= MAX_HASH_BITS_ALONE,
    }
}

/// By row, the first 16 bytes of the file's digest; 0 without.
fn digests(table: &TableReader) -> Result<Vec<u128>, TableError> {
    let mut all = Vec::with_capacity(table.rows());
    for group in 0..table.groups() {
        let digests = table.texts(group, "digest")?.into_iter().map(|digest| {
            let digest = digest?;
            u128::from_str_radix(digest.strip_prefix("sha256:")?.get(..32)?, 16).ok()
        });
        all.extend(digests.map(|digest| digest.unwrap_or(0)));
    }
    Ok(all)
}

/// By row, the perceptual hash of the picture.
struct PictureHashes {
    /// 0 for a row without a hash.
    hashes: Vec<u64>,
    /// Whether there is a hash, of a picture with enough shades to tell it from others.
    usable: Vec<bool>,
}

impl PictureHashes {
    fn read(table: &TableReader) -> Result<Self, TableError> {
        let (mut hashes, mut usable) = (Vec::new(), Vec::new());
        for group in 0..table.groups() {
            let information = table.floats(group, "information")?;
            for (at, hash) in table.texts(group, "perceptual_hash")?.into_iter().enumerate() {
                let hash = hash.and_then(|hash| u64::from_str_radix(&hash, 16).ok());
                usable.push(hash.is_some() && information[at] >= MIN_INFORMATION);
                hashes.push(hash.unwrap_or(0));
            }
        }
        Ok(Self { hashes, usable })
    }
}

/// Joins the images whose files have the same digest.
fn unite_equal(digests: &[u128], sets: &mut DisjointSets) {
    let mut order: Vec<_> = (0..digests.len()).filter(|row| digests[*row] != 0).collect();
    order.sort_unstable_by_key(|row| (digests[*row], *row));
    for pair in order.windows(2) {
        if digests[pair[0]] == digests[pair[1]] {
            sets.unite(pair[0], pair[1]);
        }
    }
}

/// Pairs of rows that may be duplicates.
#[derive(Default)]
struct CandidatePairs {
    pairs: Vec<(u32, u32)>,
    /// Whether some candidates may be missing.
    truncated: bool,
}

impl CandidatePairs {
    /// Adds the pairs of rows whose hashes differ by at most `max_bits`. Rows with equal hashes
    /// form a chain of pairs.
    fn add(&mut self, hashes: &[u64], usable: &[bool], max_bits: u32) {
        let row = |row: usize| u32::try_from(row).expect("fewer than four billion rows");
        let rows: Vec<u32> = (0..hashes.len()).filter(|at| usable[*at]).map(row).collect();
        let hashes: Vec<u64> = rows.iter().map(|row| hashes[*row as usize]).collect();
        let groups = close_hashes::group_equal_hashes(&hashes);
        let members = |value: usize| groups.members(value).iter().map(|at| rows[*at as usize]);
        for value in 0..groups.values.len() {
            self.pairs.extend(members(value).zip(members(value).skip(1)));
        }
        let close = close_hashes::close_pairs(&groups.values, max_bits, MAX_PAIRS);
        self.truncated |= close.truncated || !close.thorough;
        let first = |value: u32| members(value as usize).next().expect("no group is empty");
        let close = close.pairs.iter().map(|&(one, other, _)| (first(one), first(other)));
        self.pairs.extend(close);
    }
}

/// The labels of two rows if they mean different classes. Labels that mean no class of the model
/// are compared as words.
fn different_labels(classes: &ImageClasses, one: usize, other: usize) -> Option<(&str, &str)> {
    let either = |column: &[u32]| {
        let (one, other) = (column[one], column[other]);
        let both = one != NO_NAME && other != NO_NAME;
        both.then(|| (classes.names.name(one), classes.names.name(other)))
    };
    match either(&classes.label) {
        Some(pair) => Some(pair).filter(|(one, other)| one != other),
        None => either(&classes.given).filter(|(one, other)| fold(one) != fold(other)),
    }
}

/// A finding for each image of a group except the first.
fn describe(sets: &mut DisjointSets, digests: &[u128], classes: &ImageClasses) -> Vec<RowFinding> {
    let mut found = Vec::new();
    for (first, members) in sets.groups() {
        for row in members {
            let same_file = digests[row] != 0 && digests[row] == digests[first];
            let what = if same_file { "The same file" } else { "Nearly the same picture" };
            let (split, other_split) = (classes.split[row], classes.split[first]);
            let (problem, score, reason) = if let Some((one, other)) =
                different_labels(classes, row, first)
            {
                let reason = format!("{what} is labelled {one} here and {other} there");
                (Problem::Conflict, 0.99, reason)
            } else if split != other_split && split.max(other_split) != NO_NAME {
                let (one, other) = (classes.splits.name(split), classes.splits.name(other_split));
                let reason = format!("{what} is in {one} and in {other}: what is learnt is tested");
                (Problem::Leak, 0.97, reason)
            } else if same_file {
                (Problem::Exact, 0.8, format!("{what} is there twice"))
            } else {
                (Problem::Near, 0.7, format!("{what} is there twice"))
            };
            let other = Some(u32::try_from(first).expect("fewer than four billion rows"));
            found.push(RowFinding { other, ..RowFinding::of_problem(row, problem, score, reason) });
        }
    }
    found
}
