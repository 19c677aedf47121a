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
use camshaft_model::{
    CalibrationImages, CalibrationProgress, ComputeSettings, DeviceChoice, ExplainRequest,
    KernelChoice, Model, ModelFiles, Precision, StartedBatch, calibrate,
};
use camshaft_vision::input::InputRule;

const WARM_UP_BATCHES: usize = 5;
/// A GPU chooses how it computes between the first batches of a size.
const GPU_WARM_UP: Duration = Duration::from_secs(4);
/// With BATCH `-`, a GPU has memory for batches of this size.
const LARGEST_BATCH: usize = 256;
const TIME: Duration = Duration::from_secs(5);

/// What is measured, and for how long.
struct Measurement {
    batch: usize,
    /// How long a GPU is warmed up, at least.
    warm_up: Duration,
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
        // Whoever measures in turn warms up by a measurement that it throws away.
        let warm_up = Duration::ZERO;
        Ok(Self { batch: batch.parse()?, warm_up, time, options })
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
    let largest_batch = batch.parse().unwrap_or(LARGEST_BATCH);
    let compute = ComputeSettings { precision, kernel, largest_batch };
    let files = if precision == Precision::Int8 { calibrated(files)? } else { files };
    let model = Model::load(&files, &device.open()?, compute)?;
    if batch != "-" {
        let options = ExplainOptions::default();
        let (warm_up, time) = (GPU_WARM_UP, TIME);
        let measurement = Measurement { batch: batch.parse()?, warm_up, time, options };
        let rate = rate(&model, &measurement)?;
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

/// The model with scales for 8 bits. Which ones makes no difference to its speed.
fn calibrated(files: ModelFiles) -> Result<ModelFiles, Box<dyn Error>> {
    let images = [noise_pixels(&files.config().input, 1)];
    let images = CalibrationImages { calibrating: &images, compared: &images };
    let calibration = calibrate(&files, images, &CalibrationProgress::default())?;
    Ok(files.with_calibration(calibration))
}

/// Pixels of a batch of random images.
fn noise_pixels(rule: &InputRule, batch: usize) -> Vec<u8> {
    let values = 0..batch * rule.height * rule.width * 3;
    values.map(|at| ((at * 2_654_435_761) >> 13) as u8).collect()
}

fn print_rate(model: &Model, device: DeviceChoice, batch: &str, rate: f64) {
    let (precision, kernel) = (model.precision(), model.kernel());
    println!(
        "camshaft device={device} precision={precision} kernel={kernel} batch={batch} \
         images_per_second={rate:.1}"
    );
}

/// Images per second. As in the pipeline, a GPU gets the next batch before the last one is read back.
fn rate(model: &Model, measurement: &Measurement) -> Result<f64, Box<dyn Error>> {
    let &Measurement { batch, warm_up, time, ref options } = measurement;
    let rule = &model.config().input;
    let pixels = noise_pixels(rule, batch);
    let requests = vec![ExplainRequest { options, label: None }; batch];
    let begin = || model.begin_batch(&pixels, &requests);
    let finish = |started: StartedBatch| -> Result<(), Box<dyn Error>> {
        for result in model.finish_batch(started, &pixels, &requests, &|| true)? {
            result?;
        }
        Ok(())
    };
    let overlaps = model.batches_at_once() > 1;
    let (begun, mut batches) = (Instant::now(), 0);
    while batches < WARM_UP_BATCHES || (overlaps && begun.elapsed() < warm_up) {
        finish(begin()?)?;
        batches += 1;
    }
    let (begun, mut images) = (Instant::now(), 0);
    let mut running = overlaps.then(begin).transpose()?;
    while begun.elapsed() < time {
        let next = begin()?;
        match running.take() {
            Some(earlier) => {
                finish(earlier)?;
                running = Some(next);
            }
            None => finish(next)?,
        }
        images += batch;
    }
    let rate = images as f64 / begun.elapsed().as_secs_f64();
    running.map(finish).transpose()?;
    Ok(rate)
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
