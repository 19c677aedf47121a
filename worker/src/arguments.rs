//! Arguments of whatever runs the model: `camshaft-worker` and `camshaft audit`.

use std::time::Duration;

use candle_core::Device;
use clap::Args;

use crate::pipeline::batch_size::{BatchChoice, BatchSize};
use crate::pipeline::context::Limits;
use camshaft_decoding::ImageLimits;
use camshaft_model::{DeviceChoice, KernelChoice, Precision};

/// Where the model runs, and limits on images.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Engine")]
pub struct EngineArgs {
    /// Where the model runs: auto, cpu, cuda or cuda:N
    #[arg(long, env = "CAMSHAFT_DEVICE", default_value = "auto")]
    pub device: DeviceChoice,
    /// Number format of the network: f32, bf16 or f16; auto is bf16 on a CPU that is faster so
    /// (Intel's with AMX, AMD's since Zen 4), f32 elsewhere
    #[arg(long, env = "CAMSHAFT_PRECISION", default_value = "auto")]
    pub precision: Precision,
    /// What multiplies on the CPU: auto, candle, amx-bf16, amx-bf16x3, avx512-bf16, avx512, avx2
    /// or neon
    #[arg(long, env = "CAMSHAFT_KERNEL", default_value = "auto", hide = true)]
    pub kernel: KernelChoice,
    /// Images the network takes at once: a number, or auto for as many as the device is faster
    /// with
    #[arg(long, env = "CAMSHAFT_BATCH", default_value = "auto", value_name = "N")]
    pub batch: BatchChoice,
    /// An image file with more bytes fails as too-large
    #[arg(long, env = "CAMSHAFT_MAX_IMAGE_BYTES", default_value_t = ImageLimits::default().max_bytes, value_name = "BYTES")]
    pub max_image_bytes: u64,
    /// An image with more pixels fails as too-large
    #[arg(long, env = "CAMSHAFT_MAX_IMAGE_PIXELS", default_value_t = ImageLimits::default().max_pixels, value_name = "PIXELS")]
    pub max_image_pixels: u64,
    /// An image whose decoding takes longer fails as undecodable
    #[arg(long, env = "CAMSHAFT_MAX_DECODE_SECONDS", default_value_t = 60, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    pub max_decode_seconds: u64,
    /// Files, pixels and overlays held at once, the model aside
    #[arg(long, env = "CAMSHAFT_MAX_HELD_BYTES", default_value_t = HELD_BYTES, value_name = "BYTES")]
    pub max_held_bytes: u64,
}

/// How long a batch's first image waits for company: little beside a batch's own time on a
/// CPU, and enough for a store's answers to arrive.
const BATCH_WAIT: Duration = Duration::from_millis(50);

/// Larger ones are no faster: a core's caches hold the weights of a layer and little else.
const CPU_BATCH: usize = 8;
/// Where the search begins and where it ends at the latest. Inputs of 256 images take 150 MB.
const FIRST_GPU_BATCH: usize = 16;
const MOST_GPU_BATCH: usize = 256;

/// A store answers in tens of milliseconds; this many requests at once keep a batch filled.
const FETCHES: usize = 8;

/// Eight photographs of 24 megapixels, or a thousand small ones, and their files.
const HELD_BYTES: u64 = 704 * 1024 * 1024;

/// A file is a fraction of its pixels; a fifth of their share keeps the decoders supplied.
const FILES_SHARE: u64 = 6;

impl EngineArgs {
    /// How many images the network takes at once on this device.
    #[must_use]
    pub fn batch_size(&self, device: &Device) -> BatchSize {
        match self.batch {
            BatchChoice::Fixed(images) => BatchSize::fixed(images.into()),
            BatchChoice::Auto if device.is_cpu() => BatchSize::fixed(CPU_BATCH),
            BatchChoice::Auto => BatchSize::searched(FIRST_GPU_BATCH, MOST_GPU_BATCH),
        }
    }

    /// Deliveries the pipeline holds at once, whatever the device.
    #[must_use]
    pub fn most_prefetch(&self, cores: usize) -> u16 {
        let batch = match self.batch {
            BatchChoice::Fixed(images) => images.into(),
            BatchChoice::Auto => MOST_GPU_BATCH,
        };
        self.limits(cores, batch).prefetch()
    }

    /// What each stage does at once on a machine with so many cores, with batches of at most so
    /// many images.
    #[must_use]
    pub fn limits(&self, cores: usize, batch: usize) -> Limits {
        Limits {
            fetches: FETCHES,
            cores: cores.max(1),
            batch,
            batch_wait: BATCH_WAIT,
            stores: FETCHES,
            file_bytes: self.max_held_bytes / FILES_SHARE,
            pixel_bytes: self.max_held_bytes - self.max_held_bytes / FILES_SHARE,
            decode_time: Duration::from_secs(self.max_decode_seconds),
            image: ImageLimits {
                max_bytes: self.max_image_bytes,
                max_pixels: self.max_image_pixels,
                ..ImageLimits::default()
            },
        }
    }
}
