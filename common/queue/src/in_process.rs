//! The job queue of `camshaft audit`: one process, no broker, the same meaning.
//!
//! Owns the messages in memory, their retry timers and the dead letters. Keeps nothing
//! across restarts: the store does, since an image with a result is not listed again.
//! Upstream: the lister, which waits while the queue is full. Downstream: the pipeline.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream;
use tokio::sync::futures::Notified;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::{
    DeadLetter, Deliveries, Delivery, JobQueue, Message, Outcome, QueueDepth, QueueError,
    QueueName, Receipt, RetryDelays, Settle, Settlement, run_of,
};
use camshaft_common::run::RunId;
use camshaft_telemetry::TraceContext;

/// A job queue in memory. Clones share it.
#[derive(Clone, Debug)]
pub struct InProcessQueue(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    name: QueueName,
    capacity: usize,
    delays: RetryDelays,
    state: Mutex<State>,
    /// Woken after every change of `state`.
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    ready: VecDeque<Entry>,
    in_flight: usize,
    retrying: usize,
    dead: Vec<DeadLetter>,
    finished: bool,
}

impl State {
    /// Whether nothing will ever be ready again.
    fn is_exhausted(&self) -> bool {
        self.finished && self.ready.is_empty() && self.in_flight == 0 && self.retrying == 0
    }
}

#[derive(Clone, Debug)]
struct Entry {
    body: Bytes,
    attempt: u32,
    redelivered: bool,
    trace: Option<TraceContext>,
}

impl InProcessQueue {
    /// An empty queue. Publishing waits while `capacity` messages are ready; a message that
    /// comes back is always taken in, so that retries can't lock up with publishing.
    #[must_use]
    pub fn new(capacity: usize, delays: RetryDelays) -> Self {
        Self(Arc::new(Shared {
            name: QueueName { system: "in_process", name: "camshaft.jobs".into() },
            capacity: capacity.max(1),
            delays,
            state: Mutex::default(),
            changed: Notify::new(),
        }))
    }

    /// Nothing more will be published: streams end once every message has been settled, and
    /// publishing fails with [`QueueError::Closed`], also where it was waiting for room.
    pub fn finish(&self) {
        self.0.change(|state| state.finished = true);
    }

    /// The messages that will not be tried again, oldest first.
    #[must_use]
    pub fn dead_letters(&self) -> Vec<DeadLetter> {
        self.0.lock().dead.clone()
    }
}

#[async_trait]
impl JobQueue for InProcessQueue {
    fn name(&self) -> QueueName {
        self.0.name.clone()
    }

    async fn publish(&self, messages: Vec<Message>) -> Result<(), QueueError> {
        for message in messages {
            let mut entry = Some(Entry {
                body: message.body,
                attempt: 1,
                redelivered: false,
                trace: message.trace,
            });
            self.0
                .wait_for(|state| {
                    if state.finished {
                        return Some(Err(QueueError::Closed));
                    }
                    if state.ready.len() >= self.0.capacity {
                        return None;
                    }
                    state.ready.extend(entry.take());
                    Some(Ok(()))
                })
                .await?;
            self.0.changed.notify_waiters();
        }
        Ok(())
    }

    async fn consume(
        &self,
        prefetch: u16,
        stop: CancellationToken,
    ) -> Result<Deliveries, QueueError> {
        let shared = Arc::clone(&self.0);
        let slots = Arc::new(Semaphore::new(usize::from(prefetch.max(1))));
        let deliveries = stream::unfold((shared, slots, stop), |(shared, slots, stop)| async {
            let delivery = tokio::select! {
                biased;
                () = stop.cancelled() => None,
                delivery = next_delivery(&shared, &slots) => delivery,
            };
            delivery.map(|delivery| (delivery, (shared, slots, stop)))
        });
        Ok(deliveries.boxed())
    }

    async fn depth(&self) -> Result<QueueDepth, QueueError> {
        let state = self.0.lock();
        Ok(QueueDepth {
            ready: state.ready.len() as u64,
            retrying: state.retrying as u64,
            dead: state.dead.len() as u64,
        })
    }

