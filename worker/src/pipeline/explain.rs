//! Fifth stage: one thread owns the device and the weights, and explains one batch after the
//! other. All of candle's work is done here, because cuDNN's handles belong to one thread.

use std::sync::Arc;
use std::time::Instant;

use camshaft_common::model::ModelIdentity;
use camshaft_common::prediction::ModelRecord;
use camshaft_model::{
    ExplainError, ExplainRequest, ExplainedImage, KernelChoice, Model, ModelError, ModelFiles,
    Precision,
};
use candle_core::{Device, Tensor};
use image::RgbImage;
use tokio::sync::{mpsc, oneshot};
use tracing::{debug, warn};

use super::admitted::Admitted;
use super::batch::Batch;
use super::batch_size::BatchSize;
use super::channel::{Receiver, channel};
use super::decode::Decoded;
use super::exit::{Exit, ExitCause};
use super::hold_limit::StagePace;
use super::memory_budget::ImageMemoryPermit;
use super::model_files::{KEPT_MODELS, ModelUnavailable};
use super::recently_used::RecentlyUsed;
use super::stages::{Stages, note_exit};
use super::traces::{self, HasSpans, ImageSpans};
use crate::metrics::{Metrics, ModelWait};
use crate::thread_times::MODEL_THREAD;

const STAGE: &str = "model";

/// An image with its predictions and maps.
#[derive(Debug)]
pub struct Explained {
    /// The image and its delivery.
    pub admitted: Admitted,
    /// The image's pixels, at its own size.
    pub picture: RgbImage,
    /// What the network predicts, and where it looked.
    pub explanation: ExplainedImage,
    /// The model that predicted.
    pub model: ModelRecord,
    /// The right to hold the pixels in memory.
    pub memory: ImageMemoryPermit,
}

impl HasSpans for Explained {
    fn spans(&self) -> Option<&ImageSpans> {
        self.admitted.spans()
    }
}

/// The device and the models loaded onto it. It is given to a thread, and stays there.
#[derive(Debug)]
pub struct ModelThread {
    device: Device,
    precision: Precision,
    kernel: KernelChoice,
    models: RecentlyUsed<LoadedModel>,
    /// True if the loaded models changed since the last report to the metrics.
    changed: bool,
}

/// A model that was asked for. One that can't be loaded is kept as its error. Otherwise each of a
/// million jobs would try to load it again.
#[derive(Debug)]
struct LoadedModel {
    identity: ModelIdentity,
    model: Result<Model, Arc<ModelError>>,
}

impl ModelThread {
    /// Takes a device, and loads the first model onto it if there is one.
    ///
    /// # Errors
    /// If the model can't be loaded.
    pub fn new(
        device: Device,
        precision: Precision,
        kernel: KernelChoice,
        first: Option<&ModelFiles>,
    ) -> Result<Self, ModelError> {
        let mut models = RecentlyUsed::new(KEPT_MODELS);
        if let Some(files) = first {
            let model = Ok(Model::load(files, &device, precision, kernel)?);
            models.insert(LoadedModel { identity: files.identity().clone(), model });
        }
        Ok(Self { device, precision, kernel, models, changed: true })
    }

    fn model(&mut self, files: &ModelFiles) -> Result<&Model, Arc<ModelError>> {
        let Self { device, precision, kernel, models, changed } = self;
        let identity = files.identity();
        let load = || {
            *changed = true;
            let model = Model::load(files, device, *precision, *kernel).map_err(Arc::new);
            LoadedModel { identity: identity.clone(), model }
        };
        let loaded = models.find_or_make(|known| known.identity.same_content(identity), load);
        loaded.model.as_ref().map_err(Arc::clone)
    }

    /// Shows in the metrics which models are loaded, if they changed.
    fn show_models(&mut self, metrics: &Metrics) {
        if std::mem::take(&mut self.changed) {
            let loaded = self.models.iter().filter_map(|loaded| loaded.model.as_ref().ok());
            metrics.show_models(&loaded.map(Model::record).collect::<Vec<_>>());
        }
    }

