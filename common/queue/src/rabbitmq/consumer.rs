//! Deliveries as they come, across lost connections.
//!
//! Owns the endless reconnecting, and what is known of all consumers of a queue: their channels,
//! the problem they have at the moment, and why they ended. What happens over one connection is in
//! [`consumer_session`](super::consumer_session). Downstream: the worker's first stage.

use std::sync::{Arc, Weak};
use std::time::Duration;

use camshaft_common::backoff::Backoff;
use futures::{StreamExt, stream};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::broker::Broker;
use super::consumer_channel::ConsumerChannel;
use super::consumer_session::{ConsumerSession, Prefetch};
use super::retry::warn_of;
use crate::delivery::Delivery;
use crate::error::QueueError;
use crate::job_queue::Deliveries;

/// How long [`Consumers::stop`] waits for messages that are being moved from one queue to another.
/// A message whose move is cut off is in both queues.
const MOVES_TIMEOUT: Duration = Duration::from_secs(2);

/// All consumers of a queue.
#[derive(Default)]
pub(super) struct Consumers {
    channels: Mutex<Vec<Weak<ConsumerChannel>>>,
    /// Why no deliveries come at the moment.
    problem: Mutex<Option<String>>,
    /// Why a stream of deliveries ended by itself.
    failure: Mutex<Option<QueueError>>,
    closed: CancellationToken,
    /// The most that each may hold for now, if that is less than its prefetch.
    prefetch_limit: watch::Sender<Option<u16>>,
    /// Messages on their way to the suspects or the dead letters, which no worker sees.
    moves: TaskTracker,
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

    /// Ends all streams of deliveries.
    pub(super) async fn stop(&self) {
        self.closed.cancel();
        self.moves.close();
        if timeout(MOVES_TIMEOUT, self.moves.wait()).await.is_err() {
            tracing::debug!("not all messages were moved in time; those stay where they were");
        }
    }

    /// Closes every consumer's connection. Unsettled deliveries come back to the queue.
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
        let prefetch = Prefetch { most: prefetch.max(1), limit: self.prefetch_limit.subscribe() };
        let session = ConsumerSession::open(broker, self.moves.clone(), prefetch).await?;
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

/// Starts consuming. Fails only with errors that another try doesn't mend; if the broker can't be
/// reached, the stream goes on trying.
pub(super) async fn deliveries(
    broker: Arc<Broker>,
    consumers: Arc<Consumers>,
    prefetch: u16,
    stop: CancellationToken,
) -> Result<Deliveries, QueueError> {
    let mut deliveries = DeliveryStream {
        broker,
        consumers,
        prefetch,
        stop,
        session: None,
        backoff: Backoff::default(),
    };
    match deliveries.consumers.open_session(&deliveries.broker, prefetch).await {
        Ok(session) => deliveries.session = Some(session),
        Err(error) if error.is_transient() => deliveries.pause(&error).await,
        Err(error) => return Err(error),
    }
    let deliveries = stream::unfold(deliveries, |mut deliveries| async {
        deliveries.next().await.map(|delivery| (delivery, deliveries))
    });
    Ok(deliveries.boxed())
}

struct DeliveryStream {
    broker: Arc<Broker>,
    consumers: Arc<Consumers>,
    prefetch: u16,
    stop: CancellationToken,
    /// `None` while there is no connection.
    session: Option<ConsumerSession>,
    backoff: Backoff,
}

impl DeliveryStream {
    async fn next(&mut self) -> Option<Delivery> {
        loop {
            if self.is_stopped() {
                if let Some(session) = self.session.take() {
                    session.end().await;
                }
                return None;
            }
            match &mut self.session {
                Some(session) => {
                    match self.consumers.until_stopped(&self.stop, session.next()).await {
                        None => {}
                        Some(Some(delivery)) => {
                            self.backoff.reset();
                            return Some(delivery);
                        }
                        Some(None) => {
                            let problem = "the connection to the broker was lost";
                            self.consumers.set_problem(Some(problem.to_owned()));
                            self.session = None;
                        }
                    }
                }
                None => {
                    if let Err(error) = self.reconnect().await {
                        tracing::error!(%error, "cannot consume any more");
                        *self.consumers.failure.lock() = Some(error);
                        return None;
                    }
                }
            }
        }
    }

    /// One try, and a pause if it fails. Gives only errors that another try doesn't mend.
    async fn reconnect(&mut self) -> Result<(), QueueError> {
        let opening = self.consumers.open_session(&self.broker, self.prefetch);
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
