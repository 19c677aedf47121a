//! The job queue: one contract for both implementations, and what only a broker can do.
#![expect(clippy::unwrap_used, reason = "a test that can't go on has to fail")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use camshaft_common::secret::Secret;
use camshaft_queue::{
    Deliveries, Delivery, InProcessQueue, JobQueue, Message, Outcome, QueueDepth, RabbitMqOptions,
    RabbitMqQueue, RetryDelays,
};
use camshaft_telemetry::TraceContext;
use camshaft_tests::broker::Broker;
use camshaft_tests::jobs::publish;
use futures::StreamExt;
use tokio_util::sync::CancellationToken;

mod contract;
#[path = "queue/in_process.rs"]
mod in_process_only;
#[path = "queue/rabbitmq.rs"]
mod rabbitmq_only;
#[path = "queue/uncounted.rs"]
mod uncounted;

const DEADLINE: Duration = Duration::from_secs(60);
/// Delay before each retry: long enough to measure, short enough to wait for.
const DELAY: Duration = Duration::from_secs(1);

/// A fresh, empty queue. It also offers what [`JobQueue`] lacks: publishing, and reading dead
/// letters.
struct Fixture {
    queue: Arc<dyn JobQueue>,
    implementation: Implementation,
}

enum Implementation {
    InProcess(InProcessQueue),
    RabbitMq { queue: RabbitMqQueue, url: String },
}

impl Fixture {
    /// Publishes messages in order.
    async fn publish(&self, messages: Vec<Message>) {
        match &self.implementation {
            Implementation::InProcess(queue) => {
                for message in messages {
                    queue.publish(message).await.unwrap();
                }
            }
            Implementation::RabbitMq { queue, .. } => publish(queue, messages).await.unwrap(),
        }
    }

    /// The reasons of all dead letters. On RabbitMQ this also removes the dead letters.
    async fn reasons(&self) -> Vec<String> {
        match &self.implementation {
            Implementation::InProcess(queue) => {
                queue.dead_letters().into_iter().map(|letter| letter.reason).collect()
            }
            Implementation::RabbitMq { url, .. } => rabbitmq_only::reasons(url).await,
        }
    }
}

async fn in_process(retries: usize) -> Fixture {
    let queue = InProcessQueue::new(100_000, delays(retries));
    Fixture { queue: Arc::new(queue.clone()), implementation: Implementation::InProcess(queue) }
}

async fn rabbitmq(retries: usize) -> Fixture {
    let url = Broker::shared().url();
    let queue = connect(&url, retries).await;
    let implementation = Implementation::RabbitMq { queue: queue.clone(), url };
    Fixture { queue: Arc::new(queue), implementation }
}

async fn connect(url: &str, retries: usize) -> RabbitMqQueue {
    let options = RabbitMqOptions { delays: delays(retries), ..RabbitMqOptions::default() };
    RabbitMqQueue::connect(Secret::from(url.to_owned()), options).await.unwrap()
}

fn delays(retries: usize) -> RetryDelays {
    RetryDelays::new(vec![DELAY; retries])
}

/// A trace that another program has begun.
fn trace() -> TraceContext {
    let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    TraceContext::new(traceparent.to_owned(), Some("vendor=1".to_owned()))
}

fn message(text: impl Into<String>) -> Message {
    Message { body: Bytes::from(text.into()), trace: None }
}

fn messages(numbers: std::ops::Range<usize>) -> Vec<Message> {
    numbers.map(|number| message(number.to_string())).collect()
}

fn number(delivery: &Delivery) -> usize {
    std::str::from_utf8(&delivery.body).unwrap().parse().unwrap()
}

fn retry(reason: &str) -> Outcome {
    Outcome::Retry { reason: reason.to_owned() }
}

fn refuse(reason: &str, limit: Duration) -> Outcome {
    Outcome::Refuse { reason: reason.to_owned(), limit }
}

fn dead_letter(reason: &str) -> Outcome {
    Outcome::DeadLetter { reason: reason.to_owned() }
}

async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, work).await.expect("deadline passed")
}

async fn next(deliveries: &mut Deliveries) -> Delivery {
    within(deliveries.next()).await.expect("the stream ended")
}

async fn consume(queue: &dyn JobQueue, prefetch: u16) -> Deliveries {
    queue.consume(prefetch, CancellationToken::new()).await.unwrap()
}

/// Waits until the queue has these counts.
async fn depth_becomes(queue: &dyn JobQueue, ready: u64, retrying: u64, dead: u64) {
    let wanted = QueueDepth { ready, retrying, dead };
    let start = Instant::now();
    let mut looks = tokio::time::interval(Duration::from_millis(20));
    loop {
        looks.tick().await;
        let depth = queue.depth().await.unwrap();
        if depth == wanted {
            return;
        }
        assert!(start.elapsed() < DEADLINE, "waited for {wanted:?}, last saw {depth:?}");
    }
}

/// Takes and acknowledges deliveries until it has seen every number below `count`.
async fn acknowledge_all(deliveries: &mut Deliveries, count: usize) {
    let mut missing: BTreeSet<usize> = (0..count).collect();
    while !missing.is_empty() {
        let delivery = next(deliveries).await;
        missing.remove(&number(&delivery));
        // It fails if the connection was lost meanwhile; the message then comes again.
        drop(delivery.receipt.settle(Outcome::Ack).await);
    }
}
