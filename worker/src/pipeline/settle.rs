//! Last stage: settles every delivery, after its result is stored. No other code settles one.
//!
//! What becomes of a delivery that left early is decided in [`disposition`](super::disposition).

use std::sync::Arc;
use std::time::{Duration, Instant};

use camshaft_common::layout::Layout;
use camshaft_common::prediction::{FailureClass, FailureReason, FailureRecord};
use camshaft_common::run::SCHEMA;
use camshaft_common::store::{JSON, StoreError};
use camshaft_queue::{Outcome, QueueError, Settlement};
use chrono::Utc;
use parking_lot::Mutex;
use tracing::{Instrument, Span, debug, error, info, warn};

use super::admitted::{Admitted, AdmittedImage, OpenDelivery};
use super::channel::Receiver;
use super::disposition::{Affects, Classification, Disposition, classify};
use super::exit::{Exit, ExitCause};
use super::recent_jobs::Fault;
use super::reporting::Reporting;
use super::stages::Stages;
use super::store::Stored;
use super::stored_prediction::{KeptAs, StoredPrediction};
use super::stores::Stores;
use super::superseded::SupersededJobs;
use super::traces::{self, HasSpans};
use crate::metrics::{StageMetrics, WrittenObject};
use crate::waiting;

const STAGE: &str = "settle";

/// A worker can refuse thousands of jobs a second. One in this time is told as a warning.
const REFUSALS_TOLD_EVERY: Duration = Duration::from_secs(10);

/// Settles deliveries.
#[derive(Debug)]
pub struct SettleStage {
    /// Opens OUT, for failures and kept predictions. Knows whether a store is out.
    pub stores: Arc<Stores>,
    /// Tells jobs that no longer count.
    pub superseded: Arc<SupersededJobs>,
    /// How long a job may be refused by every worker.
    pub refusal_limit: Duration,
    /// When a refusal was last told.
    pub refusal_told: Mutex<Option<Instant>>,
    /// Names the worker, counts outcomes, and notes lasting errors and recent jobs.
    pub reporting: Arc<Reporting>,
}

impl SettleStage {
    /// Starts `concurrency` tasks that settle what was stored and what left early.
    pub fn start(self, stages: &mut Stages, concurrency: usize, stored: Receiver<Stored>) {
        let settling = Arc::new(self);
        let times = settling.reporting.metrics.stage(STAGE, concurrency);
        for _ in 0..concurrency.max(1) {
            let (settling, times) = (Arc::clone(&settling), times.clone());
            let (stored, exits) = (stored.clone(), stages.left_early());
            stages.spawn(STAGE, async move { settling.settle_all(stored, exits, times).await });
        }
    }

    /// Settles until both channels are closed.
    async fn settle_all(
        &self,
        stored: Receiver<Stored>,
        exits: Receiver<Exit>,
        times: StageMetrics,
    ) {
        loop {
            let (queued, time) = tokio::select! {
                Ok((stored, queued)) = stored.recv() => {
                    let (logs, span) = spans(&stored);
                    let settling = self.settle_stored(stored).instrument(span).instrument(logs);
                    (queued, waiting::time_step(settling).await.1)
                }
                Ok((exit, queued)) = exits.recv() => {
                    let (logs, span) = spans(&exit);
                    let settling = self.settle_exit(exit).instrument(span).instrument(logs);
                    (queued, waiting::time_step(settling).await.1)
                }
                else => return,
            };
            times.observe(queued + time.waited, time.worked);
        }
    }

    async fn settle_stored(&self, stored: Stored) {
        let Admitted { delivery, image } = stored.admitted;
        let trace = delivery.spans.trace.clone();
        let timings = image.timings;
        // It must not count as held any more when its acknowledgement makes room for another.
        drop(image);
        if self.settle(delivery, Outcome::Ack, None).await.is_none() {
            return;
        }
        self.reporting.counters.count_predicted();
        traces::end(&trace, "predicted");
        debug!(
            fetch_ms = timings.fetch,
            decode_ms = timings.decode,
            model_ms = timings.model,
            overlay_ms = timings.overlay,
            store_ms = timings.store,
            "prediction stored"
        );
    }

