//! What a trace shows of an image in a worker: a span for each try, and below it one for each
//! stage. <https://opentelemetry.io/docs/specs/semconv/messaging/messaging-spans/>
//!
//! If traces are off, these spans are disabled, and notes on them have no effect.

use camshaft_common::job::Job;
use camshaft_common::prediction::FailureClass;
use camshaft_queue::QueueName;
use camshaft_telemetry::{TRACES, TraceContext};
use tracing::field::{Empty, display};
use tracing::{Span, info_span};

/// The spans of one try at an image.
///
/// They are two because a log line shows the spans that were entered and are meant for it.
#[derive(Clone, Debug)]
pub struct ImageSpans {
    /// Entered while a stage works: log lines about the image carry its key and run.
    pub logs: Span,
    /// This try in the image's trace. The stages' spans are below it. It is never entered,
    /// because it would end when it is left.
    pub trace: Span,
}

impl ImageSpans {
    /// For a message that can't be read: it names no image.
    #[must_use]
    pub fn none() -> Self {
        Self { logs: Span::none(), trace: Span::none() }
    }
}

/// What stages take: something that has spans, or has none yet.
pub trait HasSpans {
    /// The image's spans; `None` if its message was not read yet.
    fn spans(&self) -> Option<&ImageSpans>;
}

/// A message as it was delivered.
#[derive(Clone, Copy, Debug)]
pub struct Received<'m> {
    /// The queue it was in.
    pub queue: &'m QueueName,
    /// The trace it belongs to.
    pub trace: Option<&'m TraceContext>,
    /// The length of its body.
    pub bytes: usize,
    /// The number of this try, from 1.
    pub attempt: u32,
}

/// Starts the span of one try at a job, in the trace of its message.
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

/// Starts the span of a stage's work on an image. It ends when it is dropped.
pub fn stage(name: &'static str, item: &impl HasSpans) -> Span {
    let Some(ImageSpans { trace, .. }) = item.spans() else { return Span::none() };
    if trace.is_disabled() {
        // Below a disabled span, a stage would begin a trace of its own.
        return Span::none();
    }
    info_span!(
        target: TRACES,
        parent: trace,
        "stage",
        otel.name = name,
        otel.status_description = Empty,
        camshaft.bytes = Empty,
        camshaft.batch = Empty,
    )
}

/// Notes on the current stage's span how many bytes it read, made or wrote.
pub fn note_bytes(bytes: usize) {
    Span::current().record("camshaft.bytes", bytes);
}

/// Notes on the model stage's span how many images were in the batch.
pub fn note_batch(stage: &Span, images: usize) {
    stage.record("camshaft.batch", images);
}

/// Notes the outcome of a try that went well.
pub fn end(trace: &Span, outcome: &'static str) {
    trace.record("camshaft.outcome", outcome);
}

/// Notes that the result of the try is a failure.
pub fn end_failed(trace: &Span, class: FailureClass, reason: &str) {
    end(trace, "failed");
    trace.record("error.type", display(class));
    fail(trace, reason);
}

/// Notes the outcome of a try that has no result.
pub fn end_without_result(trace: &Span, outcome: &'static str, reason: &str) {
    end(trace, outcome);
    trace.record("error.type", outcome);
    fail(trace, reason);
}

/// Sets the status of a span to an error.
pub fn fail(span: &Span, reason: &str) {
    span.record("otel.status_description", reason);
}
