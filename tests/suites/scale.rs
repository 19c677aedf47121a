//! Enqueues of many images: they are killed and continued, and list SOURCE in order of keys.

use std::collections::HashMap;
use std::fs::{self, File};
use std::hash::{BuildHasher, RandomState};
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use camshaft_common::secret::Secret;
use camshaft_common::store::{Folder, JSON};
use camshaft_queue::{JobQueue, Message, Outcome, RabbitMqOptions, RabbitMqQueue};
use camshaft_tests::broker::Broker;
use camshaft_tests::jobs::{Jobs, QueuedJob, publish};
use camshaft_tests::programs::{Running, camshaft, run};
use camshaft_tests::relay::{Network, Relay};
use camshaft_tests::results::local;
use camshaft_tests::s3::S3Server;
use camshaft_tests::wait;
use futures::{StreamExt, TryStreamExt};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

const LIMIT: Duration = Duration::from_secs(120);
const IMAGES: usize = 20_000;
const KILLS: usize = 5;
/// The largest number of jobs that one kill or one lost connection may leave in the queue twice.
const MOST_SECOND_JOBS: usize = 256;

/// An enqueue that can be started repeatedly, and the jobs that it must publish.
struct Enqueue {
    directory: TempDir,
    source: String,
    base: Option<String>,
    expected: HashMap<String, usize>,
}

impl Enqueue {
    /// An enqueue of empty files. A walk of their folders does not give the order of keys.
    fn of_folder() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let images = directory.path().join("images");
        let mut expected = HashMap::new();
        for folder in ["a", "a-b", "a/c", "a.d"] {
            fs::create_dir_all(images.join(folder)).unwrap();
        }
        for number in 0..IMAGES {
            let folder = ["a", "a-b", "a/c", "a.d"][number % 4];
            let key = format!("{folder}/{number:05}.jpg");
            File::create(images.join(&key)).unwrap();
            expected.insert(key, 1);
        }
        let source = images.to_str().unwrap().to_owned();
        Self { directory, source, base: None, expected }
    }

    /// An enqueue of an unordered list that names some keys twice; each gets one job.
    fn of_list() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let list = directory.path().join("list.csv");
        let mut lines = BufWriter::new(File::create(&list).unwrap());
        let mut expected = HashMap::new();
        writeln!(lines, "key,label").unwrap();
        for number in 0..IMAGES {
            let key = format!("{:05}.jpg", number * 7919 % (IMAGES - 500));
            writeln!(lines, "{key},cat").unwrap();
            expected.insert(key, 1);
        }
        lines.into_inner().unwrap();
        let source = format!("list:{}", list.display());
        Self { directory, source, base: Some("s3://nobody-reads/it".to_owned()), expected }
    }

    fn out(&self) -> PathBuf {
        self.directory.path().join("out")
    }

    fn command(&self, broker: &str) -> Command {
        let mut command = camshaft(["enqueue", "--broker", broker, &self.source, "--out"]);
        command.arg(self.out());
        command.args(self.base.iter().flat_map(|base| ["--base", base]));
        command
    }

    fn run_id(&self) -> String {
        let record = fs::read(self.out().join("run.json")).unwrap();
        let record: serde_json::Value = serde_json::from_slice(&record).unwrap();
        record["run"].as_str().unwrap().to_owned()
    }

    /// Starts it, and kills it when the queue has `mark` jobs.
    fn kill_at(&self, broker: &str, jobs: &Jobs, mark: usize) {
        let mut running = Running::start(&mut self.command(broker));
        let queued = || jobs.count("camshaft.jobs").unwrap_or(0);
        while queued() < mark {
            assert!(running.ended().is_none(), "it ended before {mark}: {:?}", running.output());
            // Each count opens a channel, and the client fails if there are too many at once.
            std::thread::sleep(Duration::from_millis(5));
        }
        running.kill();
    }

    /// Asserts that the queue has every job once, and nothing else.
    fn assert_each_once(&self, jobs: &Jobs) {
        self.assert_none_missing(jobs, 0);
    }

    /// Asserts that no job is missing, and that each of the `interruptions` left at most
    /// [`MOST_SECOND_JOBS`] jobs in the queue a second time. Each second job must be marked: a
    /// worker then looks for a result before it works.
    fn assert_none_missing(&self, jobs: &Jobs, interruptions: usize) {
        // A completed enqueue deletes its bookmark at the end.
        let bookmark = format!("camshaft.enqueue.{}", self.run_id());
        assert_eq!(jobs.count(&bookmark), None, "{bookmark} is left");
        self.assert_taken(&jobs.take_all(), interruptions);
    }

    fn assert_taken(&self, found: &[QueuedJob], interruptions: usize) {
        let (mut all, mut unmarked) = (HashMap::new(), HashMap::new());
        for job in found {
            *all.entry(&job.key).or_insert(0) += 1;
            *unmarked.entry(&job.key).or_insert(0) += usize::from(!job.is_marked);
        }
        let is_wrong = |key: &&String| {
            let expected = self.expected[*key];
            all.get(key).is_none_or(|all| *all < expected) || unmarked[key] > expected
        };
        let wrong: Vec<_> = self.expected.keys().filter(is_wrong).collect();
        let told = wrong.iter().map(|key| (key, all.get(key), unmarked.get(key)));
        let told: Vec<_> = told.collect();
        assert!(wrong.is_empty(), "{} (key, found, not marked): {told:?}", wrong.len());
        assert_eq!(all.len(), self.expected.len(), "others are there, too");
        let second = found.len() - self.expected.values().sum::<usize>();
        let most = interruptions * MOST_SECOND_JOBS;
        assert!(second <= most, "{second} second jobs after {interruptions} interruptions");
    }
}

