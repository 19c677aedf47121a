//! A worker's metrics for Prometheus: `GET /metrics`.
//!
//! Owns the names, units and labels of the metrics, which `docs/monitoring.md` explains, and
//! their text format. Times and sizes are noted by the stages as they work. Everything else
//! comes from an [`EngineSnapshot`], when the metrics are asked for. Downstream:
//! [`health`](crate::health).

use std::time::Duration;

use camshaft_common::prediction::{FailureClass, ModelRecord};
use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{
    CounterVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
};
use tracing::debug;

use crate::cpu_metrics::CpuCollector;
use crate::pipeline::outcome_counters::OutcomeCounts;
use crate::snapshot::EngineSnapshot;

/// The media type of [`exposition`]: Prometheus' text format.
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

const IMAGES: &str = "camshaft_images_total";
const FAILURES: &str = "camshaft_failures_total";
const IN_FLIGHT: &str = "camshaft_images_in_flight";
const PREFETCH: &str = "camshaft_prefetch";
const STAGE_SECONDS: &str = "camshaft_stage_seconds";
const STAGE_WAIT_SECONDS: &str = "camshaft_stage_wait_seconds";
const STAGE_CONCURRENCY: &str = "camshaft_stage_concurrency";
const MODEL_WAIT_SECONDS: &str = "camshaft_model_wait_seconds_total";
const BATCH_IMAGES: &str = "camshaft_batch_images";
const BATCH_LIMIT: &str = "camshaft_batch_limit";
const QUEUE_WAIT_SECONDS: &str = "camshaft_queue_wait_seconds";
const READ_BYTES: &str = "camshaft_read_bytes_total";
const WRITTEN_BYTES: &str = "camshaft_written_bytes_total";
const HELD_BYTES: &str = "camshaft_held_bytes";
const HELD_BYTES_LIMIT: &str = "camshaft_held_bytes_limit";
const READY: &str = "camshaft_ready";
const STORES_UNREACHABLE: &str = "camshaft_stores_unreachable";
const WORKER_INFO: &str = "camshaft_worker_info";

/// Upper limits of a histogram's buckets, each `factor` times the one before.
struct Buckets {
    first: f64,
    factor: f64,
    count: usize,
}

/// 1 ms to 65 s: from the reading of a header to a request that waits for a store.
const STAGE_BUCKETS: Buckets = Buckets { first: 0.001, factor: 2.0, count: 17 };
/// 0.25 s to 18 h: from a message that is taken at once to one that waits for nightly workers.
const QUEUE_BUCKETS: Buckets = Buckets { first: 0.25, factor: 4.0, count: 10 };
/// 1 to 1024 images: the largest batch that `--batch` takes.
const BATCH_BUCKETS: Buckets = Buckets { first: 1.0, factor: 2.0, count: 11 };

/// A kind of object that is written to OUT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WrittenObject {
    /// A prediction record.
    Prediction,
    /// An overlay.
    Overlay,
    /// A failure record.
    Failure,
}

impl WrittenObject {
    const ALL: [Self; 3] = [Self::Prediction, Self::Overlay, Self::Failure];

    fn label(self) -> &'static str {
        match self {
            Self::Prediction => "prediction",
            Self::Overlay => "overlay",
            Self::Failure => "failure",
        }
    }
}

/// What the model's thread waits for while it computes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelWait {
    /// A batch: decoding, the store or the queue sets the pace.
    Batch,
    /// Room behind it: drawing or writing sets the pace.
    Room,
}

impl ModelWait {
    const ALL: [Self; 2] = [Self::Batch, Self::Room];

    fn label(self) -> &'static str {
        match self {
            Self::Batch => "batch",
            Self::Room => "room",
        }
    }
}

/// Times and sizes since the worker started. Clones share their numbers.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    stage_seconds: HistogramVec,
    stage_wait_seconds: HistogramVec,
    stage_concurrency: IntGaugeVec,
    model_wait_seconds: CounterVec,
    batch_images: Histogram,
    queue_wait_seconds: Histogram,
    read_bytes: IntCounter,
    written_bytes: IntCounterVec,
    worker_info: IntGaugeVec,
    cpu: CpuCollector,
}

/// Takes the times of one stage.
#[derive(Clone, Debug)]
pub struct StageMetrics {
    seconds: Histogram,
    wait_seconds: Histogram,
}

