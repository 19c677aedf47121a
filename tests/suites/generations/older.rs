//! Runs and jobs as an older version left them, without generations.

use super::*;

/// Makes of a run and its jobs what an older version would have left.
pub(super) fn make_older(small: &SmallRun, broker: &str) {
    let mut record = run_record(small);
    for later in ["generation", "jobs_since", "manifest"] {
        assert!(record.as_object_mut().unwrap().remove(later).is_some(), "{later}");
    }
    fs::write(small.out.join("run.json"), record.to_string()).unwrap();
    fs::remove_dir_all(small.out.join("manifest")).unwrap();
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let url = Secret::from(broker.to_owned());
        let queue = RabbitMqQueue::connect(url, RabbitMqOptions::default()).await.unwrap();
        let waiting = queue.depth().await.unwrap().ready;
        let prefetch = u16::try_from(waiting).unwrap();
        let stop = CancellationToken::new();
        let mut taken = queue.consume(prefetch, stop.clone()).await.unwrap();
        let mut messages = Vec::new();
        for _ in 0..waiting {
            let delivery = taken.next().await.unwrap();
            let mut job: Value = serde_json::from_slice(&delivery.body).unwrap();
            assert!(job.as_object_mut().unwrap().remove("generation").is_some());
            messages.push(Message { body: job.to_string().into(), trace: None });
            delivery.receipt.settle(Outcome::Ack).await.unwrap();
        }
        stop.cancel();
        assert!(taken.next().await.is_none(), "all are taken");
        publish(&queue, messages).await.unwrap();
        queue.close().await;
    });
}

#[test]
fn a_run_and_a_queue_of_an_older_version_go_on() {
    let small = SmallRun::new(6);
    let broker = Broker::shared().url();
    small.enqueue(&broker, &[]);
    make_older(&small, &broker);
    let told = small.status(&broker);
    assert_eq!((&told["remaining"], &told["queued"]), (&6.into(), &6.into()), "{told}");
    assert_eq!(work_counted(&broker), Done { predicted: 6, ..Done::default() });
    small.assert_adds_up(&broker);
    assert_eq!(report(&small)["images"], 6);
    let said = small.enqueue(&broker, &[]);
    assert!(said.starts_with("Enqueued 0 of 6 images (6 have results already)"), "{said}");
    let again = small.audit(&[]).expect(0);
    assert!(again.stdout.contains("6 had results already"), "{}", again.stdout);
    small.assert_adds_up(&broker);
}

#[test]
fn jobs_of_an_older_version_are_superseded_by_an_enqueue() {
    let small = SmallRun::new(6);
    let broker = Broker::shared().url();
    small.enqueue(&broker, &[]);
    make_older(&small, &broker);
    // One is done by an audit, which goes on with the run.
    let _ended = small.audit(&["--limit", "1"]).expect(0);
    let said = small.enqueue(&broker, &[]);
    assert!(said.starts_with("Enqueued 5 of 6 images (1 have results already)"), "{said}");
    let done = work_counted(&broker);
    assert_eq!(done, Done { predicted: 5, already_done: 0, superseded: 6 });
    small.results().assert_exactly(&small.keys);
    small.assert_adds_up(&broker);
}
