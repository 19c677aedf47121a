//! What only the queue of one process does: wait for room, and end by itself.

use camshaft_queue::QueueError;

use super::*;

async fn publish_all(
    queue: &InProcessQueue,
    numbers: std::ops::Range<usize>,
) -> Result<(), QueueError> {
    for message in messages(numbers) {
        queue.publish(message).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn publishing_waits_for_room() {
    let queue = InProcessQueue::new(2, delays(1));
    let publishing = tokio::spawn({
        let queue = queue.clone();
        async move { publish_all(&queue, 0..3).await }
    });
    depth_becomes(&queue, 2, 0, 0).await;
    assert!(!publishing.is_finished());
    let mut deliveries = consume(&queue, 1).await;
    let held = next(&mut deliveries).await;
    within(publishing).await.unwrap().unwrap();
    depth_becomes(&queue, 2, 0, 0).await;
    // What comes back is taken in, full or not.
    drop(held);
    depth_becomes(&queue, 3, 0, 0).await;
    acknowledge_all(&mut deliveries, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn retries_do_not_wait_for_room() {
    let queue = InProcessQueue::new(1, RetryDelays::new(vec![Duration::ZERO; 3]));
    let publishing = tokio::spawn({
        let queue = queue.clone();
        async move {
            publish_all(&queue, 0..50).await.unwrap();
            queue.finish();
        }
    });
    let mut deliveries = consume(&queue, 4).await;
    while let Some(delivery) = within(deliveries.next()).await {
        delivery.receipt.settle(retry("again")).await.unwrap();
    }
    within(publishing).await.unwrap();
    assert_eq!(queue.dead_letters().len(), 50);
    assert!(queue.dead_letters().iter().all(|letter| letter.attempts == 4));
}

#[tokio::test(flavor = "multi_thread")]
async fn finished_queue_ends_its_streams_once_all_is_settled() {
    let queue = InProcessQueue::new(10, delays(1));
    publish_all(&queue, 0..2).await.unwrap();
    queue.finish();
    let late = publish_all(&queue, 2..3).await;
    assert!(matches!(late, Err(QueueError::Closed)), "{late:?}");
    let mut deliveries = consume(&queue, 1).await;
    next(&mut deliveries).await.receipt.settle(retry("later")).await.unwrap();
    let other = next(&mut deliveries).await;
    assert_eq!(number(&other), 1);
    other.receipt.settle(Outcome::Ack).await.unwrap();
    // Not the end: one rests.
    let retried = next(&mut deliveries).await;
    let mut second = consume(&queue, 1).await;
    let ending = tokio::spawn(async move { second.next().await.is_none() });
    assert!(!ending.is_finished());
    retried.receipt.settle(Outcome::Ack).await.unwrap();
    assert!(within(deliveries.next()).await.is_none());
    assert!(within(ending).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn finishing_ends_publishing_that_waits() {
    let queue = InProcessQueue::new(1, delays(1));
    let publishing = tokio::spawn({
        let queue = queue.clone();
        async move { publish_all(&queue, 0..2).await }
    });
    depth_becomes(&queue, 1, 0, 0).await;
    queue.finish();
    let published = within(publishing).await.unwrap();
    assert!(matches!(published, Err(QueueError::Closed)), "{published:?}");
}
