//! A message in a worker's hands: what was delivered, and the receipt that settles it.
//!
//! A message leaves the queue only when its [`Receipt`] is settled. A receipt that is dropped
//! unsettled gives its message back to the queue.

use std::fmt;
use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;

use crate::error::QueueError;
use crate::message::QueueName;
use camshaft_telemetry::TraceContext;

/// A message taken from the queue, not yet settled.
#[derive(Debug)]
pub struct Delivery {
    /// The job as JSON, unread.
    pub body: Bytes,
    /// The queue it was in.
    pub queue: QueueName,
    /// Which try this is, from 1.
    pub attempt: u32,
    /// Whether a worker may have worked on this message before: the queue delivered it without an
    /// answer, or it was published a second time.
    pub redelivered: bool,
    /// Whether the worker is to do nothing else meanwhile. Earlier workers died while they held
    /// this message, and it may be the reason.
    pub alone: bool,
    /// The image's trace.
    pub trace: Option<TraceContext>,
    /// When it was published, to the second; `None` if the queue doesn't know.
    pub published_at: Option<SystemTime>,
    /// When this process got it. A broker allows only a limited time from then on.
    pub received_at: Instant,
    /// The one way to settle it.
    pub receipt: Receipt,
}

/// What is to become of a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Its result is stored: remove the message.
    Ack,
    /// An error that may pass: try again after a delay. After the last try, keep it as a dead
    /// letter.
    Retry {
        /// What went wrong this time.
        reason: String,
    },
    /// This worker can't do it, for a reason of its own or of the job's, and another worker may:
    /// deliver it again after a delay, and don't count this try. Once every worker has refused it
    /// for `limit`, keep it as a dead letter.
    Refuse {
        /// Why this worker can't.
        reason: String,
        /// How long it may be refused.
        limit: Duration,
    },
    /// This worker can't do it yet: deliver it again after a delay, and don't count this try.
    Postpone {
        /// What it waits for.
        reason: String,
        /// How long it may take, about.
        delay: Duration,
    },
    /// The job can never be done: keep it as a dead letter.
    DeadLetter {
        /// Why not.
        reason: String,
    },
    /// The worker has no time for it: deliver it again, as if it had not been delivered. Neither
    /// a try nor a loss is counted.
    HandBack,
}

/// What the queue did with a settled delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// It is removed from the queue.
    Acknowledged,
    /// It will be delivered again after this delay.
    Retrying(Duration),
    /// It is kept as a dead letter.
    DeadLettered,
    /// It is in its queue again.
    HandedBack,
}

/// The queue's side of a [`Receipt`].
#[async_trait]
pub trait Settle: Send + Sync {
    /// Does what `outcome` says. Returns once the queue has confirmed it.
    async fn settle(self: Box<Self>, outcome: Outcome) -> Result<Settlement, QueueError>;
    /// Gives the message back for another delivery. Must not block. A broker may count a loss: a
    /// bug that drops receipts must not get the same messages for ever.
    fn hand_back(self: Box<Self>);
}

/// The one way to settle a delivery. Dropped unsettled, it gives the message back.
#[must_use = "a delivery that is never settled comes back"]
pub struct Receipt(Option<Box<dyn Settle>>);

impl Receipt {
    /// Wraps a queue's own receipt.
    pub fn new(settle: Box<dyn Settle>) -> Self {
        Self(Some(settle))
    }

    /// Settles the delivery.
    ///
    /// # Errors
    /// If the queue can't be reached, or if it has taken the delivery away from this consumer.
    /// The message is then delivered again: nothing is lost, work may be done twice.
    pub async fn settle(mut self, outcome: Outcome) -> Result<Settlement, QueueError> {
        let settle = self.0.take().expect("only settle and drop take it, and both consume self");
        settle.settle(outcome).await
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        if let Some(settle) = self.0.take() {
            settle.hand_back();
        }
    }
}

impl fmt::Debug for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Receipt")
    }
}
