//! Groups of copies: which images show one picture, and which of them is the best to keep.
//!
//! Owns the forming of groups. A group is no chain: each image is a copy of the best one, or hardly
//! differs from an image that is. So a series of photographs, each much like the next, does not
//! become one group. Upstream: the pairs of copies. Downstream: the findings.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

use camshaft_common::label::fold;
use rayon::prelude::*;

use super::super::image_problems::is_grey;
use super::pictures::{Pictures, Relation};
use crate::predictions::{ImageClasses, NO_NAME};
use crate::similarity::disjoint_sets::DisjointSets;
use crate::table::{TableError, TableReader};

/// Of more pictures, only those are compared that the search has compared.
const MAX_COMPARED: usize = 128;

/// Images of one picture.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Group {
    /// The row of the best one.
    pub(super) best: u32,
    /// The others, by row, and how they were made from the best one.
    pub(super) copies: Vec<(u32, Relation)>,
}

/// What speaks for an image.
#[derive(Clone, Copy, Default)]
struct Quality {
    is_grey: bool,
    pixels: u64,
    bytes: u64,
}

/// Forms groups, in the order of their first rows.
pub(super) fn form_groups(
    pairs: &[(u32, u32)],
    pictures: &Pictures,
    table: &TableReader,
    classes: &ImageClasses,
) -> Result<Vec<Group>, TableError> {
    let mut sets = DisjointSets::new(pictures.file.len());
    for (row, file) in pictures.file.iter().enumerate() {
        if row != *file as usize {
            sets.unite(row, *file as usize);
        }
    }
    let mut compared = HashMap::<u32, Vec<u32>>::new();
    for &(one, other) in pairs {
        sets.unite(one as usize, other as usize);
        compared.entry(one).or_default().push(other);
        compared.entry(other).or_default().push(one);
    }
    let row = |row: usize| u32::try_from(row).expect("fewer than four billion rows");
    let sets: Vec<Vec<u32>> = sets
        .groups()
        .into_iter()
        .map(|(first, others)| std::iter::once(first).chain(others).map(row).collect())
        .collect();
    let qualities = read_qualities(table, sets.iter().flatten().copied())?;
    let former = GroupFormer { pictures, classes, qualities, compared };
    let mut groups: Vec<Group> = sets.par_iter().flat_map_iter(|set| former.split(set)).collect();
    groups.par_sort_unstable_by_key(Group::first_row);
    Ok(groups)
}

impl Group {
    fn first_row(&self) -> u32 {
        self.copies.iter().fold(self.best, |first, (row, _)| first.min(*row))
    }
}

struct GroupFormer<'a> {
    pictures: &'a Pictures,
    classes: &'a ImageClasses,
    qualities: HashMap<u32, Quality>,
    /// By row, the rows that the search found to be copies of it.
    compared: HashMap<u32, Vec<u32>>,
}

