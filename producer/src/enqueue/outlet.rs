//! Where a run's jobs go, one after the other: to this process itself, or to a broker that keeps a
//! bookmark. Owns the traces' `send` spans, each of which lasts until its job is taken.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use camshaft_queue::{JobQueue, Message, QueueError, QueueName, Sequence};
use tracing::Span;

use crate::enqueue::traces;

/// See the module.
pub(crate) struct Outlet<'a> {
    to: Destination<'a>,
    name: QueueName,
    /// Of the jobs that are on their way, the oldest first.
    sending: VecDeque<Span>,
    taken: u64,
}

enum Destination<'a> {
    /// This process, with which they end.
    InProcess(&'a dyn JobQueue),
    Broker(Box<Sequence>),
}

impl<'a> Outlet<'a> {
    /// To this process itself.
    #[cfg_attr(not(feature = "embedded"), expect(dead_code, reason = "only audit does that"))]
    pub(crate) fn in_process(queue: &'a dyn JobQueue) -> Self {
        Self::new(Destination::InProcess(queue))
    }

    /// To a broker, behind what the sequence has already.
    pub(crate) fn broker(sequence: Sequence) -> Self {
        Self::new(Destination::Broker(Box::new(sequence)))
    }

    fn new(to: Destination<'a>) -> Self {
        let name = match &to {
            Destination::InProcess(queue) => queue.name(),
            Destination::Broker(sequence) => sequence.queue(),
        };
        Self { to, name, sending: VecDeque::new(), taken: 0 }
    }

    /// The queue's name.
    pub(crate) fn name(&self) -> &QueueName {
        &self.name
    }

    /// Publishes a job; with a `note`, the bookmark comes there. Counts the jobs that are taken.
    pub(crate) async fn put(
        &mut self,
        message: Message,
        note: Option<String>,
        span: Span,
        published: &AtomicU64,
    ) -> Result<(), QueueError> {
        self.sending.push_back(span);
        let put = match &mut self.to {
            Destination::InProcess(queue) => queue.publish(vec![message]).await,
            Destination::Broker(sequence) => sequence.publish(message, note).await,
        };
        self.count(put, published)
    }

    /// Returns once every job is taken.
    pub(crate) async fn flush(&mut self, published: &AtomicU64) -> Result<(), QueueError> {
        let flushed = match &mut self.to {
            Destination::InProcess(_) => Ok(()),
            Destination::Broker(sequence) => sequence.flush().await,
        };
        self.count(flushed, published)
    }

    /// Ends the spans of those that are taken; of all, where no more will be.
    fn count(
        &mut self,
        outcome: Result<(), QueueError>,
        published: &AtomicU64,
    ) -> Result<(), QueueError> {
        let taken = match &self.to {
            Destination::InProcess(_) if outcome.is_err() => self.taken,
            Destination::InProcess(_) => self.taken + self.sending.len() as u64,
            Destination::Broker(sequence) => sequence.confirmed(),
        };
        let ended = usize::try_from(taken - self.taken).unwrap_or(usize::MAX);
        drop(self.sending.drain(..ended.min(self.sending.len())));
        self.taken = taken;
        published.store(taken, Relaxed);
        if let Err(error) = &outcome {
            self.sending.drain(..).for_each(|span| traces::fail(&span, error));
        }
        outcome
    }

    /// Nobody is to go on from here.
    pub(crate) async fn forget(&mut self) -> Result<(), QueueError> {
        match &mut self.to {
            Destination::InProcess(_) => Ok(()),
            Destination::Broker(sequence) => sequence.forget().await,
        }
    }

    /// All is published, and nobody is to go on.
    pub(crate) async fn end(self) -> Result<(), QueueError> {
        match self.to {
            Destination::InProcess(_) => Ok(()),
            Destination::Broker(sequence) => sequence.end().await,
        }
    }
}
