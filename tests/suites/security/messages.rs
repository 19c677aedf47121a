//! Takes and publishes raw messages, without Camshaft's checks.

use lapin::message::BasicGetMessage;
use lapin::options::{BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use serde_json::Value;
use tokio::runtime::Runtime;

use camshaft_queue::{REASON_HEADER, open_connection};

/// A connection to a virtual host's queues, without Camshaft's checks.
pub(super) struct Raw {
    runtime: Runtime,
    channel: Channel,
    _connection: Connection,
}

impl Raw {
    pub(super) fn connect(url: &str) -> Self {
        let runtime = Runtime::new().unwrap();
        let (connection, channel) = runtime.block_on(async {
            let connection = open_connection(url, ConnectionProperties::default()).await.unwrap();
            let channel = connection.create_channel().await.unwrap();
            channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
            (connection, channel)
        });
        Self { runtime, channel, _connection: connection }
    }

    /// Removes and returns every message of `camshaft.QUEUE`.
    pub(super) fn take(&self, queue: &str) -> Vec<BasicGetMessage> {
        let queue = format!("camshaft.{queue}");
        self.runtime.block_on(async {
            let mut messages = Vec::new();
            let options = BasicGetOptions { no_ack: true };
            while let Some(message) =
                self.channel.basic_get(queue.as_str().into(), options).await.unwrap()
            {
                messages.push(message);
            }
            messages
        })
    }

    /// Removes and returns the jobs, as JSON.
    pub(super) fn take_jobs(&self) -> Vec<Value> {
        let jobs = self.take("jobs");
        jobs.iter().map(|job| serde_json::from_slice(&job.delivery.data).unwrap()).collect()
    }

    /// Removes and returns the dead letters: the key and the reason of each.
    pub(super) fn take_dead(&self) -> Vec<(String, String)> {
        let letters = self.take("dead").into_iter().map(|letter| {
            let headers = letter.delivery.properties.headers().clone().unwrap();
            let reason = headers.inner()[REASON_HEADER].as_long_string().unwrap().to_string();
            let job: Value = serde_json::from_slice(&letter.delivery.data).unwrap();
            (job["key"].as_str().unwrap_or_default().to_owned(), reason)
        });
        letters.collect()
    }

    /// Publishes a job as it is.
    pub(super) fn publish(&self, job: &Value) {
        let body = serde_json::to_vec(job).unwrap();
        self.runtime.block_on(async {
            let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
            let properties = BasicProperties::default();
            let queue = "camshaft.jobs".into();
            let publishing =
                self.channel.basic_publish("".into(), queue, options, &body, properties);
            assert!(publishing.await.unwrap().await.unwrap().is_ack());
        });
    }
}

/// A job with one field changed.
pub(super) fn with(job: &Value, field: &str, value: &str) -> Value {
    let mut job = job.clone();
    job[field] = value.into();
    job
}
