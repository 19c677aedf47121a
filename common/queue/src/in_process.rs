//! The job queue of `camshaft audit`: one process, no broker, the same meaning.
//!
//! Owns the messages in memory, their retry timers and the dead letters. Keeps nothing across
//! restarts. It needs not to: an image with a result in the store is not listed again.
//! Upstream: the lister, which waits while the queue is full. Downstream: the pipeline.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use camshaft_common::run::RunId;
use camshaft_telemetry::TraceContext;
use futures::{StreamExt, stream};
use parking_lot::Mutex;
use tokio::sync::futures::Notified;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::delivery::{Delivery, Outcome, Receipt, Settle, Settlement};
use crate::error::QueueError;
use crate::job_queue::{Deliveries, JobQueue, QueueDepth};
use crate::message::{DeadLetter, Message, QueueName, run_of};
use crate::refusals::Refusals;
use crate::retry_delays::RetryDelays;

/// A job queue in memory. Clones share it.
#[derive(Clone, Debug)]
pub struct InProcessQueue(Arc<QueueInMemory>);

#[derive(Debug)]
struct QueueInMemory {
    name: QueueName,
    capacity: usize,
    delays: RetryDelays,
    contents: Mutex<Contents>,
    /// Woken after every change of `contents`.
    changed: Notify,
}

#[derive(Debug, Default)]
struct Contents {
    ready: VecDeque<StoredMessage>,
    /// Delivered and not yet settled.
    unsettled: usize,
    /// Waiting for another try.
    retrying: usize,
    dead: Vec<DeadLetter>,
    /// Whether nothing more will be published.
    finished: bool,
}

impl Contents {
    /// Whether nothing will ever be ready again.
    fn is_exhausted(&self) -> bool {
        self.finished && self.ready.is_empty() && self.unsettled == 0 && self.retrying == 0
    }
}

#[derive(Clone, Debug)]
struct StoredMessage {
    body: Bytes,
    attempt: u32,
    redelivered: bool,
    /// Set while nobody has tried it since it was refused.
    refusals: Option<Refusals>,
    trace: Option<TraceContext>,
}

impl StoredMessage {
    fn first_try(body: Bytes, trace: Option<TraceContext>) -> Self {
        Self { body, attempt: 1, redelivered: false, refusals: None, trace }
    }
}

impl InProcessQueue {
    /// An empty queue. Publishing waits while `capacity` messages are ready. A message that comes
    /// back is taken even if the queue is full; otherwise retries and publishing could wait for
    /// each other.
    #[must_use]
    pub fn new(capacity: usize, delays: RetryDelays) -> Self {
        Self(Arc::new(QueueInMemory {
            name: QueueName { system: "in_process", name: "camshaft.jobs".into() },
            capacity: capacity.max(1),
            delays,
            contents: Mutex::default(),
            changed: Notify::new(),
        }))
    }

    /// Publishes a message. Waits while the queue is full.
    ///
    /// # Errors
    /// [`QueueError::Closed`] after [`InProcessQueue::finish`].
    pub async fn publish(&self, message: Message) -> Result<(), QueueError> {
        let queue = &self.0;
        let mut message = Some(StoredMessage::first_try(message.body, message.trace));
        let published = queue
            .wait_for(|contents| {
                if contents.finished {
                    return Some(Err(QueueError::Closed));
                }
                if contents.ready.len() >= queue.capacity {
                    return None;
                }
                contents.ready.extend(message.take());
                Some(Ok(()))
            })
            .await;
        queue.changed.notify_waiters();
        published
    }

    /// Says that nothing more will be published. Streams end once every message is settled.
    /// Publishing fails with [`QueueError::Closed`], even if it has begun and waits for room.
    pub fn finish(&self) {
        self.0.change(|contents| contents.finished = true);
    }

    /// The messages that will not be tried again, oldest first.
    #[must_use]
    pub fn dead_letters(&self) -> Vec<DeadLetter> {
        self.0.contents.lock().dead.clone()
    }
}

#[async_trait]
impl JobQueue for InProcessQueue {
    fn name(&self) -> QueueName {
        self.0.name.clone()
    }

    async fn consume(
        &self,
        prefetch: u16,
        stop: CancellationToken,
    ) -> Result<Deliveries, QueueError> {
        let queue = Arc::clone(&self.0);
        let slots = Arc::new(Semaphore::new(usize::from(prefetch.max(1))));
        let deliveries = stream::unfold((queue, slots, stop), |(queue, slots, stop)| async {
            let delivery = tokio::select! {
                biased;
                () = stop.cancelled() => None,
                delivery = next_delivery(&queue, &slots) => delivery,
            };
            delivery.map(|delivery| (delivery, (queue, slots, stop)))
        });
        Ok(deliveries.boxed())
    }

    async fn depth(&self) -> Result<QueueDepth, QueueError> {
        let contents = self.0.contents.lock();
        Ok(QueueDepth {
            ready: contents.ready.len() as u64,
            retrying: contents.retrying as u64,
            dead: contents.dead.len() as u64,
        })
    }

    async fn redrive(&self, run: Option<&RunId>) -> Result<u64, QueueError> {
        Ok(self.0.change(|contents| {
            let (chosen, kept): (Vec<_>, Vec<_>) = std::mem::take(&mut contents.dead)
                .into_iter()
                .partition(|letter| run.is_none() || run_of(&letter.body).as_ref() == run);
            contents.dead = kept;
            let moved = chosen.len() as u64;
            let again = chosen
                .into_iter()
                .map(|letter| StoredMessage::first_try(letter.body, letter.trace));
            contents.ready.extend(again);
            moved
        }))
    }
}

