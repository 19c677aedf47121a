//! Last stage: every image's receipt is settled here and nowhere else, after its result is
//! at rest.
//!
//! Owns what becomes of each way to fail: `verdict` is the one place that decides.

use std::sync::Arc;

use camshaft_common::layout;
use camshaft_common::prediction::{FailureClass, FailureReason, FailureRecord};
use camshaft_common::run::SCHEMA;
use camshaft_common::store::{JSON, StoreError, StoreErrorKind};
use camshaft_queue::{Outcome, QueueError, Receipt, Settlement};
use chrono::Utc;
use tracing::{Instrument, Span, debug, error, info, warn};

use super::channel::Receiver;
use super::context::Context;
use super::model_files::ModelUnavailable;
use super::stage::{Admitted, Exit, ExitCause};
use super::store::Stored;
use super::traces;
use crate::metrics::{StageMetrics, Written};
use crate::waiting;

/// What an early exit means for its image.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// Nothing is left to do.
    Done,
    /// The image can't be done: that is its result.
    Failure(FailureClass),
    /// It may work later.
    Retry,
    /// It can't work, but not by the image's fault.
    DeadLetter,
}

/// The one place that decides what becomes of each way to fail.
fn verdict(cause: &ExitCause) -> Verdict {
    match cause {
        ExitCause::AlreadyDone => Verdict::Done,
        ExitCause::Source(error) => match error.kind() {
            StoreErrorKind::NotFound => Verdict::Failure(FailureClass::NotFound),
            StoreErrorKind::AccessDenied => Verdict::Failure(FailureClass::AccessDenied),
            StoreErrorKind::TooLarge => Verdict::Failure(FailureClass::TooLarge),
            // A missing bucket or expired credentials would turn a whole run into failures.
            StoreErrorKind::NoBucket
            | StoreErrorKind::BadCredentials
            | StoreErrorKind::NoSpace
            | StoreErrorKind::Transient => Verdict::Retry,
        },
        ExitCause::Out(_) | ExitCause::Device(_) => Verdict::Retry,
        ExitCause::Model(error) => match error {
            // Another worker may have it, or its store may come back.
            ModelUnavailable::Pinned { .. }
            | ModelUnavailable::NotBundled
            | ModelUnavailable::Files(_) => Verdict::Retry,
            ModelUnavailable::Changed { .. } | ModelUnavailable::Unusable(_) => Verdict::DeadLetter,
        },
        ExitCause::Decode(error) => Verdict::Failure(error.class()),
        ExitCause::DecoderPanicked | ExitCause::DecoderOverran(_) => {
            Verdict::Failure(FailureClass::Undecodable)
        }
        ExitCause::Explain(_) | ExitCause::Encode(_) => {
            Verdict::Failure(FailureClass::ExplainFailed)
        }
    }
}

const STAGE: &str = "settle";

/// Settles what is stored and what left early, until both end.
pub async fn settle_all(
    context: Arc<Context>,
    stored: Receiver<Stored>,
    exits: Receiver<Exit>,
    times: StageMetrics,
) {
    loop {
        let (queued, spent) = tokio::select! {
            Ok((Stored { image }, queued)) = stored.recv() => {
                let (logs, span) = (image.span.clone(), traces::stage(STAGE, &image));
                let settling = settle_stored(&context, image).instrument(span).instrument(logs);
                (queued, waiting::timed(settling).await.1)
            }
            Ok((exit, queued)) = exits.recv() => {
                let (logs, span) = (exit.image.span.clone(), traces::stage(STAGE, &*exit.image));
                let settling = settle_exit(&context, exit).instrument(span).instrument(logs);
                (queued, waiting::timed(settling).await.1)
            }
            else => return,
        };
        times.observe(queued + spent.waited, spent.worked);
    }
}

async fn settle_stored(context: &Context, image: Admitted) {
    let timings = image.timings;
    if answer(context, &image.trace, image.receipt, Outcome::Ack).await.is_some() {
        context.tally.count_predicted();
        traces::end(&image.trace, "predicted");
        debug!(
            fetch_ms = timings.fetch,
            decode_ms = timings.decode,
            model_ms = timings.model,
            overlay_ms = timings.overlay,
            store_ms = timings.store,
            "prediction stored"
        );
    }
}

