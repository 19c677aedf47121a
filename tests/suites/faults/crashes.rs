//! Workers that are killed, and jobs that kill their workers.

use std::fs::{self, OpenOptions};
use std::hash::{BuildHasher, RandomState};
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::time::{Duration, Instant};

use camshaft_common::job::Job;
use camshaft_common::secret::Secret;
use camshaft_queue::{JobQueue, Outcome, RabbitMqOptions, RabbitMqQueue};
use camshaft_tests::broker::Broker;
use camshaft_tests::images::write_flat_jpeg;
use camshaft_tests::programs::{Running, camshaft, run, worker};
use camshaft_tests::small_run::SmallRun;
use camshaft_tests::wait;
use futures::StreamExt;
use tokio_util::sync::CancellationToken;

use super::LIMIT;

/// Random numbers, different in every run.
struct Chance(u64);

impl Chance {
    fn new() -> Self {
        Self(RandomState::new().hash_one(0u64))
    }

    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        usize::try_from(self.0 >> 33).unwrap() % limit
    }
}

#[test]
fn killing_workers_loses_and_doubles_nothing() {
    /// A killed worker leaves a batch or two to do again, so kills are counted out by the work done:
    /// the share done again is then the same on a slow machine.
    const KILLS: usize = 10;
    /// A worker has begun to work by then.
    const LEAST: Duration = Duration::from_secs(2);
    let small = SmallRun::new(7_000);
    let broker = Broker::shared().url();
    small.enqueue(&broker, &[]);

    let start = || {
        let mut command = worker(["--broker", &broker, "--exit-when-idle", "2"]);
        Running::start(command.args(["--log", "info,camshaft_worker=debug"]))
    };
    let mut workers: Vec<_> = (0..3).map(|_| start()).collect();
    let mut chance = Chance::new();
    let (mut kills, mut explained, mut due) = (0, 0, Instant::now() + LEAST);
    while small.predictions() < small.keys.len() {
        wait::until("the next kill, or the end", LIMIT, || {
            let done = small.predictions();
            let enough = done > (kills + 1) * small.keys.len() / (KILLS + 1);
            enough && Instant::now() >= due || done >= small.keys.len()
        });
        due = Instant::now() + LEAST;
        let victim = workers.swap_remove(chance.below(workers.len()));
        // What it logs until it is gone counts.
        victim.signal("KILL");
        explained += victim.end(LIMIT).stderr.matches(EXPLAINED).count();
        kills += 1;
        workers.push(start());
    }
    for running in workers {
        let ended = running.end(LIMIT).expect(0);
        explained += ended.stderr.matches(EXPLAINED).count();
    }
    assert!(kills >= 5, "only {kills} kills fell into the run");
    small.results().assert_exactly(&small.keys);
    small.assert_adds_up(&broker);
    let again = explained.saturating_sub(small.keys.len()) as f64 / small.keys.len() as f64;
    assert!(explained >= small.keys.len(), "{explained} passes for {} images", small.keys.len());
    report(&format!("{kills} kills; {:.2} % of the work done again", again * 100.0));
    assert!(again < 0.05, "{:.1} % of the work was done again", again * 100.0);
}

#[test]
fn killing_enqueue_loses_and_doubles_nothing() {
    let small = SmallRun::new(2000);
    let broker = Broker::shared().url();
    // Enqueue gets its list bit by bit, so that it is killed in the middle of it.
    let (mut enqueue, list) = small.enqueue_from_pipe(&broker);
    let killed = Running::start(&mut enqueue);
    let mut feed = OpenOptions::new().write(true).open(&list).unwrap();
    feed.write_all((small.keys[..1500].join("\n") + "\n").as_bytes()).unwrap();
    wait::until("messages", LIMIT, || small.has_queued(&broker, 1500));
    killed.kill();
    drop(feed);

    fs::remove_file(&list).unwrap();
    fs::write(&list, small.keys.join("\n")).unwrap();
    let _ended = run(&mut enqueue).expect(0);

    // The workers get the second jobs after the first jobs have their results.
    let second = set_second_jobs_aside(&broker);
    assert!((1..=256).contains(&second), "{second} second jobs");
    let work = || {
        let mut worker = worker(["--broker", &broker, "--exit-when-idle", "2"]);
        worker.args(["--log", "info,camshaft_worker=debug"]);
        Running::start(&mut worker).end(LIMIT).expect(0).stderr.matches(EXPLAINED).count()
    };
    let explained = work();
    assert!((small.keys.len() - second..=small.keys.len()).contains(&explained), "{explained}");
    let _ended = run(&mut camshaft(["redrive", "--broker", &broker])).expect(0);
    let missing = small.keys.len() - explained;
    assert_eq!(work(), missing, "second jobs were done though their results are there");
    small.results().assert_exactly(&small.keys);
    small.assert_adds_up(&broker);
}

