//! `camshaft calibrate`: makes the calibration of a model for 8 bits from a sample of images, and says how
//! far 8 bits are from f32. `audit` makes one by the same steps if there is none.
//!
//! Owns which images are in the sample. [`camshaft_model::calibrate`] computes.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use camshaft_common::image_files::ImageFiles;
use camshaft_common::key::ImageKey;
use camshaft_common::location::Location;
use camshaft_common::model::{Agreement, CALIBRATION_FILE, CalibrationError, ModelRequest};
use camshaft_common::run::RunRecord;
use camshaft_common::store::{Folder, JSON, StoreError, StoreOptions};
use camshaft_decoding::{ImageLimits, decode};
use camshaft_model::{
    Calibration, CalibrationImages, CalibrationProgress, ModelError, ModelFiles,
    calibrate as measure, compare_calibrated,
};
use camshaft_vision::input::to_pixels;
use camshaft_worker::advice::describe_model_error;
use camshaft_worker::pipeline::model_files::{self, ModelUnavailable};
use futures::stream::{self, StreamExt, TryStreamExt};
use tokio_util::sync::CancellationToken;

use crate::advice;
use crate::audit::measuring::{Followed, KeySample, MAX_FETCHES, follow, if_readable};
use crate::calibration::{self, FoundCalibration};
use crate::images::skipped_log::SkippedLog;
use crate::images::source::Source;
use crate::images::source_config::{LabelRule, SourceConfig};
use crate::images::source_error::SourceError;
use crate::interrupt::cancel_on_signal;
use crate::terminal::output::{format_count, format_elapsed, print_line};

/// Images of the sample: one half calibrates, on the other 8 bits are compared with f32. With 200 that are
/// compared, one may have another class at the default `--min-agreement`; some can't be read.
const SAMPLE: usize = 440;
/// The sample is chosen among this many images, the first of SOURCE.
const CANDIDATES: usize = 10_000;

/// What `camshaft calibrate` is to do.
#[derive(Debug)]
pub(crate) struct CalibrateConfig {
    /// The model.
    pub(crate) model: ModelRequest,
    /// SOURCE.
    pub(crate) source: SourceConfig,
    /// Which files of SOURCE are images.
    pub(crate) image_files: ImageFiles,
    /// Where the calibration goes; else into the model's folder.
    pub(crate) out: Option<Location>,
}

/// Why a model could not be calibrated.
#[derive(Debug, thiserror::Error)]
pub enum CalibrateError {
    /// The model's files can't be used.
    #[error(transparent)]
    ModelFiles(#[from] ModelUnavailable),
    /// SOURCE can't be used.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// SOURCE can't be read, or the calibration can't be written.
    #[error("{}", advice::describe_store_error(.0))]
    Store(#[from] StoreError),
    /// The model can't be computed.
    #[error("{}", describe_model_error(.0))]
    Model(#[from] ModelError),
    /// A bug.
    #[error(transparent)]
    Unusable(#[from] CalibrationError),
    /// There is nothing to calibrate with.
    #[error(
        "SOURCE has no image that can be read, so int8 can't be calibrated; name another SOURCE"
    )]
    NoImages,
    /// SOURCE can be read once.
    #[error(
        "standard input can be read only once; calibrate first with camshaft calibrate MODEL SOURCE --out \
         OUT, or write the list to a file"
    )]
    StandardInput,
    /// The model is in no folder.
    #[error("model {0} is in no folder of its own; say with --out where the calibration goes")]
    NoFolder(String),
    /// OUT has results in another precision, or of another run.
    #[error(
        "{0} holds results that are not in int8, or of another SOURCE or model; choose another --out, or \
         leave out --precision int8"
    )]
    OtherResults(Location),
    /// The run in OUT was begun with the calibration there.
    #[error("{0} holds a run in int8, which needs the calibration there; choose another --out")]
    InUse(Location),
    /// Another command was faster.
    #[error("another command has begun in {0} meanwhile; run the same command again")]
    Overtaken(Location),
    /// Signals can't be received.
    #[error("cannot listen for signals: {0}")]
    Signals(#[source] std::io::Error),
    /// A bug, or too little memory.
    #[error("calibrating ended with a panic, which is a bug; use another --precision")]
    Panicked,
    /// The user stopped it.
    #[error("stopped; run the same command again")]
    Stopped,
}