/// Numbers of jobs at which to interrupt: random in every run, but spread over all jobs.
fn marks() -> impl Iterator<Item = usize> {
    let part = IMAGES / (KILLS + 1);
    (1..=KILLS).map(move |kill| {
        let chance = RandomState::new().hash_one(kill) as usize % (part / 2);
        kill * part - chance
    })
}

fn assert_survives_kills(enqueue: &Enqueue) {
    let broker = Broker::shared().url();
    let jobs = Jobs::at(&broker);
    let mut ids = Vec::new();
    for mark in marks() {
        enqueue.kill_at(&broker, &jobs, mark);
        ids.push(enqueue.run_id());
    }
    let ended = run(&mut enqueue.command(&broker)).expect(0);
    assert!(ended.stdout.contains("were enqueued before"), "{}", ended.stdout);
    ids.push(enqueue.run_id());
    ids.dedup();
    assert_eq!(ids.len(), 1, "it is one run");
    enqueue.assert_none_missing(&jobs, KILLS);
}

#[test]
fn an_enqueue_killed_five_times_publishes_every_image_of_a_folder() {
    assert_survives_kills(&Enqueue::of_folder());
}

#[test]
fn an_enqueue_killed_five_times_publishes_every_line_of_a_list() {
    assert_survives_kills(&Enqueue::of_list());
}

#[test]
fn an_enqueue_whose_network_is_cut_publishes_every_image() {
    let enqueue = Enqueue::of_list();
    let broker = Broker::shared();
    let url = broker.url();
    let jobs = Jobs::at(&url);
    let relay = Relay::to(broker.port());
    let by_relay = broker.through(&url, relay.port());
    let running = Running::start(&mut enqueue.command(&by_relay));
    let queued = || jobs.count("camshaft.jobs").unwrap_or(0);
    for (cut, mark) in marks().enumerate() {
        wait::until("messages", LIMIT, || queued() >= mark);
        relay.set(Network::Cut);
        wait::until("it noticed", LIMIT, || {
            running.output()[1].matches("not reachable").count() > cut
        });
        relay.set(Network::Up);
    }
    let _ended = running.end(LIMIT).expect(0);
    enqueue.assert_none_missing(&jobs, KILLS);
}

/// Asserts that a killed enqueue continues after `others` have changed the jobs in the queue.
/// `others` also changes the expected jobs.
fn assert_continues_after(others: impl FnOnce(&mut Enqueue, &str, &Jobs)) {
    let mut enqueue = Enqueue::of_list();
    let broker = Broker::shared().url();
    let jobs = Jobs::at(&broker);
    enqueue.kill_at(&broker, &jobs, IMAGES / 2);
    others(&mut enqueue, &broker, &jobs);
    let ended = run(&mut enqueue.command(&broker)).expect(0);
    assert!(ended.stdout.contains("were enqueued before"), "{}", ended.stdout);
    enqueue.assert_none_missing(&jobs, 1);
}

