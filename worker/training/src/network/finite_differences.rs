//! Comparing gradients with finite differences, for the tests of every layer.

use candle_core::Tensor;

use super::tensor_values;

/// Asserts that `gradient` is the gradient of `(compute(at) * factors).sum()` with respect to `at`:
/// equal to central differences along every element.
pub(crate) fn assert_gradient(
    at: &Tensor,
    compute: impl Fn(&Tensor) -> Tensor,
    factors: &Tensor,
    gradient: &Tensor,
) {
    const STEP: f32 = 1e-2;
    assert_eq!(at.dims(), gradient.dims());
    let factors = tensor_values::copy(factors).unwrap();
    let sum = |at: &Tensor| -> f64 {
        let output = tensor_values::copy(&compute(at)).unwrap();
        assert_eq!(output.len(), factors.len());
        output.iter().zip(&factors).map(|(&y, &f)| f64::from(y) * f64::from(f)).sum()
    };
    let (start, gradient) =
        (tensor_values::copy(at).unwrap(), tensor_values::copy(gradient).unwrap());
    let scale = gradient.iter().fold(0f32, |largest, value| largest.max(value.abs()));
    assert!(scale > 0.0, "the gradient is zero everywhere");
    for index in 0..start.len() {
        let moved = |by: f32| {
            let mut moved = start.clone();
            moved[index] += by;
            sum(&Tensor::from_vec(moved, at.dims(), at.device()).unwrap())
        };
        let slope = (moved(STEP) - moved(-STEP)) / f64::from(2.0 * STEP);
        let difference = (slope - f64::from(gradient[index])).abs();
        assert!(
            difference <= 5e-3 * f64::from(scale),
            "at {index}: the slope is {slope}, the gradient says {}",
            gradient[index]
        );
    }
}
