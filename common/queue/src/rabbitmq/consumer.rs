//! Deliveries as they come, across lost connections.
//!
//! A task owns the endless reconnecting, and the change of the prefetch: what its consumer wants, or
//! less while all consumers of the queue are limited. It takes every delivery as soon as it comes:
//! what nobody has taken from the stream yet can be handed back at any moment, also while a worker is
//! busy and does not ask for more. What is known of all consumers of a queue is here, too: their
//! channels, what they hold, the problem they have at the moment, and why they ended. What happens
//! over one connection is in [`consumer_session`](super::consumer_session). Downstream: the worker's
//! first stage.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use camshaft_common::backoff::Backoff;
use futures::{StreamExt, stream};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::broker::Broker;
use super::consumer_channel::ConsumerChannel;
use super::consumer_session::{ConsumerSession, NewDelivery, SessionEvent};
use super::held_deliveries::HeldDeliveries;
use super::held_delivery::hand_back;
use super::retry::warn_of;
use crate::delivery::Delivery;
use crate::error::QueueError;
use crate::job_queue::Deliveries;

/// How long [`Consumers::stop`] waits for messages that are being handed back, or moved from one
/// queue to another. A message whose move is cut off is in both queues.
const MOVES_TIMEOUT: Duration = Duration::from_secs(2);

/// All consumers of a queue.
#[derive(Default)]
pub(super) struct Consumers {
    channels: Mutex<Vec<Weak<ConsumerChannel>>>,
    held: Arc<HeldDeliveries>,
    /// Why no deliveries come at the moment.
    problem: Mutex<Option<String>>,
    /// Why a stream of deliveries ended by itself.
    failure: Mutex<Option<QueueError>>,
    closed: CancellationToken,
    /// The most that each may hold for now, if that is less than its prefetch.
    prefetch_limit: watch::Sender<Option<u16>>,
    /// The tasks of the streams, and the moves of messages that no worker sees to the suspects or
    /// the dead letters.
    tasks: TaskTracker,
}

impl Consumers {
    pub(super) fn problem(&self) -> Option<String> {
        self.problem.lock().clone()
    }

    pub(super) fn failure(&self) -> Option<QueueError> {
        self.failure.lock().clone()
    }

    pub(super) fn ensure_open(&self) -> Result<(), QueueError> {
        if self.closed.is_cancelled() { Err(QueueError::Closed) } else { Ok(()) }
    }

    /// Makes all streams of deliveries hold fewer messages for now, or take none.
    pub(super) fn limit_prefetch(&self, limit: Option<u16>) {
        self.prefetch_limit.send_replace(limit);
    }

    /// Hands back everything that is not settled, whoever has it. Returns how many messages.
    pub(super) async fn hand_back_all(&self, broker: &Broker) -> Result<usize, QueueError> {
        let held = self.held.take_all();
        let count = held.len();
        hand_back(broker, held).await?;
        Ok(count)
    }

    /// Hands back what nobody has taken.
    async fn hand_back_untaken(&self, broker: &Broker, untaken: Vec<NewDelivery>) {
        let held = untaken.iter().filter_map(|delivery| self.held.take(delivery.number)).collect();
        if let Err(error) = hand_back(broker, held).await {
            tracing::debug!(%error, "the broker took no copies; it delivers the originals again");
        }
    }

    /// Ends all streams of deliveries.
    pub(super) async fn stop(&self) {
        self.closed.cancel();
        self.tasks.close();
        if timeout(MOVES_TIMEOUT, self.tasks.wait()).await.is_err() {
            tracing::debug!("not all messages were moved in time; those stay where they were");
        }
    }

    /// Closes every consumer's connection. Unsettled deliveries come back to the queue, and a loss
    /// of each is counted.
    pub(super) async fn close_connections(&self) {
        let channels = std::mem::take(&mut *self.channels.lock());
        for channel in channels.iter().filter_map(Weak::upgrade) {
            channel.close().await;
        }
    }

    fn set_problem(&self, problem: Option<String>) {
        *self.problem.lock() = problem;
    }

    async fn open_session(
        &self,
        broker: &Arc<Broker>,
        prefetch: u16,
    ) -> Result<ConsumerSession, QueueError> {
        let tasks = self.tasks.clone();
        let session = ConsumerSession::open(broker, &self.held, tasks, prefetch).await?;
        let mut channels = self.channels.lock();
        channels.retain(|channel| channel.strong_count() > 0);
        channels.extend(session.channels().map(Arc::downgrade));
        Ok(session)
    }

