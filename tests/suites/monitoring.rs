//! Tests the metrics that a worker gives to Prometheus while it works.

use std::fs;
use std::time::{Duration, Instant};

use camshaft_tests::broker::Broker;
use camshaft_tests::health::Health;
use camshaft_tests::images::files_below;
use camshaft_tests::metrics::Scrape;
use camshaft_tests::programs::{Running, camshaft, run, worker};
use camshaft_tests::repository;
use camshaft_tests::small_run::SmallRun;
use camshaft_tests::wait;
use tempfile::tempdir;

const LIMIT: Duration = Duration::from_secs(300);

/// The names of metrics in the tables of docs/monitoring.md.
fn documented() -> Vec<String> {
    let page = fs::read_to_string(repository::root().join("docs/monitoring.md")).unwrap();
    let cells = page.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
    let quoted = cells.flat_map(|cell| cell.split('`').skip(1).step_by(2));
    let names = quoted.filter(|name| name.starts_with("camshaft_") || name.starts_with("process_"));
    names.filter(|name| !name.contains('…')).map(str::to_owned).collect()
}

fn wait_for(health: &Health, what: &str, holds: impl Fn(&Scrape) -> bool) -> Scrape {
    let mut last = None;
    wait::until(what, LIMIT, || {
        last = health.scrape();
        last.as_ref().is_some_and(&holds)
    });
    last.unwrap()
}

/// The number of images that have a prediction.
fn predicted(scrape: &Scrape) -> f64 {
    scrape.value(r#"camshaft_images_total{outcome="predicted"}"#)
}

#[test]
fn every_documented_metric_is_there_and_counts_right() {
    let small = SmallRun::new(60);
    fs::write(small.source.join("broken.jpg"), b"\xff\xd8\xff but no more").unwrap();
    let broker = Broker::shared().url();
    small.enqueue(&broker, &[]);

    let health = Health::at_free_port();
    let mut command = worker(["--broker", &broker, "--batch", "4"]);
    let running = Running::start(command.args(health.arguments()));
    let scrape = wait_for(&health, "every image is settled", |scrape| {
        scrape.has("camshaft_images_total")
            && predicted(scrape) == 60.0
            && scrape.value("camshaft_images_in_flight") == 0.0
    });
    assert!(health.is_ok("/healthz") && health.is_ok("/livez") && health.is_ok("/readyz"));
    let ask = |arguments: [String; 2]| {
        let mut command = worker(["--broker", &broker, "--check-health"]);
        run(command.args(arguments))
    };
    let _lives = ask(health.arguments()).expect(0);
    ask(Health::at_free_port().arguments()).expect_one_line(&["no worker answers at 127.0.0.1:"]);

    let documented = documented();
    assert!(documented.len() > 20, "{documented:?}");
    for name in &documented {
        assert!(scrape.has(name), "{name} is documented and not told");
    }
    for name in scrape.metrics() {
        let known = documented.iter().any(|known| known == name) || name.starts_with("process_");
        assert!(known, "{name} is told and not documented");
    }

    let value = |sample: &str| scrape.value(sample);
    assert_eq!(value(r#"camshaft_images_total{outcome="failed"}"#), 1.0);
    assert_eq!(value(r#"camshaft_failures_total{class="undecodable"}"#), 1.0);
    assert_eq!(value(r#"camshaft_failures_total{class="not-found"}"#), 0.0);
    for (stage, images) in
        [("admit", 61.0), ("fetch", 61.0), ("decode", 61.0), ("render", 60.0), ("store", 60.0)]
    {
        for kind in ["", "_wait"] {
            let sample = format!(r#"camshaft_stage{kind}_seconds_count{{stage="{stage}"}}"#);
            assert_eq!(value(&sample), images, "{sample}");
        }
    }
    assert_eq!(value(r#"camshaft_stage_seconds_count{stage="settle"}"#), 61.0);
    assert_eq!(value("camshaft_queue_wait_seconds_count"), 61.0);
    assert_eq!(value("camshaft_batch_images_sum"), 60.0);
    let batches = value("camshaft_batch_images_count");
    assert!((15.0..=60.0).contains(&batches), "{batches} batches");
    assert_eq!(value(r#"camshaft_stage_seconds_count{stage="model"}"#), batches);
    assert_eq!(value("camshaft_batch_limit"), 4.0);

    let size = |files: &[std::path::PathBuf]| -> u64 {
        files.iter().map(|file| fs::metadata(file).unwrap().len()).sum()
    };
    assert_eq!(value("camshaft_read_bytes_total"), size(&files_below(&small.source)) as f64);
    for (kind, folder) in
        [("prediction", "predictions"), ("overlay", "overlays"), ("failure", "failures")]
    {
        let sample = format!(r#"camshaft_written_bytes_total{{kind="{kind}"}}"#);
        assert_eq!(value(&sample), size(&files_below(&small.out.join(folder))) as f64, "{kind}");
    }
    for kind in ["files", "pixels"] {
        assert_eq!(value(&format!(r#"camshaft_held_bytes{{kind="{kind}"}}"#)), 0.0);
        assert!(value(&format!(r#"camshaft_held_bytes_limit{{kind="{kind}"}}"#)) > 1e8);
    }
    assert_eq!(value("camshaft_ready"), 1.0);
    let labels = scrape.labels("camshaft_worker_info").unwrap();
    for label in [r#"device="cpu""#, "kernel=", "precision=", r#"model="cats-vs-dogs""#] {
        assert!(labels.contains(label), "{label} is not in {labels}");
    }
    drop(running);
}

/// If the network is the slowest stage, it never waits for the others.
#[test]
fn the_model_works_nine_tenths_of_the_time_if_it_is_the_bottleneck() {
    const COPIES: usize = 3;
    let shared = repository::root().join("../shared/data/photos");
    let photos = if shared.exists() { shared } else { repository::chelsea() };
    let directory = tempdir().unwrap();
    let (source, out) = (directory.path().join("images"), directory.path().join("out"));
    fs::create_dir(&source).unwrap();
    let files = files_below(&photos);
    let copies = COPIES * 60_usize.div_ceil(files.len()).max(1);
    for copy in 0..copies {
        for (index, file) in files.iter().enumerate() {
            fs::copy(file, source.join(format!("{copy}-{index}.jpg"))).unwrap();
        }
    }
    let images = copies * files.len();
    let broker = Broker::shared().url();
    let mut enqueue = camshaft(["enqueue", "--broker", &broker]);
    let _ended = run(enqueue.arg(&source).arg("--out").arg(&out)).expect(0);

    let health = Health::at_free_port();
    let mut command = worker(["--broker", &broker]);
    let running = Running::start(command.args(health.arguments()));
    let after = |count: usize| {
        let scrape = wait_for(&health, "the images get done", |scrape| {
            scrape.has("camshaft_images_total") && predicted(scrape) >= count as f64
        });
        (scrape.value(r#"camshaft_stage_seconds_sum{stage="model"}"#), Instant::now())
    };
    // Only the middle counts: the stages fill at first, and are empty at the end.
    let (before, from) = after(images / 6);
    let (busy, until) = after(images * 5 / 6);
    let share = (busy - before) / (until - from).as_secs_f64();
    drop(running);
    println!("the model works {:.1} % of the time", share * 100.0);
    assert!((0.9..1.05).contains(&share), "the model works {:.1} % of the time", share * 100.0);
}
