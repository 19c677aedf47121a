//! LayerCAM: Jiang et al. 2021, <https://doi.org/10.1109/TIP.2021.3089943>.
//!
//! Activations weighted cell by cell by their positive gradients (equations 6 and 7). This gives
//! fine maps of early layers too.

use camshaft_vision::heat_map::HeatMap;
use candle_core::Result;

use super::gradients::Gradients;
use super::weighted_maps::rectified;

/// One map for each target.
///
/// # Errors
/// If the device fails.
pub fn maps(layer: &Gradients) -> Result<Vec<HeatMap>> {
    rectified(&layer.activations.broadcast_mul(&layer.gradients.relu()?)?.sum(1)?)
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};

    use super::*;

    #[test]
    fn by_hand() {
        let activations = Tensor::new(&[[[[1f32, 2.0]], [[3.0, 1.0]]]], &Device::Cpu).unwrap();
        let gradients = Tensor::new(&[[[[1f32, 2.0]], [[-1.0, 1.0]]]], &Device::Cpu).unwrap();
        let maps = maps(&Gradients::linear(activations, gradients)).unwrap();
        assert_eq!(maps, [HeatMap { height: 1, width: 2, values: vec![1.0, 5.0] }]);
    }
}