#[test]
fn an_enqueue_continues_after_another_enqueue_to_the_same_queue() {
    assert_continues_after(|enqueue, broker, jobs| {
        let other = Enqueue::of_list();
        let list = PathBuf::from(other.source.strip_prefix("list:").unwrap());
        fs::write(&list, "key\nother-1.jpg\nother-2.jpg\n").unwrap();
        let _ended = run(&mut other.command(broker)).expect(0);
        for key in ["other-1.jpg", "other-2.jpg"] {
            enqueue.expected.insert(key.to_owned(), 1);
        }
        // Take two jobs, so that the queue has as many as before.
        for key in jobs.take_first(2) {
            *enqueue.expected.get_mut(&key).unwrap() -= 1;
        }
        enqueue.expected.retain(|_, count| *count > 0);
    });
}

#[test]
fn an_enqueue_continues_after_messages_were_published_again() {
    assert_continues_after(|_enqueue, broker, _jobs| {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let url = Secret::from(broker.to_owned());
            let queue = RabbitMqQueue::connect(url, RabbitMqOptions::default()).await.unwrap();
            let mut taken = queue.consume(2, CancellationToken::new()).await.unwrap();
            for _ in 0..2 {
                let delivery = taken.next().await.unwrap();
                let body = delivery.body.clone();
                delivery.receipt.settle(Outcome::Ack).await.unwrap();
                publish(&queue, vec![Message { body, trace: None }]).await.unwrap();
            }
            queue.close().await;
        });
    });
}

#[test]
fn two_killed_enqueues_to_one_queue_both_continue() {
    let [first, second] = [Enqueue::of_folder(), Enqueue::of_list()];
    let broker = Broker::shared().url();
    let jobs = Jobs::at(&broker);
    let running = Running::start(&mut first.command(&broker));
    wait::until("the first has begun", LIMIT, || jobs.count("camshaft.jobs") > Some(500));
    second.kill_at(&broker, &jobs, IMAGES / 2);
    running.kill();
    for enqueue in [&second, &first] {
        let _ended = run(&mut enqueue.command(&broker)).expect(0);
    }
    let found = jobs.take();
    let expected: HashMap<_, _> = first.expected.iter().chain(&second.expected).collect();
    let more: usize = expected.iter().map(|(key, count)| found[*key] - **count).sum();
    assert!(more <= 2 * MOST_SECOND_JOBS, "{more} too many");
    assert_eq!(found.len(), expected.len());
}

#[test]
fn images_changed_meanwhile_are_enqueued_by_the_continued_enqueue() {
    let mut enqueue = Enqueue::of_folder();
    let broker = Broker::shared().url();
    let jobs = Jobs::at(&broker);
    enqueue.kill_at(&broker, &jobs, IMAGES / 2);
    let images = PathBuf::from(&enqueue.source);
    // Both keys are before the bookmark.
    fs::write(images.join("a-b/00001.jpg"), "another").unwrap();
    fs::write(images.join("a-b/00000.jpg"), "new").unwrap();
    enqueue.expected.insert("a-b/00001.jpg".to_owned(), 2);
    enqueue.expected.insert("a-b/00000.jpg".to_owned(), 1);
    let _ended = run(&mut enqueue.command(&broker)).expect(0);
    enqueue.assert_none_missing(&jobs, 1);
}