impl GroupFormer<'_> {
    /// Splits a set of images that pairs of copies join into groups around a best one each.
    fn split(&self, set: &[u32]) -> Vec<Group> {
        // Rows with the same file are one picture, whose best row stands for all.
        let mut files = BTreeMap::<u32, Vec<u32>>::new();
        for row in self.best_first(set) {
            files.entry(self.pictures.file[row as usize]).or_default().push(row);
        }
        let mut left: Vec<u32> = files.values().map(|rows| rows[0]).collect();
        left = self.best_first(&left);
        let is_large = left.len() > MAX_COMPARED;
        let mut groups = Vec::new();
        while let Some((&best, others)) = left.split_first() {
            let members = self.copies_of(best, others, is_large);
            let chosen: HashMap<u32, Relation> = members.iter().copied().collect();
            left = others.iter().copied().filter(|row| !chosen.contains_key(row)).collect();
            let of_file = |row: u32| files[&self.pictures.file[row as usize]].iter().skip(1);
            let same = of_file(best).map(|row| (*row, Relation::SameFile));
            let copies = members.iter().flat_map(|&(row, relation)| {
                std::iter::once(row).chain(of_file(row).copied()).map(move |row| (row, relation))
            });
            let mut copies: Vec<_> = same.chain(copies).collect();
            copies.sort_unstable_by_key(|(row, _)| *row);
            if !copies.is_empty() {
                groups.push(Group { best, copies });
            }
        }
        groups
    }

    /// The copies of `best` among `others`, and those that hardly differ from one of these.
    fn copies_of(&self, best: u32, others: &[u32], is_large: bool) -> Vec<(u32, Relation)> {
        let candidates = |row: u32, rows: &[u32]| -> Vec<u32> {
            let known = self.compared.get(&self.pictures.file[row as usize]);
            match known.filter(|_| is_large) {
                Some(known) => rows
                    .iter()
                    .copied()
                    .filter(|other| known.contains(&self.pictures.file[*other as usize]))
                    .collect(),
                None => rows.to_vec(),
            }
        };
        let mut left = others.to_vec();
        let mut members = Vec::new();
        for row in candidates(best, others) {
            if let Some(copies) = self.pictures.compare(best, row) {
                members.push((row, copies.relation));
            }
        }
        left.retain(|row| !members.iter().any(|(member, _)| member == row));
        let direct = members.clone();
        for (member, relation) in direct {
            for row in candidates(member, &left) {
                if self.pictures.compare(member, row).is_some_and(|copies| copies.is_strong) {
                    members.push((row, relation));
                    left.retain(|other| *other != row);
                }
            }
        }
        members
    }

    /// The rows, the best one first: with the label of most of them, then in colour, the largest picture,
    /// the least compressed, and the first.
    fn best_first(&self, rows: &[u32]) -> Vec<u32> {
        let label = |row: u32| {
            let (class, given) =
                (self.classes.label[row as usize], self.classes.given[row as usize]);
            let name = |id| fold(self.classes.names.name(id)).to_string();
            match (class, given) {
                (NO_NAME, NO_NAME) => None,
                (NO_NAME, given) => Some(name(given)),
                (class, _) => Some(name(class)),
            }
        };
        let mut counts = BTreeMap::<String, usize>::new();
        let labels: HashMap<u32, Option<String>> =
            rows.iter().map(|row| (*row, label(*row))).collect();
        labels.values().flatten().for_each(|label| *counts.entry(label.clone()).or_default() += 1);
        let most = counts.values().max().copied().unwrap_or(0);
        let mut usual = counts.iter().filter(|(_, count)| **count == most).map(|(label, _)| label);
        let majority = usual.next().filter(|_| usual.next().is_none());
        let mut rows = rows.to_vec();
        rows.sort_unstable_by_key(|row| {
            let is_usual = majority.is_some_and(|label| labels[row].as_ref() == Some(label));
            let Quality { is_grey, pixels, bytes } =
                self.qualities.get(row).copied().unwrap_or_default();
            (Reverse(is_usual), is_grey, Reverse(pixels), Reverse(bytes), *row)
        });
        rows
    }
}

/// Reads what speaks for each of these rows.
fn read_qualities(
    table: &TableReader,
    rows: impl Iterator<Item = u32>,
) -> Result<HashMap<u32, Quality>, TableError> {
    let mut qualities: HashMap<u32, Quality> = rows.map(|row| (row, Quality::default())).collect();
    let mut row = 0;
    for group in 0..table.groups() {
        let (widths, heights) = (table.integers(group, "width")?, table.integers(group, "height")?);
        let bytes = table.integers(group, "bytes")?;
        let (chroma, contrast) = (table.floats(group, "chroma")?, table.floats(group, "contrast")?);
        let colours = chroma.into_iter().zip(contrast);
        let files = widths.into_iter().zip(heights).zip(bytes);
        for (((width, height), bytes), (chroma, contrast)) in files.zip(colours) {
            if let Some(quality) = qualities.get_mut(&row) {
                let number = |value: Option<i64>| value.and_then(|value| u64::try_from(value).ok());
                let (width, height) = (number(width).unwrap_or(0), number(height).unwrap_or(0));
                *quality = Quality {
                    is_grey: is_grey(chroma, contrast),
                    pixels: width.saturating_mul(height),
                    bytes: number(bytes).unwrap_or(0),
                };
            }
            row += 1;
        }
    }
    Ok(qualities)
}
