//! `--prune`: removes the results in OUT whose images have gone from SOURCE.
//!
//! Owns which results these are, when none may be removed, and the order of removal. Nothing is removed
//! before SOURCE has been listed to its end and the manifest is written. Upstream:
//! [`plan`](super::plan), which lists SOURCE.

use std::collections::HashSet;
use std::fmt;
use std::future::ready;

use camshaft_common::key::ImageKey;
use camshaft_common::layout::{FAILURES, KeyDigest, OVERLAYS, PREDICTIONS, ResultOwners};
use camshaft_common::location::Location;
use camshaft_common::run::ReadRunError;
use camshaft_common::skipped::{SkipReason, SkippedCounts};
use camshaft_common::store::{Folder, Listed, StoreError};
use chrono::{DateTime, Utc};
use futures::stream::TryStreamExt;

use crate::advice;
use crate::enqueue::generation_watch::{GenerationWatch, JobsSuperseded};
use crate::terminal::output::{format_count, print_line};

/// The folders in the order in which results are removed. An overlay goes after all predictions, so that
/// no prediction is without its overlays if this is killed.
const FOLDERS: [&str; 3] = [PREDICTIONS, FAILURES, OVERLAYS];
/// Objects that are removed together: S3 takes no more with a request.
const REMOVED_TOGETHER: usize = 1000;
/// Such removals at a time.
const REMOVALS_AT_ONCE: usize = 4;
/// Names that an object store lists with a request.
pub(crate) const NAMES_A_LIST: u64 = 1000;
/// Results that have gone that are named without `--list-skipped`.
const MAX_NAMED: usize = 10;

/// How many of the images with results may have gone: the value of `--prune`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum PruneLimit {
    /// Up to half of them. If more have gone, SOURCE may be the wrong one
    Half,
    /// All of them, and also if a part of SOURCE can't be read
    All,
}

/// Why `--prune` removes nothing.
#[derive(Debug, thiserror::Error)]
pub enum PruneError {
    /// OUT can't be listed, or results can't be removed.
    #[error("{}", advice::describe_store_error(.0))]
    Out(#[from] StoreError),
    /// There is no manifest.
    #[error(
        "--prune removed nothing: the manifest of the run's images could not be written, as the \
         warning says"
    )]
    NoManifest,
    /// Images lie where results are removed.
    #[error(
        "--prune removed nothing: SOURCE {0} lies among the results in OUT; move one of them away"
    )]
    SourceInside(String),
    /// Images may be there that could not be listed.
    #[error(
        "--prune removed nothing: SOURCE has {0}, and there may be images behind; mend or remove what \
         --list-skipped names, or insist with --prune=all"
    )]
    OutOfReach(String),
    /// SOURCE is perhaps another than the user thinks.
    #[error(
        "--prune removed nothing: {gone} of {images} images with results in {out} are not in SOURCE, \
         more than half; is it the right one, mounted and whole, and are --include and --exclude right? \
         If they are, insist with --prune=all"
    )]
    TooMany {
        /// Images with a result that have gone.
        gone: u64,
        /// Images with a result.
        images: u64,
        /// OUT.
        out: String,
    },
    /// The run was cancelled, or another enqueue or audit has begun. The images that it found count.
    #[error("--prune stopped: {0}; prune again when that is done")]
    Superseded(JobsSuperseded),
    /// `run.json` can't be read at the moment.
    #[error("{}", advice::describe_run_record_error(.0))]
    Run(#[from] ReadRunError),
}

/// The images that were found in SOURCE. Each takes 9 to 19 bytes here.
#[derive(Debug, Default)]
pub(crate) struct FoundKeys {
    digests: HashSet<KeyDigest>,
    with_result: u64,
}

impl FoundKeys {
    /// Adds an image. A list may have it twice.
    pub(crate) fn insert(&mut self, key: &ImageKey, has_result: bool) {
        if self.digests.insert(KeyDigest::of(key)) && has_result {
            self.with_result += 1;
        }
    }
}

/// What is to be removed, once SOURCE has been listed to its end.
#[derive(Debug)]
pub(crate) struct Pruning {
    /// OUT.
    pub(crate) out: Folder,
    /// SOURCE.
    pub(crate) source: Location,
    /// Tells whose results the objects there are.
    pub(crate) owners: ResultOwners,
    /// The images in SOURCE.
    pub(crate) found: FoundKeys,
    /// The number of images that had a result when this command began.
    pub(crate) images_with_results: u64,
    /// What SOURCE has beside images.
    pub(crate) left_out: SkippedCounts,
    /// How many may have gone.
    pub(crate) limit: PruneLimit,
    /// True if the new manifest has the same images.
    pub(crate) has_manifest: bool,
    /// Only what was written before this time is removed: before the listing of SOURCE began. A later
    /// result may be of an image that has come since.
    pub(crate) before: Option<DateTime<Utc>>,
    /// True to print the path of each result.
    pub(crate) prints_each: bool,
    /// Tells whether another command has begun meanwhile. It may keep results of images that have come
    /// since, and whose overlays are old.
    pub(crate) watch: GenerationWatch,
}

