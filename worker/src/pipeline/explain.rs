//! Fifth stage: one OS thread owns the device and the weights, and explains batch after
//! batch. Everything candle happens here: cuDNN's handles belong to a thread.

use std::sync::Arc;
use std::time::Instant;

use camshaft_common::model::ModelIdentity;
use camshaft_common::prediction::ModelRecord;
use candle_core::{Device, Tensor};
use image::RgbImage;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tracing::{debug, warn};

use super::batch::Batch;
use super::batch_size::BatchSize;
use super::budget::Share;
use super::channel::Sender;
use super::context::Context;
use super::decode::Decoded;
use super::model_files::ModelUnavailable;
use super::stage::{Admitted, Exit, ExitCause};
use super::traces;
use crate::metrics::Metrics;
use camshaft_model::{
    ExplainError, ExplainRequest, ExplainedImage, KernelChoice, Model, ModelError, ModelFiles,
    Precision,
};

/// An image with its predictions and maps.
#[derive(Debug)]
pub struct Explained {
    /// The image on its way.
    pub image: Admitted,
    /// Its pixels at its own size.
    pub picture: RgbImage,
    /// What the network says of it, and where it looked.
    pub explained: ExplainedImage,
    /// The model that said so.
    pub model: ModelRecord,
    /// Its share of the pixel budget.
    pub memory: Share,
}

/// Built models to keep: as many as the shelf of files holds.
const KEPT_MODELS: usize = 2;

/// The device and the models built on it. Given to [`run`], it never leaves that thread.
#[derive(Debug)]
pub struct ModelThread {
    device: Device,
    precision: Precision,
    kernel: KernelChoice,
    /// Most recent last. A model that can't be built stays, as its error, so that a run of
    /// a million jobs doesn't try a million times.
    models: Vec<(ModelIdentity, Result<Model, Arc<ModelError>>)>,
    /// Whether they are others than those last shown.
    changed: bool,
}

impl ModelThread {
    /// Readies a device, and a model where one is known already.
    ///
    /// # Errors
    /// Where the model can't be built.
    pub fn new(
        device: Device,
        precision: Precision,
        kernel: KernelChoice,
        first: Option<&ModelFiles>,
    ) -> Result<Self, ModelError> {
        let mut this = Self { device, precision, kernel, models: Vec::new(), changed: true };
        if let Some(files) = first {
            let model = Model::load(files, &this.device, this.precision, this.kernel)?;
            this.models.push((files.identity().clone(), Ok(model)));
        }
        Ok(this)
    }

    fn model(&mut self, files: &ModelFiles) -> Result<&Model, Arc<ModelError>> {
        let identity = files.identity();
        let known = self.models.iter().position(|(known, _)| known.same_content(identity));
        let index = known.unwrap_or_else(|| {
            if self.models.len() >= KEPT_MODELS {
                drop(self.models.remove(0));
            }
            let model =
                Model::load(files, &self.device, self.precision, self.kernel).map_err(Arc::new);
            self.models.push((identity.clone(), model));
            self.changed = true;
            self.models.len() - 1
        });
        self.models[index].1.as_ref().map_err(Arc::clone)
    }

    /// Tells which models are loaded, where that changed.
    fn show(&mut self, metrics: &Metrics) {
        if std::mem::take(&mut self.changed) {
            let loaded = self.models.iter().filter_map(|(_, model)| model.as_ref().ok());
            metrics.show_models(&loaded.map(record).collect::<Vec<_>>());
        }
    }

    /// Explains a batch, which each of its images' traces shows in full.
    fn explain_traced(&mut self, batch: Batch, size: &BatchSize) -> Vec<Result<Explained, Exit>> {
        let spans: Vec<_> =
            batch.images.iter().map(|image| traces::stage("model", image)).collect();
        let results = self.explain(batch, size);
        for (span, result) in spans.iter().zip(&results) {
            traces::note_batch(span, results.len());
            if let Err(exit) = result {
                traces::leave(span, &exit.cause);
            }
        }
        results
    }

