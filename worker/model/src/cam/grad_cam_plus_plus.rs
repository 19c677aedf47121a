//! Grad-CAM++: Chattopadhyay et al. 2018, <https://arxiv.org/abs/1710.11063>.
//!
//! Only positive gradients count, each with a weight of its own (equation 19). Powers of the
//! gradient stand for the higher derivatives, which is exact for the exponential of the logit.

use camshaft_vision::heat_map::HeatMap;
use candle_core::Result;

use super::gradients::Gradients;
use super::weighted_maps::weighted_maps;

/// Prevents a division by zero if a gradient is zero. The value is pytorch-grad-cam's.
const EPSILON: f64 = 1e-6;

/// One map for each target.
///
/// # Errors
/// If the device fails.
pub fn maps(layer: &Gradients) -> Result<Vec<HeatMap>> {
    let gradients = layer.everywhere()?;
    let (square, cube) = (gradients.sqr()?, (gradients.sqr()? * &gradients)?);
    let sums = layer.activations.sum_keepdim((2, 3))?;
    let below = ((&square * 2.0)? + cube.broadcast_mul(&sums)?)?;
    let shares = (&square / (below + EPSILON)?)?;
    // If the gradient is zero, so are its square and the share.
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
        // negative gradient of the other channel doesn't count.
        let activations = Tensor::new(&[[[[1f32, 3.0]], [[5.0, 5.0]]]], &Device::Cpu).unwrap();
        let gradients = Tensor::new(&[[[[1f32, 2.0]], [[-1.0, 0.0]]]], &Device::Cpu).unwrap();
        let map = maps(&Gradients::linear(activations, gradients)).unwrap().remove(0);
        let weight = 1.0 / 6.0 + 0.2;
        assert!((map.values[0] - weight).abs() < 1e-5, "{:?}", map.values);
        assert!((map.values[1] - 3.0 * weight).abs() < 1e-5, "{:?}", map.values);
    }
}