    async fn settle_exit(&self, exit: Exit) {
        let Exit { delivery, image, cause } = exit;
        let mut cause = *cause;
        let Classification { mut disposition, mut affects } = classify(&cause);
        if let Some(image) = &image
            && let Err(changed) = self.write_result(image, &cause, disposition).await
        {
            cause = changed;
            Classification { disposition, affects } = classify(&cause);
        }
        let reason = cause.to_string();
        if self.is_lasting(affects, image.as_deref()) {
            self.reporting.lasting_errors.note(&reason);
        }
        let limit = self.refusal_limit;
        let (outcome, fault) = match disposition {
            Disposition::Done | Disposition::Failure(_) => (Outcome::Ack, None),
            Disposition::Retry => (Outcome::Retry { reason: reason.clone() }, None),
            Disposition::Refuse(fault) => {
                (Outcome::Refuse { reason: reason.clone(), limit }, Some(fault))
            }
            Disposition::Postpone(delay) => {
                (Outcome::Postpone { reason: reason.clone(), delay }, Some(Fault::WorkerOrRun))
            }
            Disposition::DeadLetter => (Outcome::DeadLetter { reason: reason.clone() }, None),
            Disposition::HandBack => (Outcome::HandBack, None),
        };
        let trace = delivery.spans.trace.clone();
        drop(image);
        if self.settle(delivery, outcome, fault).await.is_none() {
            return;
        }
        match disposition {
            Disposition::Done => self.count_done(&cause, &trace),
            Disposition::Failure(class) => {
                self.reporting.counters.count_failed(class);
                traces::end_failed(&trace, class, &reason);
            }
            // `settle` has counted them.
            Disposition::Retry
            | Disposition::Refuse(_)
            | Disposition::Postpone(_)
            | Disposition::HandBack
            | Disposition::DeadLetter => {}
        }
    }

    /// Writes the result of an image that left early, if it has one.
    ///
    /// # Errors
    /// Why the image leaves instead.
    async fn write_result(
        &self,
        image: &AdmittedImage,
        cause: &ExitCause,
        disposition: Disposition,
    ) -> Result<(), ExitCause> {
        let is_written =
            matches!(cause, ExitCause::Kept(_)) || matches!(disposition, Disposition::Failure(_));
        if is_written && self.superseded.is_done_later(&image.job).await {
            return Err(ExitCause::Superseded);
        }
        let written = match (cause, disposition) {
            (ExitCause::Kept(kept), _) => self.write_kept(image, kept).await,
            (_, Disposition::Failure(class)) => {
                self.write_failure(image, class, &cause.to_string()).await
            }
            _ => Ok(()),
        };
        written.map_err(ExitCause::Out)
    }

    /// Counts a delivery that needed no work, or almost none.
    fn count_done(&self, cause: &ExitCause, trace: &Span) {
        let counters = &self.reporting.counters;
        let kept_as = match cause {
            ExitCause::Superseded => {
                counters.count_superseded();
                traces::end(trace, "superseded");
                debug!("{cause}");
                return;
            }
            ExitCause::Kept(kept) => kept.kept_as(),
            _ => KeptAs::AlreadyDone,
        };
        match kept_as {
            KeptAs::AlreadyDone => {
                counters.count_already_done();
                traces::end(trace, "already_done");
            }
            KeptAs::Relabelled => {
                counters.count_relabelled();
                traces::end(trace, "relabelled");
            }
            KeptAs::Renewed => {
                counters.count_renewed();
                traces::end(trace, "renewed");
            }
        }
    }

    /// True if every further image of the same run would meet the error as well.
    fn is_lasting(&self, affects: Affects, image: Option<&AdmittedImage>) -> bool {
        let job = image.map(|image| &image.job);
        match affects {
            Affects::OneImage => false,
            Affects::EveryImage => true,
            Affects::EveryImageIfSourceIsOut => {
                job.is_some_and(|job| self.stores.is_out(&job.source))
            }
            Affects::EveryImageIfOutIsOut => job.is_some_and(|job| self.stores.is_out(&job.out)),
        }
    }

    /// Writes a prediction that is kept, if anything about it is new. A kill at any moment leaves a
    /// prediction whose overlays are there.
    async fn write_kept(
        &self,
        image: &AdmittedImage,
        kept: &StoredPrediction,
    ) -> Result<(), StoreError> {
        let out = self.stores.folder(&image.job.out)?;
        let layout = Layout::of(&image.job.out);
        if let Some(json) = kept.to_write() {
            let bytes = json.len();
            out.put(&layout.prediction(&image.job.key), json, JSON).await?;
            self.reporting.metrics.count_written(WrittenObject::Prediction, bytes);
        }
        // An earlier try may have ended after it wrote the prediction and before it removed an old
        // failure.
        out.delete(&layout.failure(&image.job.key)).await
    }

