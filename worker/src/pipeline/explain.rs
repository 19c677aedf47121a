//! Fifth stage: one thread owns the device and the weights, and explains one batch after the
//! other. All of the network's passes are started here.

use std::sync::Arc;
use std::time::{Duration, Instant};

use camshaft_common::model::ModelIdentity;
use camshaft_common::prediction::ModelRecord;
use camshaft_model::{
    ComputeDevice, ComputeSettings, ExplainRequest, ExplainedImage, Model, ModelError, ModelFiles,
    Precision, StartedBatch,
};
use image::RgbImage;
use tokio::sync::{mpsc, oneshot};
use tracing::{Span, debug};

use super::admitted::Admitted;
use super::batch::Batch;
use super::batch_size::BatchSize;
use super::channel::{Receiver, Sender, channel};
use super::decode::Decoded;
use super::device_errors::{BatchPart, BatchResults, results_or_parts};
use super::exit::{Exit, ExitCause};
use super::hold_limit::StagePace;
use super::memory_budget::ImageMemoryPermit;
use super::model_files::{KEPT_MODELS, ModelUnavailable};
use super::recently_used::RecentlyUsed;
use super::stages::{PipelineEnd, Stages, note_exit};
use super::traces::{self, HasSpans, ImageSpans};
use crate::metrics::{Metrics, ModelWait, StageMetrics};
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
    device: ComputeDevice,
    compute: ComputeSettings,
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
        device: ComputeDevice,
        compute: ComputeSettings,
        first: Option<&ModelFiles>,
    ) -> Result<Self, ModelError> {
        let mut models = RecentlyUsed::new(KEPT_MODELS);
        // In 8 bits the first model is that of the first job, with its run's calibration.
        let waits = |files: &&ModelFiles| {
            compute.precision == Precision::Int8 && files.calibration().is_none()
        };
        if let Some(files) = first.filter(|files| !waits(files)) {
            let model = Ok(Model::load(files, &device, compute)?);
            models.insert(LoadedModel { identity: files.identity().clone(), model });
        }
        Ok(Self { device, compute, models, changed: true })
    }

    fn model(&mut self, files: &ModelFiles) -> Result<&Model, Arc<ModelError>> {
        let Self { device, compute, models, changed } = self;
        let identity = files.identity();
        let load = || {
            *changed = true;
            let model = Model::load(files, device, *compute).map_err(Arc::new);
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

    /// Starts a batch. If that can't be done, its images leave.
    fn begin(
        &mut self,
        batch: Batch,
        pace: &StagePace,
        end: &PipelineEnd,
    ) -> Result<RunningBatch, BatchEnd> {
        let files = Arc::clone(batch.model());
        let Batch { images, input, ready_since } = batch;
        let waited = ready_since.elapsed();
        let spans = images.iter().map(|image| traces::stage(STAGE, image)).collect();
        let model = match self.model(&files) {
            Ok(model) => model,
            Err(error) => {
                let lost = end_if_lost(&error, end);
                let cause = || match lost {
                    true => ExitCause::Device(Arc::clone(&error)),
                    false => ModelUnavailable::Unusable(Arc::clone(&error)).into(),
                };
                return Err(BatchEnd { spans, images: all_leave(images, cause) });
            }
        };
        if pace.gives_up() {
            return Err(BatchEnd { spans, images: all_leave(images, || ExitCause::NoTime) });
        }
        let started_at = Instant::now();
        let started = model.begin_batch(&input, &requests(&images));
        let may_overlap = model.batches_at_once() > 1 && started.is_ok();
        Ok(RunningBatch { images, input, files, spans, waited, started_at, started, may_overlap })
    }

    /// Waits for a batch. Each image goes on to the next stage or leaves. `device` tells the device's
    /// time for it.
    fn finish(
        &mut self,
        batch: RunningBatch,
        device: DeviceTime,
        size: &BatchSize,
        pace: &StagePace,
        end: &PipelineEnd,
    ) -> BatchEnd {
        let RunningBatch { images, input, files, spans, started, .. } = batch;
        let deadline = pace.max_time().and_then(|max_time| device.since.checked_add(max_time));
        let goes_on = || !pace.gives_up() && deadline.is_none_or(|at| Instant::now() < at);
        let model = self.model(&files).expect("it was there when the batch was started");
        let record = model.record();
        let given = {
            let requests = requests(&images);
            let run = |part: BatchPart<'_>| {
                let started = model.begin_batch(part.pixels, part.requests)?;
                model.finish_batch(started, part.pixels, part.requests, &goes_on)
            };
            let whole = BatchPart { pixels: &input, requests: &requests };
            let given = started.and_then(|started| {
                model.finish_batch(started, whole.pixels, whole.requests, &goes_on)
            });
            results_or_parts(given, whole, size, &run)
        };
        let worked = device.worked();
        pace.observe(worked / u32::try_from(images.len()).unwrap_or(u32::MAX));
        let images = match given {
            Ok(results) => {
                if device.is_known() {
                    size.observe(images.len(), worked);
                }
                explained(images, results, &record, worked)
            }
            Err(ModelError::GivenUp) if pace.gives_up() => all_leave(images, || ExitCause::NoTime),
            Err(ModelError::GivenUp) => too_slow(images, pace),
            Err(error) => {
                end_if_lost(&error, end);
                let error = Arc::new(error);
                all_leave(images, || ExitCause::Device(Arc::clone(&error)))
            }
        };
        BatchEnd { spans, images }
    }
}