/// Calibrates a model.
///
/// # Errors
/// If the model or SOURCE can't be used, or the calibration can't be written.
pub(crate) async fn calibrate(
    config: CalibrateConfig,
    stores: StoreOptions,
) -> Result<(), CalibrateError> {
    let CalibrateConfig { model, source, image_files, out } = config;
    let name = model.reference.to_string();
    let out = out.or_else(|| calibration::folder_of(&model.reference));
    let out = out.ok_or(CalibrateError::NoFolder(name))?;
    if is_of_a_run(&Folder::open(&out, &stores)?).await {
        return Err(CalibrateError::InUse(out));
    }
    let stop = CancellationToken::new();
    cancel_on_signal(stop.clone()).map_err(CalibrateError::Signals)?;
    let files = model_files::read(&model, &stores).await?;
    let labels = LabelRule::None;
    let source = Source::open(source, Some(image_files), labels, &out, &stores)?;
    let limits = ImageLimits::default();
    let calibrating = Calibrating { files: &files, source: &source, limits };
    let found = calibrating.write(&out, &stores, &stop).await?;
    print_line(&format!("Calibrated: {}", found.agreement));
    print_line(&format!("The calibration is {}", found.reference.place));
    Ok(())
}

/// True if the calibration in a folder is that of a run there.
async fn is_of_a_run(folder: &Folder) -> bool {
    let record = RunRecord::read(folder).await;
    record.is_ok_and(|run| run.is_some_and(|run| run.model.options.calibration.is_some()))
}

/// A model to calibrate with images of SOURCE.
#[derive(Debug)]
pub(crate) struct Calibrating<'a> {
    pub(crate) files: &'a ModelFiles,
    pub(crate) source: &'a Source,
    /// The size that one image may have.
    pub(crate) limits: ImageLimits,
}

