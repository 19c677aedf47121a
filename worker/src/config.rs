//! What an engine and a worker are started with: checked, complete, and without a command line.
//!
//! Upstream: [`arguments`](crate::arguments), which makes these from flags and variables.
//! Downstream: [`engine`](crate::engine) and [`service`](crate::service).

use std::net::SocketAddr;
use std::time::Duration;

use camshaft_common::model::ModelRequest;
use camshaft_common::secret::Secret;
use camshaft_decoding::ImageLimits;
use camshaft_model::{DeviceChoice, KernelChoice, Precision};
use camshaft_queue::RabbitMqOptions;
use candle_core::Device;
use tokio_util::sync::CancellationToken;

use crate::pipeline::allowed_places::AllowedPlaces;
use crate::pipeline::batch_size::{BatchChoice, BatchSize};
use crate::pipeline::limits::PipelineLimits;
use crate::pipeline::outage::OutagePolicy;

/// How the network runs.
#[derive(Clone, Debug)]
pub struct ComputeConfig {
    /// The device it runs on.
    pub device: DeviceChoice,
    /// Its number format.
    pub precision: Precision,
    /// What multiplies on a CPU.
    pub kernel: KernelChoice,
    /// How many images it takes at once.
    pub batch: BatchChoice,
}

/// What an engine is started with.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// How the network runs.
    pub compute: ComputeConfig,
    /// The size that one image may have, and how long its decoding may take.
    pub image_limits: ImageLimits,
    /// Memory for files, pixels and overlays together. The model's own is not in it.
    pub held_bytes: u64,
    /// Cores of this machine.
    pub cores: usize,
    /// What the program decides.
    pub settings: EngineSettings,
}

/// What the program that runs an engine decides, and no flag of the engine does.
#[derive(Clone, Debug)]
pub struct EngineSettings {
    /// True if only the first model is used. Jobs for other models are refused.
    pub pinned: bool,
    /// The worker's name in results.
    pub worker_name: String,
    /// How long requests to stores are retried.
    pub outage_policy: OutagePolicy,
    /// How long the queue lets a worker hold a message: its `consumer_timeout`. `None` without a
    /// broker.
    pub consumer_timeout: Option<Duration>,
    /// Cancelled at the first error that every further image would meet.
    pub stop_at_lasting_error: Option<CancellationToken>,
    /// The places that jobs may name. Jobs that name others are refused.
    pub allowed_places: AllowedPlaces,
    /// How long a job may be refused by every worker, before it becomes a dead letter.
    pub refusal_limit: Duration,
}

/// What a worker is started with.
#[derive(Clone, Debug)]
pub struct ServiceConfig {
    /// The broker's URL, which may hold a password.
    pub broker: Secret,
    /// The queues, their delays and TLS.
    pub queue: RabbitMqOptions,
    /// The only model to use; without one each job's own model is loaded.
    pub model: Option<ModelRequest>,
    /// The engine.
    pub engine: EngineConfig,
    /// End once the queue was empty, and nothing was in work here, for this long.
    pub exit_when_idle: Option<Duration>,
    /// After a signal, finish what is in work for at most this long.
    pub drain_timeout: Duration,
    /// Answer health checks at this address.
    pub health: Option<SocketAddr>,
}

/// How long a batch's first image waits for further ones. It is short beside a batch's own time
/// on a CPU, and long enough for a store's answers to arrive.
const BATCH_WAIT: Duration = Duration::from_millis(50);

/// Larger batches are no faster on a CPU: a core's caches hold the weights of a layer and little
/// else.
const CPU_BATCH: usize = 8;
/// The batch sizes that are tried on a GPU are from this one …
const FIRST_GPU_BATCH: usize = 16;
/// … to this one. Inputs of 256 images take 150 MB.
const LARGEST_GPU_BATCH: usize = 256;

/// Requests to a store at once. It answers in tens of milliseconds, so this many keep a batch
/// filled.
const STORE_REQUESTS: usize = 8;

/// This part of the held memory is for files: one of six. A file is a fraction of its pixels, so
/// a fifth of their memory keeps the decoders supplied.
const FILES_PART: u64 = 6;

impl ComputeConfig {
    /// How many images the network takes at once on this device.
    #[must_use]
    pub fn batch_size(&self, device: &Device) -> BatchSize {
        match self.batch {
            BatchChoice::Fixed(images) => BatchSize::fixed(images.into()),
            BatchChoice::Auto if device.is_cpu() => BatchSize::fixed(CPU_BATCH),
            BatchChoice::Auto => BatchSize::searched(FIRST_GPU_BATCH, LARGEST_GPU_BATCH),
        }
    }
}

impl EngineConfig {
    /// How many unsettled deliveries the pipeline holds at most, on any device.
    #[must_use]
    pub fn max_prefetch(&self) -> u16 {
        let batch = match self.compute.batch {
            BatchChoice::Fixed(images) => images.into(),
            BatchChoice::Auto => LARGEST_GPU_BATCH,
        };
        self.limits(batch).prefetch()
    }

    /// How many images each stage works on at once, with batches of up to `batch` images.
    #[must_use]
    pub fn limits(&self, batch: usize) -> PipelineLimits {
        let file_bytes = self.held_bytes / FILES_PART;
        PipelineLimits {
            fetches: STORE_REQUESTS,
            cores: self.cores.max(1),
            batch,
            batch_wait: BATCH_WAIT,
            stores: STORE_REQUESTS,
            file_bytes,
            pixel_bytes: self.held_bytes - file_bytes,
            image: self.image_limits,
        }
    }
}
