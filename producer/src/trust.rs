//! `camshaft audit --trust-sample`: picks a sample of a finished run's images, has their maps
//! measured, and writes `trust.json`.
//!
//! Owns which images are looked at and what the caller is told. The measures are
//! [`camshaft_trust`]'s.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use camshaft_common::explain::ExplainOptions;
use camshaft_common::key::ImageKey;
use camshaft_common::layout::{self, PREDICTIONS, TRUST_FILE};
use camshaft_common::location::Location;
use camshaft_common::model::FileDigest;
use camshaft_common::prediction::PredictionRecord;
use camshaft_common::run::{RunId, SCHEMA};
use camshaft_common::store::{Folder, JSON, StoreError, StoreErrorKind, StoreOptions};
use camshaft_common::trust::{Estimate, MapTrust, TrustRecord, TrustSample};
use camshaft_decoding::ImageLimits;
use camshaft_model::{ModelError, ModelFiles};
use camshaft_trust::examination::{
    ComputeSettings, ExaminationError, ExaminationProgress, SampledImage, examine,
};
use camshaft_vision::input::to_input;
use camshaft_worker::arguments::EngineArgs;
use futures::stream::{self, StreamExt, TryStreamExt};
use tokio_util::sync::CancellationToken;

use crate::output::{count, say};
use crate::progress::Progress;

/// Images read at once.
const FETCHES: usize = 8;
/// Larger than any prediction record this program writes.
const MAX_RECORD_BYTES: u64 = 16 * 1024 * 1024;

/// Why a run's maps could not be measured.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TrustError {
    /// OUT or SOURCE can't be read, or OUT not written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The measuring itself.
    #[error(transparent)]
    Examination(#[from] ExaminationError),
    /// A bug, or too little memory.
    #[error("measuring the maps ended with a panic; try a smaller --trust-sample")]
    Panicked,
    /// Nothing to measure.
    #[error("{0} has no prediction whose image can still be read, so there are no maps to measure")]
    NothingToMeasure(Location),
}

/// What is to be measured.
#[derive(Debug)]
pub(crate) struct TrustRequest {
    /// Images wanted.
    pub(crate) sample: u16,
    /// Where keys are below.
    pub(crate) source: Location,
    /// Where results lie.
    pub(crate) out: Location,
    /// The run's options.
    pub(crate) explain: ExplainOptions,
    /// Where the model runs.
    pub(crate) engine: EngineArgs,
    /// The run's model.
    pub(crate) files: Arc<ModelFiles>,
}

impl TrustRequest {
    /// Measures, writes `trust.json` and tells what was found.
    ///
    /// # Errors
    /// Where a store or the model can't be used, or `stop` is cancelled.
    pub(crate) async fn measure(
        self,
        run: RunId,
        stores: &StoreOptions,
        stop: &CancellationToken,
    ) -> Result<(), TrustError> {
        let started = Instant::now();
        let source = Folder::open(&self.source, stores)?;
        let out = Folder::open(&self.out, stores)?;
        let keys = sample(&out, self.sample.into()).await?;
        let asked = keys.len() as u64;
        let images = self.read(&source, &out, keys).await?;

        let progress = Arc::new(ExaminationProgress::default());
        let (explain, readable, watched) =
            (self.explain.clone(), images.len() as u64, Arc::clone(&progress));
        let stopping = stop.clone();
        let work = tokio::task::spawn_blocking(move || {
            let EngineArgs { device, precision, kernel, .. } = self.engine;
            let device = device.open().map_err(ModelError::from)?;
            let batch = self.engine.batch_size(&device).now();
            let compute = ComputeSettings { device, precision, kernel, batch };
            examine(&self.files, &compute, &self.explain, &images, &watched)
        });
        let work = async {
            let mut work = std::pin::pin!(work);
            tokio::select! {
                examined = &mut work => examined,
                () = stopping.cancelled() => {
                    progress.stop.store(true, Relaxed);
                    work.await
                }
            }
        };
        let read = || (progress.measured.load(Relaxed), Some(readable), 0);
        let examined = Progress::start("measured").follow(work, read).await;
        let examined = examined.map_err(|_panic| TrustError::Panicked)??;
        let measured = examined.keys.len() as u64;
        if measured == 0 {
            return Err(TrustError::NothingToMeasure(self.out));
        }
        let sample = TrustSample {
            asked: self.sample.into(),
            measured,
            left_out: asked - measured,
            keys: examined.keys,
        };
        let record = TrustRecord {
            schema: SCHEMA,
            run,
            model: examined.model,
            explain,
            sample,
            settings: examined.settings,
            maps: examined.maps,
        };
        let json =
            serde_json::to_vec_pretty(&record).expect("a record has only strings and numbers");
        out.put(TRUST_FILE, json, JSON).await?;
        tell(&record, started, &self.out);
        Ok(())
    }

    /// Reads and decodes a sample's images, in its order. One that has gone, or is no longer
    /// an image, is left out.
    async fn read(
        &self,
        source: &Folder,
        out: &Folder,
        keys: Vec<ImageKey>,
    ) -> Result<Vec<SampledImage>, StoreError> {
        let limits = ImageLimits {
            max_bytes: self.engine.max_image_bytes,
            max_pixels: self.engine.max_image_pixels,
            ..ImageLimits::default()
        };
        let read = |key: ImageKey| {
            let files = Arc::clone(&self.files);
            async move {
                let record = out.get(&layout::prediction(&key), MAX_RECORD_BYTES).await;
                let image = source.get(key.as_str(), limits.max_bytes).await;
                let (Some(record), Some(image)) = (still_there(record)?, still_there(image)?)
                else {
                    return Ok(None);
                };
                let Ok(record) = serde_json::from_slice::<PredictionRecord>(&record.bytes) else {
                    return Ok(None);
                };
                let input = tokio::task::spawn_blocking(move || {
                    let picture = camshaft_decoding::decode(&image.bytes, &limits).ok()?;
                    Some(to_input(&picture, &files.config().input))
                });
                // A decoder that panics says that it is no image, too.
                let input = input.await.unwrap_or_default();
                Ok(input.map(|input| SampledImage { key, label: record.image.label, input }))
            }
        };
        let images: Vec<_> = stream::iter(keys).map(read).buffered(FETCHES).try_collect().await?;
        Ok(images.into_iter().flatten().collect())
    }
}

