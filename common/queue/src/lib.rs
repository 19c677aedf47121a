//! The job queue: the producer's messages wait in it for a worker.
//!
//! Two implementations with one meaning: [`RabbitMqQueue`] for many machines, and
//! [`InProcessQueue`] for `camshaft audit`. What they do alike is [`JobQueue`]. This file only
//! names the parts. Upstream: enqueue. Downstream: the worker's pipeline.
#![warn(missing_docs)]

mod delivery;
mod error;
mod in_process;
mod job_queue;
mod message;
mod rabbitmq;
mod refusals;
mod retry_delays;
mod tls_error;

pub use delivery::{Delivery, Outcome, Receipt, Settle, Settlement};
pub use error::{Advice, QueueError};
pub use in_process::InProcessQueue;
pub use job_queue::{Deliveries, JobQueue, QueueDepth};
pub use message::{DeadLetter, Message, QueueName, RunNote};
#[doc(hidden)]
pub use rabbitmq::open_connection;
pub use rabbitmq::{
    Bookmark, MAX_UNCONFIRMED, REASON_HEADER, RabbitMqOptions, RabbitMqQueue, Sequence, TlsFiles,
    is_remote,
};
pub use retry_delays::RetryDelays;
pub use tls_error::{TlsError, TlsFile};
