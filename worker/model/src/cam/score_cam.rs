//! Score-CAM: Wang et al. 2020, <https://arxiv.org/abs/1910.01279>.
//!
//! Each channel, stretched to the input's size and scaled to 0..1, masks the input. The logit of
//! the class for the masked input weights the channel (equations 5 to 7: softmax over the
//! channels). It takes no gradient, but a forward pass for each channel.

use camshaft_vision::heat_map::HeatMap;
use candle_core::{D, Result, Tensor};
use candle_nn::ops::softmax;

use super::weighted_maps::{rows_of_classes, weighted_maps_of_image};

/// Prevents a division by zero if a channel is constant. The value is pytorch-grad-cam's.
const EPSILON: f64 = 1e-8;

/// Maps of one image, one for each of `classes`, from the same passes. `input` is the network's,
/// `[3, H, W]`, `activations` are `[C, h, w]`; both f32. `score` runs the network: up to `batch`
/// inputs `[B, 3, H, W]` to logits `[B, K]`.
///
/// # Errors
/// If shapes don't fit, an index is out of range, or the device fails.
pub fn maps(
    input: &Tensor,
    activations: &Tensor,
    classes: &[usize],
    batch: usize,
    mut score: impl FnMut(&Tensor) -> Result<Tensor>,
) -> Result<Vec<HeatMap>> {
    let (_, height, width) = input.dims3()?;
    let channels = activations.dim(0)?;
    let mut logits = Vec::new();
    for first in (0..channels).step_by(batch.max(1)) {
        let part = activations.narrow(0, first, batch.min(channels - first))?;
        let masks = masks(&part, height, width)?.unsqueeze(1)?;
        logits.push(score(&masks.broadcast_mul(&input.unsqueeze(0)?)?)?);
    }
    // [K, C]: a class's logit under each channel's mask.
    let logits = Tensor::cat(&logits, 0)?.t()?;
    let weights = softmax(&rows_of_classes(&logits, classes)?, D::Minus1)?;
    weighted_maps_of_image(activations, &weights)
}

/// Stretches channels `[C, h, w]` to masks `[C, height, width]`, 0 to 1. Corners lie on corners, as
/// in PyTorch's `UpsamplingBilinear2d`.
fn masks(activations: &Tensor, height: usize, width: usize) -> Result<Tensor> {
    let (channels, rows, columns) = activations.dims3()?;
    let device = activations.device();
    let down = Tensor::from_vec(interpolation(rows, height), (height, rows), device)?;
    let across = Tensor::from_vec(interpolation(columns, width), (width, columns), device)?;
    let wide = activations.contiguous()?.broadcast_matmul(&across.t()?)?;
    let large = down.broadcast_matmul(&wide)?;
    let flat = large.reshape((channels, height * width))?;
    let (least, most) = (flat.min_keepdim(1)?, flat.max_keepdim(1)?);
    let range = ((most - &least)? + EPSILON)?;
    flat.broadcast_sub(&least)?.broadcast_div(&range)?.reshape((channels, height, width))
}

/// A matrix `[to, from]`: the share of each of the `from` values in each of the `to` values.
fn interpolation(from: usize, to: usize) -> Vec<f32> {
    let mut weights = vec![0.0; to * from];
    let step = if to > 1 { (from - 1) as f64 / (to - 1) as f64 } else { 0.0 };
    for (index, row) in weights.chunks_mut(from).enumerate() {
        let at = index as f64 * step;
        let first = (at as usize).min(from - 1);
        let share = at - first as f64;
        row[first] += (1.0 - share) as f32;
        row[(first + 1).min(from - 1)] += share as f32;
    }
    weights
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn masks_put_corners_on_corners_and_range_from_0_to_1() {
        let channels = Tensor::new(&[[[2f32, 4.0]], [[3.0, 3.0]]], &Device::Cpu).unwrap();
        let masks = masks(&channels, 2, 3).unwrap().to_vec3::<f32>().unwrap();
        for row in &masks[0] {
            for (found, expected) in row.iter().zip([0.0, 0.5, 1.0]) {
                assert!((found - expected).abs() < 1e-6, "{masks:?}");
            }
        }
        assert_eq!(masks[1], vec![vec![0.0; 3]; 2]);
    }

    #[test]
    fn a_channel_counts_for_what_the_network_says_under_it() {
        // The network's only class depends on the left pixel. The channel that shows it gets nearly
        // all the weight.
        let input = Tensor::full(30f32, (3, 1, 2), &Device::Cpu).unwrap();
        let channels = Tensor::new(&[[[1f32, 0.0]], [[0.0, 1.0]]], &Device::Cpu).unwrap();
        for batch in [1, 2, 3] {
            let score = |x: &Tensor| x.narrow(1, 0, 1)?.narrow(3, 0, 1)?.reshape(((), 1));
            let map = maps(&input, &channels, &[0], batch, score).unwrap().remove(0);
            assert!((map.values[0] - 1.0).abs() < 1e-6 && map.values[1] < 1e-6, "{map:?}");
        }
    }
}