    /// `None` if consuming was stopped before `work` was done.
    async fn until_stopped<T>(
        &self,
        stop: &CancellationToken,
        work: impl Future<Output = T>,
    ) -> Option<T> {
        tokio::select! {
            biased;
            () = stop.cancelled() => None,
            () = self.closed.cancelled() => None,
            result = work => Some(result),
        }
    }
}

/// How many unsettled messages a consumer may hold. It can change at any time.
struct Prefetch {
    /// What the consumer wants.
    wanted: watch::Receiver<u16>,
    /// A lower number, if there is one for now. With zero, no message is taken.
    limit: watch::Receiver<Option<u16>>,
}

impl Prefetch {
    fn now(&mut self) -> u16 {
        let wanted = (*self.wanted.borrow_and_update()).max(1);
        let limit = *self.limit.borrow_and_update();
        limit.map_or(wanted, |limit| limit.min(wanted))
    }

    /// Waits until one of the two is set again. Nothing is lost if this is cut off.
    async fn changed(&mut self) {
        tokio::select! {
            // It fails once nobody can change it any more.
            Ok(()) = self.wanted.changed() => {}
            Ok(()) = self.limit.changed() => {}
            else => std::future::pending().await,
        }
    }
}

/// Deliveries that nobody has taken yet.
#[derive(Default)]
struct Untaken {
    state: Mutex<UntakenState>,
    /// Woken when a delivery is added, and at the end.
    changed: Notify,
}

#[derive(Default)]
struct UntakenState {
    deliveries: VecDeque<NewDelivery>,
    /// True once no further delivery comes.
    ended: bool,
}

impl Untaken {
    fn add(&self, delivery: NewDelivery) {
        self.state.lock().deliveries.push_back(delivery);
        self.changed.notify_waiters();
    }

    fn end(&self) {
        self.state.lock().ended = true;
        self.changed.notify_waiters();
    }

    /// Waits for the oldest one; `None` if there will be none, or once `stop` is cancelled.
    async fn take(&self, stop: &CancellationToken) -> Option<Delivery> {
        loop {
            // Listens before it looks, so that no change falls in between.
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            if stop.is_cancelled() {
                return None;
            }
            {
                let mut state = self.state.lock();
                if let Some(oldest) = state.deliveries.pop_front() {
                    return Some(oldest.delivery);
                }
                if state.ended {
                    return None;
                }
            }
            tokio::select! {
                () = stop.cancelled() => return None,
                () = changed => {}
            }
        }
    }

    /// Takes the last `count` jobs, or as many as there are, in the order in which they came.
    fn take_last_jobs(&self, count: usize) -> Vec<NewDelivery> {
        let mut state = self.state.lock();
        let mut last = Vec::new();
        for index in (0..state.deliveries.len()).rev() {
            if last.len() < count && !state.deliveries[index].delivery.alone {
                last.extend(state.deliveries.remove(index));
            }
        }
        last.reverse();
        last
    }

    fn take_all(&self) -> Vec<NewDelivery> {
        std::mem::take(&mut self.state.lock().deliveries).into()
    }
}

/// Starts consuming. The prefetch changes whenever `wanted` or the limit does. Fails only with errors that
/// another try doesn't mend; if the broker can't be reached, the stream goes on trying.
pub(super) async fn deliveries(
    broker: Arc<Broker>,
    consumers: Arc<Consumers>,
    wanted: watch::Receiver<u16>,
    stop: CancellationToken,
) -> Result<Deliveries, QueueError> {
    let mut prefetch = Prefetch { wanted, limit: consumers.prefetch_limit.subscribe() };
    let first = prefetch.now();
    // Also cancelled when the stream is dropped.
    let stop = stop.child_token();
    let untaken = Arc::new(Untaken::default());
    let mut task = ConsumerTask {
        broker,
        consumers,
        prefetch,
        stop: stop.clone(),
        untaken: Arc::clone(&untaken),
        session: None,
        backoff: Backoff::default(),
    };
    match task.consumers.open_session(&task.broker, first).await {
        Ok(session) => task.session = Some(session),
        Err(error) if error.is_transient() => task.pause(&error).await,
        Err(error) => return Err(error),
    }
    let (tasks, runtime) = (task.consumers.tasks.clone(), task.broker.runtime.clone());
    tasks.spawn_on(task.run(), &runtime);
    let taking = DeliveryStream { untaken, _stop_when_dropped: stop.clone().drop_guard(), stop };
    let deliveries = stream::unfold(taking, |taking| async {
        taking.untaken.take(&taking.stop).await.map(|delivery| (delivery, taking))
    });
    Ok(deliveries.boxed())
}

/// What the stream of deliveries owns.
struct DeliveryStream {
    untaken: Arc<Untaken>,
    stop: CancellationToken,
    _stop_when_dropped: DropGuard,
}

