//! Measures a model alone: forward pass and maps of the top class, on random images.
//!
//! `cargo bench -p camshaft-tests --bench model -- [PRECISION] [BATCH] [KERNEL] [DEVICE] [MODEL]` prints
//! one line with images per second over five seconds, after a warm-up. The programs that Camshaft is
//! compared with do the same with `--model-only`. DEVICE is `cpu`, or with `--features cuda` `cuda`
//! or `cuda:N`. MODEL is a folder with `model.safetensors` and `config.json`; without it the bundled
//! model is measured, unless the bench was built with `--no-default-features`.
//!
//! With BATCH `-` the model is loaded once. Then each line of standard input asks for a measurement,
//! `BATCH SECONDS [METHOD LAYER]`, and is answered by one line. `tests/gpu/` measures so, in turn with
//! another program that is loaded already.

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::error::Error;
use std::fs;
use std::path::Path;
use std::str::FromStr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use camshaft_common::explain::ExplainOptions;
use camshaft_model::{DeviceChoice, ExplainRequest, KernelChoice, Model, ModelFiles, Precision};
use candle_core::{Device, Tensor};

const WARM_UP_BATCHES: usize = 5;
const TIME: Duration = Duration::from_secs(5);

/// What is measured, and for how long.
struct Measurement {
    batch: usize,
    time: Duration,
    options: ExplainOptions,
}

impl FromStr for Measurement {
    type Err = Box<dyn Error>;

    /// Reads `BATCH SECONDS [METHOD LAYER]`.
    fn from_str(line: &str) -> Result<Self, Self::Err> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (batch, seconds, explanation) = match *words.as_slice() {
            [batch, seconds] => (batch, seconds, None),
            [batch, seconds, method, layer] => (batch, seconds, Some((method, layer))),
            _ => return Err(format!("{line:?} is not BATCH SECONDS [METHOD LAYER]").into()),
        };
        let options = match explanation {
            None => ExplainOptions::default(),
            Some((method, layer)) => ExplainOptions {
                method: method.parse()?,
                layer: layer.parse()?,
                ..ExplainOptions::default()
            },
        };
        let time = Duration::try_from_secs_f64(seconds.parse()?)?;
        Ok(Self { batch: batch.parse()?, time, options })
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    // `cargo bench` passes options of its own.
    let mut arguments = std::env::args().skip(1).filter(|argument| !argument.starts_with("--"));
    let precision: Precision = arguments.next().map_or(Ok(Precision::Auto), |text| text.parse())?;
    let batch = arguments.next().unwrap_or_else(|| "8".to_owned());
    let kernel: KernelChoice =
        arguments.next().map_or(Ok(KernelChoice::Auto), |text| text.parse())?;
    let device: DeviceChoice =
        arguments.next().map_or(Ok(DeviceChoice::Cpu), |text| text.parse())?;
    let files = match arguments.next() {
        Some(folder) => read_model(&folder)?,
        None => bundled().ok_or("this build has no bundled model: name a folder")?,
    };
    let model = Model::load(&files, &device.open()?, precision, kernel)?;
    if batch != "-" {
        let options = ExplainOptions::default();
        let rate = rate(&model, &Measurement { batch: batch.parse()?, time: TIME, options })?;
        print_rate(&model, device, &batch, rate);
        return Ok(());
    }
    for line in std::io::stdin().lines() {
        let line = line?;
        // A batch that does not fit into the device's memory must not end the others' measurements.
        match line.parse::<Measurement>().and_then(|measurement| rate(&model, &measurement)) {
            Ok(rate) => print_rate(&model, device, line.trim(), rate),
            Err(error) => println!("failed: {error}"),
        }
    }
    Ok(())
}

fn print_rate(model: &Model, device: DeviceChoice, batch: &str, rate: f64) {
    let (precision, kernel) = (model.precision(), model.kernel());
    println!(
        "camshaft device={device} precision={precision} kernel={kernel} batch={batch} \
         images_per_second={rate:.1}"
    );
}

/// Images per second.
fn rate(model: &Model, measurement: &Measurement) -> Result<f64, Box<dyn Error>> {
    let &Measurement { batch, time, ref options } = measurement;
    let rule = &model.config().input;
    let input = Tensor::rand(0f32, 1f32, (batch, 3, rule.height, rule.width), &Device::Cpu)?;
    let requests = vec![ExplainRequest { options, label: None }; batch];
    for _ in 0..WARM_UP_BATCHES {
        model.explain_batch(&input, &requests)?;
    }
    let (started, mut images) = (Instant::now(), 0);
    while started.elapsed() < time {
        model.explain_batch(&input, &requests)?;
        images += batch;
    }
    Ok(images as f64 / started.elapsed().as_secs_f64())
}

fn read_model(folder: &str) -> Result<ModelFiles, Box<dyn Error>> {
    let weights = Bytes::from(fs::read(Path::new(folder).join("model.safetensors"))?);
    let config = fs::read(Path::new(folder).join("config.json"))?;
    Ok(ModelFiles::from_bytes(folder.parse()?, weights, &config)?)
}

#[cfg(feature = "bundled-model")]
fn bundled() -> Option<ModelFiles> {
    Some(ModelFiles::bundled())
}

#[cfg(not(feature = "bundled-model"))]
fn bundled() -> Option<ModelFiles> {
    None
}