#[test]
fn an_enqueue_of_another_list_or_selection_starts_from_the_beginning() {
    let mut enqueue = Enqueue::of_list();
    let broker = Broker::shared().url();
    let jobs = Jobs::at(&broker);
    let list = PathBuf::from(enqueue.source.strip_prefix("list:").unwrap());
    enqueue.kill_at(&broker, &jobs, IMAGES / 2);
    let before: usize = jobs.take().values().sum();
    assert!(before >= IMAGES / 2);
    // A line is added before the bookmark's, so that all later lines have moved.
    let lines = fs::read_to_string(&list).unwrap();
    fs::write(&list, lines.replacen("key,label\n", "key,label\nfirst.jpg,cat\n", 1)).unwrap();
    enqueue.expected.insert("first.jpg".to_owned(), 1);
    let _ended = run(&mut enqueue.command(&broker)).expect(0);
    enqueue.assert_each_once(&jobs);

    enqueue.kill_at(&broker, &jobs, IMAGES / 2);
    let _before = jobs.take();
    let _ended = run(enqueue.command(&broker).args(["--only", "all"])).expect(0);
    enqueue.assert_each_once(&jobs);
}

#[test]
fn a_broker_killed_after_its_enqueue_loses_no_image() {
    let enqueue = Enqueue::of_list();
    let mut broker = Broker::start();
    let url = broker.url();
    enqueue.kill_at(&url, &Jobs::at(&url), IMAGES / 2);
    broker.stop();
    broker.start_again();
    // The bookmark is lost. All images without a result are enqueued again.
    let _ended = run(&mut enqueue.command(&url)).expect(0);
    let found = Jobs::at(&url).take();
    assert_eq!(found.len(), enqueue.expected.len());
    for (key, count) in &enqueue.expected {
        assert!(found[key] >= *count, "{key} is there {} times", found[key]);
    }
}

/// Keys that are hard to list in order: many folders, folder names that sort differently with a
/// slash behind them, and more keys in a folder than one page of a listing has.
fn awkward_keys() -> Vec<String> {
    let mut keys: Vec<_> = [
        "a",
        "a.jpg",
        "a-b/x.jpg",
        "a-b/y/z.jpg",
        "a/x.jpg",
        "a/b.jpg",
        "a/b/c.jpg",
        "a0/x.jpg",
        "A/x.jpg",
        "a b/x%20.jpg",
        "é/猫.jpg",
        "z.jpg",
    ]
    .map(str::to_owned)
    .to_vec();
    keys.extend((0..40).map(|folder| format!("m/{folder}/only.jpg")));
    keys.extend((0..1200).map(|number| format!("p/many/{number}.jpg")));
    keys
}

async fn assert_listed_in_order(folder: &Folder, mut keys: Vec<String>) {
    for key in &keys {
        folder.put(key, Vec::new(), JSON).await.unwrap();
    }
    keys.sort();
    let plain: Vec<_> = folder.list("").try_collect().await.unwrap();
    let found: Vec<_> = folder.list_in_order("").try_collect().await.unwrap();
    let paths: Vec<_> = found.iter().map(|object| object.path.clone()).collect();
    assert_eq!(paths, keys);
    let sorted = |mut objects: Vec<camshaft_common::store::Listed>| {
        objects.sort_by(|a, b| a.path.cmp(&b.path));
        objects
    };
    assert_eq!(found, sorted(plain), "the facts are the same");
    let below: Vec<_> = folder.list_in_order("m").try_collect().await.unwrap();
    assert_eq!(below.len(), 40);
    assert_eq!(folder.list_in_order("not-there").try_collect::<Vec<_>>().await.unwrap(), []);
}

#[tokio::test]
async fn a_folder_is_listed_in_order() {
    let directory = tempfile::tempdir().unwrap();
    // In a file system, a file and a folder cannot have the same name.
    let keys = awkward_keys().into_iter().filter(|key| key != "a").collect();
    assert_listed_in_order(&local(directory.path()), keys).await;
}

#[tokio::test]
async fn a_bucket_of_s3s_fs_is_listed_in_order() {
    let server = S3Server::s3s_fs();
    server.make_bucket("in-order");
    let keys = awkward_keys().into_iter().filter(|key| key != "a").collect();
    assert_listed_in_order(&server.folder("s3://in-order/some/prefix"), keys).await;
}

#[tokio::test]
async fn a_bucket_of_moto_is_listed_in_order() {
    let server = S3Server::moto();
    server.make_bucket("in-order");
    assert_listed_in_order(&server.folder("s3://in-order/some/prefix"), awkward_keys()).await;
    server.make_bucket("in-order-at-the-root");
    assert_listed_in_order(&server.folder("s3://in-order-at-the-root"), awkward_keys()).await;
}