impl StageMetrics {
    /// Notes that an item was done: how long it waited, for the stage or in it for its turn, and
    /// how long the stage worked on it.
    pub fn observe(&self, waited: Duration, worked: Duration) {
        self.wait_seconds.observe(waited.as_secs_f64());
        self.seconds.observe(worked.as_secs_f64());
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let stage = |name, help: &str| {
            HistogramVec::new(histogram(name, help, STAGE_BUCKETS), &["stage"]).expect(VALID)
        };
        let metrics = Self {
            registry: Registry::new(),
            stage_seconds: stage(
                STAGE_SECONDS,
                "Work of a stage on one image, or of the model on one batch",
            ),
            stage_wait_seconds: stage(
                STAGE_WAIT_SECONDS,
                "Time an image, or the model's batch, waited for a stage or in it for its turn",
            ),
            stage_concurrency: gauges(
                STAGE_CONCURRENCY,
                "Images, or batches, a stage works on at once",
                &["stage"],
            ),
            model_wait_seconds: CounterVec::new(
                Opts::new(MODEL_WAIT_SECONDS, "Time in which the model computed nothing"),
                &["waits_for"],
            )
            .expect(VALID),
            batch_images: Histogram::with_opts(histogram(
                BATCH_IMAGES,
                "Images in a batch",
                BATCH_BUCKETS,
            ))
            .expect(VALID),
            queue_wait_seconds: Histogram::with_opts(histogram(
                QUEUE_WAIT_SECONDS,
                "Time from a message's publication to its delivery",
                QUEUE_BUCKETS,
            ))
            .expect(VALID),
            read_bytes: IntCounter::new(READ_BYTES, "Bytes of image files read").expect(VALID),
            written_bytes: counters(WRITTEN_BYTES, "Bytes of objects written", &["kind"]),
            worker_info: gauges(
                WORKER_INFO,
                "What this worker is, always 1",
                &["version", "device", "kernel", "precision", "model"],
            ),
            cpu: CpuCollector::new(),
        };
        // They are shown as 0 from the start. Else the first increase would not count in a rate.
        for kind in WrittenObject::ALL {
            metrics.written_bytes.with_label_values(&[kind.label()]);
        }
        for wait in ModelWait::ALL {
            metrics.model_wait_seconds.with_label_values(&[wait.label()]);
        }
        metrics.register();
        metrics
    }
}

impl Metrics {
    fn register(&self) {
        let add = |collector: Box<dyn Collector>| {
            self.registry.register(collector).expect("every name is registered once");
        };
        add(Box::new(self.stage_seconds.clone()));
        add(Box::new(self.stage_wait_seconds.clone()));
        add(Box::new(self.stage_concurrency.clone()));
        add(Box::new(self.model_wait_seconds.clone()));
        add(Box::new(self.batch_images.clone()));
        add(Box::new(self.queue_wait_seconds.clone()));
        add(Box::new(self.read_bytes.clone()));
        add(Box::new(self.written_bytes.clone()));
        add(Box::new(self.worker_info.clone()));
        add(Box::new(self.cpu.clone()));
        #[cfg(target_os = "linux")]
        add(Box::new(crate::process_metrics::ProcessCollector::new()));
    }

    /// Starts to time a stage that works on `concurrency` items at once.
    #[must_use]
    pub fn stage(&self, name: &'static str, concurrency: usize) -> StageMetrics {
        self.show_concurrency(name, concurrency);
        StageMetrics {
            seconds: self.stage_seconds.with_label_values(&[name]),
            wait_seconds: self.stage_wait_seconds.with_label_values(&[name]),
        }
    }

    /// Shows that a stage works on `concurrency` items at once from now on.
    pub fn show_concurrency(&self, name: &'static str, concurrency: usize) {
        self.stage_concurrency.with_label_values(&[name]).set(whole(concurrency as u64));
    }

    /// Notes that the model's thread computed nothing for this long.
    pub fn count_model_wait(&self, wait: ModelWait, waited: Duration) {
        self.model_wait_seconds.with_label_values(&[wait.label()]).inc_by(waited.as_secs_f64());
    }

    /// Reads how long threads computed. A thread calls it before it ends, so that its time counts.
    pub fn read_cpu_times(&self) {
        self.cpu.read();
    }

    /// Logs what the cores' time went to, and what the model waited for.
    pub fn log_cpu_times(&self) {
        self.cpu.log();
        for wait in ModelWait::ALL {
            let waited = self.model_wait_seconds.with_label_values(&[wait.label()]).get();
            debug!(waits_for = wait.label(), seconds = waited, "the model computed nothing");
        }
    }

    /// Notes how long a message was in the queue.
    pub fn observe_queue_wait(&self, waited: Duration) {
        self.queue_wait_seconds.observe(waited.as_secs_f64());
    }