/// The device's time for one batch.
#[derive(Clone, Copy, Debug)]
struct DeviceTime {
    /// When it began to work on this batch alone.
    since: Instant,
    /// For how long the model's thread then waited for room for the images of the batch before. The
    /// device may have been done meanwhile, and nobody looked.
    blocked: Duration,
}

impl DeviceTime {
    /// A thread that is blocked for less than this part of the time, one of ten, changes little.
    const BLOCKED_PART: u32 = 10;

    /// How long it has worked so far, without what may have been waiting.
    fn worked(self) -> Duration {
        self.since.elapsed().saturating_sub(self.blocked)
    }

    /// True if that is exact enough to compare batch sizes.
    fn is_known(self) -> bool {
        self.blocked * Self::BLOCKED_PART <= self.since.elapsed()
    }
}

/// A batch that the device works on.
#[derive(Debug)]
struct RunningBatch {
    images: Vec<Decoded>,
    /// Bytes `[N, H, W, 3]`.
    input: Vec<u8>,
    files: Arc<ModelFiles>,
    spans: Vec<Span>,
    /// How long its first image waited for the model.
    waited: Duration,
    started_at: Instant,
    started: Result<StartedBatch, ModelError>,
    /// True if another batch of the model may be started before this one is finished.
    may_overlap: bool,
}

/// A batch that the model has done with.
struct BatchEnd {
    /// The time of the whole batch, in the trace of each image.
    spans: Vec<Span>,
    images: Vec<Result<Explained, Exit>>,
}

impl BatchEnd {
    /// Ends the spans, which must end before those of the next stage begin.
    fn into_images(self) -> Vec<Result<Explained, Exit>> {
        for (span, result) in self.spans.iter().zip(&self.images) {
            traces::note_batch(span, self.images.len());
            if let Err(exit) = result {
                note_exit(span, exit);
            }
        }
        self.images
    }
}

fn requests(images: &[Decoded]) -> Vec<ExplainRequest<'_>> {
    let requests = images.iter().map(|decoded| {
        let job = &decoded.admitted.image.job;
        ExplainRequest { options: &job.explain, label: job.label.as_deref() }
    });
    requests.collect()
}