impl Calibrating<'_> {
    /// Makes the calibration and writes it to a folder.
    ///
    /// # Errors
    /// If there are no images, if the model can't be computed, or if `stop` is cancelled.
    pub(crate) async fn write(
        &self,
        folder: &Location,
        stores: &StoreOptions,
        stop: &CancellationToken,
    ) -> Result<FoundCalibration, CalibrateError> {
        let started = Instant::now();
        let images = self.sample(SAMPLE, stores, stop).await?;
        let count = format_count(images.len() as u64, "image");
        let calibration = self.measure(images, stop).await?;
        let json = Bytes::from(calibration.to_json());
        let place = folder.join(CALIBRATION_FILE);
        let found = FoundCalibration::of(place, json.clone(), self.files.identity())?;
        let target = Folder::open(folder, stores)?;
        // A run may have begun while this one measured, and needs its own for ever.
        if is_of_a_run(&target).await {
            return Err(CalibrateError::Overtaken(folder.clone()));
        }
        target.put(CALIBRATION_FILE, json, JSON).await?;
        let elapsed = format_elapsed(started.elapsed().as_secs_f64());
        print_line(&format!("Calibrated int8 on {count} in {elapsed}"));
        Ok(found)
    }

    /// Compares 8 bits by a calibration that was made elsewhere with f32, on images of this SOURCE. `None`
    /// if no image can be read.
    ///
    /// # Errors
    /// If the model can't be computed, or if `stop` is cancelled.
    pub(crate) async fn compare(
        &self,
        found: &FoundCalibration,
        stores: &StoreOptions,
        stop: &CancellationToken,
    ) -> Result<Option<Agreement>, CalibrateError> {
        let images = match self.sample(SAMPLE / 2, stores, stop).await {
            Err(CalibrateError::NoImages) => return Ok(None),
            images => images?,
        };
        let total = images.len() as u64;
        let files = self.files.clone().calibrated_by(found.reference.clone(), &found.json)?;
        let compare =
            move |progress: &CalibrationProgress| compare_calibrated(&files, &images, progress);
        self.follow("compared", total, compare, stop).await.map(Some)
    }

    /// Measures: one half of the images calibrates, the other is compared.
    async fn measure(
        &self,
        images: Vec<Vec<u8>>,
        stop: &CancellationToken,
    ) -> Result<Calibration, CalibrateError> {
        let total = images.len() as u64;
        // In turn, so that both halves are of all folders. A single image does for both.
        let (calibrating, mut compared): (Vec<_>, Vec<_>) =
            images.into_iter().enumerate().partition(|(at, _)| at % 2 == 0);
        if compared.is_empty() {
            compared.clone_from(&calibrating);
        }
        let [calibrating, compared] = [calibrating, compared]
            .map(|half| half.into_iter().map(|(_, image)| image).collect::<Vec<_>>());
        let files = self.files.clone();
        let calibrate = move |progress: &CalibrationProgress| {
            let images = CalibrationImages { calibrating: &calibrating, compared: &compared };
            measure(&files, images, progress)
        };
        self.follow("calibrated", total, calibrate, stop).await
    }

    /// Works on a thread of its own, with a progress bar.
    async fn follow<T: Send + 'static>(
        &self,
        verb: &'static str,
        total: u64,
        work: impl FnOnce(&CalibrationProgress) -> Result<T, ModelError> + Send + 'static,
        stop: &CancellationToken,
    ) -> Result<T, CalibrateError> {
        let progress = Arc::new(CalibrationProgress::default());
        let watched = Arc::clone(&progress);
        let work = tokio::task::spawn_blocking(move || work(&watched));
        let followed = Followed { verb, done: &progress.done, stop: &progress.stop };
        let done = follow(work, followed, total, stop).await;
        match done.map_err(|_panic| CalibrateError::Panicked)? {
            Err(ModelError::GivenUp) => Err(CalibrateError::Stopped),
            done => Ok(done?),
        }
    }

    /// Reads a sample, unless `stop` is cancelled.
    async fn sample(
        &self,
        size: usize,
        stores: &StoreOptions,
        stop: &CancellationToken,
    ) -> Result<Vec<Vec<u8>>, CalibrateError> {
        tokio::select! {
            images = self.read_sample(size, stores) => images,
            () = stop.cancelled() => Err(CalibrateError::Stopped),
        }
    }

    /// Reads, decodes and resizes the sample's images. One that can't be is left out.
    async fn read_sample(
        &self,
        size: usize,
        stores: &StoreOptions,
    ) -> Result<Vec<Vec<u8>>, CalibrateError> {
        if self.source.is_standard_input() {
            return Err(CalibrateError::StandardInput);
        }
        let keys = self.choose(size).await?;
        let source = Folder::open(self.source.location(), stores)?;
        let limits = self.limits;
        let read = |key: ImageKey| {
            let (source, files) = (source.clone(), self.files.clone());
            async move {
                let image = source.get_image(&key, limits.max_bytes).await;
                let Some(image) = if_readable(image)? else { return Ok::<_, StoreError>(None) };
                let pixels = tokio::task::spawn_blocking(move || {
                    let config = files.config();
                    let picture = decode(&image.bytes, &limits, config.transparency).ok()?;
                    Some(to_pixels(&picture, &config.input))
                });
                // A decoder that panics also says that this is no image.
                Ok(pixels.await.unwrap_or_default())
            }
        };
        let images: Vec<_> =
            stream::iter(keys).map(read).buffered(MAX_FETCHES).try_collect().await?;
        let images: Vec<_> = images.into_iter().flatten().collect();
        if images.is_empty() { Err(CalibrateError::NoImages) } else { Ok(images) }
    }

    /// The images whose keys have the smallest digests among the first of SOURCE: the same ones each time,
    /// from all folders that are among these.
    ///
    /// A run's `--limit` does not count: it may go on with all of SOURCE.
    async fn choose(&self, size: usize) -> Result<Vec<ImageKey>, SourceError> {
        // What is no image is told when the run lists SOURCE.
        let skipped = Arc::new(SkippedLog::new(false));
        let mut images = self.source.images(&skipped).take(CANDIDATES);
        let mut sample = KeySample::new(size);
        while let Some(image) = images.try_next().await? {
            sample.add(image.key);
        }
        Ok(sample.into_keys())
    }
}
