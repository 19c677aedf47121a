//! Searches for duplicates: images with the same file, or that show the same picture, mirrored,
//! turned, cropped and edited ones among them.
//!
//! Owns what a duplicate's finding says. `pictures` tells whether two images are copies,
//! `candidates` which pairs to ask for among a million, and `groups` which copies belong together
//! and which is the best: every other image of a group gets a finding.

mod candidates;
mod groups;
mod pictures;
#[cfg(test)]
mod tests;

use camshaft_common::label::fold;

use self::groups::Group;
use self::pictures::{Pictures, Relation};
use super::finding::{DuplicateGroup, Problem, RowFinding};
use crate::predictions::{ImageClasses, NO_NAME};
use crate::similarity::orientation::Orientation;
use crate::table::{TableError, TableReader};

/// Searches all images.
pub(super) fn find(
    table: &TableReader,
    classes: &ImageClasses,
    notes: &mut Vec<String>,
) -> Result<Vec<RowFinding>, TableError> {
    let pictures = Pictures::read(table)?;
    if pictures.without_file > 0 {
        let without = pictures.without_file;
        notes.push(format!(
            "duplicates were not looked for in {without} images: their files could not be read, or \
             their results are of an older version"
        ));
    }
    let copies = candidates::find_copies(&pictures);
    if copies.truncated {
        notes.push("too many images are alike: not all near duplicates were looked for".to_owned());
    }
    let groups = groups::form_groups(&copies.pairs, &pictures, table, classes)?;
    Ok((1..).zip(&groups).flat_map(|(id, group)| describe(id, group, classes)).collect())
}

/// A finding for each image of a group except the best.
fn describe<'a>(
    id: u32,
    group: &'a Group,
    classes: &'a ImageClasses,
) -> impl Iterator<Item = RowFinding> + 'a {
    let images = u32::try_from(group.copies.len() + 1).expect("fewer than four billion rows");
    group.copies.iter().map(move |&(copy, relation)| {
        let (row, best) = (copy as usize, group.best as usize);
        let what = describe_relation(relation);
        let (split, best_split) = (classes.split[row], classes.split[best]);
        let (problem, score, reason) = if let Some((one, other)) =
            different_labels(classes, row, best)
        {
            (Problem::Conflict, 0.99, format!("{what} is labelled {one} here and {other} there"))
        } else if split != best_split && split.max(best_split) != NO_NAME {
            let (one, other) = (classes.splits.name(split), classes.splits.name(best_split));
            let reason = format!("{what} is in {one} and in {other}: what is learnt is tested");
            (Problem::Leak, 0.97, reason)
        } else if relation == Relation::SameFile {
            (Problem::Exact, 0.8, format!("{what} is there twice"))
        } else {
            let score = if relation == Relation::SamePicture { 0.7 } else { 0.65 };
            (Problem::Near, score, format!("{what} is there twice"))
        };
        RowFinding {
            other: Some(group.best),
            group: Some(DuplicateGroup { id, images }),
            ..RowFinding::of_problem(row, problem, score, reason)
        }
    })
}

/// What is there twice.
fn describe_relation(relation: Relation) -> &'static str {
    match relation {
        Relation::SameFile => "The same file",
        Relation::SamePicture | Relation::Turned(Orientation::Same) => "Nearly the same picture",
        Relation::Turned(Orientation::Mirrored) => "The same picture, mirrored,",
        Relation::Turned(Orientation::UpsideDown) => "The same picture, mirrored upside down,",
        Relation::Turned(Orientation::Turned90) => "The same picture, turned by 90°,",
        Relation::Turned(Orientation::Turned180) => "The same picture, turned by 180°,",
        Relation::Turned(Orientation::Turned270) => "The same picture, turned by 270°,",
        Relation::Turned(Orientation::MirroredTurned90 | Orientation::MirroredTurned270) => {
            "The same picture, mirrored and turned,"
        }
        Relation::Edited => "The same picture, cropped or edited,",
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
