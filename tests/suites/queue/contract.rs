//! What every job queue does, whoever keeps the messages.

use std::time::Instant;

use camshaft_common::run::RunId;
use camshaft_queue::Settlement;

use super::*;

/// Runs each function here once per implementation, on a queue with that number of retries.
macro_rules! contract {
    ($($test:ident: $retries:literal,)*) => {
        mod in_process {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                super::$test(super::super::in_process($retries).await).await;
            })*
        }

        mod rabbitmq {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                super::$test(super::super::rabbitmq($retries).await).await;
            })*
        }
    };
}

contract! {
    messages_arrive_once_and_in_order: 1,
    thousands_of_messages_arrive: 1,
    nothing_to_publish_is_fine: 1,
    dropped_receipt_is_redelivered: 1,
    handed_back_message_comes_again_with_its_try_unspent: 1,
    retried_message_comes_back_after_its_delay: 1,
    last_retry_becomes_a_dead_letter: 1,
    without_retries_the_first_failure_is_the_last: 0,
    refused_or_postponed_message_comes_back_with_its_tries_unspent: 1,
    a_refusal_past_its_limit_is_the_last: 1,
    dead_letter_is_kept_with_its_reason: 1,
    depth_counts_what_waits: 1,
    redrive_moves_all_dead_letters: 0,
    redrive_of_a_run_leaves_the_others: 0,
    prefetch_bounds_what_is_unsettled: 1,
    stop_hands_back_what_was_not_yielded: 1,
    dropped_stream_hands_back_what_was_not_yielded: 1,
    two_consumers_share_the_work: 1,
}

async fn messages_arrive_once_and_in_order(fixture: Fixture) {
    let queue = &*fixture.queue;
    fixture.publish(messages(0..1000)).await;
    let stop = CancellationToken::new();
    let mut deliveries = queue.consume(10, stop.clone()).await.unwrap();
    for expected in 0..1000 {
        let delivery = next(&mut deliveries).await;
        assert_eq!(number(&delivery), expected);
        assert_eq!((delivery.attempt, delivery.redelivered), (1, false));
        assert_eq!(delivery.receipt.settle(Outcome::Ack).await.unwrap(), Settlement::Acknowledged);
    }
    stop.cancel();
    assert!(within(deliveries.next()).await.is_none());
    depth_becomes(queue, 0, 0, 0).await;
}

async fn thousands_of_messages_arrive(fixture: Fixture) {
    let queue = &*fixture.queue;
    const COUNT: usize = 6000;
    let mut deliveries = consume(queue, 500).await;
    let publish = async {
        for start in (0..COUNT).step_by(1000) {
            fixture.publish(messages(start..start + 1000)).await;
        }
    };
    within(futures::future::join(publish, acknowledge_all(&mut deliveries, COUNT))).await;
    depth_becomes(queue, 0, 0, 0).await;
}

async fn nothing_to_publish_is_fine(fixture: Fixture) {
    let queue = &*fixture.queue;
    fixture.publish(Vec::new()).await;
    assert!(queue.depth().await.unwrap().is_idle());
}

async fn dropped_receipt_is_redelivered(fixture: Fixture) {
    let queue = &*fixture.queue;
    fixture.publish(messages(0..1)).await;
    let mut deliveries = consume(queue, 1).await;
    let delivery = next(&mut deliveries).await;
    assert!(!delivery.redelivered);
    // Outside of any runtime, as the thread that owns the device does it.
    std::thread::spawn(move || drop(delivery)).join().unwrap();
    let delivery = next(&mut deliveries).await;
    assert_eq!((delivery.attempt, delivery.redelivered), (1, true));
    delivery.receipt.settle(Outcome::Ack).await.unwrap();
    depth_becomes(queue, 0, 0, 0).await;
}

