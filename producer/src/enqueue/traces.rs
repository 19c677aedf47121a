//! The producer's spans: the enqueue of a run, and the sending of each image's message. The names
//! of attributes are those of
//! <https://opentelemetry.io/docs/specs/semconv/messaging/messaging-spans/>
//!
//! Each image has a trace of its own, with a link to the span of the enqueue. Trace viewers can't
//! show a million images in one trace, and could only sample all of them or none.

use camshaft_common::key::ImageKey;
use camshaft_common::run::RunId;
use camshaft_queue::QueueName;
use camshaft_telemetry::{TRACES, link};
use tracing::field::Empty;
use tracing::{Span, info_span};

/// Starts the span of a run's enqueue. It ends when it is dropped.
pub(crate) fn enqueue_span(run: RunId) -> Span {
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

/// Starts the span of sending one image's message. Drop it once the queue has taken the message.
pub(crate) fn send_span(enqueue: &Span, queue: &QueueName, run: RunId, key: &ImageKey) -> Span {
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

/// Sets a span's status to an error.
pub(crate) fn fail(span: &Span, error: &dyn std::error::Error) {
    span.record("otel.status_description", tracing::field::display(error));
}
