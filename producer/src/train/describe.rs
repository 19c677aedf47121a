//! What `camshaft train` prints about the data set and the epochs.
//!
//! Pure: makes lines. Upstream: [`train`](super), which prints them.

use camshaft_training::{Dataset, EpochRecord, LeftOut};

use crate::terminal::output::{format_count, format_elapsed};

/// Classes, files and folders that are named, at most.
const MAX_CLASSES: usize = 200;
const MAX_FILES: usize = 3;
const MAX_FOLDERS: usize = 10;

/// The classes with their numbers of images, and what was left out.
#[must_use]
pub(super) fn dataset(dataset: &Dataset) -> Vec<String> {
    let mut lines = vec![format!(
        "{} classes, {} to train on, {} to validate on:",
        dataset.classes.len(),
        format_count(dataset.training.len() as u64, "image"),
        format_count(dataset.validation.len() as u64, "image"),
    )];
    let counts = dataset.class_counts();
    let shown = dataset.classes.iter().zip(&counts).take(MAX_CLASSES);
    lines.extend(shown.map(|(class, [training, validation])| {
        format!("  {class}: {training} to train on, {validation} to validate on")
    }));
    if let Some(more) = dataset.classes.len().checked_sub(MAX_CLASSES).filter(|more| *more > 0) {
        lines.push(format!("  and {more} more"));
    }
    lines.extend(left_out(&dataset.left_out));
    lines
}

fn left_out(left_out: &LeftOut) -> Vec<String> {
    let LeftOut { other_files, images_beside, folders, listed_to_test } = left_out;
    let mut lines = Vec::new();
    for (keys, noun, reason) in [
        (other_files, "file", "of no known image type"),
        (images_beside, "image", "in no class folder"),
    ] {
        if !keys.is_empty() {
            let count = format_count(keys.len() as u64, noun);
            lines.push(format!("Skipped {count} {reason}: {}", first(keys, MAX_FILES)));
        }
    }
    if *listed_to_test > 0 {
        lines.push(format!("Left out {} to test on", format_count(*listed_to_test, "image")));
    }
    if !folders.is_empty() {
        let folders = folders.iter().map(|folder| format!("{} ({})", folder.key, folder.reason));
        let folders: Vec<_> = folders.collect();
        lines.push(format!("Not used: {}", first(&folders, MAX_FOLDERS)));
    }
    lines
}

/// The first texts of a list, and the number of the others.
fn first(texts: &[String], most: usize) -> String {
    let shown = texts[..texts.len().min(most)].join(", ");
    match texts.len().saturating_sub(most) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// An epoch of `epochs`.
#[must_use]
pub(super) fn epoch(record: &EpochRecord, epochs: u32) -> String {
    let EpochRecord { epoch, training_loss, validation_loss, seconds, .. } = record;
    format!(
        "Epoch {epoch}/{epochs}: training loss {training_loss:.4}, accuracy {:.1} %; validation \
         loss {validation_loss:.4}, accuracy {:.1} %; {}",
        100.0 * record.training_accuracy,
        100.0 * record.validation_accuracy,
        format_elapsed(*seconds),
    )
}

/// The epoch whose weights are the model's.
#[must_use]
pub(super) fn kept_epoch(record: &EpochRecord) -> String {
    format!(
        "The best epoch is {}: validation loss {:.4}, accuracy {:.1} %",
        record.epoch,
        record.validation_loss,
        100.0 * record.validation_accuracy
    )
}

#[cfg(test)]
mod tests {
    use camshaft_training::LeftOutFolder;

    use super::*;

    #[test]
    fn what_is_left_out_of_a_data_set_is_counted_and_named() {
        let keys = |count: usize| (0..count).map(|n| format!("cat/{n}.txt")).collect();
        let folder = LeftOutFolder { key: "test".to_owned(), reason: "to test on" };
        let lines = left_out(&LeftOut {
            other_files: keys(5),
            images_beside: vec!["a.jpg".to_owned()],
            folders: vec![folder],
            listed_to_test: 1,
        });
        assert_eq!(
            lines,
            [
                "Skipped 5 files of no known image type: cat/0.txt, cat/1.txt, cat/2.txt and 2 more",
                "Skipped 1 image in no class folder: a.jpg",
                "Left out 1 image to test on",
                "Not used: test (to test on)",
            ]
        );
        assert!(left_out(&LeftOut::default()).is_empty());
    }
}