async fn handed_back_message_comes_again_with_its_try_unspent(fixture: Fixture) {
    let queue = &*fixture.queue;
    fixture.publish(vec![Message { trace: Some(trace()), ..message("7") }]).await;
    let mut deliveries = consume(queue, 1).await;
    // Retried once, so that a try is spent.
    next(&mut deliveries).await.receipt.settle(retry("once")).await.unwrap();
    // Lost with its workers as often as that, it would be dead.
    for time in 0..6 {
        let delivery = next(&mut deliveries).await;
        assert_eq!((delivery.attempt, delivery.redelivered), (2, time > 0));
        assert_eq!((number(&delivery), &delivery.trace), (7, &Some(trace())));
        assert!(!delivery.alone);
        let settled = delivery.receipt.settle(Outcome::HandBack).await;
        assert_eq!(settled.unwrap(), Settlement::HandedBack);
    }
    let settled = next(&mut deliveries).await.receipt.settle(retry("twice")).await;
    assert_eq!(settled.unwrap(), Settlement::DeadLettered);
    depth_becomes(queue, 0, 0, 1).await;
}

async fn retried_message_comes_back_after_its_delay(fixture: Fixture) {
    let queue = &*fixture.queue;
    let traced = Message { trace: Some(trace()), ..message("job") };
    fixture.publish(vec![traced]).await;
    let mut deliveries = consume(queue, 1).await;
    let delivery = next(&mut deliveries).await;
    assert_eq!(delivery.trace, Some(trace()));
    let retried_at = Instant::now();
    let settled = delivery.receipt.settle(retry("store is busy")).await;
    assert_eq!(settled.unwrap(), Settlement::Retrying(DELAY));
    let delivery = next(&mut deliveries).await;
    // The broker counts whole milliseconds.
    assert!(retried_at.elapsed() >= DELAY - Duration::from_millis(50));
    assert_eq!((delivery.attempt, delivery.redelivered), (2, false));
    assert_eq!(delivery.body, "job");
    assert_eq!(delivery.trace, Some(trace()));
    delivery.receipt.settle(Outcome::Ack).await.unwrap();
    depth_becomes(queue, 0, 0, 0).await;
}

async fn last_retry_becomes_a_dead_letter(fixture: Fixture) {
    let queue = &*fixture.queue;
    fixture.publish(messages(0..1)).await;
    let mut deliveries = consume(queue, 1).await;
    next(&mut deliveries).await.receipt.settle(retry("once")).await.unwrap();
    let settled = next(&mut deliveries).await.receipt.settle(retry("twice")).await;
    assert_eq!(settled.unwrap(), Settlement::DeadLettered);
    depth_becomes(queue, 0, 0, 1).await;
    assert_eq!(fixture.reasons().await, ["twice"]);
}

async fn without_retries_the_first_failure_is_the_last(fixture: Fixture) {
    let queue = &*fixture.queue;
    fixture.publish(messages(0..1)).await;
    let mut deliveries = consume(queue, 1).await;
    let settled = next(&mut deliveries).await.receipt.settle(retry("once")).await;
    assert_eq!(settled.unwrap(), Settlement::DeadLettered);
    assert_eq!(fixture.reasons().await, ["once"]);
}

async fn refused_or_postponed_message_comes_back_with_its_tries_unspent(fixture: Fixture) {
    let queue = &*fixture.queue;
    let traced = Message { trace: Some(trace()), ..message("job") };
    fixture.publish(vec![traced]).await;
    let mut deliveries = consume(queue, 1).await;
    let postpone = Outcome::Postpone { reason: "no model yet".to_owned(), delay: DELAY };
    for outcome in [refuse("not here", DEADLINE), postpone, refuse("not here", DEADLINE)] {
        let delivery = next(&mut deliveries).await;
        assert_eq!(delivery.attempt, 1);
        let settled = delivery.receipt.settle(outcome).await;
        assert_eq!(settled.unwrap(), Settlement::Retrying(DELAY));
    }
    let delivery = next(&mut deliveries).await;
    // A worker may have begun with it.
    assert_eq!((delivery.attempt, delivery.redelivered), (1, true));
    assert_eq!((&delivery.body[..], &delivery.trace), (&b"job"[..], &Some(trace())));
    delivery.receipt.settle(retry("store is busy")).await.unwrap();
    let delivery = next(&mut deliveries).await;
    assert_eq!((delivery.attempt, delivery.redelivered), (2, false));
    delivery.receipt.settle(refuse("not here", DEADLINE)).await.unwrap();
    let delivery = next(&mut deliveries).await;
    assert_eq!(delivery.attempt, 2);
    delivery.receipt.settle(Outcome::Ack).await.unwrap();
    depth_becomes(queue, 0, 0, 0).await;
}

