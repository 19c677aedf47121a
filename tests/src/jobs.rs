//! Publishes jobs to a broker without `camshaft enqueue`, and reads its queues without a worker.

use std::collections::HashMap;
use std::time::Duration;

use camshaft_common::job::Job;
use camshaft_common::run::RunId;
use camshaft_queue::{Message, QueueError, RabbitMqQueue, open_connection};
use futures::StreamExt;
use lapin::options::{BasicConsumeOptions, BasicGetOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Connection, ConnectionProperties};
use tokio::runtime::Runtime;

/// Publishes messages as an enqueue does, but leaves no bookmark. Returns once all are confirmed.
///
/// # Errors
/// If the broker refuses them or stays out of reach.
pub async fn publish(queue: &RabbitMqQueue, messages: Vec<Message>) -> Result<(), QueueError> {
    let mut sequence = queue.sequence(&RunId::generate().to_string()).await?;
    for message in messages {
        sequence.publish(message, None).await?;
    }
    sequence.end().await
}

/// A job that was taken out of the queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueuedJob {
    /// Its image.
    pub key: String,
    /// True if it is marked as possibly a second job of the same image.
    pub is_marked: bool,
}

/// A connection to a broker, to count and take jobs.
#[derive(Debug)]
pub struct Jobs {
    runtime: Runtime,
    connection: Connection,
}

impl Jobs {
    /// Connects to the broker at `url`.
    ///
    /// # Panics
    /// If it cannot.
    #[must_use]
    pub fn at(url: &str) -> Self {
        let runtime = Runtime::new().expect("threads can be started");
        let connecting = open_connection(url, ConnectionProperties::default());
        let connection = runtime.block_on(connecting).expect("the broker is there");
        Self { runtime, connection }
    }

    /// The number of messages that wait in a queue; `None` if there is no such queue.
    ///
    /// # Panics
    /// If the broker is gone.
    #[must_use]
    pub fn count(&self, queue: &str) -> Option<usize> {
        self.runtime.block_on(async {
            let channel = self.channel().await;
            let options = QueueDeclareOptions::durable().passive();
            let looked = channel.queue_declare(queue.into(), options, FieldTable::default()).await;
            let count = looked.ok().map(|queue| queue.message_count() as usize);
            if count.is_some() {
                channel.close(200, "done".into()).await.expect("the broker is there");
            }
            count
        })
    }

    /// Takes the first `count` jobs out of the queue, and returns their keys.
    ///
    /// # Panics
    /// If the queue has fewer.
    pub fn take_first(&self, count: usize) -> Vec<String> {
        self.runtime.block_on(async {
            let channel = self.channel().await;
            let mut keys = Vec::new();
            while keys.len() < count {
                let options = BasicGetOptions { no_ack: true };
                let got = channel.basic_get("camshaft.jobs".into(), options).await;
                let got = got.expect("the broker is there").expect("a job is there");
                let job = Job::parse(&got.delivery.data).expect("it is a job");
                keys.push(job.key.to_string());
            }
            channel.close(200, "done".into()).await.expect("the broker is there");
            keys
        })
    }

    /// Takes every job out of the queue, and returns the number of jobs for each key.
    ///
    /// # Panics
    /// If the broker is gone, or a message is not a job.
    #[must_use]
    pub fn take(&self) -> HashMap<String, usize> {
        let mut keys = HashMap::new();
        for job in self.take_all() {
            *keys.entry(job.key).or_default() += 1;
        }
        keys
    }

    /// Takes every job out of the queue, in order.
    ///
    /// # Panics
    /// If the broker is gone, or a message is not a job.
    #[must_use]
    pub fn take_all(&self) -> Vec<QueuedJob> {
        let count = self.count("camshaft.jobs").expect("the queue is there");
        self.runtime.block_on(async {
            let channel = self.channel().await;
            let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
            let consuming = channel.basic_consume(
                "camshaft.jobs".into(),
                "test".into(),
                options,
                FieldTable::default(),
            );
            let deliveries = consuming.await.expect("the queue is there").take(count);
            let jobs = deliveries.map(|delivery| {
                let delivery = delivery.expect("the broker is there");
                let job = Job::parse(&delivery.data).expect("it is a job");
                let headers = delivery.properties.headers().as_ref();
                let republished =
                    headers.is_some_and(|headers| headers.contains_key("x-camshaft-republished"));
                QueuedJob { key: job.key.to_string(), is_marked: job.again || republished }
            });
            let jobs = jobs.collect().await;
            // What is published later is not for this consumer.
            channel.close(200, "done".into()).await.expect("the broker is there");
            jobs
        })
    }

    async fn channel(&self) -> Channel {
        // The client reuses channel numbers. The new channel may get the error that closed the last
        // channel with its number, for example because a queue did not exist yet. So try again.
        for _ in 0..100 {
            if let Ok(channel) = self.connection.create_channel().await {
                return channel;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the broker is gone");
    }
}