    /// Explains a batch. The trace of each image shows the time of the whole batch.
    fn explain_traced(
        &mut self,
        batch: Batch,
        size: &BatchSize,
        pace: &StagePace,
    ) -> Vec<Result<Explained, Exit>> {
        let spans: Vec<_> = batch.images.iter().map(|image| traces::stage(STAGE, image)).collect();
        let results = self.explain(batch, size, pace);
        for (span, result) in spans.iter().zip(&results) {
            traces::note_batch(span, results.len());
            if let Err(exit) = result {
                note_exit(span, exit);
            }
        }
        results
    }

    /// Explains a batch. Each image goes on to the next stage or leaves.
    fn explain(
        &mut self,
        batch: Batch,
        size: &BatchSize,
        pace: &StagePace,
    ) -> Vec<Result<Explained, Exit>> {
        let Batch { images, input, .. } = batch;
        let files = Arc::clone(&images.first().expect("a batch is never empty").model);
        let model = match self.model(&files) {
            Ok(model) => model,
            Err(error) => {
                return all_leave(images, || ModelUnavailable::Unusable(Arc::clone(&error)).into());
            }
        };
        if pace.gives_up() {
            return all_leave(images, || ExitCause::NoTime);
        }
        let record = model.record();
        let started = Instant::now();
        let deadline = pace.max_time().and_then(|max_time| started.checked_add(max_time));
        let goes_on = || !pace.gives_up() && deadline.is_none_or(|at| Instant::now() < at);
        let results = run_model(model, &images, input, size, &goes_on);
        let images_done = u32::try_from(images.len()).unwrap_or(u32::MAX);
        pace.observe(started.elapsed() / images_done);
        let results = match results {
            Ok(results) => results,
            Err(ModelError::GivenUp) if pace.gives_up() => {
                return all_leave(images, || ExitCause::NoTime);
            }
            Err(ModelError::GivenUp) => return too_slow(images, pace),
            Err(error) => {
                let error = Arc::new(error);
                return all_leave(images, || ExitCause::Device(Arc::clone(&error)));
            }
        };
        size.observe(images.len(), started.elapsed());
        let ms_per_image = started.elapsed().as_secs_f64() * 1000.0 / images.len() as f64;
        let explained = images.into_iter().zip(results).map(|(decoded, result)| {
            let Decoded { mut admitted, picture, memory, .. } = decoded;
            admitted.image.timings.model = ms_per_image;
            admitted.delivery.spans.logs.in_scope(|| debug!("explained"));
            match result {
                Ok(explanation) => {
                    let label = explanation.label;
                    admitted.image.record.class = label.and_then(Result::ok);
                    admitted.image.record.label_problem = label.and_then(Result::err);
                    let model = record.clone();
                    Ok(Explained { admitted, picture, explanation, model, memory })
                }
                Err(error) => Err(Exit::of_image(admitted, error)),
            }
        });
        explained.collect()
    }
}

type ImageResults = Vec<Result<ExplainedImage, ExplainError>>;

/// Runs the model on a batch. Returns an error of the whole batch, or a result for each image.
fn run_model(
    model: &Model,
    images: &[Decoded],
    input: Vec<f32>,
    size: &BatchSize,
    goes_on: &dyn Fn() -> bool,
) -> Result<ImageResults, ModelError> {
    let rule = &model.config().input;
    let shape = (images.len(), 3, rule.height, rule.width);
    let input = Tensor::from_vec(input, shape, &Device::Cpu)?;
    let requests = images.iter().map(|decoded| {
        let job = &decoded.admitted.image.job;
        ExplainRequest { options: &job.explain, label: job.label.as_deref() }
    });
    run_or_halve(model, &requests.collect::<Vec<_>>(), &input, size, goes_on)
}

