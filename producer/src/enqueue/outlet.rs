//! Where the jobs of a run go, one after the other: to a queue in this process, or to a broker that
//! keeps a bookmark.
//!
//! Owns the `send` spans of traces. Each lasts until the queue has taken its job.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use camshaft_queue::{InProcessQueue, JobQueue, Message, QueueError, QueueName, Sequence};
use tracing::Span;

use crate::enqueue::traces;

/// Publishes the jobs of a run and counts those that the queue has taken.
///
/// The two destinations share no trait. The in-process queue takes a message or makes the publisher
/// wait; a broker confirms messages later, and keeps a bookmark that has to be ended or forgotten.
pub(crate) struct Outlet {
    destination: Destination,
    queue: QueueName,
    /// The spans of jobs that the queue has not taken yet, the oldest first.
    send_spans: VecDeque<Span>,
    /// How many jobs the queue has taken.
    taken: u64,
}

enum Destination {
    /// This process. Its queue ends with it.
    InProcess(InProcessQueue),
    Broker(Box<Sequence>),
}

impl Outlet {
    /// Publishes to a queue in this process.
    #[cfg_attr(not(feature = "embedded"), expect(dead_code, reason = "only audit does that"))]
    pub(crate) fn in_process(queue: InProcessQueue) -> Self {
        let name = queue.name();
        Self::new(Destination::InProcess(queue), name)
    }

    /// Publishes to a broker, behind the jobs that the sequence has already.
    pub(crate) fn broker(sequence: Sequence) -> Self {
        let name = sequence.queue();
        Self::new(Destination::Broker(Box::new(sequence)), name)
    }

    fn new(destination: Destination, queue: QueueName) -> Self {
        Self { destination, queue, send_spans: VecDeque::new(), taken: 0 }
    }

    /// The queue's name.
    pub(crate) fn name(&self) -> &QueueName {
        &self.queue
    }

    /// Publishes a job. With a `note`, the job becomes the bookmark. Stores the number of jobs that
    /// the queue has taken in `published`.
    pub(crate) async fn put(
        &mut self,
        message: Message,
        note: Option<String>,
        span: Span,
        published: &AtomicU64,
    ) -> Result<(), QueueError> {
        self.send_spans.push_back(span);
        let put = match &mut self.destination {
            Destination::InProcess(queue) => queue.publish(message).await,
            Destination::Broker(sequence) => sequence.publish(message, note).await,
        };
        self.count_taken(put, published)
    }

    /// Returns once the queue has taken every job.
    pub(crate) async fn flush(&mut self, published: &AtomicU64) -> Result<(), QueueError> {
        let flushed = match &mut self.destination {
            Destination::InProcess(_) => Ok(()),
            Destination::Broker(sequence) => sequence.flush().await,
        };
        self.count_taken(flushed, published)
    }

    /// Ends the spans of the jobs that the queue has taken. After an error it takes no more, so
    /// the other spans end with that error.
    fn count_taken(
        &mut self,
        outcome: Result<(), QueueError>,
        published: &AtomicU64,
    ) -> Result<(), QueueError> {
        let taken = match &self.destination {
            Destination::InProcess(_) if outcome.is_err() => self.taken,
            Destination::InProcess(_) => self.taken + self.send_spans.len() as u64,
            Destination::Broker(sequence) => sequence.confirmed(),
        };
        let ended = usize::try_from(taken - self.taken).unwrap_or(usize::MAX);
        drop(self.send_spans.drain(..ended.min(self.send_spans.len())));
        self.taken = taken;
        published.store(taken, Relaxed);
        if let Err(error) = &outcome {
            self.send_spans.drain(..).for_each(|span| traces::fail(&span, error));
        }
        outcome
    }

    /// Deletes the bookmark, so that no later process continues from it.
    pub(crate) async fn forget(&mut self) -> Result<(), QueueError> {
        match &mut self.destination {
            Destination::InProcess(_) => Ok(()),
            Destination::Broker(sequence) => sequence.forget().await,
        }
    }

    /// Ends publishing once every job is published.
    pub(crate) async fn end(self) -> Result<(), QueueError> {
        match self.destination {
            Destination::InProcess(_) => Ok(()),
            Destination::Broker(sequence) => sequence.end().await,
        }
    }
}