/// Moves the jobs that are marked as possible second jobs to the dead letters; returns their
/// number.
fn set_second_jobs_aside(broker: &str) -> usize {
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let url = Secret::from(broker.to_owned());
        let queue = RabbitMqQueue::connect(url, RabbitMqOptions::default()).await.unwrap();
        let jobs = queue.depth().await.unwrap().ready;
        let all = u16::try_from(jobs).unwrap();
        let deliveries = queue.consume(all, CancellationToken::new()).await.unwrap();
        let held: Vec<_> = deliveries.take(jobs as usize).collect().await;
        let mut second = 0;
        for delivery in held {
            if Job::parse(&delivery.body).unwrap().again {
                second += 1;
                let outcome = Outcome::DeadLetter { reason: "a second job".to_owned() };
                delivery.receipt.settle(outcome).await.unwrap();
            }
            // A dropped delivery goes back to the queue.
        }
        queue.close().await;
        second
    })
}

/// The worker logs this when an image has been through the network.
const EXPLAINED: &str = "explained";

#[expect(clippy::print_stderr, reason = "a number that a table in the documentation shows")]
fn report(line: &str) {
    eprintln!("{line}");
}

/// The image needs more memory than the process may have. The allocation fails, and a Rust program
/// then aborts: the worker cannot prevent it.
#[test]
fn a_job_that_aborts_its_worker_is_dead_lettered_and_the_others_are_done() {
    const MEMORY_BYTES: u64 = 1_600_000_000;
    let mut small = SmallRun::new(999);
    let killer = small.source.join("even/killer.jpg");
    write_flat_jpeg(&killer, 24_000, 24_000);
    small.keys.push("even/killer.jpg".to_owned());
    let broker = Broker::shared().url();
    // With smaller overlays the picture would be decoded at an eighth, and fit.
    small.enqueue(&broker, &["--overlay-size", "full"]);

    let start = || {
        let worker = worker(["--broker", &broker, "--exit-when-idle", "3"]);
        let mut limited = Command::new("prlimit");
        limited.arg(format!("--as={MEMORY_BYTES}")).arg(worker.get_program());
        limited.args(worker.get_args()).args(["--max-image-pixels", "1000000000"]);
        Running::start(&mut limited)
    };
    let mut aborts = 0;
    let mut running = start();
    loop {
        let mut status = None;
        wait::until("the worker ends", LIMIT, || {
            status = running.ended();
            status.is_some()
        });
        match status.and_then(|status| status.signal()) {
            Some(_) => aborts += 1,
            None => break,
        }
        // The job aborts two workers that have other jobs too, and three in which it is alone.
        assert!(aborts <= 5, "it was tried {aborts} times: {}", running.output()[1]);
        running = start();
    }
    let ended = running.end(LIMIT).expect(0);
    assert_eq!(aborts, 5, "{}", ended.stderr);

    let status = small.status(&broker);
    assert_eq!((&status["done"], &status["dead"]), (&999.into(), &1.into()), "{status}");
    let letter = &status["dead_letters"][0];
    assert_eq!(letter["key"], "even/killer.jpg");
    let reason = letter["reason"].as_str().unwrap();
    assert!(reason.contains("lost 5 times") && reason.contains("nothing beside it"), "{reason}");
    fs::remove_file(killer).unwrap();
}
