//! What a worker gives back without a try counted, and how many messages it holds.

use camshaft_queue::{Settlement, open_connection};
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, ConnectionProperties};
use tokio::sync::watch;

use super::rabbitmq_only::assert_stale;
use super::*;

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