/// Consumes until it is stopped, or until the broker refuses.
struct ConsumerTask {
    broker: Arc<Broker>,
    consumers: Arc<Consumers>,
    prefetch: Prefetch,
    stop: CancellationToken,
    untaken: Arc<Untaken>,
    /// `None` while there is no connection.
    session: Option<ConsumerSession>,
    backoff: Backoff,
}

/// What wakes the task while it has a connection.
enum Wake {
    Stopped,
    PrefetchChanged,
    Session(SessionEvent),
}

impl ConsumerTask {
    async fn run(mut self) {
        while !self.is_stopped() {
            if self.session.is_none() {
                if let Err(error) = self.reconnect().await {
                    tracing::error!(%error, "cannot consume any more");
                    *self.consumers.failure.lock() = Some(error);
                    break;
                }
                continue;
            }
            match self.wake().await {
                Wake::Stopped => {}
                Wake::PrefetchChanged => self.change_prefetch().await,
                Wake::Session(SessionEvent::Delivered(delivery)) => {
                    self.backoff.reset();
                    self.untaken.add(delivery);
                }
                Wake::Session(SessionEvent::CanStart) => self.start_consumers().await,
                Wake::Session(SessionEvent::Lost(reason)) => self.lose(reason).await,
            }
        }
        self.end_session().await;
        self.untaken.end();
    }

    async fn wake(&mut self) -> Wake {
        let Some(session) = &mut self.session else { return Wake::Stopped };
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Wake::Stopped,
            () = self.consumers.closed.cancelled() => Wake::Stopped,
            () = self.prefetch.changed() => Wake::PrefetchChanged,
            event = session.next() => Wake::Session(event),
        }
    }

    /// Stops taking messages, if the prefetch is another one now. A consumer with the new one starts
    /// when all that are held are settled: until then the broker would allow both. Of what nobody has
    /// taken yet, the part that the new prefetch has no room for is handed back: all of it, if it is
    /// zero. A worker that takes nothing has no use for them, and others can have them at once; a
    /// copy counts neither as a try nor as a loss.
    async fn change_prefetch(&mut self) {
        let prefetch = self.prefetch.now();
        let Some(session) = &mut self.session else { return };
        // Not cut off by a stop: what is under way would be lost with this connection.
        for delivery in session.change_prefetch(prefetch).await {
            self.untaken.add(delivery);
        }
        let surplus = session.unsettled_jobs().saturating_sub(prefetch.into());
        let without_room = match prefetch {
            0 => self.untaken.take_all(),
            _ => self.untaken.take_last_jobs(surplus),
        };
        self.consumers.hand_back_untaken(&self.broker, without_room).await;
    }

    async fn start_consumers(&mut self) {
        let Some(session) = &mut self.session else { return };
        match session.start_consumers().await {
            Ok(()) => tracing::debug!("consuming with another prefetch"),
            Err(error) => {
                let address = self.broker.connector.address();
                tracing::warn!(address, %error, "connection lost");
                self.lose(error.to_string()).await;
            }
        }
    }

    async fn lose(&mut self, reason: String) {
        self.consumers.set_problem(Some(reason));
        self.end_session().await;
    }

    /// Ends what is left of the session, and hands back what nobody has taken.
    async fn end_session(&mut self) {
        let Some(session) = self.session.take() else { return };
        let mut deliveries = session.end().await;
        let mut untaken = self.untaken.take_all();
        untaken.append(&mut deliveries);
        self.consumers.hand_back_untaken(&self.broker, untaken).await;
    }

    /// One try, and a pause if it fails. Gives only errors that another try doesn't mend.
    async fn reconnect(&mut self) -> Result<(), QueueError> {
        let prefetch = self.prefetch.now();
        let opening = self.consumers.open_session(&self.broker, prefetch);
        match self.consumers.until_stopped(&self.stop, opening).await {
            None => {}
            Some(Ok(session)) => {
                tracing::info!(address = self.broker.connector.address(), "consuming again");
                self.consumers.set_problem(None);
                self.session = Some(session);
            }
            Some(Err(error)) if error.is_transient() => self.pause(&error).await,
            Some(Err(error)) => return Err(error),
        }
        Ok(())
    }

    fn is_stopped(&self) -> bool {
        self.stop.is_cancelled() || self.consumers.closed.is_cancelled()
    }

    /// Waits before the next try.
    async fn pause(&mut self, error: &QueueError) {
        let delay = self.backoff.next_delay();
        warn_of(error, delay);
        self.consumers.set_problem(Some(error.to_string()));
        self.consumers.until_stopped(&self.stop, tokio::time::sleep(delay)).await;
    }
}