/// Images with their results go on; the others leave.
fn explained(
    images: Vec<Decoded>,
    results: BatchResults,
    record: &ModelRecord,
    worked: Duration,
) -> Vec<Result<Explained, Exit>> {
    let ms_per_image = worked.as_secs_f64() * 1000.0 / images.len() as f64;
    let explained = images.into_iter().zip(results).map(|(decoded, result)| {
        let Decoded { mut admitted, picture, memory, .. } = decoded;
        admitted.image.timings.model = ms_per_image;
        admitted.delivery.spans.logs.in_scope(|| debug!("explained"));
        match result {
            Ok(explanation) => {
                let label = explanation.label;
                admitted.image.record.class = label.and_then(Result::ok);
                admitted.image.record.label_problem = label.and_then(Result::err);
                let model =
                    ModelRecord { precision: explanation.precision.to_string(), ..record.clone() };
                Ok(Explained { admitted, picture, explanation, model, memory })
            }
            Err(error) => Err(Exit::of_image(admitted, error)),
        }
    });
    explained.collect()
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

/// Ends the pipeline if the device is lost. True if it is.
fn end_if_lost(error: &ModelError, end: &PipelineEnd) -> bool {
    let lost = matches!(error, ModelError::DeviceLost(_));
    if lost {
        end.device_is_lost(error.to_string());
    }
    lost
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
        batches: mpsc::Receiver<Batch>,
    ) -> Receiver<Explained> {
        let Self { thread, batch_size, pace, metrics } = self;
        let (output, explained) = channel(capacity);
        let (exits, end) = (stages.exits(), stages.end());
        let (finished, wait) = oneshot::channel();
        let times = metrics.stage(STAGE, 1);
        let (idle_since, blocked) = (Instant::now(), Duration::ZERO);
        let work = ModelWork {
            thread,
            batch_size,
            pace,
            metrics,
            times,
            end,
            output,
            exits,
            idle_since,
            blocked,
        };
        let thread = std::thread::Builder::new().name(MODEL_THREAD.to_owned()).spawn(move || {
            work.run(batches);
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

/// The thread's work.
struct ModelWork {
    thread: ModelThread,
    batch_size: Arc<BatchSize>,
    pace: StagePace,
    metrics: Metrics,
    times: StageMetrics,
    end: PipelineEnd,
    output: Sender<Explained>,
    exits: Sender<Exit>,
    /// When the device had done with the last batch.
    idle_since: Instant,
    /// How long the thread has waited for room for that batch's images since then.
    blocked: Duration,
}

impl ModelWork {
    /// Works until the batches end, or a later stage is gone. While a device works on a batch by
    /// itself, the next one is started if it is ready.
    fn run(mut self, mut batches: mpsc::Receiver<Batch>) {
        self.thread.show_models(&self.metrics);
        let mut running: Option<RunningBatch> = None;
        loop {
            let next = match &running {
                Some(running) if running.may_overlap => batches.try_recv().ok(),
                Some(_) => None,
                None => match self.next(&mut batches) {
                    Some(batch) => Some(batch),
                    None => break,
                },
            };
            let overlaps = |running: &RunningBatch| {
                next.as_ref().is_some_and(|next| Arc::ptr_eq(&running.files, next.model()))
            };
            if let Some(earlier) = running.take_if(|running| !overlaps(running))
                && !self.finish(earlier)
            {
                break;
            }
            let Some(next) = next else { continue };
            self.metrics.observe_batch(next.images.len());
            let sent = match self.thread.begin(next, &self.pace, &self.end) {
                Ok(begun) => running.replace(begun).is_none_or(|earlier| self.finish(earlier)),
                Err(end) => self.send(end),
            };
            self.thread.show_models(&self.metrics);
            if !sent {
                break;
            }
        }
        self.metrics.read_cpu_times();
    }

    /// Waits for a batch. None once they have ended.
    fn next(&self, batches: &mut mpsc::Receiver<Batch>) -> Option<Batch> {
        let waits_since = Instant::now();
        let batch = batches.blocking_recv();
        self.metrics.count_model_wait(ModelWait::Batch, waits_since.elapsed());
        batch
    }

    /// Waits for a batch and sends its images on. False if a later stage is gone.
    fn finish(&mut self, batch: RunningBatch) -> bool {
        let waited = batch.waited;
        let device = if batch.started_at < self.idle_since {
            DeviceTime { since: self.idle_since, blocked: self.blocked }
        } else {
            DeviceTime { since: batch.started_at, blocked: Duration::ZERO }
        };
        let done = self.thread.finish(batch, device, &self.batch_size, &self.pace, &self.end);
        self.times.observe(waited, device.worked());
        (self.idle_since, self.blocked) = (Instant::now(), Duration::ZERO);
        self.send(done)
    }

    /// Sends images on. Dropping those that can't be sent hands their messages back.
    fn send(&mut self, end: BatchEnd) -> bool {
        let sends_since = Instant::now();
        let sent = end.into_images().into_iter().all(|result| match result {
            Ok(image) => self.output.send_blocking(image).is_ok(),
            Err(exit) => self.exits.send_blocking(exit).is_ok(),
        });
        let waited = sends_since.elapsed();
        self.blocked += waited;
        self.metrics.count_model_wait(ModelWait::Room, waited);
        sent
    }
}
