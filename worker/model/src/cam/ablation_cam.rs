//! Ablation-CAM: Desai and Ramaswamy 2020, <https://doi.org/10.1109/WACV45572.2020.9093360>.
//!
//! A channel's weight is the share of the logit that is lost when the channel is set to zero
//! (equation 2). Written down where the logit is linear in the layer; elsewhere a pass of the
//! rest of the network for each channel.

use candle_core::{DType, Result, Tensor};

use super::{Gradients, weighted_maps};
use camshaft_vision::heat_map::HeatMap;

/// Of a layer from which logits depend linearly: without a channel a logit lacks just what the
/// channel gave. `logits` `[P]`, f32, of the targets.
///
/// # Errors
/// Where shapes don't fit or the device fails.
pub fn linear(layer: &Gradients, logits: &Tensor) -> Result<Vec<HeatMap>> {
    let lost = layer.activations.broadcast_mul(&layer.gradients)?.sum((2, 3))?;
    weighted_maps(&layer.activations, &lost.broadcast_div(&logits.unsqueeze(1)?)?)
}

/// One map for each of `classes`, all from the same passes. `activations` `[C, H, W]` of one
/// image, `logits` all of its `[K]`; `rest` takes up to `batch` of the layer's outputs
/// `[B, C, H, W]` to logits `[B, K]`.
///
/// # Errors
/// Where shapes don't fit, an index is out of range, or the device fails.
pub fn maps(
    activations: &Tensor,
    logits: &Tensor,
    classes: &[usize],
    batch: usize,
    mut rest: impl FnMut(&Tensor) -> Result<Tensor>,
) -> Result<Vec<HeatMap>> {
    let (channels, height, width) = activations.dims3()?;
    let device = activations.device();
    let mut without = Vec::new();
    for first in (0..channels).step_by(batch.max(1)) {
        let count = batch.min(channels - first);
        // Ones, with a zero on each row's own channel.
        let rows = Tensor::arange(first as u32, (first + count) as u32, device)?.unsqueeze(1)?;
        let columns = Tensor::arange(0, channels as u32, device)?.unsqueeze(0)?;
        let keep = rows.broadcast_ne(&columns)?.to_dtype(DType::F32)?;
        let keep = keep.reshape((count, channels, 1, 1))?;
        without.push(rest(&keep.broadcast_mul(&activations.unsqueeze(0)?)?)?);
    }
    let without = Tensor::cat(&without, 0)?;
    let lost = without.broadcast_sub(&logits.unsqueeze(0)?)?.neg()?;
    // [K, C]: a class's share lost without each channel.
    let lost = lost.broadcast_div(&logits.unsqueeze(0)?)?.t()?.contiguous()?;
    let wanted: Vec<_> = classes.iter().map(|&class| class as u32).collect();
    let weights = lost.index_select(&Tensor::new(wanted, device)?, 0)?;
    let activations =
        activations.unsqueeze(0)?.broadcast_as((classes.len(), channels, height, width))?;
    weighted_maps(&activations.contiguous()?, &weights)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::noise;

    #[test]
    fn both_ways_agree_where_the_rest_is_linear() {
        let activations = noise(&[6, 3, 2], 1).abs().unwrap();
        let weight = noise(&[4, 6], 2);
        let rest = |x: &Tensor| x.mean((2, 3))?.matmul(&weight.t()?)? + 0.3;
        let logits = rest(&activations.unsqueeze(0).unwrap()).unwrap().squeeze(0).unwrap();
        let classes = [3, 1];
        for batch in [1, 4, 6] {
            let passes = maps(&activations, &logits, &classes, batch, rest).unwrap();
            for (class, passes) in classes.into_iter().zip(passes) {
                let gradient = (weight.get(class).unwrap() / 6.0).unwrap();
                let gradient = gradient.reshape((1, 6, 1, 1)).unwrap();
                let layer = Gradients::linear(activations.unsqueeze(0).unwrap(), gradient);
                let logit = logits.narrow(0, class, 1).unwrap();
                let linear = linear(&layer, &logit).unwrap().remove(0);
                for (a, b) in passes.values.iter().zip(&linear.values) {
                    assert!((a - b).abs() < 1e-5, "{passes:?} and {linear:?}");
                }
            }
        }
    }
}