    async fn write_failure(
        &self,
        image: &AdmittedImage,
        class: FailureClass,
        message: &str,
    ) -> Result<(), StoreError> {
        let record = FailureRecord {
            schema: SCHEMA,
            run: image.job.run,
            generation: image.job.generation,
            image: image.record.clone(),
            error: FailureReason { class, message: message.to_owned() },
            attempts: image.attempt,
            worker: self.reporting.worker_name.clone(),
            finished_at: Utc::now(),
        };
        let json = serde_json::to_vec(&record).expect("a record has only strings and numbers");
        let out = self.stores.folder(&image.job.out)?;
        let layout = Layout::of(&image.job.out);
        let bytes = json.len();
        out.put(&layout.failure(&image.job.key), json, JSON).await?;
        self.reporting.metrics.count_written(WrittenObject::Failure, bytes);
        if image.may_have_a_result() {
            out.delete(&layout.prediction(&image.job.key)).await?;
        }
        info!(class = %class, reason = message, "failure stored");
        Ok(())
    }

    /// Settles a delivery, and counts it if it was not acknowledged; `fault` says whose it is that
    /// it was not tried. Returns `None` if the queue could not be told: then it delivers the message
    /// again.
    async fn settle(
        &self,
        delivery: OpenDelivery,
        outcome: Outcome,
        fault: Option<Fault>,
    ) -> Option<Settlement> {
        let OpenDelivery { receipt, spans, taken } = delivery;
        let reason = match &outcome {
            Outcome::Ack | Outcome::HandBack => String::new(),
            Outcome::Retry { reason }
            | Outcome::Refuse { reason, .. }
            | Outcome::Postpone { reason, .. }
            | Outcome::DeadLetter { reason } => reason.clone(),
        };
        let counters = &self.reporting.counters;
        match receipt.settle(outcome).await {
            Ok(settlement) => {
                match (settlement, fault) {
                    (Settlement::Acknowledged, _) => taken.end_done(),
                    (_, Some(fault)) => taken.end_refused(fault),
                    (_, None) => drop(taken),
                }
                match settlement {
                    Settlement::Acknowledged => {}
                    Settlement::Retrying(delay) if fault.is_some() => {
                        counters.count_refused();
                        traces::end_without_result(&spans.trace, "refused", &reason);
                        self.tell_refusal(&reason, delay);
                    }
                    Settlement::Retrying(delay) => {
                        counters.count_retried();
                        traces::end_without_result(&spans.trace, "retried", &reason);
                        if self.reporting.lasting_errors.have_ended_all() {
                            debug!(reason, "not tried again: this process is about to end");
                        } else {
                            warn!(reason, delay_seconds = delay.as_secs(), "trying again later");
                        }
                    }
                    Settlement::DeadLettered => {
                        counters.count_dead();
                        traces::end_without_result(&spans.trace, "dead_lettered", &reason);
                        error!(reason, "dead-lettered");
                    }
                    Settlement::HandedBack => {
                        counters.count_handed_back();
                        traces::end(&spans.trace, "handed_back");
                        debug!("handed back");
                    }
                }
                Some(settlement)
            }
            Err(error) => {
                counters.count_unsettled();
                traces::end_without_result(&spans.trace, "unsettled", &error.to_string());
                match error {
                    QueueError::Stale => debug!("{error}"),
                    _ => warn!(%error, "not settled; it will be delivered again"),
                }
                None
            }
        }
    }

    /// Tells of a refused job, but not of each among thousands. In an audit, which has no other
    /// workers, the reason ends everything and is told at the end.
    fn tell_refusal(&self, reason: &str, delay: Duration) {
        const TEXT: &str = "left to other workers, or to a later delivery";
        if self.reporting.lasting_errors.end_all() {
            debug!(reason, "not tried");
            return;
        }
        let delay_seconds = delay.as_secs();
        let mut told = self.refusal_told.lock();
        if told.is_some_and(|told| told.elapsed() < REFUSALS_TOLD_EVERY) {
            debug!(reason, delay_seconds, "{TEXT}");
        } else {
            warn!(reason, delay_seconds, "{TEXT}");
            *told = Some(Instant::now());
        }
    }
}

/// The span for log lines, and the span of this stage.
fn spans(item: &impl HasSpans) -> (Span, Span) {
    let logs = item.spans().map_or_else(Span::none, |spans| spans.logs.clone());
    (logs, traces::stage(STAGE, item))
}
