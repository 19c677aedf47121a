//! `--dry-run`: what an enqueue or audit would do, and about how many requests that takes. Writes
//! nothing, neither to OUT nor to a broker.
//!
//! Images are decided about as in [`publish`](EnqueuePlan::publish). An enqueue that was killed leaves a
//! bookmark on the broker: it is not looked for, so the images before it are told as ones to do.

use std::sync::atomic::Ordering::Relaxed;

use camshaft_common::explain::{ExplainOptions, OverlayFormat, Target};
use camshaft_common::manifest;
use futures::stream::TryStreamExt;

use super::{EnqueuePlan, EnqueuePlanError};
use crate::enqueue::generation::EarlierGenerations;
use crate::enqueue::prune::{GoneResults, NAMES_A_LIST, PruneError};
use crate::images::selection::{JobMarks, JobReason, Selection};
use crate::terminal::output::{format_count, print_line};
use crate::terminal::progress::{Progress, ProgressCounts};

/// Lists of OUT beside those of results: of manifests, to read, write and delete them.
const MANIFEST_LISTS: u64 = 5;
/// `run.json` is read twice.
const RUN_READS: u64 = 2;
/// `run.json` is written twice, and the object that tells when a generation began once.
const RUN_WRITES: u64 = 3;

impl EnqueuePlan {
    /// Prints what the command would do. `verb` says what it does to images: `audit`. `builds_report`
    /// says whether it ends with a report.
    ///
    /// # Errors
    /// As the command itself, as far as that is known before anything is written.
    pub(crate) async fn dry_run(
        self,
        verb: &str,
        builds_report: bool,
    ) -> Result<(), EnqueuePlanError> {
        let counters = self.counters();
        let progress =
            || ProgressCounts { done: counters.found.load(Relaxed), total: None, failed: 0 };
        let preview = Progress::start("listed").follow(self.preview(), progress).await?;
        preview.lines(verb, builds_report).iter().for_each(|line| print_line(line));
        preview.refusal.map_or(Ok(()), |refusal| Err(refusal.into()))
    }

    async fn preview(mut self) -> Result<Preview, EnqueuePlanError> {
        let earlier = EarlierGenerations::read(&self.out, self.run()).await?;
        earlier.foresee(&mut self.record, self.selection);
        self.look_back(&earlier).await?;
        let (mut work, mut with_result) = (PlannedWork::default(), 0);
        let images = self.find_images().await?;
        let mut images = self.images_to_decide(images);
        while let Some(image) = images.try_next().await? {
            with_result += u64::from(self.images.results.get(&image.key).is_some());
            let (_position, decision) = self.decide(&image);
            if let Some(marks) = decision.job {
                work.count(self.images.job_reason(&image), marks);
            }
        }
        let found = self.counters.found.load(Relaxed);
        let left_out: u64 = self.counters.left_out.counts().by_reason.values().sum();
        let (mut gone, mut refusal) = (None, None);
        // Whether the manifest can be written is not known before.
        if let Some(pruning) = self.pruning(true) {
            gone = Some(pruning.look().await?);
            refusal = pruning.check().err();
        }
        Ok(Preview {
            found,
            selection: self.selection,
            kept: self.counters.skipped.load(Relaxed),
            work,
            gone,
            refusal,
            left_out: self.counters.left_out.to_lines(),
            listed: if self.source.is_list() { 0 } else { found + left_out },
            looks_at_objects: if self.source.is_list() { with_result } else { 0 },
            results: self.images.results.images(),
            overlays_of_image: overlays_of_image(&self.record.explain),
            replaces_manifest: self.images.previous.is_some(),
        })
    }
}

/// The overlays of an image, as far as they are known before its prediction.
fn overlays_of_image(options: &ExplainOptions) -> u64 {
    if options.overlay == OverlayFormat::None {
        return 0;
    }
    let classes = match &options.target {
        Target::Top(count) => *count,
        Target::Label | Target::Class(_) => 1,
    };
    let maps_of_class = options.method.as_slice().len() * options.layer.as_slice().len();
    maps_of_class.saturating_mul(classes) as u64
}