/// Runs the model on a batch. If the device fails, for example because its memory is full, each
/// half of the batch is tried, and further batches are smaller.
fn run_or_halve(
    model: &Model,
    requests: &[ExplainRequest<'_>],
    input: &Tensor,
    size: &BatchSize,
    goes_on: &dyn Fn() -> bool,
) -> Result<ImageResults, ModelError> {
    let images = requests.len();
    let error = match model.explain_batch_while(input, requests, goes_on) {
        Err(error) if images > 1 && !matches!(error, ModelError::GivenUp) => error,
        result => return result,
    };
    warn!(images, %error, "the device failed on a batch; trying its halves");
    size.shrink_below(images);
    let (first, second) = requests.split_at(images / 2);
    let part = |from, requests: &[_]| input.narrow(0, from, requests.len())?.copy();
    let mut results = run_or_halve(model, first, &part(0, first)?, size, goes_on)?;
    results.extend(run_or_halve(model, second, &part(first.len(), second)?, size, goes_on)?);
    Ok(results)
}

/// Images whose maps were not there at the deadline leave. One image is too slow by itself. Of
/// several it is not known, and the next batches are smaller.
fn too_slow(images: Vec<Decoded>, pace: &StagePace) -> Vec<Result<Explained, Exit>> {
    let max_time = pace.max_time().unwrap_or_default();
    match images.len() {
        1 => all_leave(images, || ExitCause::ExplainTimedOut(max_time)),
        _ => all_leave(images, || ExitCause::NoTime),
    }
}

fn all_leave(images: Vec<Decoded>, cause: impl Fn() -> ExitCause) -> Vec<Result<Explained, Exit>> {
    images.into_iter().map(|decoded| Err(Exit::of_image(decoded.admitted, cause()))).collect()
}

/// Explains batches on a thread of its own.
#[derive(Debug)]
pub struct ModelStage {
    /// What the thread owns.
    pub thread: ModelThread,
    /// Learns how long batches take.
    pub batch_size: Arc<BatchSize>,
    /// Learns how long an image takes, and says how long it may.
    pub pace: StagePace,
    /// Shows the loaded models and the batches.
    pub metrics: Metrics,
}

impl ModelStage {
    /// Starts the thread. Up to `capacity` images wait behind it for the next stage.
    pub fn start(
        self,
        stages: &mut Stages,
        capacity: usize,
        mut batches: mpsc::Receiver<Batch>,
    ) -> Receiver<Explained> {
        let Self { mut thread, batch_size, pace, metrics } = self;
        let (output, explained) = channel(capacity);
        let exits = stages.exits();
        let (finished, wait) = oneshot::channel();
        let mut work = move || {
            let times = metrics.stage(STAGE, 1);
            thread.show_models(&metrics);
            let mut idle_since = Instant::now();
            while let Some(batch) = batches.blocking_recv() {
                metrics.count_model_wait(ModelWait::Batch, idle_since.elapsed());
                metrics.observe_batch(batch.images.len());
                let (waited, started) = (batch.ready_since.elapsed(), Instant::now());
                let results = thread.explain_traced(batch, &batch_size, &pace);
                times.observe(waited, started.elapsed());
                thread.show_models(&metrics);
                let sends_since = Instant::now();
                for result in results {
                    let sent = match result {
                        Ok(image) => output.send_blocking(image),
                        Err(exit) => exits.send_blocking(exit),
                    };
                    // A later stage is gone. Dropping the images hands their messages back.
                    if sent.is_err() {
                        return;
                    }
                }
                idle_since = Instant::now();
                metrics.count_model_wait(ModelWait::Room, idle_since - sends_since);
            }
            metrics.read_cpu_times();
        };
        let thread = std::thread::Builder::new().name(MODEL_THREAD.to_owned()).spawn(move || {
            work();
            // There is no receiver if the pipeline was dropped.
            finished.send(()).unwrap_or_default();
        });
        thread.expect("the system has room for one more thread");
        // If the thread panics, so does this task, and the pipeline reports it.
        stages.spawn(STAGE, async {
            wait.await.expect("the model thread ends without a panic");
        });
        explained
    }
}