async fn a_refusal_past_its_limit_is_the_last(fixture: Fixture) {
    let queue = &*fixture.queue;
    fixture.publish(messages(0..1)).await;
    let mut deliveries = consume(queue, 1).await;
    let settled = next(&mut deliveries).await.receipt.settle(refuse("no", Duration::ZERO)).await;
    assert_eq!(settled.unwrap(), Settlement::DeadLettered);
    assert_eq!(fixture.reasons().await, ["no"]);
}

async fn dead_letter_is_kept_with_its_reason(fixture: Fixture) {
    let queue = &*fixture.queue;
    fixture.publish(vec![message("not a job"), message("1")]).await;
    let mut deliveries = consume(queue, 1).await;
    let settled = next(&mut deliveries).await.receipt.settle(dead_letter("kein Auftrag – ä")).await;
    assert_eq!(settled.unwrap(), Settlement::DeadLettered);
    // It stops nobody.
    let delivery = next(&mut deliveries).await;
    assert_eq!(number(&delivery), 1);
    delivery.receipt.settle(Outcome::Ack).await.unwrap();
    depth_becomes(queue, 0, 0, 1).await;
    assert_eq!(fixture.reasons().await, ["kein Auftrag – ä"]);
}

async fn depth_counts_what_waits(fixture: Fixture) {
    let queue = &*fixture.queue;
    assert!(queue.depth().await.unwrap().is_idle());
    fixture.publish(messages(0..5)).await;
    depth_becomes(queue, 5, 0, 0).await;
    let mut deliveries = consume(queue, 3).await;
    next(&mut deliveries).await.receipt.settle(dead_letter("no")).await.unwrap();
    let retried = next(&mut deliveries).await;
    let held = next(&mut deliveries).await;
    retried.receipt.settle(retry("later")).await.unwrap();
    let depth = queue.depth().await.unwrap();
    assert_eq!((depth.retrying, depth.dead), (1, 1));
    assert!(!depth.is_idle());
    drop((held, deliveries));
    depth_becomes(queue, 4, 0, 1).await;
}

async fn redrive_moves_all_dead_letters(fixture: Fixture) {
    let queue = &*fixture.queue;
    const COUNT: usize = 450;
    assert_eq!(queue.redrive(None).await.unwrap(), 0);
    let traced = |message| Message { trace: Some(trace()), ..message };
    fixture.publish(messages(0..COUNT).into_iter().map(traced).collect()).await;
    let mut deliveries = consume(queue, 50).await;
    for _ in 0..COUNT {
        next(&mut deliveries).await.receipt.settle(retry("no")).await.unwrap();
    }
    depth_becomes(queue, 0, 0, COUNT as u64).await;
    drop(deliveries);
    assert_eq!(queue.redrive(None).await.unwrap(), COUNT as u64);
    depth_becomes(queue, COUNT as u64, 0, 0).await;
    let mut deliveries = consume(queue, 1).await;
    let delivery = next(&mut deliveries).await;
    assert_eq!((number(&delivery), delivery.attempt, delivery.redelivered), (0, 1, false));
    assert_eq!(delivery.trace, Some(trace()));
    delivery.receipt.settle(Outcome::Ack).await.unwrap();
}

