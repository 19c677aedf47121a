//! How stages run: tasks between bounded channels, and the ways out of them.

use std::sync::Arc;
use std::time::Duration;

use camshaft_common::job::Job;
use camshaft_common::prediction::{ImageRecord, StageTimings};
use camshaft_common::store::StoreError;
use camshaft_queue::Receipt;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tracing::{Instrument, Span};

use super::batch::{self, Batch};
use super::channel::{Receiver, Sender, channel};
use super::context::{Context, Pass};
use super::decode::Decoded;
use super::explain::{self, Explained, ModelThread};
use super::explain_advice::advice_on;
use super::model_files::ModelUnavailable;
use super::store::Stored;
use super::traces::{self, OnItsWay};
use super::{PipelineError, settle};
use crate::waiting;
use camshaft_decoding::DecodeError;
use camshaft_model::{ExplainError, ModelError};
use camshaft_vision::overlay::EncodeOverlayError;

/// An image on its way: its job, its receipt and its span travel through every stage.
#[derive(Debug)]
pub struct Admitted {
    /// What is to be done.
    pub job: Job,
    /// How it is settled, once.
    pub receipt: Receipt,
    /// Which try this is, from 1.
    pub attempt: u32,
    /// Whether the queue handed it out before without an answer.
    pub redelivered: bool,
    /// Its leave to be in work, beside others or alone.
    pub pass: Pass,
    /// The image's span: everything logged about it carries its key and run.
    pub span: Span,
    /// This try in the image's trace, above those of the stages. Apart from `span`, since log
    /// lines show only spans that were entered and are theirs.
    pub trace: Span,
    /// What is known of the image so far.
    pub image: ImageRecord,
    /// How long stages have worked on it so far.
    pub timings: StageTimings,
}

impl Admitted {
    /// Whether a result of another try or run may lie in OUT, so that the other kind of
    /// result must be removed when this one's is written.
    #[must_use]
    pub fn may_have_a_result(&self) -> bool {
        self.job.replaces || self.job.again || self.redelivered || self.attempt > 1
    }
}

/// An image leaves the pipeline before its prediction is stored.
#[derive(Debug)]
pub struct Exit {
    /// The image.
    pub image: Box<Admitted>,
    /// Why it leaves.
    pub cause: ExitCause,
}