/// Images that would get a job, by the reason for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct PlannedWork {
    without_result: u64,
    changed: u64,
    relabelled: u64,
    to_look_at: u64,
    to_redo: u64,
    /// Those of all images for which a worker looks for a result first.
    looks: u64,
    /// Those of all images that may have a result, of which a failure has to be deleted.
    replacements: u64,
}

impl PlannedWork {
    fn count(&mut self, reason: JobReason, marks: JobMarks) {
        let is_looked_at = marks.again && reason != JobReason::NoResult;
        let images = match if is_looked_at { JobReason::Look } else { reason } {
            JobReason::NoResult => &mut self.without_result,
            JobReason::Look => &mut self.to_look_at,
            JobReason::Changed => &mut self.changed,
            JobReason::Relabelled => &mut self.relabelled,
            JobReason::Redo => &mut self.to_redo,
        };
        *images += 1;
        self.looks += u64::from(marks.again || marks.changed);
        self.replacements += u64::from(marks.again || marks.replaces);
    }

    fn jobs(&self) -> u64 {
        self.without_result + self.changed + self.relabelled + self.to_look_at + self.to_redo
    }
}

/// What a command would do.
#[derive(Debug)]
struct Preview {
    found: u64,
    selection: Selection,
    /// Images that get no job.
    kept: u64,
    work: PlannedWork,
    /// With `--prune`, what would be removed.
    gone: Option<GoneResults>,
    /// Why `--prune` would remove nothing.
    refusal: Option<PruneError>,
    /// What is left out of SOURCE, in lines.
    left_out: Vec<String>,
    /// Names that SOURCE's store lists.
    listed: u64,
    /// Images of a list whose objects are looked at.
    looks_at_objects: u64,
    /// Images with a result.
    results: u64,
    overlays_of_image: u64,
    /// True if the run has a manifest, which is read and later deleted.
    replaces_manifest: bool,
}

impl Preview {
    fn lines(&self, verb: &str, builds_report: bool) -> Vec<String> {
        let images = format_count(self.found, "image");
        let mut lines = vec![format!(
            "Would {verb} {} of {images} ({} {})",
            self.work.jobs(),
            self.kept,
            self.selection.of_others()
        )];
        let PlannedWork { without_result, changed, relabelled, to_look_at, to_redo, .. } =
            self.work;
        for (number, why) in [
            (without_result, "without a result"),
            (changed, "changed since their result was written"),
            (relabelled, "with another label, and otherwise as they were"),
            (to_look_at, "with a result that may be right: a worker looks at it first"),
            (to_redo, "with a result that is to be replaced"),
        ] {
            if number > 0 {
                lines.push(format!("  {number} {why}"));
            }
        }
        lines.extend(self.left_out.iter().cloned());
        if let Some(GoneResults { counts, named, .. }) = &self.gone {
            lines.push(format!("Would remove {counts}"));
            lines.extend(named.iter().map(|path| format!("  {path}")));
            let more = counts.objects() - named.len() as u64;
            if more > 0 && !named.is_empty() {
                lines.push(format!("  and {more} more; --list-skipped names them"));
            }
        }
        lines.extend(self.requests(builds_report));
        lines.push("Dry run: nothing was done".to_owned());
        lines
    }