    /// Explains a batch: each image goes on or leaves.
    fn explain(&mut self, batch: Batch, size: &BatchSize) -> Vec<Result<Explained, Exit>> {
        let Batch { images, input, .. } = batch;
        let files = Arc::clone(&images.first().expect("a batch is never empty").model);
        let model = match self.model(&files) {
            Ok(model) => model,
            Err(error) => {
                return all_leave(images, || ModelUnavailable::Unusable(Arc::clone(&error)).into());
            }
        };
        let record = record(model);
        let started = Instant::now();
        let results = match explain(model, &images, input, size) {
            Ok(results) => results,
            Err(error) => {
                let error = Arc::new(error);
                return all_leave(images, || ExitCause::Device(Arc::clone(&error)));
            }
        };
        size.observe(images.len(), started.elapsed());
        let share_ms = started.elapsed().as_secs_f64() * 1000.0 / images.len() as f64;
        let explained = images.into_iter().zip(results).map(|(decoded, result)| {
            let Decoded { mut image, picture, memory, .. } = decoded;
            image.timings.model = share_ms;
            image.span.in_scope(|| debug!("explained"));
            match result {
                Ok(explained) => {
                    Ok(Explained { image, picture, explained, model: record.clone(), memory })
                }
                Err(error) => Err(Exit { image: Box::new(image), cause: error.into() }),
            }
        });
        explained.collect()
    }
}

type Results = Vec<Result<ExplainedImage, ExplainError>>;

/// One pass over a batch: an error of the whole, or a result for each image.
fn explain(
    model: &Model,
    images: &[Decoded],
    input: Vec<f32>,
    size: &BatchSize,
) -> Result<Results, ModelError> {
    let rule = &model.config().input;
    let shape = (images.len(), 3, rule.height, rule.width);
    let input = Tensor::from_vec(input, shape, &Device::Cpu)?;
    let requests = images.iter().map(|decoded| ExplainRequest {
        options: &decoded.image.job.explain,
        label: decoded.image.job.label.as_deref(),
    });
    pass(model, &requests.collect::<Vec<_>>(), &input, size)
}

/// Where the device fails on a batch, as for want of memory, its halves are tried, and further
/// batches are smaller.
fn pass(
    model: &Model,
    requests: &[ExplainRequest<'_>],
    input: &Tensor,
    size: &BatchSize,
) -> Result<Results, ModelError> {
    let images = requests.len();
    let error = match model.explain_batch(input, requests) {
        Err(error) if images > 1 => error,
        result => return result,
    };
    warn!(images, %error, "the device failed on a batch; trying its halves");
    size.shrink_below(images);
    let (first, second) = requests.split_at(images / 2);
    let part = |from, requests: &[_]| input.narrow(0, from, requests.len())?.copy();
    let mut results = pass(model, first, &part(0, first)?, size)?;
    results.extend(pass(model, second, &part(first.len(), second)?, size)?);
    Ok(results)
}

fn record(model: &Model) -> ModelRecord {
    let ModelIdentity { name, digest, config_digest, .. } = model.identity().clone();
    let (precision, device) = (model.precision().to_string(), model.device().to_string());
    let kernel = model.kernel();
    ModelRecord { name, digest, config_digest, precision, kernel, device }
}

fn all_leave(images: Vec<Decoded>, cause: impl Fn() -> ExitCause) -> Vec<Result<Explained, Exit>> {
    let leave = |decoded: Decoded| Err(Exit { image: Box::new(decoded.image), cause: cause() });
    images.into_iter().map(leave).collect()
}

/// Starts the thread. The handle ends when it does, and panics when it does.
pub fn run(
    mut model: ModelThread,
    mut batches: mpsc::Receiver<Batch>,
    (explained, exits): (Sender<Explained>, Sender<Exit>),
    context: Arc<Context>,
) -> JoinHandle<()> {
    let (finished, wait) = oneshot::channel();
    let mut work = move || {
        let (metrics, size) = (&context.metrics, &context.batch);
        let times = metrics.stage("model", 1);
        model.show(metrics);
        while let Some(batch) = batches.blocking_recv() {
            metrics.observe_batch(batch.images.len());
            let (waited, started) = (batch.since.elapsed(), Instant::now());
            let results = model.explain_traced(batch, size);
            times.observe(waited, started.elapsed());
            model.show(metrics);
            for result in results {
                let sent = match result {
                    Ok(image) => explained.send_blocking(image).is_ok(),
                    Err(exit) => exits.send_blocking(exit).is_ok(),
                };
                // A stage downstream is gone: dropping the images hands them back.
                if !sent {
                    return;
                }
            }
        }
    };
    let thread = std::thread::Builder::new().name("model".to_owned()).spawn(move || {
        work();
        // Nobody waits where the pipeline was dropped.
        finished.send(()).unwrap_or_default();
    });
    thread.expect("the system has room for one more thread");
    tokio::spawn(async move { wait.await.expect("the model thread ends without a panic") })
}