/// Numbers of results whose images have gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct GoneCounts {
    pub(crate) predictions: u64,
    pub(crate) failures: u64,
    pub(crate) overlays: u64,
}

impl GoneCounts {
    fn add(&mut self, folder: &str, number: u64) {
        match folder {
            PREDICTIONS => self.predictions += number,
            FAILURES => self.failures += number,
            _ => self.overlays += number,
        }
    }

    /// The number of objects.
    #[must_use]
    pub(crate) fn objects(self) -> u64 {
        self.predictions + self.failures + self.overlays
    }
}

impl fmt::Display for GoneCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { predictions, failures, overlays } = *self;
        if self.objects() == 0 {
            return f.write_str("no results: no image has gone");
        }
        write!(
            f,
            "the results of images that have gone: {}, {}, {}",
            format_count(predictions, "prediction"),
            format_count(failures, "failure"),
            format_count(overlays, "overlay"),
        )
    }
}

/// Results whose images have gone, found without removing them.
#[derive(Debug, Default)]
pub(crate) struct GoneResults {
    pub(crate) counts: GoneCounts,
    /// The first paths below OUT.
    pub(crate) named: Vec<String>,
    /// The requests that list all results.
    pub(crate) lists: u64,
}

impl Pruning {
    /// Says whether results may be removed.
    ///
    /// # Errors
    /// If they may not.
    pub(crate) fn check(&self) -> Result<(), PruneError> {
        if !self.has_manifest {
            return Err(PruneError::NoManifest);
        }
        let inside = self.source.resolved().below(&self.out.location().resolved());
        let folder = inside.as_deref().and_then(|path| path.split('/').next());
        if folder.is_some_and(|folder| FOLDERS.contains(&folder)) {
            return Err(PruneError::SourceInside(self.source.to_string()));
        }
        if self.limit == PruneLimit::All {
            return Ok(());
        }
        if let Some(out_of_reach) = out_of_reach(&self.left_out) {
            return Err(PruneError::OutOfReach(out_of_reach));
        }
        let images = self.images_with_results;
        let gone = images.saturating_sub(self.found.with_result);
        if gone > images / 2 {
            let out = self.out.location().to_string();
            return Err(PruneError::TooMany { gone, images, out });
        }
        Ok(())
    }

    /// Removes the results. May be killed at any time and be done again.
    ///
    /// # Errors
    /// If results may not be removed, or can't be.
    pub(crate) async fn remove(&self) -> Result<GoneCounts, PruneError> {
        self.check()?;
        let mut counts = GoneCounts::default();
        for folder in FOLDERS {
            let objects = self.out.list_in_order(folder);
            let gone = objects.try_filter_map(|object| {
                let is_gone = self.is_gone(folder, &object);
                ready(Ok(is_gone.then(|| format!("{folder}/{}", object.path))))
            });
            let together =
                gone.try_chunks(REMOVED_TOGETHER).map_err(|error| PruneError::from(error.1));
            let removals = together.map_ok(|paths| self.remove_together(paths));
            let removed = removals.try_buffer_unordered(REMOVALS_AT_ONCE);
            let number = removed.try_fold(0, |sum, number| ready(Ok(sum + number))).await?;
            counts.add(folder, number);
        }
        Ok(counts)
    }

    async fn remove_together(&self, paths: Vec<String>) -> Result<u64, PruneError> {
        if let Some(superseded) = self.watch.look_before_write().await? {
            return Err(PruneError::Superseded(superseded));
        }
        self.out.delete_all(&paths).await?;
        paths.iter().for_each(|path| self.print(path));
        Ok(paths.len() as u64)
    }

    /// Looks which results would be removed.
    ///
    /// # Errors
    /// If OUT can't be listed.
    pub(crate) async fn look(&self) -> Result<GoneResults, StoreError> {
        let mut gone = GoneResults::default();
        for folder in FOLDERS {
            let mut listed = 0_u64;
            let mut objects = self.out.list_in_order(folder);
            while let Some(object) = objects.try_next().await? {
                listed += 1;
                if !self.is_gone(folder, &object) {
                    continue;
                }
                gone.counts.add(folder, 1);
                let path = format!("{folder}/{}", object.path);
                self.print(&path);
                if !self.prints_each && gone.named.len() < MAX_NAMED {
                    gone.named.push(path);
                }
            }
            gone.lists += listed.div_ceil(NAMES_A_LIST).max(1);
        }
        Ok(gone)
    }

