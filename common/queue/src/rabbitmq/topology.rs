//! The queues: their names, their arguments, how they are declared.
//!
//! Every queue that holds jobs is a durable quorum queue, and dead-lettering is at-least-once, so a
//! message is in some queue at any time. Two queues hold no jobs, and not every user may have them:
//! [`bookmark`](super::bookmark) declares that of a sequence's bookmark, and
//! [`run_notes`](super::run_notes) that of the notes of runs. Arguments are part of a queue's identity:
//! if one is changed here, queues of an earlier version no longer fit.

use std::time::Duration;

use lapin::options::QueueDeclareOptions;
use lapin::protocol::{AMQPErrorKind, AMQPSoftError};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Channel, Connection, Error, ErrorKind, Queue};

use crate::error::QueueError;
use crate::message::QueueName;
use crate::retry_delays::RetryDelays;

/// How often the broker itself delivers a message again before it gives up. RabbitMQ 4 has this
/// limit by default, earlier versions have none. Workers move a message to the suspects long before
/// (see [`SUSPECT_AFTER`]): otherwise a message that kills its workers would take with it those
/// that a worker held at the same time.
const DELIVERY_LIMIT: i32 = 20;
/// Number of deliveries without an answer after which a message goes to the suspects. One can
/// happen to any message, as when a machine is taken away; the second needs a reason.
pub(super) const SUSPECT_AFTER: u32 = 2;
/// Number of deliveries without an answer, each to a worker that did nothing else, that prove that
/// the message is the reason. With [`SUSPECT_AFTER`] these are five deliveries.
pub(super) const ISOLATED_TRIES: u32 = 3;
/// Dead letters and notes may be read any number of times. With its default limit RabbitMQ 4 would drop them
/// after 20 reads. It takes -1 for no limit, RabbitMQ 3 does not; both take a large number.
pub(super) const NO_DELIVERY_LIMIT: i32 = i32::MAX;

/// The names of one job queue's queues on the broker.
#[derive(Clone, Debug)]
pub(super) struct Topology {
    name: String,
    jobs: ShortString,
    suspects: ShortString,
    dead: ShortString,
    run_notes: ShortString,
    retries: Vec<(Duration, ShortString)>,
}

impl Topology {
    pub(super) fn new(name: &str, delays: &RetryDelays) -> Result<Self, QueueError> {
        let named = |suffix: &str| named(name, suffix);
        let retries = delays
            .all()
            .into_iter()
            .map(|delay| Ok((delay, named(&format!("retry.{}", delay.as_secs()))?)))
            .collect::<Result<_, QueueError>>()?;
        Ok(Self {
            name: name.to_owned(),
            jobs: named("jobs")?,
            suspects: named("suspects")?,
            dead: named("dead")?,
            run_notes: named("runs")?,
            retries,
        })
    }

    /// The queue that deliveries come from: the suspects' if `alone`, else the jobs'.
    pub(super) fn name(&self, alone: bool) -> QueueName {
        let queue = if alone { self.suspects() } else { self.jobs() };
        QueueName { system: "rabbitmq", name: queue.as_str().into() }
    }

    pub(super) fn jobs(&self) -> &ShortString {
        &self.jobs
    }

    /// The queue of messages whose workers died more than once. A worker takes one of them at a
    /// time and does nothing else meanwhile, so that only this message can be the reason if it dies.
    pub(super) fn suspects(&self) -> &ShortString {
        &self.suspects
    }

    pub(super) fn dead(&self) -> &ShortString {
        &self.dead
    }

    /// The queue of notes of the runs whose jobs were published. Who leaves a note declares it.
    pub(super) fn run_notes(&self) -> &ShortString {
        &self.run_notes
    }

    /// The queue in which messages wait for `delay`.
    pub(super) fn retry(&self, delay: Duration) -> &ShortString {
        let retry = self.retries.iter().find(|(known, _)| *known == delay);
        &retry.expect("built from the same delays").1
    }

    /// The queue that keeps the bookmark of a sequence. The sequence's publisher declares it.
    pub(super) fn bookmark(&self, sequence: &str) -> Result<ShortString, QueueError> {
        named(&self.name, &format!("enqueue.{sequence}"))
    }

    /// The queues in which messages wait for another try.
    pub(super) fn retries(&self) -> impl Iterator<Item = &ShortString> {
        self.retries.iter().map(|(_, name)| name)
    }

    /// Creates the queues, or checks that they are what they must be. A user who may not create
    /// queues can work once another user has created them.
    pub(super) async fn declare(&self, connection: &Connection) -> Result<(), Error> {
        let channel = connection.create_channel().await?;
        match self.create(&channel).await {
            Err(refused) if is_soft(&refused, &AMQPSoftError::ACCESSREFUSED) => {
                let channel = channel_after_refusal(connection).await?;
                match self.find(&channel).await {
                    Err(error) if is_soft(&error, &AMQPSoftError::NOTFOUND) => Err(refused),
                    found => found,
                }
            }
            created => created,
        }
    }

