//! Images that are there twice: the same file, or nearly the same picture.
//!
//! Candidates are the same digest, perceptual hashes a few bits apart, or embeddings in nearly
//! the same direction from their mean (the signs of a random projection: SimHash, Charikar 2002).
//! Candidates of the last two kinds are duplicates where both the hashes and the embeddings say
//! so, one of them may be the stronger.

use std::collections::HashSet;

use super::known::{Known, NONE};
use super::{Found, Problem};
use crate::disjoint_sets::DisjointSets;
use crate::hamming;
use crate::sketches::{self, Centred};
use crate::table::{TableError, TableReader};

/// Bits in which perceptual hashes of one picture, encoded again or resized, may differ.
const CLOSE_HASHES: u32 = 7;
/// Bits in which the signs of two embeddings of nearly the same picture may differ.
const CLOSE_SIGNS: u32 = 7;
/// What the embeddings' cosine, taken from their mean, must reach by the bits that perceptual
/// hashes differ in: hashes further apart need embeddings that are closer.
const COSINES: [(u32, f32); 4] = [(2, 0.80), (4, 0.90), (7, 0.95), (16, 0.985)];
/// Without embeddings, hashes that may be called the same.
const HASHES_ALONE: u32 = 3;
/// Entropy of brightness below which a picture's hash says nothing.
const TELLING: f32 = 0.2;
/// Pairs looked at: more are no list for a person.
const MAX_PAIRS: usize = 4_000_000;

/// Looks for images that are there twice.
pub(super) fn find(
    table: &TableReader,
    known: &Known,
    notes: &mut Vec<String>,
) -> Result<Vec<Found>, TableError> {
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
    let (hashes, telling) = hashes(table)?;
    let sketches = Centred::measure(table)?;
    let signs = sketches.as_ref().map(|centre| centre.signs(table)).transpose()?;

    let mut candidates = Candidates::default();
    candidates.add(&hashes, &telling, CLOSE_HASHES);
    if let Some((signs, there)) = &signs {
        candidates.add(signs, there, CLOSE_SIGNS);
    }
    if candidates.truncated {
        notes.push(
            "so many images are alike that not all near duplicates were looked for".to_owned(),
        );
    }
    let needed: HashSet<u32> =
        candidates.pairs.iter().flat_map(|&(one, other)| [one, other]).collect();
    let wanted = sketches.as_ref().map(|centre| centre.of_rows(table, &needed)).transpose()?;
    for (one, other) in candidates.pairs {
        let bits = (hashes[one as usize] ^ hashes[other as usize]).count_ones();
        let both_tell = telling[one as usize] && telling[other as usize];
        let cosine = wanted
            .as_ref()
            .and_then(|wanted| Some(sketches::cosine(wanted.get(&one)?, wanted.get(&other)?)));
        if both_tell && is_same(bits, cosine) {
            sets.unite(one as usize, other as usize);
        }
    }
    Ok(describe(&mut sets, &digests, known))
}

/// Whether hashes and embeddings together say that two pictures are one.
fn is_same(bits: u32, cosine: Option<f32>) -> bool {
    match cosine {
        Some(cosine) => COSINES.iter().any(|(most, least)| bits <= *most && cosine >= *least),
        None => bits <= HASHES_ALONE,
    }
}

/// The first 16 bytes of each file's digest; 0 without.
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

/// Each picture's hash, and whether it says anything.
fn hashes(table: &TableReader) -> Result<(Vec<u64>, Vec<bool>), TableError> {
    let (mut hashes, mut telling) = (Vec::new(), Vec::new());
    for group in 0..table.groups() {
        let information = table.floats(group, "information")?;
        for (at, hash) in table.texts(group, "perceptual_hash")?.into_iter().enumerate() {
            let hash = hash.and_then(|hash| u64::from_str_radix(&hash, 16).ok());
            telling.push(hash.is_some() && information[at] >= TELLING);
            hashes.push(hash.unwrap_or(0));
        }
    }
    Ok((hashes, telling))
}

fn unite_equal(digests: &[u128], sets: &mut DisjointSets) {
    let mut order: Vec<_> = (0..digests.len()).filter(|row| digests[*row] != 0).collect();
    order.sort_unstable_by_key(|row| (digests[*row], *row));
    for pair in order.windows(2) {
        if digests[pair[0]] == digests[pair[1]] {
            sets.unite(pair[0], pair[1]);
        }
    }
}

/// Pairs of rows that may be the same picture.
#[derive(Default)]
struct Candidates {
    pairs: Vec<(u32, u32)>,
    truncated: bool,
}

impl Candidates {
    /// Rows whose hashes differ in few bits; those with equal hashes are paired in a chain.
    fn add(&mut self, hashes: &[u64], usable: &[bool], bits: u32) {
        let row = |row: usize| u32::try_from(row).expect("fewer than four billion rows");
        let rows: Vec<u32> = (0..hashes.len()).filter(|at| usable[*at]).map(row).collect();
        let hashes: Vec<u64> = rows.iter().map(|row| hashes[*row as usize]).collect();
        let groups = hamming::groups_of_equal(&hashes);
        let members = |value: usize| groups.members(value).iter().map(|at| rows[*at as usize]);
        for value in 0..groups.values.len() {
            self.pairs.extend(members(value).zip(members(value).skip(1)));
        }
        let close = hamming::close_pairs(&groups.values, bits, MAX_PAIRS);
        self.truncated |= close.truncated || !close.thorough;
        let first = |value: u32| members(value as usize).next().expect("no group is empty");
        let close = close.pairs.iter().map(|&(one, other, _)| (first(one), first(other)));
        self.pairs.extend(close);
    }
}

/// One finding for each image of a group but its first.
fn describe(sets: &mut DisjointSets, digests: &[u128], known: &Known) -> Vec<Found> {
    let mut found = Vec::new();
    for (first, members) in sets.groups() {
        for row in members {
            let same_file = digests[row] != 0 && digests[row] == digests[first];
            let what = if same_file { "The same file" } else { "Nearly the same picture" };
            let (label, split) = (known.label[row], known.split[row]);
            let (other_label, other_split) = (known.label[first], known.split[first]);
            let (problem, score, reason) = if label != other_label && label.max(other_label) != NONE
            {
                let (one, other) = (known.names.name(label), known.names.name(other_label));
                let reason = format!("{what} is labelled {one} here and {other} there");
                (Problem::Conflict, 0.99, reason)
            } else if split != other_split && split.max(other_split) != NONE {
                let (one, other) = (known.splits.name(split), known.splits.name(other_split));
                let reason = format!("{what} is in {one} and in {other}: what is learnt is tested");
                (Problem::Leak, 0.97, reason)
            } else if same_file {
                (Problem::Exact, 0.8, format!("{what} is there twice"))
            } else {
                (Problem::Near, 0.7, format!("{what} is there twice"))
            };
            let other = Some(u32::try_from(first).expect("fewer than four billion rows"));
            found.push(Found { other, ..Found::problem(row, problem, score, reason) });
        }
    }
    found
}
