//! What goes into a message's headers and properties, and what is read from them.
//!
//! One type and functions that look at no body.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, ShortString};

use super::census::Standing;
use crate::{
    ATTEMPTS_HEADER, BOOKMARK_HEADER, CONTENT_TYPE, LOSSES_HEADER, Message, REASON_HEADER,
    STANDING_HEADER,
};
use camshaft_telemetry::{TRACEPARENT, TRACESTATE, TraceContext};

/// How often a quorum queue has had the message back without an answer; absent at first.
/// <https://www.rabbitmq.com/docs/quorum-queues#poison-message-handling>
const DELIVERY_COUNT_HEADER: &str = "x-delivery-count";

/// The broker keeps headers in memory: a reason is a line or two, not a core dump.
const MAX_REASON_BYTES: usize = 1024;
/// On disk before it is confirmed.
const PERSISTENT: u8 = 2;
/// Gone when the broker restarts, but from quorum queues, which keep every message on disk.
const TRANSIENT: u8 = 1;
/// Further queues that a message goes to; the broker takes the header off on the way.
/// <https://www.rabbitmq.com/docs/sender-selected>
const BLIND_COPY_HEADER: &str = "BCC";

/// A message on its way to the broker.
#[derive(Clone, Debug)]
pub(super) struct Outgoing {
    pub(super) queue: ShortString,
    pub(super) body: Bytes,
    pub(super) properties: BasicProperties,
}

impl Outgoing {
    /// A job that has had no try yet.
    pub(super) fn job(queue: &ShortString, message: Message) -> Self {
        Self::new(queue, message.body, headers(message.trace.as_ref()))
    }

    /// A job that has had no try yet, of which the queues `copy_to` are given copies that don't
    /// outlast the broker. A bookmark has a note, and its standing.
    pub(super) fn copied(
        queue: &ShortString,
        copy_to: &[&ShortString],
        message: Message,
        bookmark: Option<(&str, &Standing)>,
    ) -> Self {
        let mut headers = headers(message.trace.as_ref());
        if let Some((note, standing)) = bookmark {
            insert(&mut headers, BOOKMARK_HEADER, note);
            insert(&mut headers, STANDING_HEADER, &standing.to_string());
        }
        let copies: Vec<_> =
            copy_to.iter().map(|queue| AMQPValue::LongString(queue.as_str().into())).collect();
        headers.insert(BLIND_COPY_HEADER.into(), AMQPValue::FieldArray(copies.into()));
        Self::new(queue, message.body, headers).transient()
    }

    /// A word for a [`small_queue`](super::small_queue) that doesn't outlast the broker.
    pub(super) fn word(queue: &ShortString, word: &str) -> Self {
        Self::new(queue, word.to_owned().into(), FieldTable::default()).transient()
    }

    /// A job that had `attempts` tries and is to have another.
    pub(super) fn retry(
        queue: &ShortString,
        body: Bytes,
        trace: Option<&TraceContext>,
        attempts: u32,
    ) -> Self {
        let mut headers = headers(trace);
        insert(&mut headers, ATTEMPTS_HEADER, &attempts.to_string());
        Self::new(queue, body, headers)
    }

    /// A job to be tried apart from others, after `losses` deliveries without an answer.
    /// Such deliveries are no tries: `attempts` stays what it was.
    pub(super) fn suspect(
        queue: &ShortString,
        body: Bytes,
        trace: Option<&TraceContext>,
        attempts: u32,
        losses: u32,
    ) -> Self {
        let mut headers = headers(trace);
        insert(&mut headers, ATTEMPTS_HEADER, &attempts.to_string());
        insert(&mut headers, LOSSES_HEADER, &losses.to_string());
        Self::new(queue, body, headers)
    }

    /// A job that is to have no further try.
    pub(super) fn dead_letter(
        queue: &ShortString,
        body: Bytes,
        trace: Option<&TraceContext>,
        attempts: u32,
        reason: &str,
    ) -> Self {
        let mut headers = headers(trace);
        insert(&mut headers, ATTEMPTS_HEADER, &attempts.to_string());
        insert(&mut headers, REASON_HEADER, shortened(reason));
        Self::new(queue, body, headers)
    }

    fn transient(self) -> Self {
        Self { properties: self.properties.with_delivery_mode(TRANSIENT), ..self }
    }

    fn new(queue: &ShortString, body: Bytes, headers: FieldTable) -> Self {
        let properties = BasicProperties::default()
            .with_delivery_mode(PERSISTENT)
            .with_content_type(CONTENT_TYPE.into())
            .with_timestamp(seconds(SystemTime::now()))
            .with_headers(headers);
        Self { queue: queue.clone(), body, properties }
    }
}

/// As AMQP 0-9-1 counts time, section 4.2.5.4: whole seconds since 1970.
fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn headers(trace: Option<&TraceContext>) -> FieldTable {
    let mut headers = FieldTable::default();
    if let Some(trace) = trace {
        insert(&mut headers, TRACEPARENT, trace.traceparent());
        if let Some(tracestate) = trace.tracestate() {
            insert(&mut headers, TRACESTATE, tracestate);
        }
    }
    headers
}

