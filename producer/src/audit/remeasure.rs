//! `camshaft audit --remeasure`: adds the measures that results of older versions lack, and the camera,
//! without the network.
//!
//! Owns which results are completed, and what is printed. Only measures are added: everything else in a
//! result stays as it is, its time and worker too. A result that is not of the image as it is now, or that
//! waits to be redone, is left to a normal audit, since writing it anew would make it count. Nothing is
//! enqueued, and no model is read. What is done is not done again, so a run that was stopped goes on.
//! Downstream: the report.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use camshaft_common::entity_tag::comparable;
use camshaft_common::layout::PREDICTIONS;
use camshaft_common::location::Location;
use camshaft_common::manifest::{ManifestError, ManifestImages};
use camshaft_common::measure::{ImageMeasures, MEASURES_VERSION};
use camshaft_common::model::FileDigest;
use camshaft_common::prediction::{ImageRecord, MAX_RECORD_BYTES, PredictionRecord};
use camshaft_common::results::{self, ResultFile};
use camshaft_common::run::{ReadRunError, RunRecord};
use camshaft_common::store::{Folder, JSON, StoreError, StoreOptions};
use camshaft_common::transparency::Transparency;
use camshaft_common::unusable_results::UnusableResults;
use camshaft_decoding::{ImageLimits, camera, decode};
use camshaft_vision::measures::measure;
use futures::stream::{StreamExt, TryStreamExt};
use tokio_util::sync::CancellationToken;

use super::measuring::if_readable;
use crate::advice;
use crate::enqueue::request::RunConfig;
use crate::images::source_error::SourceError;
use crate::terminal::output::{format_count, format_elapsed, print_line};
use crate::terminal::progress::{Progress, ProgressCounts};

/// The most images that are read and measured at once. Each may take as much memory as the limits on an
/// image allow.
const MAX_AT_ONCE: usize = 8;