    /// An estimate of the requests to stores.
    fn requests(&self, builds_report: bool) -> Vec<String> {
        let jobs = self.work.jobs();
        let parts = manifest::parts_of(self.found);
        let (gone_lists, gone_objects) =
            self.gone.as_ref().map_or((0, 0), |gone| (gone.lists, gone.counts.objects()));
        // Results lie in two folders.
        let lists = self.listed.div_ceil(NAMES_A_LIST)
            + self.results.div_ceil(NAMES_A_LIST)
            + 1
            + MANIFEST_LISTS
            + gone_lists;
        let images = jobs + self.looks_at_objects;
        let results = self.work.looks + if builds_report { self.found } else { 0 };
        let records_read = RUN_READS + if self.replaces_manifest { parts } else { 0 };
        // A label is written into the prediction, as a rule, and its overlays stay.
        let drawn = jobs - self.work.relabelled;
        let overlays = drawn.saturating_mul(self.overlays_of_image);
        let records_written = RUN_WRITES + parts;
        let old_manifest = if self.replaces_manifest { parts + 1 } else { 0 };
        let deletes = self.work.replacements + gone_objects + old_manifest;
        vec![
            "Requests, as an estimate without retries and the model's files (of local folders, files \
             that are read and written):"
                .to_owned(),
            format!("  {lists} to list 1,000 names each"),
            format!(
                "  {} to read: {images} for images, {results} for results, {records_read} for the run's \
                 records",
                images + results + records_read
            ),
            format!(
                "  {} to write: {jobs} for predictions or failures, {overlays} for overlays, \
                 {records_written} for the run's records",
                jobs + overlays + records_written
            ),
            format!(
                "  {deletes} to delete an object each (S3 takes up to 1,000 of --prune together)"
            ),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::enqueue::prune::GoneCounts;

    fn preview() -> Preview {
        let mut work = PlannedWork::default();
        let marks = |replaces, again| JobMarks { replaces, changed: false, again };
        for (reason, marks) in [
            (JobReason::NoResult, marks(false, false)),
            (JobReason::NoResult, marks(false, true)),
            (JobReason::Changed, marks(true, false)),
            (JobReason::Changed, marks(false, true)),
            (JobReason::Look, marks(false, true)),
        ] {
            work.count(reason, marks);
        }
        Preview {
            found: 100_001,
            selection: Selection::New,
            kept: 99_996,
            work,
            gone: None,
            refusal: None,
            left_out: vec!["Left out: 1 not an image".to_owned()],
            listed: 100_002,
            looks_at_objects: 0,
            results: 1500,
            overlays_of_image: 2,
            replaces_manifest: true,
        }
    }

    #[test]
    fn what_would_be_done_is_told_with_its_requests() {
        let preview = preview();
        let lines = preview.lines("enqueue", false);
        let expected = [
            "Would enqueue 5 of 100001 images (99996 have results already)",
            "  2 without a result",
            "  1 changed since their result was written",
            "  2 with a result that may be right: a worker looks at it first",
            "Left out: 1 not an image",
        ];
        assert_eq!(lines[..5], expected);
        let text = lines.join("\n");
        for line in [
            "  109 to list 1,000 names each",
            "  12 to read: 5 for images, 3 for results, 4 for the run's records",
            "  20 to write: 5 for predictions or failures, 10 for overlays, 5 for the run's records",
            "  7 to delete an object each",
        ] {
            assert!(text.contains(line), "{text}");
        }
        assert_eq!(lines.last().map(String::as_str), Some("Dry run: nothing was done"));
        let with_report = preview.lines("audit", true).join("\n");
        assert!(with_report.contains(" 100004 for results"), "{with_report}");
    }

    #[test]
    fn results_that_would_go_are_counted_and_the_first_are_named() {
        let text = |gone: GoneResults| {
            Preview { gone: Some(gone), ..preview() }.lines("audit", false).join("\n")
        };
        let nothing = text(GoneResults::default());
        assert!(nothing.contains("Would remove no results: no image has gone"), "{nothing}");
        let counts = GoneCounts { predictions: 2, failures: 0, overlays: 3 };
        let named = vec!["predictions/a.jpg.json".to_owned()];
        let some = text(GoneResults { counts, named, lists: 3 });
        let expected = "Would remove the results of images that have gone: 2 predictions, 0 failures, \
                        3 overlays\n  predictions/a.jpg.json\n  and 4 more; --list-skipped names them\n";
        assert!(some.contains(expected), "{some}");
        assert!(some.contains("  112 to list") && some.contains("  12 to delete"), "{some}");
        // Each was named before.
        let named = text(GoneResults { counts, named: Vec::new(), lists: 3 });
        assert!(!named.contains(" more"), "{named}");
    }

    #[test]
    fn overlays_are_counted_as_far_as_they_are_known() {
        let options = |target: &str, overlay: &str| ExplainOptions {
            method: "grad-cam,layer-cam".parse().unwrap(),
            target: target.parse().unwrap(),
            overlay: overlay.parse().unwrap(),
            ..ExplainOptions::default()
        };
        for (target, overlay, number) in
            [("top1", "jpeg", 2), ("top-3", "png", 6), ("label", "webp", 2), ("top-3", "none", 0)]
        {
            assert_eq!(overlays_of_image(&options(target, overlay)), number, "{target} {overlay}");
        }
    }
}
