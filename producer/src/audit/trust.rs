//! `camshaft audit --trust-sample`: measures on a sample of a finished run's images whether the
//! maps can be trusted, and writes `trust.json`.
//!
//! Owns which images are in the sample and what is printed. [`camshaft_trust`] measures.

use std::sync::Arc;
use std::time::Instant;

use camshaft_common::explain::ExplainOptions;
use camshaft_common::image_files::ImageFiles;
use camshaft_common::key::ImageKey;
use camshaft_common::layout::{Layout, PREDICTIONS, TRUST_FILE};
use camshaft_common::location::Location;
use camshaft_common::prediction::{ImageRecord, MAX_RECORD_BYTES, PredictionRecord};
use camshaft_common::results::{self, ResultFile};
use camshaft_common::run::{RunId, SCHEMA};
use camshaft_common::store::{Folder, JSON, StoreError, StoreOptions};
use camshaft_common::trust::{Estimate, MapTrust, TrustRecord, TrustSample};
use camshaft_decoding::decode;
use camshaft_model::ModelFiles;
use camshaft_trust::examination::{
    ExaminationError, ExaminationProgress, MeasuredSample, SampledImage, examine,
};
use camshaft_vision::input::to_input;
use camshaft_worker::config::EngineConfig;
use futures::stream::{self, StreamExt, TryStreamExt};
use tokio_util::sync::CancellationToken;

use super::measuring::{Followed, KeySample, MAX_FETCHES, follow, if_readable, open_device};
use crate::advice;
use crate::terminal::output::{format_count, format_elapsed, print_line};