fn insert(headers: &mut FieldTable, key: &str, value: &str) {
    headers.insert(key.into(), AMQPValue::LongString(value.into()));
}

fn shortened(reason: &str) -> &str {
    let end =
        (0..=reason.len().min(MAX_REASON_BYTES)).rev().find(|end| reason.is_char_boundary(*end));
    &reason[..end.expect("0 is a boundary")]
}

/// How many tries a message has had. Anything that is no number counts as none: a stranger's
/// header must not stop the message.
pub(super) fn attempts(properties: &BasicProperties) -> u32 {
    text(properties, ATTEMPTS_HEADER).and_then(|attempts| attempts.parse().ok()).unwrap_or(0)
}

/// How many deliveries of a message ended without an answer before it was set apart.
pub(super) fn losses_before(properties: &BasicProperties) -> u32 {
    text(properties, LOSSES_HEADER).and_then(|losses| losses.parse().ok()).unwrap_or(0)
}

/// How many deliveries from the queue it is in ended without an answer.
pub(super) fn losses(properties: &BasicProperties) -> u32 {
    let headers = properties.headers().as_ref();
    let count = headers.and_then(|headers| headers.inner().get(DELIVERY_COUNT_HEADER));
    let count = match count {
        Some(AMQPValue::LongLongInt(count)) => u32::try_from(*count),
        Some(AMQPValue::LongInt(count)) => u32::try_from(*count),
        Some(AMQPValue::LongUInt(count)) => return *count,
        Some(AMQPValue::ShortInt(count)) => u32::try_from(*count),
        Some(AMQPValue::ShortUInt(count)) => return u32::from(*count),
        Some(AMQPValue::ShortShortInt(count)) => u32::try_from(*count),
        Some(AMQPValue::ShortShortUInt(count)) => return u32::from(*count),
        _ => Ok(0),
    };
    count.unwrap_or(0)
}

/// Why a message is a dead letter: in our words, or in those of the broker, which buries one
/// that it has delivered too often.
pub(super) fn reason(properties: &BasicProperties) -> String {
    text(properties, REASON_HEADER)
        .or_else(|| text(properties, "x-first-death-reason"))
        .unwrap_or_else(|| "unknown".to_owned())
}

/// When a message was published, to the second.
pub(super) fn published_at(properties: &BasicProperties) -> Option<SystemTime> {
    let since = Duration::from_secs((*properties.timestamp())?);
    SystemTime::UNIX_EPOCH.checked_add(since)
}

/// The note of a bookmark and its standing.
pub(super) fn bookmark(properties: &BasicProperties) -> Option<(String, Standing)> {
    let standing = text(properties, STANDING_HEADER)?.parse().ok()?;
    Some((text(properties, BOOKMARK_HEADER)?, standing))
}

/// The trace that a message belongs to.
pub(super) fn trace(properties: &BasicProperties) -> Option<TraceContext> {
    Some(TraceContext::new(text(properties, TRACEPARENT)?, text(properties, TRACESTATE)))
}

fn text(properties: &BasicProperties, key: &str) -> Option<String> {
    match properties.headers().as_ref()?.inner().get(key)? {
        AMQPValue::LongString(text) => Some(text.to_string()),
        AMQPValue::ShortString(text) => Some(text.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_as_written() {
        let queue = ShortString::from("q");
        for tracestate in [None, Some("vendor=1".to_owned())] {
            let sent = TraceContext::new("00-ab-cd-01".to_owned(), tracestate);
            let retry = Outgoing::retry(&queue, Bytes::new(), Some(&sent), 3);
            assert_eq!(attempts(&retry.properties), 3);
            assert_eq!(trace(&retry.properties), Some(sent));
            let age = published_at(&retry.properties).unwrap().elapsed().unwrap();
            assert!(age < Duration::from_secs(60));
        }
        let message = || Message { body: Bytes::new(), trace: None };
        let job = Outgoing::job(&queue, message());
        assert_eq!((attempts(&job.properties), trace(&job.properties)), (0, None));
        assert_eq!((bookmark(&job.properties), *job.properties.delivery_mode()), (None, Some(2)));
        let copy_to = ShortString::from("copy");
        let expected = Some(("token".to_owned(), 12));
        for standing in
            [Standing { on_their_way: 3, expected }, Standing { on_their_way: 1, expected: None }]
        {
            let noted = Some(("7", &standing));
            let copied = Outgoing::copied(&queue, &[&copy_to], message(), noted);
            assert_eq!(bookmark(&copied.properties), Some(("7".to_owned(), standing)));
            assert_eq!(*copied.properties.delivery_mode(), Some(TRANSIENT));
        }
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let reason = "ä".repeat(MAX_REASON_BYTES);
        assert_eq!(shortened(&format!("x{reason}")).len(), MAX_REASON_BYTES - 1);
        assert_eq!(shortened("short"), "short");
    }
}
