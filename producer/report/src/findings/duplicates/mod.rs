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
    let members =
        move || std::iter::once(group.best).chain(group.copies.iter().map(|(row, _)| *row));
    group.copies.iter().flat_map(move |&(copy, relation)| {
        let row = copy as usize;
        let what = describe_relation(relation);
        // Any two images of the group may differ, not only an image and the best one.
        let mut problems = Vec::new();
        let labels = members().find_map(|member| different_labels(classes, row, member as usize));
        if let Some((one, other)) = labels {
            let reason = format!("{what} is labelled {one} here and {other} there");
            problems.push((Problem::Conflict, 0.99, reason));
        }
        let splits = members().find_map(|member| different_splits(classes, row, member as usize));
        if let Some((one, other)) = splits {
            let reason =
                format!("{what} is in {one} and in {other}: what a model learns is tested, too");
            problems.push((Problem::Leak, 0.97, reason));
        }
        if problems.is_empty() {
            let (problem, score) = match relation {
                Relation::SameFile => (Problem::Exact, 0.8),
                Relation::SamePicture => (Problem::Near, 0.7),
                _ => (Problem::Near, 0.65),
            };
            problems.push((problem, score, format!("{what} is there twice")));
        }
        problems.into_iter().map(move |(problem, score, reason)| RowFinding {
            other: Some(group.best),
            group: Some(DuplicateGroup { id, images }),
            ..RowFinding::of_problem(row, problem, score, reason)
        })
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

/// The splits of two rows if they are different ones.
fn different_splits(classes: &ImageClasses, one: usize, other: usize) -> Option<(&str, &str)> {
    let (one, other) = (classes.split[one], classes.split[other]);
    let differ = one != other && one.max(other) != NO_NAME;
    differ.then(|| (classes.splits.name(one), classes.splits.name(other)))
}
