//! What a trace shows of an image in a worker: a span for each try, and below it one for each
//! stage. <https://opentelemetry.io/docs/specs/semconv/messaging/messaging-spans/>
//!
//! Where traces are off these spans are disabled, and what is noted on them goes nowhere.

use camshaft_common::job::Job;
use camshaft_common::prediction::FailureClass;
use camshaft_queue::{Delivery, QueueName};
use camshaft_telemetry::{TRACES, TraceContext};
use tracing::field::{Empty, display};
use tracing::{Span, info_span};

use super::fetch::Fetched;
use super::render::Rendered;
use super::stage::{Admitted, ExitCause};
use super::{decode::Decoded, explain::Explained};

/// What stages take: with an image, or before there is one.
pub trait OnItsWay {
    /// The image, once there is one.
    fn image(&self) -> Option<&Admitted>;
}

impl OnItsWay for Delivery {
    fn image(&self) -> Option<&Admitted> {
        None
    }
}

impl OnItsWay for Admitted {
    fn image(&self) -> Option<&Admitted> {
        Some(self)
    }
}

impl OnItsWay for Fetched {
    fn image(&self) -> Option<&Admitted> {
        Some(&self.image)
    }
}

impl OnItsWay for Decoded {
    fn image(&self) -> Option<&Admitted> {
        Some(&self.image)
    }
}

impl OnItsWay for Explained {
    fn image(&self) -> Option<&Admitted> {
        Some(&self.image)
    }
}

impl OnItsWay for Rendered {
    fn image(&self) -> Option<&Admitted> {
        Some(&self.image)
    }
}

/// A message as it came.
#[derive(Clone, Copy, Debug)]
pub struct Received<'m> {
    /// Where it waited.
    pub queue: &'m QueueName,
    /// The trace it belongs to.
    pub trace: Option<&'m TraceContext>,
    /// The length of its body.
    pub bytes: usize,
    /// Which try this is, from 1.
    pub attempt: u32,
}

/// One try at a job, from here until it is settled, in the trace of its message. Never entered: its
/// time would end when it is left.
pub fn process(received: Received<'_>, job: &Job) -> Span {
    let Received { queue, trace, bytes, attempt } = received;
    let span = info_span!(
        target: TRACES,
        parent: None,
        "process",
        otel.name = %format_args!("process {}", queue.name),
        otel.kind = "consumer",
        otel.status_description = Empty,
        messaging.system = queue.system,
        messaging.operation.name = "process",
        "messaging.operation.type" = "process",
        messaging.destination.name = &*queue.name,
        messaging.message.body.size = bytes,
        camshaft.run = %job.run,
        camshaft.key = %job.key,
        camshaft.attempt = attempt,
        camshaft.outcome = Empty,
        "error.type" = Empty,
    );
    if let Some(trace) = trace {
        trace.adopt(&span);
    }
    span
}

/// A stage's work on an image, until it is dropped.
pub fn stage(name: &'static str, item: &impl OnItsWay) -> Span {
    let Some(image) = item.image() else { return Span::none() };
    info_span!(
        target: TRACES,
        parent: &image.trace,
        "stage",
        otel.name = name,
        otel.status_description = Empty,
        camshaft.bytes = Empty,
        camshaft.batch = Empty,
    )
}

/// Notes that the stage ended so, and the image with it.
pub fn leave(stage: &Span, cause: &ExitCause) {
    if !matches!(cause, ExitCause::AlreadyDone) {
        fail(stage, &cause.to_string());
    }
}

/// Notes on the stage that is under way how many bytes it has read, made or written.
pub fn note_bytes(bytes: usize) {
    Span::current().record("camshaft.bytes", bytes);
}

/// Notes on the model's stage with how many images it was done.
pub fn note_batch(stage: &Span, images: usize) {
    stage.record("camshaft.batch", images);
}

/// Notes what became of a try that went well.
pub fn end(image: &Span, outcome: &'static str) {
    image.record("camshaft.outcome", outcome);
}

/// Notes that the try's result is a failure.
pub fn end_failed(image: &Span, class: FailureClass, reason: &str) {
    end(image, "failed");
    image.record("error.type", display(class));
    fail(image, reason);
}

/// Notes what became of a try that has no result.
pub fn end_badly(image: &Span, outcome: &'static str, reason: &str) {
    end(image, outcome);
    image.record("error.type", outcome);
    fail(image, reason);
}

/// A description makes the span's status an error.
fn fail(span: &Span, reason: &str) {
    span.record("otel.status_description", reason);
}
