//! What only a broker can do: refuse, break, come back.

use camshaft_queue::{Advice, QueueError, REASON_HEADER, Settlement, open_connection};
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicGetOptions, BasicNackOptions,
    BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Connection, ConnectionProperties};
use tokio::sync::{Semaphore, watch};

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

/// A worker that stops hands back what it has not done. If that counted, the images that it held
/// would be suspects after two such workers, and dead after five.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_worker_hands_back_counts_neither_as_a_try_nor_as_a_loss() {
    let url = Broker::shared().url();
    let queue = connect(&url, 1).await;
    publish(&queue, messages(0..8)).await.unwrap();
    for stop in 0..6 {
        let worker = connect(&url, 1).await;
        let stop_worker = CancellationToken::new();
        let mut deliveries = worker.consume(5, stop_worker.clone()).await.unwrap();
        let mut held = Vec::new();
        for _ in 0..3 {
            let delivery = next(&mut deliveries).await;
            assert_eq!((delivery.attempt, delivery.alone), (1, false), "after {stop} workers");
            held.push(delivery);
        }
        // Two more wait to be taken, and go back first.
        depth_becomes(&queue, 3, 0, 0).await;
        stop_worker.cancel();
        depth_becomes(&queue, 5, 0, 0).await;
        assert_eq!(worker.hand_back().await.unwrap(), 3);
        depth_becomes(&queue, 8, 0, 0).await;
        assert_stale(held.pop().unwrap().receipt.settle(Outcome::Ack).await);
        worker.close().await;
        drop(held);
        depth_becomes(&queue, 8, 0, 0).await;
    }
    acknowledge_all(&mut consume(&queue, 5).await, 8).await;
    depth_becomes(&queue, 0, 0, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_handed_back_keeps_the_losses_that_it_had() {
    let url = Broker::shared().url();
    let queue = connect(&url, 1).await;
    publish(&queue, messages(0..1)).await.unwrap();
    for loss in 0..5 {
        let worker = connect(&url, 1).await;
        let mut deliveries = consume(&worker, 1).await;
        let delivery = next(&mut deliveries).await;
        assert_eq!((delivery.attempt, delivery.alone), (1, loss >= 2));
        delivery.receipt.settle(Outcome::HandBack).await.unwrap();
        let delivery = next(&mut deliveries).await;
        assert_eq!((delivery.attempt, delivery.alone), (1, loss >= 2), "after {loss} losses");
        worker.close().await;
        drop(delivery);
    }
    let mut deliveries = consume(&queue, 1).await;
    let looking = tokio::spawn(async move { deliveries.next().await.is_some() });
    depth_becomes(&queue, 0, 0, 1).await;
    looking.abort();
    let letters = queue.dead_letters().await.unwrap();
    let reason = &letters[0].reason;
    assert!(reason.contains("lost 5 times") && reason.contains("the last 3"), "{reason}");
}

/// Nothing comes within this time.
async fn nothing_comes(deliveries: &mut Deliveries) {
    let waiting = Duration::from_millis(300);
    let came = tokio::time::timeout(waiting, deliveries.next()).await;
    assert!(came.is_err(), "a delivery too many");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_prefetch_holds_once_all_that_is_held_is_settled() {
    let url = Broker::shared().url();
    let queue = connect(&url, 1).await;
    publish(&queue, messages(0..20)).await.unwrap();
    let prefetch = watch::Sender::new(1);
    let stop = CancellationToken::new();
    let mut deliveries = queue.consume_adjusting(prefetch.subscribe(), stop.clone()).await.unwrap();
    let first = next(&mut deliveries).await;
    prefetch.send_replace(4);
    nothing_comes(&mut deliveries).await;
    first.receipt.settle(Outcome::Ack).await.unwrap();
    let mut held = Vec::new();
    for expected in 1..5 {
        held.push(next(&mut deliveries).await);
        assert_eq!(number(&held[expected - 1]), expected);
    }
    nothing_comes(&mut deliveries).await;
    assert_eq!(queue.workers().await.unwrap(), 1);

    prefetch.send_replace(2);
    while let Some(delivery) = held.pop() {
        nothing_comes(&mut deliveries).await;
        delivery.receipt.settle(Outcome::Ack).await.unwrap();
    }
    for expected in 5..7 {
        held.push(next(&mut deliveries).await);
        assert_eq!(number(held.last().unwrap()), expected);
    }
    nothing_comes(&mut deliveries).await;
    assert_eq!(queue.workers().await.unwrap(), 1);
    stop.cancel();
    assert!(within(deliveries.next()).await.is_none());
    for delivery in held {
        delivery.receipt.settle(Outcome::Ack).await.unwrap();
    }
    depth_becomes(&queue, 13, 0, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lower_prefetch_hands_back_what_nobody_has_taken() {
    let url = Broker::shared().url();
    let queue = connect(&url, 1).await;
    publish(&queue, messages(0..8)).await.unwrap();
    let prefetch = watch::Sender::new(6);
    let consuming = queue.consume_adjusting(prefetch.subscribe(), CancellationToken::new());
    let mut deliveries = consuming.await.unwrap();
    let first = next(&mut deliveries).await;
    depth_becomes(&queue, 2, 0, 0).await;
    prefetch.send_replace(2);
    // Two stay, and the last four go back.
    depth_becomes(&queue, 6, 0, 0).await;
    let second = next(&mut deliveries).await;
    assert_eq!((number(&first), number(&second)), (0, 1));
    nothing_comes(&mut deliveries).await;
    for delivery in [first, second] {
        delivery.receipt.settle(Outcome::Ack).await.unwrap();
    }
    // They are behind the others now.
    for expected in [6, 7, 2, 3, 4, 5] {
        let delivery = next(&mut deliveries).await;
        let handed_back = (2..6).contains(&expected);
        assert_eq!((number(&delivery), delivery.redelivered), (expected, handed_back));
        assert_eq!((delivery.attempt, delivery.alone), (1, false));
        delivery.receipt.settle(Outcome::Ack).await.unwrap();
    }
    depth_becomes(&queue, 0, 0, 0).await;
}

/// Refusals say nothing of the losses before: a message that ends its workers stays a suspect if
/// some of them refuse it.
#[tokio::test(flavor = "multi_thread")]
async fn a_suspect_that_is_refused_or_put_off_stays_one() {
    let url = Broker::shared().url();
    let queue = connect(&url, 1).await;
    publish(&queue, messages(0..1)).await.unwrap();
    for loss in 0..5 {
        let worker = connect(&url, 1).await;
        let mut deliveries = consume(&worker, 1).await;
        let postpone = Outcome::Postpone { reason: "no model yet".to_owned(), delay: DELAY };
        for outcome in [refuse("not here", DEADLINE), postpone] {
            let delivery = next(&mut deliveries).await;
            assert_eq!((delivery.attempt, delivery.alone), (1, loss >= 2), "after {loss} losses");
            let settled = delivery.receipt.settle(outcome).await.unwrap();
            assert_eq!(settled, Settlement::Retrying(DELAY));
        }
        let delivery = next(&mut deliveries).await;
        assert_eq!((delivery.attempt, delivery.alone), (1, loss >= 2), "after {loss} losses");
        worker.close().await;
        drop(delivery);
    }
    let mut deliveries = consume(&queue, 1).await;
    let looking = tokio::spawn(async move { deliveries.next().await.is_some() });
    depth_becomes(&queue, 0, 0, 1).await;
    looking.abort();
    let reason = &queue.dead_letters().await.unwrap()[0].reason;
    assert!(reason.contains("lost 5 times") && reason.contains("the last 3"), "{reason}");
}

/// A message that was first refused an hour ago, and this often since.
async fn publish_refused(url: &str, refusals: u32) {
    let hour_ago = std::time::SystemTime::now() - Duration::from_secs(3600);
    let hour_ago = hour_ago.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let mut headers = FieldTable::default();
    for (name, value) in [
        ("x-camshaft-attempts", "0".to_owned()),
        ("x-camshaft-refused-since", hour_ago.to_string()),
        ("x-camshaft-refusals", refusals.to_string()),
    ] {
        headers.insert(name.into(), AMQPValue::LongString(value.into()));
    }
    let connection = open_connection(url, ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
    let properties = properties.with_headers(headers);
    let queue = "camshaft.jobs".into();
    let publishing = channel.basic_publish("".into(), queue, options, b"0", properties);
    assert!(publishing.await.unwrap().await.unwrap().is_ack());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_refused_by_all_after_a_time_and_ten_times_for_each_worker() {
    let url = Broker::shared().url();
    let queue = connect(&url, 1).await;
    let minutes = Duration::from_secs(600);
    let mut deliveries = consume(&queue, 1).await;
    for (refusals, workers, settlement) in [
        (3, 1, Settlement::Retrying(DELAY)),
        (9, 2, Settlement::Retrying(DELAY)),
        (9, 1, Settlement::DeadLettered),
        (19, 2, Settlement::DeadLettered),
    ] {
        publish_refused(&url, refusals).await;
        let delivery = next(&mut deliveries).await;
        assert_eq!(delivery.attempt, 1);
        let other = connect(&url, 1).await;
        let others = if workers == 2 { Some(consume(&other, 1).await) } else { None };
        let settled = delivery.receipt.settle(refuse("no", minutes)).await.unwrap();
        assert_eq!(settled, settlement, "{refusals} refusals, {workers} workers");
        other.close().await;
        drop(others);
        if settlement != Settlement::DeadLettered {
            next(&mut deliveries).await.receipt.settle(Outcome::Ack).await.unwrap();
        }
    }
    let letters = queue.dead_letters().await.unwrap();
    let reasons: Vec<_> = letters.iter().map(|letter| letter.reason.clone()).collect();
    assert!(reasons[0].starts_with("no; workers refused it 10 times in 36"), "{reasons:?}");
    assert!(letters.iter().all(|letter| letter.attempts == 0), "no try was made: {letters:?}");
    // Whoever redrives has mended it: the refusals of before don't count.
    assert_eq!(queue.redrive(None).await.unwrap(), 2);
    let settled = next(&mut deliveries).await.receipt.settle(refuse("no", minutes)).await;
    assert_eq!(settled.unwrap(), Settlement::Retrying(DELAY));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_takes_fewer_messages_or_none_while_its_prefetch_is_limited() {
    let url = Broker::shared().url();
    let queue = connect(&url, 1).await;
    publish(&queue, messages(0..20)).await.unwrap();
    let wanted = watch::Sender::new(5);
    let consuming = queue.consume_adjusting(wanted.subscribe(), CancellationToken::new());
    let mut deliveries = consuming.await.unwrap();
    let first = next(&mut deliveries).await;
    depth_becomes(&queue, 15, 0, 0).await;
    queue.limit_prefetch(Some(0));
    // What nobody has taken is for others at once.
    depth_becomes(&queue, 19, 0, 0).await;
    // A quorum queue counts a cancelled consumer until what it holds is settled.
    first.receipt.settle(Outcome::Ack).await.unwrap();
    let start = Instant::now();
    while queue.workers().await.unwrap() > 0 {
        assert!(start.elapsed() < DEADLINE, "it counts as one that consumes");
    }
    nothing_comes(&mut deliveries).await;
    // What the consumer wants meanwhile makes no difference.
    wanted.send_replace(9);
    nothing_comes(&mut deliveries).await;
    depth_becomes(&queue, 19, 0, 0).await;

    queue.limit_prefetch(Some(2));
    let mut held = vec![next(&mut deliveries).await, next(&mut deliveries).await];
    nothing_comes(&mut deliveries).await;
    depth_becomes(&queue, 17, 0, 0).await;
    // The lower one holds, and is not begun anew if the other changes.
    wanted.send_replace(7);
    held.pop().unwrap().receipt.settle(Outcome::Ack).await.unwrap();
    held.push(next(&mut deliveries).await);
    queue.limit_prefetch(None);
    nothing_comes(&mut deliveries).await;
    for delivery in held.drain(..) {
        delivery.receipt.settle(Outcome::Ack).await.unwrap();
    }
    while held.len() < 7 {
        held.push(next(&mut deliveries).await);
    }
    nothing_comes(&mut deliveries).await;
    depth_becomes(&queue, 9, 0, 0).await;
    for delivery in held.drain(..) {
        delivery.receipt.settle(Outcome::Ack).await.unwrap();
    }
    for _ in 0..9 {
        let delivery = next(&mut deliveries).await;
        // Four were handed back, and are behind the others.
        let handed_back = (1..5).contains(&number(&delivery));
        assert_eq!(delivery.redelivered, handed_back, "{}", number(&delivery));
        assert_eq!((delivery.attempt, delivery.alone), (1, false));
        delivery.receipt.settle(Outcome::Ack).await.unwrap();
    }
    depth_becomes(&queue, 0, 0, 0).await;
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

fn assert_stale(settled: Result<Settlement, QueueError>) {
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