    /// Checks that all queues exist. This needs no rights.
    async fn find(&self, channel: &Channel) -> Result<(), Error> {
        for name in [&self.dead, &self.suspects, &self.jobs].into_iter().chain(self.retries()) {
            look(channel, name).await?;
        }
        Ok(())
    }

    /// The first of the queues without which there is nothing to count or to move; `None` if all of
    /// them exist. Those of retries differ with their delays.
    pub(super) async fn first_missing(
        &self,
        connection: &Connection,
    ) -> Result<Option<&ShortString>, Error> {
        let channel = connection.create_channel().await?;
        for name in [&self.jobs, &self.suspects, &self.dead] {
            match look(&channel, name).await {
                Err(error) if is_soft(&error, &AMQPSoftError::NOTFOUND) => return Ok(Some(name)),
                found => found?,
            };
        }
        Ok(None)
    }

    /// The queues that others dead-letter to come first: without them a dead letter has to wait.
    async fn create(&self, channel: &Channel) -> Result<(), Error> {
        let mut dead = quorum();
        insert(&mut dead, "x-delivery-limit", AMQPValue::LongInt(NO_DELIVERY_LIMIT));
        declare(channel, &self.dead, dead).await?;

        for name in [&self.suspects, &self.jobs] {
            let mut arguments = dead_lettering_to(&self.dead);
            insert(&mut arguments, "x-delivery-limit", AMQPValue::LongInt(DELIVERY_LIMIT));
            declare(channel, name, arguments).await?;
        }

        for (delay, name) in &self.retries {
            let mut retry = dead_lettering_to(&self.jobs);
            let ttl_ms = i64::try_from(delay.as_millis()).unwrap_or(i64::MAX);
            insert(&mut retry, "x-message-ttl", AMQPValue::LongLongInt(ttl_ms));
            declare(channel, name, retry).await?;
        }
        Ok(())
    }
}

fn named(name: &str, suffix: &str) -> Result<ShortString, QueueError> {
    ShortString::try_new(format!("{name}.{suffix}")).map_err(|_| QueueError::QueueNameTooLong)
}

/// Whether the broker closed the channel, not the connection, with this error.
pub(super) fn is_soft(error: &Error, wanted: &AMQPSoftError) -> bool {
    let ErrorKind::ProtocolError(error) = error.kind() else { return false };
    matches!(error.kind(), AMQPErrorKind::Soft(soft) if soft == wanted)
}

/// Looks at a queue without creating it. This needs no rights. The broker closes the channel if there
/// is no such queue.
pub(super) async fn look(channel: &Channel, name: &ShortString) -> Result<Queue, Error> {
    let options = QueueDeclareOptions::durable().passive();
    channel.queue_declare(name.clone(), options, FieldTable::default()).await
}

/// How often [`channel_after_refusal`] tries, and how long it rests in between.
const CHANNEL_TRIES: u32 = 50;
const CHANNEL_REST: Duration = Duration::from_millis(10);

/// A new channel after the broker has closed one. The library gives the closed one's number again, and
/// the new channel may get the error that was meant for the old one.
pub(super) async fn channel_after_refusal(connection: &Connection) -> Result<Channel, Error> {
    for _ in 1..CHANNEL_TRIES {
        if let Ok(channel) = connection.create_channel().await {
            return Ok(channel);
        }
        tokio::time::sleep(CHANNEL_REST).await;
    }
    connection.create_channel().await
}

async fn declare(
    channel: &Channel,
    name: &ShortString,
    arguments: FieldTable,
) -> Result<(), Error> {
    let options = QueueDeclareOptions::durable();
    channel.queue_declare(name.clone(), options, arguments).await.map(|_| ())
}

pub(super) fn insert(arguments: &mut FieldTable, key: &str, value: AMQPValue) {
    arguments.insert(key.into(), value);
}

pub(super) fn text(text: &str) -> AMQPValue {
    AMQPValue::LongString(text.into())
}

pub(super) fn quorum() -> FieldTable {
    let mut arguments = FieldTable::default();
    insert(&mut arguments, "x-queue-type", text("quorum"));
    arguments
}

/// Dead letters go through the default exchange, where every queue is bound under its own name.
/// At-least-once needs `reject-publish`, even without a length limit.
fn dead_lettering_to(target: &ShortString) -> FieldTable {
    let mut arguments = quorum();
    insert(&mut arguments, "x-dead-letter-exchange", text(""));
    insert(&mut arguments, "x-dead-letter-routing-key", text(target.as_str()));
    insert(&mut arguments, "x-dead-letter-strategy", text("at-least-once"));
    insert(&mut arguments, "x-overflow", text("reject-publish"));
    arguments
}
