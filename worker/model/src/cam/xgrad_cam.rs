//! XGrad-CAM: Fu et al. 2020, <https://arxiv.org/abs/2008.02312>.
//!
//! As Grad-CAM, but a channel's gradients are averaged with its activations as weights (equation
//! 8). If the rest of the network is linear, the map's parts add up to the logit.

use camshaft_vision::heat_map::HeatMap;
use candle_core::Result;

use super::gradients::Gradients;
use super::weighted_maps::weighted_maps;

/// Prevents a division by zero if a channel is zero. The value is that of the authors' code.
const EPSILON: f64 = 1e-7;

/// One map for each target.
///
/// # Errors
/// If the device fails.
pub fn maps(layer: &Gradients) -> Result<Vec<HeatMap>> {
    let weighed = layer.activations.broadcast_mul(&layer.gradients)?.sum((2, 3))?;
    let weights = (weighed / (layer.activations.sum((2, 3))? + EPSILON)?)?;
    weighted_maps(&layer.activations, &weights)
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};

    use super::*;

    #[test]
    fn by_hand() {
        // The gradient's mean weighted by activations: (1 * 1 + 3 * 5) / 4 = 4.
        let activations = Tensor::new(&[[[[1f32, 3.0]], [[0.0, 0.0]]]], &Device::Cpu).unwrap();
        let gradients = Tensor::new(&[[[[1f32, 5.0]], [[7.0, 7.0]]]], &Device::Cpu).unwrap();
        let map = maps(&Gradients::linear(activations, gradients)).unwrap().remove(0);
        assert!((map.values[0] - 4.0).abs() < 1e-5 && (map.values[1] - 12.0).abs() < 1e-5);
    }
}
