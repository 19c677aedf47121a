//! What only a broker can do: refuse, break, come back.

use camshaft_queue::{Advice, QueueError, REASON_HEADER, Settlement, open_connection};
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicGetOptions, BasicNackOptions,
    BasicQosOptions, QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{Connection, ConnectionProperties};
use tokio::sync::Semaphore;

use super::*;

/// Takes every dead letter and reads its reason.
pub(super) async fn reasons(url: &str) -> Vec<String> {
    let connection = open_connection(url, ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    let mut reasons = Vec::new();
    let options = BasicGetOptions { no_ack: true };
    while let Some(letter) = channel.basic_get("camshaft.dead".into(), options).await.unwrap() {
        let headers = letter.delivery.properties.headers().clone().unwrap();
        let reason = headers.inner().get(REASON_HEADER).and_then(|reason| reason.as_long_string());
        reasons.push(reason.map(ToString::to_string).unwrap_or_default());
    }
    reasons
}

/// The texts of an error's causes.
fn causes(error: &QueueError) -> String {
    let mut texts = Vec::new();
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        texts.push(cause.to_string());
        next = cause.source();
    }
    texts.join("; ")
}

async fn refusal(url: String, options: RabbitMqOptions) -> QueueError {
    let error = within(RabbitMqQueue::connect(Secret::from(url), options)).await.unwrap_err();
    let text = format!("{error} {error:?} {}", causes(&error));
    assert!(!text.contains("s3cret") && !text.contains(Broker::shared().password()), "{text}");
    assert!(text.contains("127.0.0.1:"), "{text}");
    error
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_password_is_refused_at_once() {
    let broker = Broker::shared();
    let url = broker.url_of(broker.user(), "s3cret", "test-0");
    // However long it may try.
    let options = RabbitMqOptions { connect_limit: None, ..RabbitMqOptions::default() };
    let error = refusal(url, options).await;
    assert!(matches!(error, QueueError::AccessRefused { .. }), "{error:?}");
    assert!(error.to_string().contains(&broker.address()), "{error}");
    assert!(causes(&error).contains("ACCESS_REFUSED"), "{}", causes(&error));
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_virtual_host_is_refused() {
    let broker = Broker::shared();
    let url = broker.url_of(broker.user(), broker.password(), "nowhere");
    let error = refusal(url, RabbitMqOptions::default()).await;
    assert!(matches!(error, QueueError::AccessRefused { .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_address_is_unreachable_once_the_limit_is_over() {
    let url = "amqp://camshaft:s3cret@127.0.0.1:1/jobs".to_owned();
    let options = RabbitMqOptions {
        connect_limit: Some(Duration::from_millis(500)),
        ..RabbitMqOptions::default()
    };
    let error = refusal(url, options).await;
    assert!(matches!(error, QueueError::Unreachable { .. }), "{error:?}");
    assert!(causes(&error).contains("refused"), "{}", causes(&error));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_debug_output_shows_the_password() {
    let queue = connect(&Broker::shared().url(), 1).await;
    assert!(!format!("{queue:?}").contains(Broker::shared().password()));
}

#[tokio::test(flavor = "multi_thread")]
async fn queue_with_other_arguments_is_a_topology_error() {
    let url = Broker::shared().url();
    let connection = open_connection(&url, ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    let classic = QueueDeclareOptions::durable();
    channel.queue_declare("camshaft.jobs".into(), classic, FieldTable::default()).await.unwrap();
    let error = refusal(url.clone(), RabbitMqOptions::default()).await;
    assert!(matches!(error, QueueError::Topology { .. }), "{error:?}");
    assert_eq!(error.advice(), Some(Advice::ChooseAnotherQueueName));
    assert!(error.to_string().contains("camshaft.jobs"), "{error}");
    // The queue may hold jobs.
    assert!(!error.to_string().contains("delete"), "{error}");
    // Another name is a way out, as the message says.
    let options = RabbitMqOptions { name: "other".to_owned(), ..RabbitMqOptions::default() };
    RabbitMqQueue::connect(Secret::from(url), options).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn deleted_queue_is_made_anew() {
    let url = Broker::shared().url();
    let queue = connect(&url, 1).await;
    let mut deliveries = consume(&queue, 1).await;
    let connection = open_connection(&url, ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel.queue_delete("camshaft.jobs".into(), Default::default()).await.unwrap();
    publish(&queue, messages(0..3)).await.unwrap();
    acknowledge_all(&mut deliveries, 3).await;
    depth_becomes(&queue, 0, 0, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn closed_queue_fails_and_ends_its_streams() {
    let queue = connect(&Broker::shared().url(), 1).await;
    publish(&queue, messages(0..1)).await.unwrap();
    let mut deliveries = consume(&queue, 1).await;
    let held = next(&mut deliveries).await;
    queue.close().await;
    assert!(within(deliveries.next()).await.is_none());
    assert_stale(held.receipt.settle(Outcome::Ack).await);
    let published = publish(&queue, messages(0..1)).await;
    assert!(matches!(published, Err(QueueError::Closed)), "{published:?}");
    let depth = queue.depth().await;
    assert!(matches!(depth, Err(QueueError::Closed)), "{depth:?}");
    assert!(queue.failure().is_none(), "{:?}", queue.failure());
}

#[tokio::test(flavor = "multi_thread")]
async fn message_that_kills_its_workers_ends_among_the_dead() {
    let url = Broker::shared().url();
    let queue = connect(&url, 1).await;
    publish(&queue, messages(0..1)).await.unwrap();
    for loss in 0..5 {
        let worker = connect(&url, 1).await;
        let mut deliveries = consume(&worker, 1).await;
        let delivery = next(&mut deliveries).await;
        // Twice beside others, then alone. None of that is one of its tries.
        assert_eq!((delivery.redelivered, delivery.alone), (loss > 0, loss >= 2));
        assert_eq!(delivery.attempt, 1);
        worker.close().await;
        drop(delivery);
    }
    // Whoever would have it next buries it.
    let mut deliveries = consume(&queue, 1).await;
    let looking = tokio::spawn(async move { deliveries.next().await.is_some() });
    depth_becomes(&queue, 0, 0, 1).await;
    looking.abort();
    assert!(looking.await.is_err(), "it was delivered once more");
    let letters = queue.dead_letters().await.unwrap();
    let reason = &letters[0].reason;
    assert!(reason.contains("lost 5 times") && reason.contains("the last 3"), "{reason}");
    // Looking leaves it there.
    assert_eq!(queue.redrive(None).await.unwrap(), 1);
    let delivery = next(&mut consume(&queue, 1).await).await;
    assert_eq!((number(&delivery), delivery.attempt, delivery.alone), (0, 1, false));
    delivery.receipt.settle(Outcome::Ack).await.unwrap();
}

/// The broker counts every loss against all that a worker held.
#[tokio::test(flavor = "multi_thread")]
async fn messages_held_beside_a_killer_are_not_buried_with_it() {
    const COUNT: usize = 200;
    const KILLER: usize = 60;
    let url = Broker::shared().url();
    let queue = connect(&url, 1).await;
    publish(&queue, messages(0..COUNT)).await.unwrap();
    let mut done = BTreeSet::new();
    let mut lost = false;
    while done.len() < COUNT - 1 || queue.depth().await.unwrap().dead == 0 {
        let worker = connect(&url, 1).await;
        let mut deliveries = consume(&worker, 80).await;
        // As a pipeline does: what came before the killer is still in work when it strikes.
        let mut in_work = Vec::new();
        while done.len() < COUNT - 1 || queue.depth().await.unwrap().dead == 0 {
            let waiting = Duration::from_millis(200);
            let Ok(Some(delivery)) = tokio::time::timeout(waiting, deliveries.next()).await else {
                continue;
            };
            if number(&delivery) == KILLER {
                lost = true;
                break;
            }
            in_work.push(delivery);
            let alone = in_work.iter().any(|delivery| delivery.alone);
            if in_work.len() > 40 || alone || lost {
                for delivery in in_work.drain(..) {
                    done.insert(number(&delivery));
                    delivery.receipt.settle(Outcome::Ack).await.unwrap();
                }
            }
        }
        worker.close().await;
    }
    let letters = queue.dead_letters().await.unwrap();
    let bodies: Vec<_> = letters.iter().map(|letter| letter.body.clone()).collect();
    assert_eq!(bodies, [Bytes::from(KILLER.to_string())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_held_for_too_long_comes_again() {
    let broker = Broker::start();
    broker.set_consumer_timeout(Duration::from_secs(1));
    let url = broker.url();
    let queue = connect(&url, 1).await;
    publish(&queue, messages(0..2)).await.unwrap();
    let mut deliveries = consume(&queue, 1).await;
    let held = next(&mut deliveries).await;
    // The broker closes the channel, and the stream goes on over another connection.
    let again = next(&mut deliveries).await;
    assert_eq!((number(&again), again.redelivered), (0, true));
    assert_stale(held.receipt.settle(Outcome::Ack).await);
    again.receipt.settle(Outcome::Ack).await.unwrap();
    let last = next(&mut deliveries).await;
    assert_eq!(number(&last), 1);
    last.receipt.settle(Outcome::Ack).await.unwrap();
    assert!(queue.failure().is_none(), "{:?}", queue.failure());
    depth_becomes(&queue, 0, 0, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn long_reason_is_shortened() {
    let url = Broker::shared().url();
    let queue = connect(&url, 1).await;
    publish(&queue, messages(0..1)).await.unwrap();
    let reason = "x".repeat(1_000_000);
    next(&mut consume(&queue, 1).await).await.receipt.settle(dead_letter(&reason)).await.unwrap();
    let reasons = reasons(&url).await;
    assert!(reasons[0].len() <= 2048 && reason.starts_with(&reasons[0]));
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_broker_loses_nothing() {
    const COUNT: usize = 3000;
    let mut broker = Broker::start();
    let url = broker.url();
    let queue = connect(&url, 1).await;
    let mut deliveries = consume(&queue, 20).await;
    // Half of them before the broker is killed, however slow this reads.
    let room = Arc::new(Semaphore::new(COUNT / 2));
    let publishing = tokio::spawn({
        let (queue, room) = (queue.clone(), Arc::clone(&room));
        async move {
            // It goes on over the restart.
            let mut sequence = queue.sequence("restarted").await.unwrap();
            for start in (0..COUNT).step_by(10) {
                room.acquire_many(10).await.unwrap().forget();
                for message in messages(start..start + 10) {
                    sequence.publish(message, None).await.unwrap();
                }
                sequence.flush().await.unwrap();
            }
        }
    });
    // In the middle of it.
    let mut missing: BTreeSet<usize> = (0..COUNT).collect();
    while missing.len() > COUNT * 9 / 10 {
        let delivery = next(&mut deliveries).await;
        missing.remove(&number(&delivery));
        delivery.receipt.settle(Outcome::Ack).await.unwrap();
    }
    let held = next(&mut deliveries).await;
    assert!(!publishing.is_finished());
    room.add_permits(COUNT);
    broker.stop();
    // Waits for it, as a worker does that is started first.
    let options =
        RabbitMqOptions { connect_limit: None, delays: delays(1), ..RabbitMqOptions::default() };
    let early = tokio::spawn(RabbitMqQueue::connect(Secret::from(url), options));
    broker.start_again();
    within(early).await.unwrap().unwrap();
    while !missing.is_empty() {
        let delivery = next(&mut deliveries).await;
        missing.remove(&number(&delivery));
        drop(delivery.receipt.settle(Outcome::Ack).await);
    }
    within(publishing).await.unwrap();
    assert_stale(held.receipt.settle(Outcome::Ack).await);
    depth_becomes(&queue, 0, 0, 0).await;
}

pub(super) fn assert_stale(settled: Result<Settlement, QueueError>) {
    assert!(matches!(settled, Err(QueueError::Stale)), "{settled:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn receipt_of_a_lost_connection_is_stale() {
    for outcome in [Outcome::Ack, retry("late"), dead_letter("late")] {
        let url = Broker::shared().url();
        let (queue, worker) = (connect(&url, 1).await, connect(&url, 1).await);
        publish(&queue, messages(0..1)).await.unwrap();
        let held = next(&mut consume(&worker, 1).await).await;
        worker.close().await;
        assert_stale(held.receipt.settle(outcome).await);
        depth_becomes(&queue, 1, 0, 0).await;
    }
}

/// `camshaft status` relies on this: if the broker counts no consumer, no worker holds a job, and an
/// image that is in no result and no queue is lost.
#[tokio::test(flavor = "multi_thread")]
async fn who_holds_jobs_counts_as_one_who_consumes() {
    let url = Broker::shared().url();
    let queue = connect(&url, 1).await;
    publish(&queue, messages(0..5)).await.unwrap();
    let connection = open_connection(&url, ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel.basic_qos(3, BasicQosOptions::default()).await.unwrap();
    let mut consumer = channel
        .basic_consume(
            "camshaft.jobs".into(),
            "tag".into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        )
        .await
        .unwrap();
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(within(consumer.next()).await.unwrap().unwrap());
    }
    channel.basic_cancel("tag".into(), BasicCancelOptions::default()).await.unwrap();
    ready_and_consumers_become(&connection, (2, 1)).await;
    for delivery in held {
        delivery.ack(BasicAckOptions::default()).await.unwrap();
    }
    ready_and_consumers_become(&connection, (2, 0)).await;

    let getting = channel.basic_get("camshaft.jobs".into(), BasicGetOptions::default());
    let got = getting.await.unwrap().unwrap();
    ready_and_consumers_become(&connection, (1, 1)).await;
    let back = BasicNackOptions { requeue: true, ..BasicNackOptions::default() };
    got.delivery.nack(back).await.unwrap();
    ready_and_consumers_become(&connection, (2, 0)).await;
}

async fn ready_and_consumers_become(connection: &Connection, wanted: (u32, u32)) {
    let start = Instant::now();
    loop {
        let channel = connection.create_channel().await.unwrap();
        let passive = QueueDeclareOptions::durable().passive();
        let looking = channel.queue_declare("camshaft.jobs".into(), passive, FieldTable::default());
        let queue = looking.await.unwrap();
        let found = (queue.message_count(), queue.consumer_count());
        if found == wanted {
            return;
        }
        assert!(start.elapsed() < DEADLINE, "waited for {wanted:?}, last saw {found:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
