//! Runs the stages: tasks between bounded channels, and one channel for those that leave early.
//!
//! Knows no stage by name. The wiring is in [`pipeline`](super).

use std::sync::Arc;

use tokio::task::JoinHandle;
use tracing::{Instrument, Span};

use super::channel::{Receiver, Sender, channel};
use super::exit::Exit;
use super::traces::{self, HasSpans};
use crate::metrics::Metrics;
use crate::waiting;

/// A step of the pipeline that works on one item at a time.
pub trait Stage: Send + Sync + 'static {
    /// Its name in metrics and traces.
    const NAME: &'static str;
    /// What it takes.
    type Input: HasSpans + Send + 'static;
    /// What it hands to the next stage.
    type Output: Send + 'static;

    /// Works on one item.
    ///
    /// # Errors
    /// If the item leaves the pipeline here.
    fn process(
        &self,
        input: Self::Input,
    ) -> impl Future<Output = Result<Self::Output, Exit>> + Send;
}

/// A pipeline could not go on.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    /// A bug in a stage. The images it held are delivered again.
    #[error("the {stage} stage ended by a panic; its images are delivered again")]
    StagePanicked {
        /// The stage's name.
        stage: &'static str,
    },
}

/// The tasks of a pipeline that is being wired.
pub struct Stages {
    metrics: Metrics,
    exits: Sender<Exit>,
    exits_in: Receiver<Exit>,
    tasks: Vec<(&'static str, JoinHandle<()>)>,
}

impl Stages {
    /// No stage yet. Up to `exits` deliveries that leave early may wait to be settled.
    #[must_use]
    pub fn new(metrics: Metrics, exits: usize) -> Self {
        let (exits, exits_in) = channel(exits);
        Self { metrics, exits, exits_in, tasks: Vec::new() }
    }

    /// Adds a stage of `concurrency` tasks. Each one takes an item, works on it, and sends the
    /// result to the next stage or to the exits.
    pub fn run<S: Stage>(
        &mut self,
        stage: S,
        concurrency: usize,
        input: Receiver<S::Input>,
    ) -> Receiver<S::Output> {
        let stage = Arc::new(stage);
        let (output, next) = channel(concurrency);
        let times = self.metrics.stage(S::NAME, concurrency);
        for _ in 0..concurrency.max(1) {
            let (stage, input, times) = (Arc::clone(&stage), input.clone(), times.clone());
            let (output, exits) = (output.clone(), self.exits.clone());
            self.spawn(S::NAME, async move {
                while let Ok((item, queued)) = input.recv().await {
                    let span = traces::stage(S::NAME, &item);
                    let logs = item.spans().map_or_else(Span::none, |spans| spans.logs.clone());
                    let step = stage.process(item).instrument(span.clone()).instrument(logs);
                    let (result, time) = waiting::time_step(step).await;
                    times.observe(queued + time.waited, time.worked);
                    if let Err(exit) = &result {
                        note_exit(&span, exit);
                    }
                    // The span must end before that of the next stage begins.
                    drop(span);
                    let sent = match result {
                        Ok(done) => output.send(done).await,
                        Err(exit) => exits.send(exit).await,
                    };
                    // A later stage is gone. Dropping the item hands its message back.
                    if sent.is_err() {
                        break;
                    }
                }
            });
        }
        next
    }

    /// Adds a task of a stage that is not a [`Stage`].
    pub fn spawn(&mut self, stage: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.push((stage, tokio::spawn(task.in_current_span())));
    }

    /// The channel into which a stage sends what leaves early.
    #[must_use]
    pub fn exits(&self) -> Sender<Exit> {
        self.exits.clone()
    }

    /// The channel from which the last stage takes what left early.
    #[must_use]
    pub fn left_early(&self) -> Receiver<Exit> {
        self.exits_in.clone()
    }

    /// Waits until every stage has ended. Once the deliveries end, the stages do so one after
    /// the other.
    ///
    /// # Errors
    /// If a stage panicked.
    pub async fn finish(self) -> Result<(), PipelineError> {
        // The channel of exits closes when the last stage that has a sender ends.
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

/// Notes on a stage's span that its image leaves because of an error.
pub fn note_exit(span: &Span, exit: &Exit) {
    if exit.cause.is_error() {
        traces::fail(span, &exit.cause.to_string());
    }
}
