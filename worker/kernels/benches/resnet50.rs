//! ResNet-50 on random weights, with each kernel that this machine has: images a second at
//! batch 8 on all cores and milliseconds for one image on one.
#![expect(clippy::print_stdout, reason = "a bench says what it measures")]

use std::time::{Duration, Instant};

use camshaft_kernels::{Backbone, BlockWeights, ConvolutionWeights, Kernel, NetworkWeights};

const SIDE: usize = 224;
const BATCH: usize = 8;
/// Multiplications and additions of the backbone for one image.
const GFLOP: f64 = 8.17;
/// Each measurement is the best of so many.
const ROUNDS: usize = 12;

/// Zeros run as fast as anything, but a network's worth of different values is fairer.
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
    // Small enough that 50 layers stay within f32.
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
    println!("{:12} {:>10} {:>12} {:>10}", "kernel", "images/s", "batch 1, ms", "GFLOP/s");
    for kernel in Kernel::available() {
        let backbone = match Backbone::new(kernel, &network) {
            Ok(backbone) => backbone,
            Err(error) => {
                println!("{kernel:12} {error}");
                continue;
            }
        };
        let run = |n: usize| {
            let input = &input[..n * 3 * SIDE * SIDE];
            best(|| {
                let shape = (n, SIDE, SIDE);
                std::hint::black_box(backbone.run(
                    input,
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
