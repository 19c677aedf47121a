//! HiResCAM: Draelos and Carin 2020, <https://arxiv.org/abs/2011.08891>.
//!
//! Gradient times activation, cell by cell, summed over channels (equation 3) and rectified. There
//! is no average over space: each cell has its own gradient.

use camshaft_vision::heat_map::HeatMap;
use candle_core::Result;

use super::gradients::Gradients;
use super::weighted_maps::rectified;

/// One map for each target.
///
/// # Errors
/// If the device fails.
pub fn maps(layer: &Gradients) -> Result<Vec<HeatMap>> {
    rectified(&layer.activations.broadcast_mul(&layer.gradients)?.sum(1)?)
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};

    use super::*;

    #[test]
    fn by_hand() {
        let activations = Tensor::new(&[[[[1f32, 2.0]], [[3.0, 1.0]]]], &Device::Cpu).unwrap();
        let gradients = Tensor::new(&[[[[0f32, 2.0]], [[-1.0, 1.0]]]], &Device::Cpu).unwrap();
        let maps = maps(&Gradients::linear(activations, gradients)).unwrap();
        assert_eq!(maps, [HeatMap { height: 1, width: 2, values: vec![0.0, 5.0] }]);
    }
}
