//! First stage: a delivery's message becomes a job, or is dead-lettered at once.

use std::sync::Arc;

use camshaft_common::job::Job;
use camshaft_common::prediction::{ImageRecord, StageTimings};
use camshaft_queue::{Delivery, Outcome};
use camshaft_telemetry::TraceContext;
use tracing::{Instrument, Span, info_span};

use super::context::Context;
use super::stage::{Admitted, Exit};
use super::traces::{self, Received};
use super::{places, settle};

/// Reads a delivery's message. One that is no job is settled here, since there is no image
/// to carry on: `Err(None)`.
pub async fn admit(context: Arc<Context>, delivery: Delivery) -> Result<Admitted, Option<Exit>> {
    let Delivery { body, queue, attempt, redelivered, alone, trace, published_at, receipt } =
        delivery;
    context.tally.count_taken();
    if let Some(Ok(waited)) = published_at.map(|published| published.elapsed()) {
        context.metrics.observe_queue_wait(waited);
    }
    let job = match Job::parse(&body) {
        Ok(job) => job,
        Err(error) => {
            let outcome = Outcome::DeadLetter { reason: error.to_string() };
            settle::answer(&context, &Span::none(), receipt, outcome).await;
            return Err(None);
        }
    };
    let trace = trace.as_ref();
    let id = trace.and_then(TraceContext::trace_id).unwrap_or_default();
    let span = info_span!("image", run = %job.run, key = %job.key, attempt, trace = id);
    let received = Received { queue: &queue, trace, bytes: body.len(), attempt };
    let process = traces::process(received, &job);
    let job = match places::admit(&context, job).await {
        Ok(job) => job,
        Err(refused) => {
            let outcome = Outcome::DeadLetter { reason: refused.to_string() };
            settle::answer(&context, &process, receipt, outcome).instrument(span).await;
            return Err(None);
        }
    };
    let image = ImageRecord {
        key: job.key.clone(),
        etag: job.etag.clone(),
        bytes: job.size,
        width: None,
        height: None,
        region: None,
        label: job.label.clone(),
        digest: None,
        measures: None,
    };
    let timings = StageTimings::default();
    let pass = context.pass(alone).await;
    let trace = process;
    Ok(Admitted { job, receipt, attempt, redelivered, pass, span, trace, image, timings })
}