    fn is_gone(&self, folder: &str, object: &Listed) -> bool {
        if self.before.is_some_and(|before| object.last_modified >= before) {
            return false;
        }
        let owners = self.owners.of(folder, &object.path);
        !owners.is_empty()
            && !owners.iter().any(|owner| self.found.digests.contains(owner))
            && !self.is_behind_link(folder, object)
    }

    /// True if the file lies elsewhere: behind a link to another folder. That may be anybody's.
    fn is_behind_link(&self, folder: &str, object: &Listed) -> bool {
        let Some(out) = self.out.location().local_path() else { return false };
        let results = out.join(folder);
        let path = results.join(&object.path);
        let real = [path.parent(), Some(&*results)].map(|path| path?.canonicalize().ok());
        matches!(&real, [Some(parent), Some(results)] if !parent.starts_with(results))
    }

    fn print(&self, path: &str) {
        if self.prints_each {
            print_line(&format!("gone\t{path}"));
        }
    }
}

/// What may hide images of SOURCE, in words.
fn out_of_reach(left_out: &SkippedCounts) -> Option<String> {
    let hiding =
        [SkipReason::BrokenLink, SkipReason::Unreadable].into_iter().filter_map(|reason| {
            let number = *left_out.by_reason.get(&reason)?;
            let (one, several) = reason.nouns();
            Some(format!("{number} {}", if number == 1 { one } else { several }))
        });
    let texts: Vec<_> = hiding.collect();
    (!texts.is_empty()).then(|| texts.join(" and "))
}

#[cfg(test)]
mod tests {
    use camshaft_common::explain::{ExplainOptions, OverlayFormat};
    use camshaft_common::layout::{Layout, OverlayDifference};
    use camshaft_common::store::{JSON, StoreOptions};
    use chrono::TimeDelta;

    use super::*;

    fn key(text: &str) -> ImageKey {
        ImageKey::parse(text).unwrap()
    }

    /// An OUT with results of these images, of which `found` are in SOURCE.
    async fn pruning(
        directory: &tempfile::TempDir,
        images: &[&str],
        found: &[&str],
        limit: PruneLimit,
    ) -> Pruning {
        let location = directory.path().to_str().unwrap().parse().unwrap();
        let out = Folder::open(&location, &StoreOptions::default()).unwrap();
        let layout = Layout::of(&location);
        for image in images {
            let image = key(image);
            let other = OverlayDifference { class: Some(1), ..OverlayDifference::default() };
            let overlays =
                [(OverlayDifference::default(), OverlayFormat::Jpeg), (other, OverlayFormat::Png)];
            let overlays =
                overlays.map(|(differs, format)| layout.overlay(&image, differs, format));
            for path in overlays.into_iter().flatten().chain([layout.prediction(&image)]) {
                out.put(&path, "{}", JSON).await.unwrap();
            }
        }
        let mut found_keys = FoundKeys::default();
        for image in found.iter().chain(found) {
            found_keys.insert(&key(image), images.contains(image));
        }
        let watch = GenerationWatch::new(&out, None);
        Pruning {
            out,
            source: "s3://bucket/images".parse().unwrap(),
            owners: layout.owners(&ExplainOptions::default()),
            found: found_keys,
            images_with_results: images.len() as u64,
            left_out: SkippedCounts::default(),
            limit,
            has_manifest: true,
            before: None,
            prints_each: false,
            watch,
        }
    }

    async fn paths(out: &Folder) -> Vec<String> {
        let objects: Vec<_> = out.list("").try_collect().await.unwrap();
        let mut paths: Vec<_> = objects.into_iter().map(|object| object.path).collect();
        paths.sort();
        paths
    }

    #[tokio::test]
    async fn what_lies_behind_a_link_and_a_source_among_results_stay() {
        let directory = tempfile::tempdir().unwrap();
        let mut pruning =
            pruning(&directory, &["a.jpg", "b.jpg"], &["a.jpg"], PruneLimit::All).await;
        let elsewhere = tempfile::tempdir().unwrap();
        std::fs::write(elsewhere.path().join("c.jpg.json"), "{}").unwrap();
        let link = directory.path().join("predictions/linked");
        std::os::unix::fs::symlink(elsewhere.path(), link).unwrap();
        assert_eq!(pruning.look().await.unwrap().counts.predictions, 1);
        assert_eq!(pruning.remove().await.unwrap().predictions, 1);
        assert!(elsewhere.path().join("c.jpg.json").exists());
        pruning.source =
            directory.path().join("overlays/photos").to_str().unwrap().parse().unwrap();
        let refused = pruning.remove().await.unwrap_err();
        assert!(matches!(refused, PruneError::SourceInside(_)), "{refused}");
    }