/// Why the maps of a run could not be measured.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// OUT or SOURCE can't be read, or OUT can't be written.
    #[error("{}", advice::describe_store_error(.0))]
    Store(#[from] StoreError),
    /// Measuring failed.
    #[error("{}", advice::describe_examination_error(.0))]
    Examination(#[from] ExaminationError),
    /// A bug, or too little memory.
    #[error("measuring the maps ended with a panic; try a smaller --trust-sample")]
    Panicked,
    /// There are no maps to measure.
    #[error("{0} has no prediction whose image can still be read, so there are no maps to measure")]
    NothingToMeasure(Location),
}

/// A sample of a run's images, whose maps are to be measured.
#[derive(Debug)]
pub(crate) struct TrustSampling {
    /// Size of the sample.
    pub(crate) images: u16,
    /// The folder or prefix that keys are below.
    pub(crate) source: Location,
    /// OUT.
    pub(crate) out: Location,
    /// The run's options.
    pub(crate) explain: ExplainOptions,
    /// How the network runs, and how large images may be.
    pub(crate) engine: EngineConfig,
    /// The run's model.
    pub(crate) files: Arc<ModelFiles>,
}

impl TrustSampling {
    /// Measures the maps, writes `trust.json` and prints the main numbers.
    ///
    /// # Errors
    /// If a store or the model can't be used, or if `stop` is cancelled.
    pub(crate) async fn measure(
        self,
        run: RunId,
        files: Option<&ImageFiles>,
        stores: &StoreOptions,
        stop: &CancellationToken,
    ) -> Result<(), TrustError> {
        let started = Instant::now();
        let source = Folder::open(&self.source, stores)?;
        let out = Folder::open(&self.out, stores)?;
        let keys = choose_sample(&out, files, self.images.into()).await?;
        let chosen = keys.len() as u64;
        let images = self.read_images(&source, &out, keys).await?;
        let examined = self.examine(images, stop).await?;
        let measured = examined.keys.len() as u64;
        if measured == 0 {
            return Err(TrustError::NothingToMeasure(self.out));
        }
        let record = TrustRecord {
            schema: SCHEMA,
            run,
            model: examined.model,
            explain: self.explain,
            sample: TrustSample {
                asked: self.images.into(),
                measured,
                left_out: chosen - measured,
                keys: examined.keys,
            },
            settings: examined.settings,
            maps: examined.maps,
        };
        let json =
            serde_json::to_vec_pretty(&record).expect("a record has only strings and numbers");
        out.put(TRUST_FILE, json, JSON).await?;
        print_record(&record, started, &self.out);
        Ok(())
    }

    /// Measures on a thread of its own, with a progress bar.
    async fn examine(
        &self,
        images: Vec<SampledImage>,
        stop: &CancellationToken,
    ) -> Result<MeasuredSample, TrustError> {
        let total = images.len() as u64;
        let progress = Arc::new(ExaminationProgress::default());
        let (compute, explain) = (self.engine.compute.clone(), self.explain.clone());
        let (files, watched) = (Arc::clone(&self.files), Arc::clone(&progress));
        let examining = tokio::task::spawn_blocking(move || {
            let (device, compute) = open_device(&compute)?;
            examine(&files, &device, compute, &explain, &images, &watched)
        });
        let examined = follow(examining, Followed::from(&*progress), total, stop).await;
        Ok(examined.map_err(|_panic| TrustError::Panicked)??)
    }

    /// Reads and decodes a sample's images, in its order. One that has gone, or is no longer
    /// an image, is left out.
    async fn read_images(
        &self,
        source: &Folder,
        out: &Folder,
        keys: Vec<ImageKey>,
    ) -> Result<Vec<SampledImage>, StoreError> {
        let limits = self.engine.image_limits;
        let layout = Layout::of(&self.out);
        let labels = &self.files.config().label_matcher();
        let read = |key: ImageKey| {
            let files = Arc::clone(&self.files);
            async move {
                let record = out.get(&layout.prediction(&key), MAX_RECORD_BYTES).await;
                let image = source.get_image(&key, limits.max_bytes).await;
                let (Some(record), Some(image)) = (if_readable(record)?, if_readable(image)?)
                else {
                    return Ok(None);
                };
                let Ok(record) = serde_json::from_slice::<PredictionRecord>(&record.bytes) else {
                    return Ok(None);
                };
                // A label map may have said which class the given label is.
                let ImageRecord { class, label, .. } = record.image;
                let label = class.and_then(|class| labels.label_of(class)).or(label);
                let input = tokio::task::spawn_blocking(move || {
                    let config = files.config();
                    let picture = decode(&image.bytes, &limits, config.transparency).ok()?;
                    Some(to_input(&picture, &config.input))
                });
                // A decoder that panics also says that this is no image.
                let input = input.await.unwrap_or_default();
                Ok(input.map(|input| SampledImage { key, label, input }))
            }
        };
        let images: Vec<_> =
            stream::iter(keys).map(read).buffered(MAX_FETCHES).try_collect().await?;
        Ok(images.into_iter().flatten().collect())
    }
}

/// The `count` images whose keys have the smallest digests, of those with a prediction that are
/// images by `files` still. They are spread over the data set whatever its order, and stay the same
/// when a run is interrupted.
async fn choose_sample(
    out: &Folder,
    files: Option<&ImageFiles>,
    count: usize,
) -> Result<Vec<ImageKey>, StoreError> {
    let mut sample = KeySample::new(count);
    let mut predictions = results::list(out, PREDICTIONS);
    while let Some(ResultFile { key, .. }) = predictions.try_next().await? {
        if files.is_some_and(|files| !files.selects(&key)) {
            continue;
        }
        sample.add(key);
    }
    Ok(sample.into_keys())
}

/// Prints the main numbers; the rest is in the file.
fn print_record(record: &TrustRecord, started: Instant, out: &Location) {
    let sample = &record.sample;
    let mut line = format!(
        "Measured the maps of {} in {}",
        format_count(sample.measured, "image"),
        format_elapsed(started.elapsed().as_secs_f64())
    );
    if sample.left_out > 0 {
        line.push_str(&format!("; {} could no longer be read", sample.left_out));
    }
    print_line(&format!("{line}: {out}/{TRUST_FILE}"));
    for map in &record.maps {
        print_line(&describe_map(map));
    }
    for warning in record.maps.iter().flat_map(|map| &map.warnings) {
        print_line(&format!("  Warning: {warning}"));
    }
}

fn describe_map(map: &MapTrust) -> String {
    let MapTrust { method, layer, faithfulness, random_maps, sanity, .. } = map;
    let against = |ours: &Estimate, random: &Estimate| {
        format!("{} (random maps {})", format_interval(ours), format_number(random.mean))
    };
    format!(
        "  {method} at {layer}: ROAD {}, deletion {}, insertion {}; rank correlation with a \
         re-drawn head {}, last stage {}",
        against(&faithfulness.road, &random_maps.road),
        against(&faithfulness.deletion_auc, &random_maps.deletion_auc),
        against(&faithfulness.insertion_auc, &random_maps.insertion_auc),
        format_interval(&sanity.head.rank_correlation),
        format_interval(&sanity.last_stage.rank_correlation),
    )
}

fn format_number(value: Option<f64>) -> String {
    value.map_or_else(|| "unknown".to_owned(), |value| format!("{value:.2}"))
}

/// `0.31 [0.25, 0.37]`.
fn format_interval(estimate: &Estimate) -> String {
    let mean = format_number(estimate.mean);
    match (estimate.low, estimate.high) {
        (Some(low), Some(high)) => format!("{mean} [{low:.2}, {high:.2}]"),
        _ => mean,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn sampled(keys: &[String], files: Option<&ImageFiles>, count: usize) -> Vec<String> {
        let directory = tempfile::tempdir().unwrap();
        let location = directory.path().to_str().unwrap().parse().unwrap();
        let out = Folder::open(&location, &StoreOptions::default()).unwrap();
        for key in keys {
            let key = ImageKey::parse(key).unwrap();
            out.put(&Layout::of(&location).prediction(&key), "{}", JSON).await.unwrap();
        }
        let keys = choose_sample(&out, files, count).await.unwrap();
        keys.into_iter().map(|key| key.to_string()).collect()
    }

    #[tokio::test]
    async fn the_sample_is_stable_and_spread_over_the_set() {
        let keys: Vec<_> = (0..200).map(|at| format!("{}/{at:03}.jpg", at / 50)).collect();
        let twenty = sampled(&keys, None, 20).await;
        assert_eq!(twenty.len(), 20);
        for folder in 0..4 {
            let prefix = format!("{folder}/");
            assert!(twenty.iter().any(|key| key.starts_with(&prefix)), "{twenty:?}");
        }
        let exclude = vec!["0/*".parse().unwrap()];
        let files = ImageFiles { exclude, ..ImageFiles::default() };
        let others = sampled(&keys, Some(&files), 20).await;
        assert!(others.iter().all(|key| !key.starts_with("0/")), "{others:?}");
        let ten = sampled(&keys, None, 10).await;
        assert_eq!(ten, twenty[..10], "a larger sample has the smaller one in front");
        let (half, _) = keys.split_at(100);
        let kept: Vec<_> = twenty.into_iter().filter(|key| half.contains(key)).collect();
        assert_eq!(sampled(half, None, 20).await[..kept.len()], kept);
        assert_eq!(sampled(&keys[..3], None, 10).await.len(), 3);
    }

    #[test]
    fn intervals_are_for_people() {
        let estimate = |low, high| Estimate { mean: Some(0.314), low, high, n: 2 };
        assert_eq!(format_interval(&estimate(Some(0.25), Some(0.375))), "0.31 [0.25, 0.38]");
        assert_eq!(format_interval(&estimate(None, None)), "0.31");
        assert_eq!(
            format_interval(&Estimate { mean: None, low: None, high: None, n: 0 }),
            "unknown"
        );
    }
}
