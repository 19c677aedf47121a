//! Grad-CAM: Selvaraju et al. 2017, <https://arxiv.org/abs/1610.02391>.
//!
//! The gradient of a class's logit with respect to a layer's output, averaged over space,
//! weights that output's channels (equation 1); their sum is rectified (equation 2).

use camshaft_vision::heat_map::HeatMap;
use candle_core::Result;

use super::gradients::Gradients;
use super::weighted_maps::weighted_maps;

/// One map for each target.
///
/// # Errors
/// If the device fails.
pub fn maps(layer: &Gradients) -> Result<Vec<HeatMap>> {
    weighted_maps(&layer.activations, &layer.gradients.mean((2, 3))?)
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};

    use super::*;

    #[test]
    fn by_hand() {
        // Channels [[1, 2]] and [[3, 0]], gradients [[0, 2]] and [[-1, 0]]: weights 1 and -1/2.
        let activations = Tensor::new(&[[[[1f32, 2.0]], [[3.0, 0.0]]]], &Device::Cpu).unwrap();
        let gradients = Tensor::new(&[[[[0f32, 2.0]], [[-1.0, 0.0]]]], &Device::Cpu).unwrap();
        let maps = maps(&Gradients::linear(activations, gradients)).unwrap();
        assert_eq!(maps, [HeatMap { height: 1, width: 2, values: vec![0.0, 2.0] }]);
    }
}
