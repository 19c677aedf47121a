//! Every kernel against a plain implementation.

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub(crate) mod amx_emulator;
mod int8;
mod networks;
mod reference;
mod single;

use crate::Kernel;

/// Runs `test` on each kernel that this machine has and that takes any weights, and prints those that it
/// lacks.
fn each_kernel(test: impl FnMut(Kernel)) {
    each(|kernel| !kernel.is_int8(), test);
}

/// The same for kernels in 8 bits, which need a calibration.
fn each_int8_kernel(test: impl FnMut(Kernel)) {
    each(Kernel::is_int8, test);
}

fn each(wanted: impl Fn(Kernel) -> bool, mut test: impl FnMut(Kernel)) {
    for kernel in Kernel::ALL.into_iter().filter(|kernel| wanted(*kernel)) {
        if kernel.is_available() {
            test(kernel);
        } else {
            println!("not tested here: {kernel}");
        }
    }
}

/// Fails if a value is off by more than `tolerance`, relative to the largest value.
fn compare(kernel: Kernel, what: &str, values: &[f32], expected: &[f64], tolerance: f64) {
    assert_eq!(values.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(0.0, |a: f64, b| a.max(b.abs()));
    let (mut worst, mut dot, mut a, mut b) = (0.0, 0.0, 0.0, 0.0);
    for (&value, &expected) in values.iter().zip(expected) {
        let value = f64::from(value);
        worst = f64::max(worst, (value - expected).abs());
        assert!(value.is_finite(), "{kernel}, {what}");
        (dot, a, b) = (dot + value * expected, a + value * value, b + expected * expected);
    }
    let (worst, cosine) = (worst / largest, dot / (a * b).sqrt());
    println!("{kernel}, {what}: error {worst:.1e} of the largest value, cosine {cosine:.7}");
    assert!(worst <= tolerance, "{kernel}, {what}: {worst:e}");
    assert!(cosine >= 0.999, "{kernel}, {what}: {cosine}");
}