/// Whether every further image of the same run would meet this too.
fn is_lasting(context: &Context, image: &Admitted, cause: &ExitCause) -> bool {
    use StoreErrorKind as Kind;
    let (error, place, lasting): (_, _, &[Kind]) = match cause {
        ExitCause::Source(error) => {
            (error, &image.job.source, &[Kind::NoBucket, Kind::BadCredentials])
        }
        ExitCause::Out(error) => (
            error,
            &image.job.out,
            &[Kind::NoBucket, Kind::BadCredentials, Kind::AccessDenied, Kind::NoSpace],
        ),
        _ => return false,
    };
    let waited_in_vain =
        || context.folder(place).is_ok_and(|folder| folder.outage().reason().is_some());
    lasting.contains(&error.kind()) || (error.kind() == Kind::Transient && waited_in_vain())
}

async fn settle_exit(context: &Context, exit: Exit) {
    let Exit { image, mut cause } = exit;
    let reason = cause.to_string();
    let outcome = match verdict(&cause) {
        Verdict::Done => Outcome::Ack,
        Verdict::Retry => Outcome::Retry { reason },
        Verdict::DeadLetter => Outcome::DeadLetter { reason },
        Verdict::Failure(class) => match write_failure(context, &image, class, &reason).await {
            Ok(()) => {
                info!(class = %class, reason, "failure stored");
                Outcome::Ack
            }
            Err(error) => {
                cause = ExitCause::Out(error);
                Outcome::Retry { reason: cause.to_string() }
            }
        },
    };
    if is_lasting(context, &image, &cause) {
        context.trouble.note(&cause.to_string());
    }
    let acknowledged = outcome == Outcome::Ack;
    if answer(context, &image.trace, image.receipt, outcome).await.is_some() && acknowledged {
        match verdict(&cause) {
            Verdict::Failure(class) => {
                context.tally.count_failed(class);
                traces::end_failed(&image.trace, class, &cause.to_string());
            }
            _ => {
                context.tally.count_already_done();
                traces::end(&image.trace, "already_done");
            }
        }
    }
}

async fn write_failure(
    context: &Context,
    image: &Admitted,
    class: FailureClass,
    message: &str,
) -> Result<(), StoreError> {
    let record = FailureRecord {
        schema: SCHEMA,
        run: image.job.run,
        image: image.image.clone(),
        error: FailureReason { class, message: message.to_owned() },
        attempts: image.attempt,
        worker: context.worker.clone(),
        finished_at: Utc::now(),
    };
    let json = serde_json::to_vec(&record).expect("a record has only strings and numbers");
    let out = context.folder(&image.job.out)?;
    let bytes = json.len();
    out.put(&layout::failure(&image.job.key), json, JSON).await?;
    context.metrics.count_written(Written::Failure, bytes);
    if image.may_have_a_result() {
        out.delete(&layout::prediction(&image.job.key)).await?;
    }
    Ok(())
}

/// Settles a receipt and counts what the queue did beyond acknowledging it. `None` where
/// the queue could not be told: the message comes again.
pub async fn answer(
    context: &Context,
    image: &Span,
    receipt: Receipt,
    outcome: Outcome,
) -> Option<Settlement> {
    let reason = match &outcome {
        Outcome::Ack => String::new(),
        Outcome::Retry { reason } | Outcome::DeadLetter { reason } => reason.clone(),
    };
    match receipt.settle(outcome).await {
        Ok(settlement) => {
            match settlement {
                Settlement::Acknowledged => {}
                Settlement::Retrying(delay) => {
                    context.tally.count_retried();
                    traces::end_badly(image, "retried", &reason);
                    warn!(reason, delay_seconds = delay.as_secs(), "trying again later");
                }
                Settlement::DeadLettered => {
                    context.tally.count_dead();
                    traces::end_badly(image, "dead_lettered", &reason);
                    error!(reason, "dead-lettered");
                }
            }
            Some(settlement)
        }
        Err(error) => {
            context.tally.count_unsettled();
            traces::end_badly(image, "unsettled", &error.to_string());
            match error {
                QueueError::Stale => debug!("{error}"),
                _ => warn!(%error, "not settled; it will be delivered again"),
            }
            None
        }
    }
}
