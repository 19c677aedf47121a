//! What a trace shows of an image before a worker has it: that its message was sent.
//! <https://opentelemetry.io/docs/specs/semconv/messaging/messaging-spans/>
//!
//! Each image is a trace of its own, with a link to the span of the run's enqueueing: a million
//! images in one trace are more than what keeps traces can show, and could only be sampled all
//! together or not at all.

use camshaft_common::key::ImageKey;
use camshaft_common::run::RunId;
use camshaft_queue::QueueName;
use camshaft_telemetry::{TRACES, link};
use tracing::field::Empty;
use tracing::{Span, info_span};

/// The enqueueing of a run's images, until it is dropped.
pub(crate) fn enqueue(run: RunId) -> Span {
    info_span!(
        target: TRACES,
        parent: None,
        "enqueue",
        otel.status_description = Empty,
        camshaft.run = %run,
        camshaft.found = Empty,
        camshaft.published = Empty,
    )
}

/// The sending of one image's message, until it is dropped: once the queue has it.
pub(crate) fn send(enqueue: &Span, queue: &QueueName, run: RunId, key: &ImageKey) -> Span {
    let span = info_span!(
        target: TRACES,
        parent: None,
        "send",
        otel.name = %format_args!("send {}", queue.name),
        otel.kind = "producer",
        otel.status_description = Empty,
        messaging.system = queue.system,
        messaging.operation.name = "send",
        "messaging.operation.type" = "send",
        messaging.destination.name = &*queue.name,
        camshaft.run = %run,
        camshaft.key = %key,
    );
    link(&span, enqueue);
    span
}

/// Makes the span's status an error.
pub(crate) fn fail(span: &Span, error: &dyn std::error::Error) {
    span.record("otel.status_description", tracing::field::display(error));
}