/// Why an image leaves early. `settle` turns each into an outcome, in one match.
#[derive(Debug, thiserror::Error)]
pub enum ExitCause {
    /// An earlier try stored its prediction but didn't get to acknowledge.
    #[error("an earlier try has done it")]
    AlreadyDone,
    /// Its model can't be used here.
    #[error(transparent)]
    Model(#[from] ModelUnavailable),
    /// Reading the image failed.
    #[error(transparent)]
    Source(StoreError),
    /// Reading or writing results failed.
    #[error(transparent)]
    Out(StoreError),
    /// Its bytes are no image this worker reads.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The decoder crashed on it.
    #[error("the decoder crashed on this file")]
    DecoderPanicked,
    /// The decoder did not end.
    #[error(
        "decoding took longer than {} s; the file is corrupt, or --max-decode-seconds too low",
        .0.as_secs()
    )]
    DecoderOverran(Duration),
    /// The device failed on its batch.
    #[error(transparent)]
    Device(Arc<ModelError>),
    /// No finite prediction or map, or no such target class.
    #[error("{0}{advice}", advice = advice_on(.0))]
    Explain(#[from] ExplainError),
    /// The overlay could not be drawn or encoded.
    #[error(transparent)]
    Encode(#[from] EncodeOverlayError),
}

/// The tasks of a pipeline being wired.
pub struct Stages {
    context: Arc<Context>,
    exits: Sender<Exit>,
    exits_in: Receiver<Exit>,
    tasks: Vec<(&'static str, JoinHandle<()>)>,
}

impl Stages {
    /// No stage yet.
    pub fn new(context: Arc<Context>) -> Self {
        let (exits, exits_in) = channel(context.limits.stores);
        Self { context, exits, exits_in, tasks: Vec::new() }
    }

    /// Adds a stage of `concurrency` tasks that each take an item, do `step` and pass the
    /// result on, or out.
    pub fn run<I, O, E, F, S>(
        &mut self,
        name: &'static str,
        concurrency: usize,
        input: Receiver<I>,
        step: S,
    ) -> Receiver<O>
    where
        I: OnItsWay + Send + 'static,
        O: Send + 'static,
        E: Into<Option<Exit>> + Send + 'static,
        S: Fn(Arc<Context>, I) -> F + Copy + Send + 'static,
        F: Future<Output = Result<O, E>> + Send,
    {
        let (output, next) = channel(concurrency);
        let times = self.context.metrics.stage(name, concurrency);
        for _ in 0..concurrency.max(1) {
            let (context, input) = (Arc::clone(&self.context), input.clone());
            let (output, exits) = (output.clone(), self.exits.clone());
            let times = times.clone();
            let task = async move {
                while let Ok((item, queued)) = input.recv().await {
                    let span = traces::stage(name, &item);
                    let logs = item.image().map_or_else(Span::none, |image| image.span.clone());
                    let step = step(Arc::clone(&context), item);
                    let done = step.instrument(span.clone()).instrument(logs);
                    let (done, spent) = waiting::timed(done).await;
                    times.observe(queued + spent.waited, spent.worked);
                    let done = done.map_err(Into::into);
                    if let Err(Some(exit)) = &done {
                        traces::leave(&span, &exit.cause);
                    }
                    // Its time ends before that of the next stage begins.
                    drop(span);
                    let sent = match done {
                        Ok(done) => output.send(done).await.is_ok(),
                        Err(Some(exit)) => exits.send(exit).await.is_ok(),
                        Err(None) => true,
                    };
                    // A stage downstream is gone: dropping the item hands it back.
                    if !sent {
                        break;
                    }
                }
            };
            self.tasks.push((name, tokio::spawn(task.in_current_span())));
        }
        next
    }

    /// Adds the task that gathers batches, one ahead of the model.
    pub fn batch(&mut self, decoded: Receiver<Decoded>, wait: Duration) -> mpsc::Receiver<Batch> {
        let (ready, batches) = mpsc::channel(1);
        let size = Arc::clone(&self.context.batch);
        self.tasks.push(("batch", tokio::spawn(batch::gather(decoded, ready, size, wait))));
        batches
    }

    /// Adds the thread that owns the device and the weights.
    pub fn model(
        &mut self,
        batches: mpsc::Receiver<Batch>,
        model: ModelThread,
    ) -> Receiver<Explained> {
        let (output, explained) = channel(self.context.limits.batch);
        let exits = self.exits.clone();
        let thread = explain::run(model, batches, (output, exits), Arc::clone(&self.context));
        self.tasks.push(("model", thread));
        explained
    }

    /// Adds the last stage, where images with results and early exits meet.
    pub fn settle(&mut self, stored: Receiver<Stored>, concurrency: usize) {
        let times = self.context.metrics.stage("settle", concurrency);
        for _ in 0..concurrency.max(1) {
            let (context, exits) = (Arc::clone(&self.context), self.exits_in.clone());
            let task = settle::settle_all(context, stored.clone(), exits, times.clone());
            self.tasks.push(("settle", tokio::spawn(task.in_current_span())));
        }
    }

    /// Waits until every stage has ended, which they do one after the other once the
    /// deliveries end.
    ///
    /// # Errors
    /// Where one panicked.
    pub async fn finish(self) -> Result<(), PipelineError> {
        // The exits end when the last stage that holds a sender has.
        drop((self.exits, self.exits_in));
        let mut result = Ok(());
        for (stage, task) in self.tasks {
            if task.await.is_err() {
                result = Err(PipelineError::StagePanicked { stage });
            }
        }
        result
    }
}