    async fn redrive(&self, run: Option<&RunId>) -> Result<u64, QueueError> {
        Ok(self.0.change(|state| {
            let (chosen, kept): (Vec<_>, Vec<_>) = std::mem::take(&mut state.dead)
                .into_iter()
                .partition(|letter| run.is_none() || run_of(&letter.body).as_ref() == run);
            state.dead = kept;
            let moved = chosen.len() as u64;
            state.ready.extend(chosen.into_iter().map(|letter| Entry {
                body: letter.body,
                attempt: 1,
                redelivered: false,
                trace: letter.trace,
            }));
            moved
        }))
    }
}

async fn next_delivery(shared: &Arc<Shared>, slots: &Arc<Semaphore>) -> Option<Delivery> {
    let permit = tokio::select! {
        // Others may hold every slot of this consumer: only their settling can end it.
        permit = Arc::clone(slots).acquire_owned() => permit.expect("slots are never closed"),
        () = shared.wait_for(|state| state.is_exhausted().then_some(())) => return None,
    };
    let entry = shared
        .wait_for(|state| match state.ready.pop_front() {
            Some(entry) => {
                state.in_flight += 1;
                Some(Some(entry))
            }
            None => state.is_exhausted().then_some(None),
        })
        .await?;
    // There is room for the lister now.
    shared.changed.notify_waiters();
    Some(Delivery {
        body: entry.body.clone(),
        queue: shared.name.clone(),
        attempt: entry.attempt,
        redelivered: entry.redelivered,
        // What ends this process ends the queue with it.
        alone: false,
        trace: entry.trace.clone(),
        published_at: None,
        receipt: Receipt::new(Box::new(InProcessReceipt {
            shared: Arc::clone(shared),
            entry,
            _permit: permit,
        })),
    })
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code panics while it holds the state")
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.lock());
        self.changed.notify_waiters();
        result
    }

    /// Waits until `test` gives something. The caller wakes others if it changed the state.
    async fn wait_for<T>(&self, mut test: impl FnMut(&mut State) -> Option<T>) -> T {
        loop {
            // Listens before it looks, so that no change falls in between.
            let mut changed: std::pin::Pin<&mut Notified<'_>> =
                std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            let result = test(&mut self.lock());
            match result {
                Some(result) => return result,
                None => changed.await,
            }
        }
    }
}

struct InProcessReceipt {
    shared: Arc<Shared>,
    entry: Entry,
    /// One of the consumer's `prefetch` slots.
    _permit: OwnedSemaphorePermit,
}

impl InProcessReceipt {
    fn bury(self, reason: String) -> Settlement {
        let Self { shared, entry, _permit } = self;
        shared.change(|state| {
            state.in_flight -= 1;
            state.dead.push(DeadLetter {
                body: entry.body,
                reason,
                attempts: entry.attempt,
                trace: entry.trace,
            });
        });
        Settlement::DeadLettered
    }
}

#[async_trait]
impl Settle for InProcessReceipt {
    async fn settle(self: Box<Self>, outcome: Outcome) -> Result<Settlement, QueueError> {
        Ok(match outcome {
            Outcome::Ack => {
                self.shared.change(|state| state.in_flight -= 1);
                Settlement::Acknowledged
            }
            Outcome::DeadLetter { reason } => self.bury(reason),
            Outcome::Retry { reason } => match self.shared.delays.after(self.entry.attempt) {
                None => self.bury(reason),
                Some(delay) => {
                    let Self { shared, mut entry, _permit } = *self;
                    entry.attempt += 1;
                    entry.redelivered = false;
                    shared.change(|state| {
                        state.in_flight -= 1;
                        state.retrying += 1;
                    });
                    tokio::spawn(async move {
                        tokio::time::sleep(delay).await;
                        shared.change(|state| {
                            state.retrying -= 1;
                            state.ready.push_back(entry);
                        });
                    });
                    Settlement::Retrying(delay)
                }
            },
        })
    }

    fn hand_back(self: Box<Self>) {
        let Self { shared, mut entry, _permit } = *self;
        entry.redelivered = true;
        shared.change(|state| {
            state.in_flight -= 1;
            state.ready.push_front(entry);
        });
    }
}
