//! Messages as AMQP carries them: what is written into headers and properties, and read from them.
//!
//! Owns the headers' names. Reads no message's body.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, ShortString};

use camshaft_telemetry::{TRACEPARENT, TRACESTATE, TraceContext};

use crate::message::Message;
use crate::refusals::Refusals;

/// Header: the number of tries a message has had.
const ATTEMPTS_HEADER: &str = "x-camshaft-attempts";
/// Header: the number of deliveries that ended without an answer while the message was among the
/// jobs, but for those that the broker counts itself.
const LOSSES_HEADER: &str = "x-camshaft-losses";
/// Header: the same, while the message was among the suspects.
const SUSPECT_LOSSES_HEADER: &str = "x-camshaft-suspect-losses";
/// Header of a job that was refused by each worker that had it, and tried by none since: when it
/// was first refused, in seconds since 1970.
const REFUSED_SINCE_HEADER: &str = "x-camshaft-refused-since";
/// Header beside it: how often it was refused.
const REFUSALS_HEADER: &str = "x-camshaft-refusals";
/// Header of a dead letter: why it is dead.
pub const REASON_HEADER: &str = "x-camshaft-reason";
/// Header of a job: the note of its sequence's bookmark.
const BOOKMARK_HEADER: &str = "x-camshaft-bookmark";
/// Header beside it: how many messages of the sequence, this one included, were not confirmed when
/// it was published. Earlier versions wrote two more words behind the number.
const UNCONFIRMED_HEADER: &str = "x-camshaft-standing";
/// Header of a job that a worker may have worked on before: its first copy was not confirmed and may
/// be in the queue as well, or a worker began with it and left it to others.
const REPUBLISHED_HEADER: &str = "x-camshaft-republished";
/// Media type of every message.
const CONTENT_TYPE: &str = "application/json";

/// Header that a quorum queue adds: how often the message came back without an answer. Absent at
/// first.
/// <https://www.rabbitmq.com/docs/quorum-queues#poison-message-handling>
const DELIVERY_COUNT_HEADER: &str = "x-delivery-count";

/// The broker keeps headers in memory. A reason is a line or two; longer ones are cut.
const MAX_REASON_BYTES: usize = 1024;
/// Delivery mode of a message that is on disk before it is confirmed.
const PERSISTENT: u8 = 2;
/// Delivery mode of a message that a restart of the broker removes. Quorum queues ignore it: they
/// keep every message on disk.
const TRANSIENT: u8 = 1;
/// Header: further queues that a message goes to. The broker removes it.
/// <https://www.rabbitmq.com/docs/sender-selected>
const BLIND_COPY_HEADER: &str = "BCC";

/// How many deliveries of a message ended without an answer, by the queue that it was in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Losses {
    /// Each of these may have been another message's fault.
    pub(super) among_jobs: u32,
    /// To workers that did nothing else.
    pub(super) among_suspects: u32,
}

/// What is known of a message's deliveries so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct History {
    /// Its tries.
    pub(super) attempts: u32,
    pub(super) losses: Losses,
    /// Set while nobody has tried it since it was refused.
    pub(super) refusals: Option<Refusals>,
}

/// A message to hand to the broker.
#[derive(Clone, Debug)]
pub(super) struct OutgoingMessage {
    pub(super) queue: ShortString,
    pub(super) body: Bytes,
    pub(super) properties: BasicProperties,
}

/// The bookmark that a message of a sequence becomes.
#[derive(Clone, Debug)]
pub(super) struct BookmarkCopy<'a> {
    /// The queue that keeps the copy.
    pub(super) queue: &'a ShortString,
    /// What the publisher wants to know about the message later.
    pub(super) note: &'a str,
    /// The number of messages, this one included, that were not confirmed.
    pub(super) unconfirmed: usize,
}

impl OutgoingMessage {
    /// A job that has had no try yet.
    pub(super) fn job(queue: &ShortString, message: Message) -> Self {
        Self::new(queue, message.body, headers(message.trace.as_ref()))
    }

    /// A job of a sequence. If it is to be the bookmark, the same publish puts a copy into the
    /// bookmark's queue; a restart of the broker removes that copy.
    pub(super) fn sequence_job(
        queue: &ShortString,
        message: Message,
        bookmark: Option<BookmarkCopy<'_>>,
        republished: bool,
    ) -> Self {
        let mut headers = headers(message.trace.as_ref());
        if republished {
            insert(&mut headers, REPUBLISHED_HEADER, "true");
        }
        let Some(bookmark) = bookmark else { return Self::new(queue, message.body, headers) };
        insert(&mut headers, BOOKMARK_HEADER, bookmark.note);
        insert(&mut headers, UNCONFIRMED_HEADER, &bookmark.unconfirmed.to_string());
        let copies = vec![AMQPValue::LongString(bookmark.queue.as_str().into())];
        headers.insert(BLIND_COPY_HEADER.into(), AMQPValue::FieldArray(copies.into()));
        let outgoing = Self::new(queue, message.body, headers);
        Self { properties: outgoing.properties.with_delivery_mode(TRANSIENT), ..outgoing }
    }

