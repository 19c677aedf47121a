//! What an engine and a worker are started with: checked, complete, and without a command line.
//!
//! Upstream: [`arguments`](crate::arguments), which makes these from flags and variables.
//! Downstream: [`engine`](crate::engine) and [`service`](crate::service).

use std::net::SocketAddr;
use std::time::Duration;

use camshaft_common::model::ModelRequest;
use camshaft_common::secret::Secret;
use camshaft_decoding::ImageLimits;
use camshaft_model::{ComputeDevice, ComputeSettings, DeviceChoice, KernelChoice, Precision};
use camshaft_queue::RabbitMqOptions;
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
    /// Threads that compute it on a CPU.
    pub threads: usize,
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
    /// Threads for each kind of work: one for each core.
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

/// How long a batch's first image waits for further ones that are on their way. It is short beside
/// a batch's own time on a CPU, and long enough for a store's answers to arrive.
const BATCH_WAIT: Duration = Duration::from_millis(50);

/// The first batch on a CPU has at least this many images. With fewer, layers are too short to divide,
/// and a core reads their weights for too few images.
const CPU_BATCH: usize = 8;
/// On a CPU each thread takes up to this many images of a batch …
const CPU_IMAGES_A_THREAD: usize = 4;
/// … and all threads together up to this many. A larger batch would be no faster, and its inputs, and
/// images that wait for it, take memory.
const LARGEST_CPU_BATCH: usize = 64;
/// On a CPU images must be this many times as fast with twice the batch. That is little, since the
/// larger batch costs little there: the network needs memory for each thread, not for each image.
const MIN_CPU_SPEEDUP: f64 = 1.02;
/// The batch sizes that are tried on a GPU are from this one …
const FIRST_GPU_BATCH: usize = 16;
/// … to this one. Inputs of 256 images take 150 MB.
const LARGEST_GPU_BATCH: usize = 256;

/// Reads from a store at once at first, and as many writes. It answers in tens of milliseconds, so this
/// many keep the batches of a small CPU filled. A faster worker makes more.
const STORE_REQUESTS: usize = 8;
/// The most reads at once, and as many writes. At 40 ms an answer they feed 6,400 images a second. Each
/// takes a connection, and a process may open 1,024 files by default.
const MOST_STORE_REQUESTS: usize = 256;

/// This part of the held memory is for files: one of six. A file is a fraction of its pixels, so
/// a fifth of their memory keeps the decoders supplied.
const FILES_PART: u64 = 6;

impl ComputeConfig {
    /// How a model is computed whose batches have at most `largest_batch` images.
    #[must_use]
    pub fn settings(&self, largest_batch: usize) -> ComputeSettings {
        let Self { precision, kernel, .. } = *self;
        ComputeSettings { precision, kernel, largest_batch }
    }

    /// How many images the network takes at once on this device.
    #[must_use]
    pub fn batch_size(&self, device: &ComputeDevice) -> BatchSize {
        match self.batch {
            BatchChoice::Fixed(images) => BatchSize::fixed(images.into()),
            BatchChoice::Auto if device.is_cpu() => cpu_batch(self.threads),
            BatchChoice::Auto => BatchSize::searched(FIRST_GPU_BATCH, LARGEST_GPU_BATCH),
        }
    }
}

/// The batch size on a CPU. Its first size is a multiple of the threads, and so are those that come by
/// doubling: each thread gets as many images as the others, and none waits for another's last one. If
/// there is only one such size, there is nothing to search.
fn cpu_batch(threads: usize) -> BatchSize {
    let threads = threads.max(1);
    let first = CPU_BATCH.next_multiple_of(threads);
    let most = (CPU_IMAGES_A_THREAD * threads).min(LARGEST_CPU_BATCH);
    match 2 * first <= most {
        true => BatchSize::searched(first, most).if_faster(MIN_CPU_SPEEDUP),
        false => BatchSize::fixed(first),
    }
}

impl EngineConfig {
    /// How many unsettled deliveries the pipeline holds at most, on any device and any store.
    #[must_use]
    pub fn max_prefetch(&self) -> u16 {
        let batch = match self.compute.batch {
            BatchChoice::Fixed(images) => images.into(),
            BatchChoice::Auto => LARGEST_GPU_BATCH.max(cpu_batch(self.compute.threads).max()),
        };
        self.limits(batch).max_prefetch()
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
            most_requests: MOST_STORE_REQUESTS,
            file_bytes,
            pixel_bytes: self.held_bytes - file_bytes,
            image: self.image_limits,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_on_a_cpu_divides_evenly_among_its_threads() {
        for (threads, first, most) in [
            (1, 8, 8),
            (2, 8, 8),
            (3, 9, 9),
            (4, 8, 16),
            (6, 12, 24),
            (8, 8, 32),
            (12, 12, 48),
            (16, 16, 64),
            (32, 32, 64),
            (96, 96, 96),
        ] {
            let size = cpu_batch(threads);
            assert_eq!((size.first(), size.max()), (first, most), "{threads} threads");
            let sizes = std::iter::successors(Some(first), |size| Some(2 * size));
            for images in sizes.take_while(|&images| images <= most) {
                assert_eq!(images % threads, 0, "{images} images, {threads} threads");
            }
        }
    }
}