    #[tokio::test]
    async fn results_of_images_that_have_gone_are_removed_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let long = format!("{}.jpg", "x".repeat(249));
        let images = ["cat/a.jpg", "cat/b.jpg", "é %.png", &long];
        let mut pruning =
            pruning(&directory, &images, &["cat/a.jpg", &long, "new.jpg"], PruneLimit::Half).await;
        let layout = Layout::of(pruning.out.location());
        // Overlays without a prediction, of an image that has gone and one that is new; a failure; and
        // what is no result.
        let others =
            ["overlays/new.jpg.jpg", "overlays/notes.txt", "run.json", "report/cat/b.jpg.json"];
        let gone = ["overlays/old.jpg.webp".to_owned(), layout.failure(&key("old.jpg"))];
        for path in others.iter().copied().chain(gone.iter().map(String::as_str)) {
            pruning.out.put(path, "{}", JSON).await.unwrap();
        }
        let looked = pruning.look().await.unwrap();
        let expected = GoneCounts { predictions: 2, failures: 1, overlays: 5 };
        assert_eq!((looked.counts, looked.named.len(), looked.lists), (expected, 8, 3));
        let written = Utc::now();
        pruning.before = Some(written - TimeDelta::hours(1));
        assert_eq!(pruning.remove().await.unwrap(), GoneCounts::default(), "all are later");
        pruning.before = Some(written + TimeDelta::hours(1));
        assert_eq!(pruning.remove().await.unwrap(), expected);
        let mut kept: Vec<_> = others.map(str::to_owned).into();
        for image in ["cat/a.jpg", &long].map(key) {
            let other = OverlayDifference { class: Some(1), ..OverlayDifference::default() };
            let first = OverlayDifference::default();
            kept.extend(layout.overlay(&image, first, OverlayFormat::Jpeg));
            kept.extend(layout.overlay(&image, other, OverlayFormat::Png));
            kept.push(layout.prediction(&image));
        }
        kept.sort();
        assert_eq!(paths(&pruning.out).await, kept);
        let again = pruning.remove().await.unwrap();
        assert_eq!(again.to_string(), "no results: no image has gone");
    }

    #[tokio::test]
    async fn nothing_is_removed_if_source_may_be_wrong() {
        let directory = tempfile::tempdir().unwrap();
        let images = ["a", "b", "c", "d", "e"];
        let mut pruning = pruning(&directory, &images, &["a", "b"], PruneLimit::Half).await;
        let before = paths(&pruning.out).await;
        let error = pruning.remove().await.unwrap_err().to_string();
        assert!(error.contains("3 of 5 images") && error.contains("--prune=all"), "{error}");
        pruning.found.insert(&key("c"), true);
        assert!(pruning.check().is_ok(), "two of five have gone");
        pruning.left_out.count(SkipReason::NotAnImage);
        assert!(pruning.check().is_ok());
        pruning.left_out.count(SkipReason::Unreadable);
        let error = pruning.remove().await.unwrap_err().to_string();
        assert!(error.contains("1 folder or file that can't be read"), "{error}");
        pruning.limit = PruneLimit::All;
        pruning.has_manifest = false;
        let error = pruning.remove().await.unwrap_err().to_string();
        assert!(error.contains("manifest"), "{error}");
        assert_eq!(paths(&pruning.out).await, before);
        pruning.has_manifest = true;
        let removed = pruning.remove().await.unwrap().to_string();
        assert!(removed.ends_with("2 predictions, 0 failures, 4 overlays"), "{removed}");
    }

    #[tokio::test]
    async fn a_removal_that_was_cut_short_is_done_by_the_next() {
        let directory = tempfile::tempdir().unwrap();
        let images = ["a.jpg", "b.jpg", "c.jpg"];
        let pruning = pruning(&directory, &images, &["a.jpg", "b.jpg"], PruneLimit::Half).await;
        pruning.out.delete("predictions/c.jpg.json").await.unwrap();
        let removed = pruning.remove().await.unwrap();
        assert_eq!(removed, GoneCounts { predictions: 0, failures: 0, overlays: 2 });
        assert_eq!(paths(&pruning.out).await.len(), 6);
    }
}