    /// A job for a queue in which it waits for another try, after `attempts` tries.
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

    /// A job whose delivery doesn't count as a try: it is handed back, refused or put off, or goes to
    /// the suspects. It keeps its history: the broker counts its own losses from the start for a new
    /// message. A worker may have begun it, so the next one looks first.
    pub(super) fn uncounted(
        queue: &ShortString,
        body: Bytes,
        trace: Option<&TraceContext>,
        history: History,
    ) -> Self {
        let mut headers = headers(trace);
        insert(&mut headers, REPUBLISHED_HEADER, "true");
        let History { attempts, losses, refusals } = history;
        for (header, count) in [
            (ATTEMPTS_HEADER, attempts),
            (LOSSES_HEADER, losses.among_jobs),
            (SUSPECT_LOSSES_HEADER, losses.among_suspects),
        ] {
            if count > 0 {
                insert(&mut headers, header, &count.to_string());
            }
        }
        if let Some(Refusals { since, count }) = refusals {
            insert(&mut headers, REFUSED_SINCE_HEADER, &seconds(since).to_string());
            insert(&mut headers, REFUSALS_HEADER, &count.to_string());
        }
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

    /// A message that is no job.
    pub(super) fn note(queue: &ShortString, body: Bytes) -> Self {
        Self::new(queue, body, FieldTable::default())
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

/// How many tries a message has had.
pub(super) fn attempts(properties: &BasicProperties) -> u32 {
    number(properties, ATTEMPTS_HEADER)
}

/// How many deliveries of a message ended without an answer. `from_suspects` says which queue it
/// was delivered from: the broker counts the losses in that one.
pub(super) fn losses(properties: &BasicProperties, from_suspects: bool) -> Losses {
    let mut losses = Losses {
        among_jobs: number(properties, LOSSES_HEADER),
        among_suspects: number(properties, SUSPECT_LOSSES_HEADER),
    };
    let counted = if from_suspects { &mut losses.among_suspects } else { &mut losses.among_jobs };
    *counted = counted.saturating_add(delivery_count(properties));
    losses
}

/// The number in one of our headers. A value that is no number counts as none: another program's
/// header must not stop the message.
fn number(properties: &BasicProperties, key: &str) -> u32 {
    text(properties, key).and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// The broker's own count of losses, since the message was published.
fn delivery_count(properties: &BasicProperties) -> u32 {
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

/// Why a message is a dead letter: in our words, or in those of the broker, which dead-letters a
/// message itself that it has delivered too often.
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

/// The refusals of a message since a worker last tried it.
pub(super) fn refusals(properties: &BasicProperties) -> Option<Refusals> {
    let since = text(properties, REFUSED_SINCE_HEADER)?.parse().ok()?;
    let since = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(since))?;
    let count = text(properties, REFUSALS_HEADER)?.parse().ok()?;
    Some(Refusals { since, count })
}

/// Whether a worker may have worked on a message before.
pub(super) fn is_republished(properties: &BasicProperties) -> bool {
    text(properties, REPUBLISHED_HEADER).is_some()
}

/// The note of a bookmark, and how many messages were not confirmed when it was published.
pub(super) fn bookmark(properties: &BasicProperties) -> Option<(String, usize)> {
    let unconfirmed = text(properties, UNCONFIRMED_HEADER)?;
    let unconfirmed = unconfirmed.split(' ').next()?.parse().ok()?;
    Some((text(properties, BOOKMARK_HEADER)?, unconfirmed))
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
            let retry = OutgoingMessage::retry(&queue, Bytes::new(), Some(&sent), 3);
            assert_eq!(attempts(&retry.properties), 3);
            assert_eq!(trace(&retry.properties), Some(sent));
            let age = published_at(&retry.properties).unwrap().elapsed().unwrap();
            assert!(age < Duration::from_secs(60));
        }
        let message = || Message { body: Bytes::new(), trace: None };
        let job = OutgoingMessage::job(&queue, message());
        assert_eq!((attempts(&job.properties), trace(&job.properties)), (0, None));
        assert_eq!((bookmark(&job.properties), *job.properties.delivery_mode()), (None, Some(2)));
        let copies = ShortString::from("copies");
        let copy = BookmarkCopy { queue: &copies, note: "7", unconfirmed: 3 };
        let noted = OutgoingMessage::sequence_job(&queue, message(), Some(copy), false);
        assert_eq!(bookmark(&noted.properties), Some(("7".to_owned(), 3)));
        assert_eq!(*noted.properties.delivery_mode(), Some(TRANSIENT));
        for republished in [false, true] {
            let job = OutgoingMessage::sequence_job(&queue, message(), None, republished);
            assert_eq!(is_republished(&job.properties), republished);
            assert_eq!(*job.properties.delivery_mode(), Some(PERSISTENT));
        }
    }

    #[test]
    fn a_message_that_is_handed_back_keeps_its_tries_and_losses() {
        let queue = ShortString::from("q");
        let sent = TraceContext::new("00-ab-cd-01".to_owned(), None);
        let back = |losses| {
            let history = History { attempts: 2, losses, refusals: None };
            OutgoingMessage::uncounted(&queue, Bytes::new(), Some(&sent), history).properties
        };
        let lost = Losses { among_jobs: 2, among_suspects: 1 };
        let properties = back(lost);
        assert_eq!((attempts(&properties), losses(&properties, true)), (2, lost));
        assert_eq!(trace(&properties), Some(sent.clone()));
        assert!(is_republished(&properties));
        assert_eq!(*properties.delivery_mode(), Some(PERSISTENT));
        // The broker counts further losses for the queue that the message is in.
        let mut headers = properties.headers().clone().unwrap();
        headers.insert(DELIVERY_COUNT_HEADER.into(), AMQPValue::LongLongInt(3));
        let properties = properties.with_headers(headers);
        assert_eq!(losses(&properties, false), Losses { among_jobs: 5, ..lost });
        assert_eq!(losses(&properties, true), Losses { among_suspects: 4, ..lost });
        assert_eq!(losses(&back(Losses::default()), false), Losses::default());
    }

    #[test]
    fn refusals_are_kept_to_the_second_and_no_try_is_counted() {
        let queue = ShortString::from("q");
        let since = SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_900);
        let refused = Some(Refusals { since, count: 7 });
        let losses = Losses { among_jobs: 1, among_suspects: 0 };
        let history = History { attempts: 2, losses, refusals: refused };
        let job = OutgoingMessage::uncounted(&queue, Bytes::new(), None, history);
        let whole = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        assert_eq!(refusals(&job.properties), Some(Refusals { since: whole, count: 7 }));
        assert_eq!((attempts(&job.properties), is_republished(&job.properties)), (2, true));
        assert_eq!(super::losses(&job.properties, false), losses);
        let postponed = History::default();
        let postponed = OutgoingMessage::uncounted(&queue, Bytes::new(), None, postponed);
        assert_eq!((attempts(&postponed.properties), refusals(&postponed.properties)), (0, None));
        // A try that failed is a try: whoever refused the job before no longer matters.
        let retry = OutgoingMessage::retry(&queue, Bytes::new(), None, 3);
        assert_eq!((refusals(&retry.properties), is_republished(&retry.properties)), (None, false));
        for (since, count) in [("soon", "1"), ("1", ""), ("-1", "1"), ("1", "-1")] {
            let mut headers = FieldTable::default();
            insert(&mut headers, REFUSED_SINCE_HEADER, since);
            insert(&mut headers, REFUSALS_HEADER, count);
            assert_eq!(refusals(&BasicProperties::default().with_headers(headers)), None);
        }
    }

    #[test]
    fn a_bookmark_of_an_earlier_version_is_read() {
        let read = |unconfirmed: &str| {
            let mut headers = FieldTable::default();
            insert(&mut headers, "x-camshaft-bookmark", "7");
            insert(&mut headers, "x-camshaft-standing", unconfirmed);
            bookmark(&BasicProperties::default().with_headers(headers))
        };
        let token = "0199aaaa-bbbb-7ccc-8ddd-eeeeeeeeeeee";
        assert_eq!(read(&format!("3 {token} 12")), Some(("7".to_owned(), 3)));
        assert_eq!(read("256"), Some(("7".to_owned(), 256)));
        assert_eq!(read(""), None);
        assert_eq!(read("many"), None);
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let reason = "ä".repeat(MAX_REASON_BYTES);
        assert_eq!(shortened(&format!("x{reason}")).len(), MAX_REASON_BYTES - 1);
        assert_eq!(shortened("short"), "short");
    }
}