async fn redrive_of_a_run_leaves_the_others(fixture: Fixture) {
    let queue = &*fixture.queue;
    let (wanted, other) = (RunId::generate(), RunId::generate());
    let job = |run: RunId| message(format!(r#"{{"v":7,"run":"{run}"}}"#));
    let letters = vec![job(other), job(wanted), message("junk"), job(wanted), message("{}")];
    fixture.publish(letters).await;
    let mut deliveries = consume(queue, 1).await;
    for _ in 0..5 {
        next(&mut deliveries).await.receipt.settle(dead_letter("no")).await.unwrap();
    }
    drop(deliveries);
    assert_eq!(queue.redrive(Some(&wanted)).await.unwrap(), 2);
    depth_becomes(queue, 2, 0, 3).await;
    assert_eq!(queue.redrive(Some(&wanted)).await.unwrap(), 0);
    assert_eq!(queue.redrive(Some(&other)).await.unwrap(), 1);
    depth_becomes(queue, 3, 0, 2).await;
}

async fn prefetch_bounds_what_is_unsettled(fixture: Fixture) {
    let queue = &*fixture.queue;
    fixture.publish(messages(0..5)).await;
    let mut deliveries = consume(queue, 2).await;
    let first = next(&mut deliveries).await;
    let second = next(&mut deliveries).await;
    depth_becomes(queue, 3, 0, 0).await;
    let third = tokio::time::timeout(Duration::from_millis(300), deliveries.next()).await;
    assert!(third.is_err(), "a third delivery came while two were unsettled");
    first.receipt.settle(Outcome::Ack).await.unwrap();
    let third = next(&mut deliveries).await;
    assert_eq!((number(&second), number(&third)), (1, 2));
    depth_becomes(queue, 2, 0, 0).await;
}

async fn stop_hands_back_what_was_not_yielded(fixture: Fixture) {
    let queue = &*fixture.queue;
    fixture.publish(messages(0..5)).await;
    let stop = CancellationToken::new();
    let mut deliveries = queue.consume(5, stop.clone()).await.unwrap();
    let first = next(&mut deliveries).await;
    let second = next(&mut deliveries).await;
    stop.cancel();
    assert!(within(deliveries.next()).await.is_none());
    depth_becomes(queue, 3, 0, 0).await;
    drop(deliveries);
    assert_eq!(first.receipt.settle(Outcome::Ack).await.unwrap(), Settlement::Acknowledged);
    assert_eq!(second.receipt.settle(Outcome::Ack).await.unwrap(), Settlement::Acknowledged);
    depth_becomes(queue, 3, 0, 0).await;
    let mut deliveries = consume(queue, 5).await;
    for expected in 2..5 {
        let delivery = next(&mut deliveries).await;
        assert_eq!(number(&delivery), expected);
        delivery.receipt.settle(Outcome::Ack).await.unwrap();
    }
    depth_becomes(queue, 0, 0, 0).await;
}

async fn dropped_stream_hands_back_what_was_not_yielded(fixture: Fixture) {
    let queue = &*fixture.queue;
    fixture.publish(messages(0..5)).await;
    let mut deliveries = consume(queue, 5).await;
    let held = next(&mut deliveries).await;
    drop(deliveries);
    depth_becomes(queue, 4, 0, 0).await;
    assert_eq!(held.receipt.settle(Outcome::Ack).await.unwrap(), Settlement::Acknowledged);
    depth_becomes(queue, 4, 0, 0).await;
}

async fn two_consumers_share_the_work(fixture: Fixture) {
    let queue = &*fixture.queue;
    fixture.publish(messages(0..4)).await;
    let mut left = consume(queue, 2).await;
    let mut right = consume(queue, 2).await;
    let held = [
        next(&mut left).await,
        next(&mut right).await,
        next(&mut left).await,
        next(&mut right).await,
    ];
    let numbers: BTreeSet<_> = held.iter().map(number).collect();
    assert_eq!(numbers, (0..4).collect());
    for delivery in held {
        delivery.receipt.settle(Outcome::Ack).await.unwrap();
    }
    depth_becomes(queue, 0, 0, 0).await;
}