/// Why measures could not be added.
#[derive(Debug, thiserror::Error)]
pub enum RemeasureError {
    /// OUT or SOURCE can't be read, or OUT can't be written.
    #[error("{}", advice::describe_store_error(.0))]
    Store(#[from] StoreError),
    /// SOURCE can't be used.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// OUT holds no run.
    #[error(transparent)]
    Run(#[from] ReadRunError),
    /// The run's manifest can't be read at the moment.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// SOURCE is not that of the results.
    #[error("the results in {out} are of {source_name}; give that as SOURCE with --remeasure")]
    OtherSource {
        /// OUT.
        out: Location,
        /// The SOURCE that `run.json` names.
        source_name: String,
    },
    /// The user stopped it.
    #[error("stopped; run the same command again to do the rest")]
    Stopped,
}

/// What became of a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RemeasureOutcome {
    /// It has all measures.
    Complete,
    /// Measures were added.
    Remeasured,
    /// It is as it was, for this reason.
    Left(&'static str),
}

const AWAITS_AUDIT: &str = "to be redone by an audit";
const CHANGED: &str = "changed since their result";
const UNREADABLE: &str = "can't be read";
const DAMAGED: &str = "with a damaged result";

/// The results in an OUT, and the images that they are of.
struct Remeasuring {
    out: Folder,
    source: Folder,
    run: RunRecord,
    listed: Option<ManifestImages>,
    unusable: UnusableResults,
    limits: ImageLimits,
}

/// Adds what is missing, and prints how much that was. Returns the run in OUT.
///
/// # Errors
/// If a store fails, if OUT's run is of another SOURCE, or if `stop` is cancelled.
pub(super) async fn remeasure(
    run: &RunConfig,
    limits: ImageLimits,
    stores: &StoreOptions,
    stop: &CancellationToken,
) -> Result<RunRecord, RemeasureError> {
    let started = Instant::now();
    let remeasuring = Arc::new(Remeasuring::open(run, limits, stores).await?);
    let done = AtomicU64::new(0);
    let results = results::list(&remeasuring.out, PREDICTIONS).take_until(stop.cancelled());
    let at_once = std::thread::available_parallelism().map_or(1, usize::from).min(MAX_AT_ONCE);
    let completing = results
        .map(|file| {
            let remeasuring = Arc::clone(&remeasuring);
            async move { remeasuring.complete(file?).await }
        })
        .buffer_unordered(at_once)
        .inspect_ok(|outcome| {
            done.fetch_add(u64::from(*outcome != RemeasureOutcome::Complete), Relaxed);
        })
        .try_fold(
            RemeasureTally::default(),
            |tally, outcome| async move { Ok(tally.and(outcome)) },
        );
    let counts = || ProgressCounts { done: done.load(Relaxed), total: None, failed: 0 };
    let tally = Progress::start("remeasured").follow(completing, counts).await?;
    print_line(&tally.describe(started.elapsed().as_secs_f64()));
    if stop.is_cancelled() { Err(RemeasureError::Stopped) } else { Ok(remeasuring.run.clone()) }
}

/// How many results became what.
#[derive(Debug, Default)]
struct RemeasureTally {
    complete: u64,
    remeasured: u64,
    left: BTreeMap<&'static str, u64>,
}

impl RemeasureTally {
    fn and(mut self, outcome: RemeasureOutcome) -> Self {
        match outcome {
            RemeasureOutcome::Complete => self.complete += 1,
            RemeasureOutcome::Remeasured => self.remeasured += 1,
            RemeasureOutcome::Left(reason) => *self.left.entry(reason).or_default() += 1,
        }
        self
    }

    /// `Remeasured 600 images in 2.1 s, 3 left: 2 can't be read, 1 changed since their result`.
    fn describe(&self, seconds: f64) -> String {
        let images = format_count(self.remeasured, "image");
        let mut text = format!("Remeasured {images} in {}", format_elapsed(seconds));
        if self.complete > 0 {
            text.push_str(&format!(", {} had all measures", self.complete));
        }
        let left: Vec<_> =
            self.left.iter().map(|(reason, images)| format!("{images} {reason}")).collect();
        if !left.is_empty() {
            let images: u64 = self.left.values().sum();
            text.push_str(&format!(", {images} left: {}", left.join(", ")));
        }
        text
    }
}

impl Remeasuring {
    async fn open(
        config: &RunConfig,
        limits: ImageLimits,
        stores: &StoreOptions,
    ) -> Result<Self, RemeasureError> {
        let out = Folder::open(&config.out, stores)?;
        let run = RunRecord::read_existing(&out).await?;
        if !config.source.is_of(&run) {
            let (out, source_name) = (config.out.clone(), run.source);
            return Err(RemeasureError::OtherSource { out, source_name });
        }
        let listed = match ManifestImages::read(&out, &run).await {
            Err(error) if error.can_do_without() => None,
            listed => listed?,
        };
        let unusable = UnusableResults::read(&out, Some(&run)).await?;
        let source = Folder::open(config.open_source(stores)?.location(), stores)?;
        Ok(Self { out, source, run, listed, unusable, limits })
    }

    /// True if the next audit makes the result anew, or if it is of no image of the run.
    fn awaits_audit(&self, file: &ResultFile) -> bool {
        let listed = self.listed.as_ref().map(|listed| listed.get(&file.key));
        let is_gone = !self.run.selects(&file.key) || matches!(listed, Some(None));
        let since = self.run.results_since.max(listed.flatten().and_then(|image| image.since()));
        is_gone
            || since.is_some_and(|since| file.last_modified < since)
            || self.unusable.contains(file)
    }

    /// Adds the measures that a result lacks.
    async fn complete(&self, file: ResultFile) -> Result<RemeasureOutcome, StoreError> {
        let Some(content) = if_readable(self.out.get(&file.path, MAX_RECORD_BYTES).await)? else {
            return Ok(RemeasureOutcome::Left(DAMAGED));
        };
        let Ok(mut record) = serde_json::from_slice::<PredictionRecord>(&content.bytes) else {
            return Ok(RemeasureOutcome::Left(DAMAGED));
        };
        // Of a picture that was decoded at a reduced scale, the JPEG's blocks were not measured.
        let is_complete = |measures: ImageMeasures| {
            measures.version >= MEASURES_VERSION && measures.blocking.is_some()
        };
        if record.image.measures.is_some_and(is_complete) {
            return Ok(RemeasureOutcome::Complete);
        }
        if self.awaits_audit(&file) || record.image.key != file.key {
            return Ok(RemeasureOutcome::Left(AWAITS_AUDIT));
        }
        let image = self.source.get_image(&file.key, self.limits.max_bytes).await;
        let Some(image) = if_readable(image)? else {
            return Ok(RemeasureOutcome::Left(UNREADABLE));
        };
        if !self.is_of(&record.image, &image.bytes, image.etag.as_deref()) {
            return Ok(RemeasureOutcome::Left(CHANGED));
        }
        let (limits, old) = (self.limits, record.image.measures);
        let measuring = tokio::task::spawn_blocking(move || {
            let picture = decode(&image.bytes, &limits, Transparency::OverWhite).ok()?;
            Some((with_older(measure(&picture), old), camera(&image.bytes)))
        });
        // A decoder that panics says that this is no image.
        let Some((measures, camera)) = measuring.await.unwrap_or_default() else {
            return Ok(RemeasureOutcome::Left(UNREADABLE));
        };
        record.image.measures = Some(measures);
        record.image.camera = camera;
        let json = serde_json::to_vec(&record).expect("a record has only strings and numbers");
        // A worker may have written another result meanwhile.
        let Some(now) = if_readable(self.out.head(&file.path).await)? else {
            return Ok(RemeasureOutcome::Left(AWAITS_AUDIT));
        };
        if now.last_modified != file.last_modified || now.size_bytes != content.bytes.len() as u64 {
            return Ok(RemeasureOutcome::Left(AWAITS_AUDIT));
        }
        self.out.put(&file.path, json, JSON).await?;
        Ok(RemeasureOutcome::Remeasured)
    }

    /// True if the file has the content that the result is of: by its digest, or, in a result without
    /// one, by its entity tag and size.
    fn is_of(&self, image: &ImageRecord, bytes: &[u8], etag: Option<&str>) -> bool {
        if let Some(digest) = &image.digest {
            return *digest == FileDigest::of(bytes);
        }
        let is_local = self.source.location().local_path().is_some();
        let [then, now] =
            [image.etag.as_deref(), etag].map(|etag| etag.map(|etag| comparable(etag, is_local)));
        then.is_some() && then == now && image.bytes == Some(bytes.len() as u64)
    }
}

/// The result's own measures, and the new ones beside them. The old ones stay: its network may have seen a
/// transparent picture over another colour than white.
fn with_older(new: ImageMeasures, old: Option<ImageMeasures>) -> ImageMeasures {
    let Some(old) = old else { return new };
    let ImageMeasures { border, blocking, version, .. } = new;
    ImageMeasures { border, blocking, version, ..old }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_says_what_is_left_and_why() {
        let left = [
            RemeasureOutcome::Left(UNREADABLE),
            RemeasureOutcome::Left(CHANGED),
            RemeasureOutcome::Left(UNREADABLE),
        ];
        let outcomes = [
            RemeasureOutcome::Remeasured,
            RemeasureOutcome::Remeasured,
            RemeasureOutcome::Complete,
        ];
        let tally =
            outcomes.into_iter().chain(left).fold(RemeasureTally::default(), RemeasureTally::and);
        assert_eq!(
            tally.describe(2.04),
            "Remeasured 2 images in 2.0 s, 1 had all measures, 3 left: 2 can't be read, 1 changed \
             since their result"
        );
        assert_eq!(RemeasureTally::default().describe(0.1), "Remeasured 0 images in 0.1 s");
    }
}