    /// Notes that the model starts with a batch of this size.
    pub fn observe_batch(&self, images: usize) {
        self.batch_images.observe(images as f64);
    }

    /// Notes that an image's file was read.
    pub fn count_read(&self, bytes: usize) {
        self.read_bytes.inc_by(bytes as u64);
    }

    /// Notes that an object was written.
    pub fn count_written(&self, kind: WrittenObject, bytes: usize) {
        self.written_bytes.with_label_values(&[kind.label()]).inc_by(bytes as u64);
    }

    /// Shows that these models are loaded, and no others.
    pub fn show_models<'m>(&self, models: impl IntoIterator<Item = &'m ModelRecord>) {
        self.worker_info.reset();
        for model in models {
            let ModelRecord { name, device, kernel, precision, .. } = model;
            let kernel = kernel.to_string();
            let labels = [env!("CARGO_PKG_VERSION"), device, &kernel, precision, name];
            self.worker_info.with_label_values(&labels).set(1);
        }
    }
}

/// Writes all metrics in Prometheus' text format. A worker that is still starting has no engine.
#[must_use]
pub fn exposition(engine: Option<(&Metrics, &EngineSnapshot)>, ready: bool) -> String {
    let mut families = gauge(READY, "1 while the worker can work", ready.into());
    if let Some((metrics, snapshot)) = engine {
        families.extend(of_snapshot(snapshot));
        families.extend(metrics.registry.gather());
    }
    TextEncoder::new().encode_to_string(&families).expect("numbers are written as text")
}

fn of_snapshot(snapshot: &EngineSnapshot) -> Vec<MetricFamily> {
    let counts = &snapshot.counts;
    let held = gauges(HELD_BYTES, "Bytes held by images on their way", &["kind"]);
    let limit = gauges(HELD_BYTES_LIMIT, "Most bytes held by images on their way", &["kind"]);
    for (kind, budget) in [("files", snapshot.files), ("pixels", snapshot.pixels)] {
        held.with_label_values(&[kind]).set(whole(budget.held_bytes));
        limit.with_label_values(&[kind]).set(whole(budget.limit_bytes));
    }
    [
        images(counts).collect(),
        failures(counts).collect(),
        gauge(IN_FLIGHT, "Images taken from the queue and not settled", counts.in_flight()),
        gauge(PREFETCH, "Most images taken and not settled", snapshot.prefetch.into()),
        gauge(BATCH_LIMIT, "Most images in a batch", snapshot.batch_limit as u64),
        gauge(
            STORES_UNREACHABLE,
            "Places in stores that don't answer and are waited for",
            snapshot.outages.len() as u64,
        ),
        held.collect(),
        limit.collect(),
    ]
    .concat()
}

fn images(counts: &OutcomeCounts) -> IntCounterVec {
    let images = counters(IMAGES, "Deliveries by what became of them", &["outcome"]);
    for (outcome, count) in [
        ("predicted", counts.predicted),
        ("already_done", counts.already_done),
        ("relabelled", counts.relabelled),
        ("renewed", counts.renewed),
        ("superseded", counts.superseded),
        ("failed", counts.failed_in_all()),
        ("retried", counts.retried),
        ("refused", counts.refused),
        ("dead_lettered", counts.dead),
        ("handed_back", counts.handed_back),
        ("unsettled", counts.unsettled),
    ] {
        images.with_label_values(&[outcome]).inc_by(count);
    }
    images
}

fn failures(counts: &OutcomeCounts) -> IntCounterVec {
    let failures = counters(FAILURES, "Images with a failure written", &["class"]);
    for class in FailureClass::ALL {
        let count = counts.failed.get(&class).copied().unwrap_or_default();
        failures.with_label_values(&[&class.to_string()]).inc_by(count);
    }
    failures
}

const VALID: &str = "names and labels are constants of the allowed form";

fn histogram(name: &str, help: &str, buckets: Buckets) -> HistogramOpts {
    let Buckets { first, factor, count } = buckets;
    let buckets = prometheus::exponential_buckets(first, factor, count);
    HistogramOpts::new(name, help).buckets(buckets.expect("buckets grow"))
}

fn counters(name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    IntCounterVec::new(Opts::new(name, help), labels).expect(VALID)
}

fn gauges(name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
    IntGaugeVec::new(Opts::new(name, help), labels).expect(VALID)
}

fn gauge(name: &str, help: &str, value: u64) -> Vec<MetricFamily> {
    let gauge = IntGauge::new(name, help).expect(VALID);
    gauge.set(whole(value));
    gauge.collect()
}

fn whole(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
