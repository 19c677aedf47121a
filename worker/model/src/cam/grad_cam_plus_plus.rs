//! Grad-CAM++: Chattopadhyay et al. 2018, <https://arxiv.org/abs/1710.11063>.
//!
//! Positive gradients count, each with a weight of its own (equation 19, with the powers of
//! the gradient for the higher derivatives, which is exact for the exponential of the logit).

use candle_core::Result;

use super::{Gradients, weighted_maps};
use camshaft_vision::heat_map::HeatMap;

/// Keeps a gradient of zero from dividing by it: pytorch-grad-cam's, whose maps others
/// compare with.
const EPSILON: f64 = 1e-6;

/// One map for each target.
///
/// # Errors
/// Where the device fails.
pub fn maps(layer: &Gradients) -> Result<Vec<HeatMap>> {
    let gradients = layer.everywhere()?;
    let (square, cube) = (gradients.sqr()?, (gradients.sqr()? * &gradients)?);
    let sums = layer.activations.sum_keepdim((2, 3))?;
    let below = ((&square * 2.0)? + cube.broadcast_mul(&sums)?)?;
    let shares = (&square / (below + EPSILON)?)?;
    // Where the gradient is zero so is its square, and the share with it.
    let weights = (gradients.relu()? * shares)?.sum((2, 3))?;
    weighted_maps(&layer.activations, &weights)
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};

    use super::*;

    #[test]
    fn by_hand() {
        // Sum 4. Gradient 1: 1 / (2 + 4) = 1/6; 2: 4 / (8 + 32) = 1/10; weight 1/6 + 2/10. The
        // negative gradient of the other channel counts for nothing.
        let activations = Tensor::new(&[[[[1f32, 3.0]], [[5.0, 5.0]]]], &Device::Cpu).unwrap();
        let gradients = Tensor::new(&[[[[1f32, 2.0]], [[-1.0, 0.0]]]], &Device::Cpu).unwrap();
        let map = maps(&Gradients::linear(activations, gradients)).unwrap().remove(0);
        let weight = 1.0 / 6.0 + 0.2;
        assert!((map.values[0] - weight).abs() < 1e-5, "{:?}", map.values);
        assert!((map.values[1] - 3.0 * weight).abs() < 1e-5, "{:?}", map.values);
    }
}