/// Waits for a message and for one of the consumer's `slots`; `None` once the queue is exhausted.
async fn next_delivery(queue: &Arc<QueueInMemory>, slots: &Arc<Semaphore>) -> Option<Delivery> {
    let slot = tokio::select! {
        // Other deliveries may hold every slot of this consumer. Only settling them can end it.
        slot = Arc::clone(slots).acquire_owned() => slot.expect("slots are never closed"),
        () = queue.wait_for(|contents| contents.is_exhausted().then_some(())) => return None,
    };
    let message = queue
        .wait_for(|contents| match contents.ready.pop_front() {
            Some(message) => {
                contents.unsettled += 1;
                Some(Some(message))
            }
            None => contents.is_exhausted().then_some(None),
        })
        .await?;
    // There is room for the lister now.
    queue.changed.notify_waiters();
    Some(Delivery {
        body: message.body.clone(),
        queue: queue.name.clone(),
        attempt: message.attempt,
        redelivered: message.redelivered,
        // A job that ends this process ends the queue with it.
        alone: false,
        trace: message.trace.clone(),
        published_at: None,
        received_at: Instant::now(),
        receipt: Receipt::new(Box::new(InProcessReceipt {
            queue: Arc::clone(queue),
            message,
            _slot: slot,
        })),
    })
}

impl QueueInMemory {
    fn change<T>(&self, change: impl FnOnce(&mut Contents) -> T) -> T {
        let result = change(&mut self.contents.lock());
        self.changed.notify_waiters();
        result
    }

    /// Waits until `test` gives something. The caller wakes others if it changed the contents.
    async fn wait_for<T>(&self, mut test: impl FnMut(&mut Contents) -> Option<T>) -> T {
        loop {
            // Listens before it looks, so that no change falls in between.
            let mut changed: std::pin::Pin<&mut Notified<'_>> =
                std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            let result = test(&mut self.contents.lock());
            match result {
                Some(result) => return result,
                None => changed.await,
            }
        }
    }
}

struct InProcessReceipt {
    queue: Arc<QueueInMemory>,
    message: StoredMessage,
    /// One of the consumer's `prefetch` slots.
    _slot: OwnedSemaphorePermit,
}

impl InProcessReceipt {
    fn back_to_queue(self) {
        let Self { queue, mut message, _slot } = self;
        message.redelivered = true;
        queue.change(|contents| {
            contents.unsettled -= 1;
            contents.ready.push_front(message);
        });
    }

    fn dead_letter(self, attempts: u32, reason: String) -> Settlement {
        let Self { queue, message, _slot } = self;
        queue.change(|contents| {
            contents.unsettled -= 1;
            let StoredMessage { body, trace, .. } = message;
            contents.dead.push(DeadLetter { body, reason, attempts, trace });
        });
        Settlement::DeadLettered
    }

    fn retry_after(mut self, delay: Duration) -> Settlement {
        let message = &mut self.message;
        message.attempt += 1;
        (message.redelivered, message.refusals) = (false, None);
        self.ready_after(delay)
    }

    /// This process has one worker, so that its refusals are those of all.
    fn refuse(mut self, reason: &str, limit: Duration) -> Settlement {
        let refusals = Refusals::one_more(self.message.refusals);
        if refusals.are_by_all(limit, 1) {
            let tries_before = self.message.attempt - 1;
            return self.dead_letter(tries_before, refusals.reason(reason));
        }
        (self.message.redelivered, self.message.refusals) = (true, Some(refusals));
        let delay = self.queue.delays.uncounted(refusals.age());
        self.ready_after(delay)
    }

    fn postpone(mut self, delay: Duration) -> Settlement {
        (self.message.redelivered, self.message.refusals) = (true, None);
        let delay = self.queue.delays.uncounted(delay);
        self.ready_after(delay)
    }

    fn ready_after(self, delay: Duration) -> Settlement {
        let Self { queue, message, _slot } = self;
        queue.change(|contents| {
            contents.unsettled -= 1;
            contents.retrying += 1;
        });
        tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            queue.change(|contents| {
                contents.retrying -= 1;
                contents.ready.push_back(message);
            });
        });
        Settlement::Retrying(delay)
    }
}

#[async_trait]
impl Settle for InProcessReceipt {
    async fn settle(self: Box<Self>, outcome: Outcome) -> Result<Settlement, QueueError> {
        Ok(match outcome {
            Outcome::Ack => {
                self.queue.change(|contents| contents.unsettled -= 1);
                Settlement::Acknowledged
            }
            Outcome::DeadLetter { reason } => {
                let attempts = self.message.attempt;
                self.dead_letter(attempts, reason)
            }
            Outcome::Retry { reason } => {
                let attempts = self.message.attempt;
                match self.queue.delays.after(attempts) {
                    None => self.dead_letter(attempts, reason),
                    Some(delay) => self.retry_after(delay),
                }
            }
            Outcome::Refuse { reason, limit } => self.refuse(&reason, limit),
            Outcome::Postpone { delay, .. } => self.postpone(delay),
            Outcome::HandBack => {
                self.back_to_queue();
                Settlement::HandedBack
            }
        })
    }

    fn hand_back(self: Box<Self>) {
        self.back_to_queue();
    }
}
