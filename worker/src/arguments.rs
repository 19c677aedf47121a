//! Command line arguments of the programs that run an engine: `camshaft-worker` and
//! `camshaft audit`. They are resolved once, into a [`config`](crate::config) without clap.

use std::net::SocketAddr;
use std::time::Duration;

use camshaft_arguments::{BrokerArgs, LogArgs, ModelArgs, size};
use camshaft_decoding::ImageLimits;
use camshaft_model::{DeviceChoice, KernelChoice, Precision};
use camshaft_queue::RabbitMqOptions;
use clap::{Args, Parser};

use crate::config::{ComputeConfig, EngineConfig, EngineSettings, ServiceConfig};
use crate::cores;
use crate::pipeline::allowed_places::{AllowedPlace, AllowedPlaces};
use crate::pipeline::batch_size::BatchChoice;
use crate::pipeline::outage::OutagePolicy;

/// How the network runs, and how large images may be.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Engine")]
pub struct EngineArgs {
    /// Where the model runs: auto, cpu, cuda or cuda:N
    #[arg(long, env = "CAMSHAFT_DEVICE", default_value = "auto")]
    pub device: DeviceChoice,
    /// Number format of the network: f32 or bf16, on a GPU also f16 or tf32, and on a CPU int8, which
    /// is the fastest and has to agree with f32 on a sample of the images: see docs/cpu.md. auto is
    /// f16 on a GPU, bf16 on a CPU with fast bf16 instructions (Intel's with AMX, AMD's since Zen 4),
    /// and f32 on all others
    #[arg(long, env = "CAMSHAFT_PRECISION", default_value = "auto")]
    pub precision: Precision,
    /// What multiplies on a CPU: auto, candle, amx-bf16, amx-bf16x3, avx512-bf16, avx512, avx2
    /// or neon, and for int8 amx-int8, avx512-vnni, avx-vnni, neon-i8mm, neon-dot or portable-int8
    #[arg(long, env = "CAMSHAFT_KERNEL", default_value = "auto", hide = true)]
    pub kernel: KernelChoice,
    /// Images that the network takes at once: a number, or auto for the largest batch that still
    /// speeds up the device
    #[arg(long, env = "CAMSHAFT_BATCH", default_value = "auto", value_name = "N")]
    pub batch: BatchChoice,
    /// An image file with more bytes fails as too-large: a number, or with a unit as 10MB or 64MiB
    #[arg(long, env = "CAMSHAFT_MAX_IMAGE_BYTES", default_value = "64MiB", value_name = "BYTES", value_parser = size::bytes)]
    pub max_image_bytes: u64,
    /// An image with more pixels fails as too-large: a number, or with a unit as 100M
    #[arg(long, env = "CAMSHAFT_MAX_IMAGE_PIXELS", default_value = "100M", value_name = "PIXELS", value_parser = size::count)]
    pub max_image_pixels: u64,
    /// An image whose decoding takes more processor time than this, or twice as long, fails as
    /// undecodable
    #[arg(long, env = "CAMSHAFT_MAX_DECODE_SECONDS", default_value_t = 60, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    pub max_decode_seconds: u64,
    /// Memory for the files, pixels and overlays of all images in work. An image that needs more is
    /// not refused: it waits until it is the only one, and then takes what it needs. The model's own
    /// memory comes on top
    // Eight photographs of 24 megapixels, or a thousand small ones, with their files.
    #[arg(long, env = "CAMSHAFT_MAX_HELD_BYTES", default_value = "704MiB", value_name = "BYTES", value_parser = size::bytes)]
    pub max_held_bytes: u64,
}

impl EngineArgs {
    /// The configuration of an engine with these arguments, on this machine.
    #[must_use]
    pub fn resolve(self, settings: EngineSettings) -> EngineConfig {
        let Self { device, precision, kernel, batch, .. } = self;
        let threads = cores::network_threads();
        EngineConfig {
            compute: ComputeConfig { device, precision, kernel, batch, threads },
            image_limits: ImageLimits {
                max_bytes: self.max_image_bytes,
                max_pixels: self.max_image_pixels,
                max_time: Duration::from_secs(self.max_decode_seconds),
                ..ImageLimits::default()
            },
            held_bytes: self.max_held_bytes,
            cores: threads,
            settings,
        }
    }
}

/// A worker waits for a store for this part of the broker's consumer_timeout: one of three. The
/// model may take half of it.
const OUTAGE_PART: u32 = 3;

const EXAMPLES: &str = "\
Examples:
  export CAMSHAFT_BROKER=amqp://user:password@rabbitmq:5672/%2f
  camshaft-worker                              until SIGTERM
  camshaft-worker --exit-when-idle 60          or until the work is done
  camshaft-worker --allow s3://data --health 0.0.0.0:8080";