/// The object, or nothing where it is the object's own fault that it can't be read.
fn still_there<T>(read: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
    match read {
        Ok(object) => Ok(Some(object)),
        Err(error) => match error.kind() {
            StoreErrorKind::NotFound | StoreErrorKind::TooLarge => Ok(None),
            _ => Err(error),
        },
    }
}

/// The `count` images with a prediction whose keys have the smallest digests: spread over the
/// set whatever its order, and the same ones however often the run was interrupted.
async fn sample(out: &Folder, count: usize) -> Result<Vec<ImageKey>, StoreError> {
    let mut smallest = BTreeSet::new();
    let mut objects = out.list(PREDICTIONS);
    while let Some(object) = objects.try_next().await? {
        let Some(key) = layout::image_of_result(&object.path) else { continue };
        let digest = FileDigest::of(key.as_str().as_bytes());
        smallest.insert((digest.as_str().to_owned(), key));
        if smallest.len() > count {
            smallest.pop_last();
        }
    }
    Ok(smallest.into_iter().map(|(_digest, key)| key).collect())
}

/// A few lines for a person; the rest is in the file.
fn tell(record: &TrustRecord, started: Instant, out: &Location) {
    let sample = &record.sample;
    let mut line = format!(
        "Measured the maps of {} in {:.1} s",
        count(sample.measured, "image"),
        started.elapsed().as_secs_f64()
    );
    if sample.left_out > 0 {
        line.push_str(&format!("; {} could no longer be read", sample.left_out));
    }
    say(&format!("{line}: {out}/{TRUST_FILE}"));
    for map in &record.maps {
        say(&summary(map));
    }
    for warning in record.maps.iter().flat_map(|map| &map.warnings) {
        say(&format!("  Warning: {warning}"));
    }
}

fn summary(map: &MapTrust) -> String {
    let MapTrust { method, layer, faithfulness, random_maps, sanity, .. } = map;
    let against = |ours: &Estimate, random: &Estimate| {
        format!("{} (random maps {})", interval(ours), number(random.mean))
    };
    format!(
        "  {method} at {layer}: ROAD {}, deletion {}, insertion {}; rank correlation with a \
         re-drawn head {}, last stage {}",
        against(&faithfulness.road, &random_maps.road),
        against(&faithfulness.deletion_auc, &random_maps.deletion_auc),
        against(&faithfulness.insertion_auc, &random_maps.insertion_auc),
        interval(&sanity.head.rank_correlation),
        interval(&sanity.last_stage.rank_correlation),
    )
}

fn number(value: Option<f64>) -> String {
    value.map_or_else(|| "unknown".to_owned(), |value| format!("{value:.2}"))
}

/// `0.31 [0.25, 0.37]`.
fn interval(estimate: &Estimate) -> String {
    let mean = number(estimate.mean);
    match (estimate.low, estimate.high) {
        (Some(low), Some(high)) => format!("{mean} [{low:.2}, {high:.2}]"),
        _ => mean,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn sampled(keys: &[String], count: usize) -> Vec<String> {
        let directory = tempfile::tempdir().unwrap();
        let location = directory.path().to_str().unwrap().parse().unwrap();
        let out = Folder::open(&location, &StoreOptions::default()).unwrap();
        for key in keys {
            let key = ImageKey::parse(key).unwrap();
            out.put(&layout::prediction(&key), "{}", JSON).await.unwrap();
        }
        let keys = sample(&out, count).await.unwrap();
        keys.into_iter().map(|key| key.to_string()).collect()
    }

    #[tokio::test]
    async fn the_sample_is_stable_and_spread_over_the_set() {
        let keys: Vec<_> = (0..200).map(|at| format!("{}/{at:03}.jpg", at / 50)).collect();
        let twenty = sampled(&keys, 20).await;
        assert_eq!(twenty.len(), 20);
        for folder in 0..4 {
            let prefix = format!("{folder}/");
            assert!(twenty.iter().any(|key| key.starts_with(&prefix)), "{twenty:?}");
        }
        let ten = sampled(&keys, 10).await;
        assert_eq!(ten, twenty[..10], "a larger sample has the smaller one in front");
        let (half, _) = keys.split_at(100);
        let kept: Vec<_> = twenty.into_iter().filter(|key| half.contains(key)).collect();
        assert_eq!(sampled(half, 20).await[..kept.len()], kept);
        assert_eq!(sampled(&keys[..3], 10).await.len(), 3);
    }

    #[test]
    fn intervals_are_for_people() {
        let estimate = |low, high| Estimate { mean: Some(0.314), low, high, n: 2 };
        assert_eq!(interval(&estimate(Some(0.25), Some(0.375))), "0.31 [0.25, 0.38]");
        assert_eq!(interval(&estimate(None, None)), "0.31");
        assert_eq!(interval(&Estimate { mean: None, low: None, high: None, n: 0 }), "unknown");
    }
}
