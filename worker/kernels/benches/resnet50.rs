//! Measures ResNet-50 with random weights on each kernel that this machine has: images a second
//! in batches of 8, and milliseconds for one image, both on all cores.
//!
//! `cargo bench -p camshaft-kernels -- layers` measures each layer instead: its share of the time,
//! and its speed beside the peak speed of one core. `-- avx512` runs only that kernel.
#![expect(clippy::print_stdout, reason = "a benchmark prints what it measures")]

use std::error::Error;
use std::time::{Duration, Instant};

use camshaft_kernels::{
    ActivationStatistics, Backbone, BatchInput, BatchShape, BlockWeights, ConvolutionWeights,
    InputScale, Kernel, NetworkWeights, RangeRule,
};

const SIDE: usize = 224;
const BATCH: usize = 8;
/// 10⁹ multiplications plus additions of the backbone for one image.
const GFLOP: f64 = 8.17;
/// Each measurement is the best of this many.
const ROUNDS: usize = 12;

/// Different values: caches and prefetchers must not profit from equal ones.
fn noise(count: usize) -> Vec<f32> {
    (0..count).map(|i| (i.wrapping_mul(0x9e37_79b9) >> 8 & 0xffff) as f32 / 32768.0 - 1.0).collect()
}

fn best(mut run: impl FnMut()) -> Duration {
    run();
    let time = |()| {
        let start = Instant::now();
        run();
        start.elapsed()
    };
    std::iter::repeat_n((), ROUNDS).map(time).min().unwrap_or_default()
}

fn main() {
    let (weight, bias) = (noise(512 * 512 * 9), noise(2048));
    // Small, so that values stay in f32's range over 50 layers.
    let weight: Vec<f32> = weight.into_iter().map(|value| value * 0.03).collect();
    let convolution = |inputs: usize, outputs: usize, kernel: usize, stride| ConvolutionWeights {
        weight: &weight[..outputs * inputs * kernel * kernel],
        bias: &bias[..outputs],
        inputs,
        outputs,
        kernel,
        stride,
    };
    let mut inputs = 64;
    let stages = [(3, 64), (4, 128), (6, 256), (3, 512)].map(|(blocks, width): (usize, usize)| {
        let block = |number| {
            let stride = if number == 0 && width > 64 { 2 } else { 1 };
            let shortcut = (number == 0).then(|| convolution(inputs, 4 * width, 1, stride));
            let path = vec![
                convolution(inputs, width, 1, 1),
                convolution(width, width, 3, stride),
                convolution(width, 4 * width, 1, 1),
            ];
            inputs = 4 * width;
            BlockWeights { path, shortcut }
        };
        (0..blocks).map(block).collect()
    });
    let network = NetworkWeights { stem: convolution(3, 64, 7, 2), stages };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let input = noise(BATCH * 3 * SIDE * SIDE);
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let layers = arguments.iter().any(|argument| argument == "layers");
    let only = arguments.iter().find_map(|argument| argument.parse::<Kernel>().ok());
    if !layers {
        println!("{:12} {:>10} {:>12} {:>10}", "kernel", "images/s", "batch 1, ms", "GFLOP/s");
    }
    for kernel in Kernel::available().into_iter().filter(|kernel| only.is_none_or(|o| o == *kernel))
    {
        let backbone = match backbone(kernel, &network, &input) {
            Ok(backbone) => backbone,
            Err(error) => {
                println!("{kernel:12} {error}");
                continue;
            }
        };
        if layers {
            show_layers(&backbone, &input);
            continue;
        }
        let run = |n: usize| {
            let input = &input[..n * 3 * SIDE * SIDE];
            best(|| {
                let shape = BatchShape { images: n, height: SIDE, width: SIDE };
                std::hint::black_box(backbone.run(
                    BatchInput::Values(input),
                    shape,
                    [false, false, false, true],
                    threads,
                ));
            })
            .as_secs_f64()
        };
        let (many, one) = (BATCH as f64 / run(BATCH), run(1) * 1e3);
        println!("{kernel:12} {many:10.1} {one:12.1} {:10.0}", many * GFLOP);
    }
}

/// The network on a kernel; in 8 bits, calibrated on the first image.
fn backbone(
    kernel: Kernel,
    network: &NetworkWeights<'_>,
    input: &[f32],
) -> Result<Backbone, Box<dyn Error>> {
    if !kernel.is_int8() {
        return Ok(Backbone::new(kernel, network)?);
    }
    let exact = Kernel::available().into_iter().find(|kernel| !kernel.is_int8());
    let exact = Backbone::new(exact.ok_or("no kernel calibrates it")?, network)?;
    let shape = BatchShape { images: 1, height: SIDE, width: SIDE };
    let statistics = exact.statistics(BatchInput::Values(&input[..3 * SIDE * SIDE]), shape);
    let statistics = ActivationStatistics::of_images(&[statistics], RangeRule::Largest);
    // `noise` is from -1 to 1.
    let scale = InputScale { scale: 2.0 / 255.0, offset: -1.0 };
    Ok(Backbone::calibrated(kernel, network, &statistics, [scale; 3])?)
}

/// Prints each layer's best time of some passes over a batch on this thread.
fn show_layers(backbone: &Backbone, input: &[f32]) {
    let shape = BatchShape { images: BATCH, height: SIDE, width: SIDE };
    let input = BatchInput::Values(input);
    let mut best = backbone.profile(input, shape);
    for _ in 0..ROUNDS {
        let steps = backbone.profile(input, shape);
        for (best, step) in best.iter_mut().zip(steps) {
            best.time = best.time.min(step.time);
        }
    }
    let peak = backbone.kernel().peak_gflops();
    let total: Duration = best.iter().map(|step| step.time).sum();
    println!("\n{}: at most {peak:.0} GFLOP/s a core", backbone.kernel());
    println!("{:22} {:>10} {:>7} {:>9} {:>8}", "", "us/image", "share", "GFLOP/s", "of most");
    let line = |name: &str, flop: f64, time: Duration| {
        let seconds = time.as_secs_f64();
        let rate = flop / seconds / 1e9;
        println!(
            "{name:22} {:10.1} {:6.1}% {rate:9.0} {:7.1}%",
            seconds * 1e6 / BATCH as f64,
            100.0 * seconds / total.as_secs_f64(),
            100.0 * rate / peak,
        );
    };
    for step in &best {
        line(&step.name, step.flop, step.time);
    }
    line("all", best.iter().map(|step| step.flop).sum(), total);
}