/// Predicts and explains images from a RabbitMQ queue until it is told to stop
#[derive(Parser, Debug)]
#[command(name = "camshaft-worker", version, after_help = EXAMPLES)]
pub struct ServiceArgs {
    #[command(flatten)]
    broker: BrokerArgs,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    engine: EngineArgs,
    /// Refuse jobs that read, write or load a model elsewhere. Items are folders and URLs, which
    /// allow everything below them, and hf:OWNER/NAME or hf:* for models on the Hugging Face Hub.
    /// Without this option jobs may name any place
    #[arg(long, env = "CAMSHAFT_ALLOW", value_name = "PLACE,…", value_delimiter = ',')]
    allow: Vec<AllowedPlace>,
    /// A job that this worker may not or can't do is left to other workers: its place or model is not
    /// allowed or not there, or the store refuses the credentials. Once all workers have refused it
    /// for this many seconds, it becomes a dead letter; with 0 at once
    #[arg(long, env = "CAMSHAFT_REFUSAL_LIMIT", value_name = "SECONDS", default_value_t = 600)]
    refusal_limit: u64,
    /// End once the queue was empty, and nothing was in work here, for this many seconds
    #[arg(long, env = "CAMSHAFT_EXIT_WHEN_IDLE", value_name = "SECONDS")]
    exit_when_idle: Option<u64>,
    /// After SIGTERM or SIGINT, finish what is in work for at most this many seconds. The rest
    /// goes back to the queue
    #[arg(long, env = "CAMSHAFT_DRAIN_TIMEOUT", value_name = "SECONDS", default_value_t = 25)]
    drain_timeout: u64,
    /// The broker's consumer_timeout. A worker holds at most the images that it does in half of this
    /// time, and an image whose maps take longer than that fails as explain-failed
    #[arg(long, env = "CAMSHAFT_CONSUMER_TIMEOUT", value_name = "SECONDS", default_value_t = 1800, value_parser = clap::value_parser!(u64).range(1..))]
    consumer_timeout: u64,
    /// Answer GET /healthz, /readyz and /metrics at this address, such as 0.0.0.0:8080
    #[arg(long, env = "CAMSHAFT_HEALTH", value_name = "ADDRESS")]
    health: Option<SocketAddr>,
    /// Ask the worker at --health whether it is alive, and end: with status 0 if it is, else 1
    #[arg(long, requires = "health")]
    check_health: bool,
    /// This worker's name in results
    #[arg(long, env = "CAMSHAFT_WORKER_NAME", value_name = "NAME")]
    worker_name: Option<String>,
    #[command(flatten)]
    log: LogArgs,
}

impl ServiceArgs {
    /// What is logged, and how.
    #[must_use]
    pub fn log(&self) -> &LogArgs {
        &self.log
    }

    /// The worker to check, if the program was started only for that.
    #[must_use]
    pub fn worker_to_check(&self) -> Option<SocketAddr> {
        self.health.filter(|_| self.check_health)
    }

    /// The configuration of a worker with these arguments, on this machine.
    #[must_use]
    pub fn resolve(self) -> ServiceConfig {
        let worker_name = self.worker_name.unwrap_or_else(default_worker_name);
        let queue = RabbitMqOptions {
            name: self.broker.queue.queue,
            delays: self.broker.queue.retry_delays,
            tls: self.broker.tls.into(),
            connection_name: format!("camshaft-worker {worker_name}"),
            // A worker may be started before its broker, so it waits for it without a limit.
            connect_limit: None,
            ..RabbitMqOptions::default()
        };
        let consumer_timeout = Duration::from_secs(self.consumer_timeout);
        let settings = EngineSettings {
            pinned: self.model.model.is_some(),
            worker_name,
            outage_policy: OutagePolicy::WORKER.within(consumer_timeout / OUTAGE_PART),
            consumer_timeout: Some(consumer_timeout),
            stop_at_lasting_error: None,
            allowed_places: AllowedPlaces::only(self.allow),
            refusal_limit: Duration::from_secs(self.refusal_limit),
        };
        ServiceConfig {
            broker: self.broker.broker,
            queue,
            model: self.model.resolve(),
            engine: self.engine.resolve(settings),
            exit_when_idle: self.exit_when_idle.map(Duration::from_secs),
            drain_timeout: Duration::from_secs(self.drain_timeout),
            health: self.health,
        }
    }
}

/// `host-pid`: this is how people look for a worker.
fn default_worker_name() -> String {
    let host = std::fs::read_to_string("/etc/hostname").unwrap_or_default();
    let host = match host.trim() {
        "" => "worker",
        host => host,
    };
    format!("{host}-{}", std::process::id())
}
