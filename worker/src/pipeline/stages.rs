//! Runs the stages: tasks between bounded channels, and one channel for those that leave early.
//!
//! Knows no stage by name. The wiring is in [`pipeline`](super).

use std::panic::{AssertUnwindSafe, resume_unwind};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::{FutureExt, Stream, StreamExt};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, Span};

use super::channel::{Closed, Receiver, Sender, channel};
use super::exit::Exit;
use super::hold_limit::{HoldLimit, StagePace};
use super::request_gate::RequestGate;
use super::traces::{self, HasSpans};
use crate::metrics::{Metrics, StageMetrics};
use crate::waiting;

/// A step of the pipeline that works on one item at a time.
pub trait Stage: Send + Sync + 'static {
    /// Its name in metrics and traces.
    const NAME: &'static str;
    /// True if the processor sets its pace, and the image how long it takes.
    const COMPUTES: bool = false;
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
    /// A bug in a stage. The images that it held have no result.
    #[error("the {stage} stage ended by a panic, which is a bug")]
    StagePanicked {
        /// The stage's name.
        stage: &'static str,
    },
    /// The model's device is lost for this process. The images that it held have no result.
    #[error("{reason}")]
    DeviceLost {
        /// What the device said.
        reason: String,
    },
}

/// Ends a pipeline that can't go on.
#[derive(Clone, Debug, Default)]
pub struct PipelineEnd {
    /// Why the model's device is lost.
    lost: Arc<OnceLock<String>>,
    /// Cancelled when a task panics, or the model's device is lost.
    failed: CancellationToken,
}

impl PipelineEnd {
    /// Notes that the model's device is lost.
    pub fn device_is_lost(&self, reason: String) {
        self.lost.get_or_init(|| reason);
        self.failed.cancel();
    }
}

/// The tasks of a pipeline that is being wired.
pub struct Stages {
    metrics: Metrics,
    hold: Arc<HoldLimit>,
    exits: Sender<Exit>,
    exits_in: Receiver<Exit>,
    tasks: Vec<(&'static str, JoinHandle<()>)>,
    end: PipelineEnd,
}

impl Stages {
    /// No stage yet. Up to `exits` deliveries that leave early may wait to be settled.
    #[must_use]
    pub fn new(metrics: Metrics, hold: Arc<HoldLimit>, exits: usize) -> Self {
        let (exits, exits_in) = channel(exits);
        let end = PipelineEnd::default();
        Self { metrics, hold, exits, exits_in, tasks: Vec::new(), end }
    }

    /// Adds a stage of `concurrency` tasks. Each one takes an item, works on it, and sends the
    /// result to the next stage or to the exits.
    pub fn run<S: Stage>(
        &mut self,
        stage: S,
        concurrency: usize,
        input: Receiver<S::Input>,
    ) -> Receiver<S::Output> {
        self.run_growing(stage, concurrency, concurrency, input)
    }

    /// Adds a stage of `first` tasks that wait for a store. If its answers take so long that the
    /// stage can't keep up, further tasks begin to work, up to `most` in all.
    pub fn run_growing<S: Stage>(
        &mut self,
        stage: S,
        first: usize,
        most: usize,
        input: Receiver<S::Input>,
    ) -> Receiver<S::Output> {
        let first = first.max(1);
        let (output, next) = channel(first);
        let (hold, metrics) = (&self.hold, &self.metrics);
        let gate = (most > first)
            .then(|| RequestGate::new(S::NAME, first, most, Arc::clone(hold), metrics.clone()));
        let tasks = Arc::new(StageTasks {
            stage,
            input,
            output,
            exits: self.exits.clone(),
            times: metrics.stage(S::NAME, first),
            pace: S::COMPUTES.then(|| hold.stage(first)),
            gate,
        });
        for number in 0..most.max(first) {
            let tasks = Arc::clone(&tasks);
            self.spawn(S::NAME, async move { tasks.run(number).await });
        }
        next
    }

    /// Adds a task of a stage that is not a [`Stage`].
    pub fn spawn(&mut self, stage: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let failed = self.end.failed.clone();
        let task = AssertUnwindSafe(task.in_current_span()).catch_unwind();
        let watched = async move {
            if let Err(panic) = task.await {
                // A stage has many tasks. It would go on with one less, and nobody would know.
                failed.cancel();
                resume_unwind(panic);
            }
        };
        self.tasks.push((stage, tokio::spawn(watched)));
    }

    /// Hands items to the first stage until they end, or until the pipeline has failed.
    pub async fn feed<T>(&self, mut items: impl Stream<Item = T> + Unpin, first: Sender<T>) {
        loop {
            let item = tokio::select! {
                biased;
                () = self.end.failed.cancelled() => return,
                item = items.next() => item,
            };
            let Some(item) = item else { return };
            if first.send(item).await.is_err() {
                return;
            }
        }
    }

