//! Measures the bundled model alone: forward pass and Grad-CAM of the top class, on random images.
//!
//! `cargo bench -p camshaft-tests --bench model -- [PRECISION] [BATCH] [KERNEL] [DEVICE]` prints one
//! line with images per second over five seconds, after a warm-up. The programs that Camshaft is
//! compared with do the same with `--model-only`. DEVICE is `cpu`, or with `--features cuda` `cuda`
//! or `cuda:N`.

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::error::Error;
use std::time::{Duration, Instant};

use camshaft_common::explain::ExplainOptions;
use camshaft_model::{DeviceChoice, ExplainRequest, KernelChoice, Model, ModelFiles, Precision};
use candle_core::{Device, Tensor};

const WARM_UP_BATCHES: usize = 5;
const TIME: Duration = Duration::from_secs(5);

fn main() -> Result<(), Box<dyn Error>> {
    // `cargo bench` passes options of its own.
    let mut arguments = std::env::args().skip(1).filter(|argument| !argument.starts_with("--"));
    let precision: Precision = arguments.next().map_or(Ok(Precision::Auto), |text| text.parse())?;
    let batch: usize = arguments.next().map_or(Ok(8), |text| text.parse())?;
    let kernel: KernelChoice =
        arguments.next().map_or(Ok(KernelChoice::Auto), |text| text.parse())?;
    let device: DeviceChoice =
        arguments.next().map_or(Ok(DeviceChoice::Cpu), |text| text.parse())?;

    let files = ModelFiles::bundled();
    let model = Model::load(&files, &device.open()?, precision, kernel)?;
    let rule = &files.config().input;
    let input = Tensor::rand(0f32, 1f32, (batch, 3, rule.height, rule.width), &Device::Cpu)?;
    let options = ExplainOptions::default();
    let requests = vec![ExplainRequest { options: &options, label: None }; batch];
    for _ in 0..WARM_UP_BATCHES {
        model.explain_batch(&input, &requests)?;
    }
    let (started, mut images) = (Instant::now(), 0);
    while started.elapsed() < TIME {
        model.explain_batch(&input, &requests)?;
        images += batch;
    }
    let rate = images as f64 / started.elapsed().as_secs_f64();
    let (precision, kernel) = (model.precision(), model.kernel());
    println!(
        "camshaft device={device} precision={precision} kernel={kernel} batch={batch} \
         images_per_second={rate:.1}"
    );
    Ok(())
}