    /// What ends the pipeline if the model's device is lost.
    #[must_use]
    pub fn end(&self) -> PipelineEnd {
        self.end.clone()
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
    /// If a stage panicked, or the model's device is lost.
    pub async fn finish(self) -> Result<(), PipelineError> {
        // The channel of exits closes when the last stage that has a sender ends.
        drop((self.exits, self.exits_in));
        let mut result = Ok(());
        for (stage, task) in self.tasks {
            if task.await.is_err() {
                result = Err(PipelineError::StagePanicked { stage });
            }
        }
        if let (Ok(()), Some(reason)) = (&result, self.end.lost.get()) {
            result = Err(PipelineError::DeviceLost { reason: reason.clone() });
        }
        result
    }
}

/// What the tasks of a stage share. The channels close when the last task has ended.
struct StageTasks<S: Stage> {
    stage: S,
    input: Receiver<S::Input>,
    output: Sender<S::Output>,
    exits: Sender<Exit>,
    times: StageMetrics,
    /// Learns how long an item takes, if the stage computes.
    pace: Option<StagePace>,
    /// Lets further tasks work, if there may be any.
    gate: Option<RequestGate>,
}

impl<S: Stage> StageTasks<S> {
    /// Runs the task with this number, counted from 0.
    async fn run(&self, number: usize) {
        // Once a task has ended, none has to begin.
        let _closing = self.gate.as_ref().map(RequestGate::close_at_end);
        if let Some(gate) = &self.gate
            && !gate.enter(number).await
        {
            return;
        }
        while let Ok((item, queued)) = self.input.recv().await {
            // On the heap, so that hundreds of tasks that wait take little memory.
            if Box::pin(self.work_on(item, queued)).await.is_err() {
                // A later stage is gone. Dropping the item handed its message back.
                break;
            }
        }
    }

    /// Works on an item that was `queued` for this long, and sends it on.
    async fn work_on(&self, item: S::Input, queued: Duration) -> Result<(), Closed> {
        let span = traces::stage(S::NAME, &item);
        let logs = item.spans().map_or_else(Span::none, |spans| spans.logs.clone());
        let step = self.stage.process(item).instrument(span.clone()).instrument(logs);
        let (result, time) = waiting::time_step(step).await;
        self.times.observe(queued + time.waited, time.worked);
        if let Some(pace) = &self.pace {
            pace.observe(time.worked);
        }
        if let Some(gate) = &self.gate {
            gate.observe(time.worked);
        }
        if let Err(exit) = &result {
            note_exit(&span, exit);
        }
        // The span must end before that of the next stage begins.
        drop(span);
        match result {
            Ok(done) => self.output.send(done).await,
            Err(exit) => self.exits.send(exit).await,
        }
    }
}

/// Notes on a stage's span that its image leaves because of an error.
pub fn note_exit(span: &Span, exit: &Exit) {
    if exit.cause.is_error() {
        traces::fail(span, &exit.cause.to_string());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;
    use std::sync::atomic::Ordering::Relaxed;

    use futures::stream;

    use super::*;

    #[tokio::test]
    async fn a_panic_of_one_of_many_tasks_ends_the_pipeline_though_there_are_more_items() {
        let hold = Arc::new(HoldLimit::new(1, None));
        let mut stages = Stages::new(Metrics::default(), hold, 1);
        let (first, incoming) = channel::<u32>(1);
        for _ in 0..4 {
            let incoming = incoming.clone();
            stages.spawn("count", async move {
                while let Ok((number, _waited)) = incoming.recv().await {
                    assert_ne!(number, 7, "a bug");
                    tokio::task::yield_now().await;
                }
            });
        }
        drop(incoming);
        let ended = async {
            stages.feed(stream::iter(0..).map(|number: u32| number), first).await;
            stages.finish().await
        };
        let ended = tokio::time::timeout(Duration::from_secs(10), ended).await;
        let error = ended.expect("it ends").unwrap_err();
        assert!(matches!(error, PipelineError::StagePanicked { stage: "count" }));
    }

    #[tokio::test]
    async fn a_lost_device_ends_the_pipeline_when_all_that_was_taken_is_through() {
        let hold = Arc::new(HoldLimit::new(1, None));
        let mut stages = Stages::new(Metrics::default(), hold, 1);
        let (first, incoming) = channel::<u32>(1);
        let (end, [taken, passed]) = (stages.end(), [(); 2].map(|()| Arc::new(AtomicU32::new(0))));
        let counted = Arc::clone(&passed);
        stages.spawn("model", async move {
            while let Ok((number, _waited)) = incoming.recv().await {
                if number >= 7 {
                    end.device_is_lost(format!("illegal address in {number}"));
                }
                counted.fetch_add(1, Relaxed);
                tokio::task::yield_now().await;
            }
        });
        let ended = async {
            let items = stream::iter(0..).inspect(|_| _ = taken.fetch_add(1, Relaxed));
            stages.feed(items.map(|number: u32| number), first).await;
            stages.finish().await
        };
        let ended = tokio::time::timeout(Duration::from_secs(10), ended).await;
        let error = ended.expect("it ends").unwrap_err().to_string();
        assert!(error.contains("in 7"), "{error}");
        assert_eq!(taken.load(Relaxed), passed.load(Relaxed));
    }

    struct Number(u32);

    impl HasSpans for Number {
        fn spans(&self) -> Option<&traces::ImageSpans> {
            None
        }
    }

    struct Doubles;

    impl Stage for Doubles {
        const NAME: &'static str = "double";
        type Input = Number;
        type Output = Number;

        async fn process(&self, Number(number): Number) -> Result<Number, Exit> {
            tokio::task::yield_now().await;
            Ok(Number(2 * number))
        }
    }

    #[tokio::test]
    async fn tasks_that_were_never_needed_end_with_their_stage() {
        let hold = Arc::new(HoldLimit::new(1, None));
        let mut stages = Stages::new(Metrics::default(), hold, 1);
        let (first, incoming) = channel(1);
        let doubled = stages.run_growing(Doubles, 2, 64, incoming);
        let ended = async {
            let sum = async {
                let mut sum = 0;
                while let Ok((Number(number), _waited)) = doubled.recv().await {
                    sum += number;
                }
                sum
            };
            let numbers = stream::iter((1..=100).map(Number));
            let ((), sum) = tokio::join!(stages.feed(numbers, first), sum);
            stages.finish().await.unwrap();
            sum
        };
        let sum = tokio::time::timeout(Duration::from_secs(10), ended).await.expect("it ends");
        assert_eq!(sum, 2 * 5050);
    }
}
