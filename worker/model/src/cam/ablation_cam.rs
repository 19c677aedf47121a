//! Ablation-CAM: Desai and Ramaswamy 2020, <https://doi.org/10.1109/WACV45572.2020.9093360>.
//!
//! A channel's weight is the share of the logit that is lost if the channel is set to zero
//! (equation 2). If the logit is linear in the layer, there is a closed form; otherwise the rest of
//! the network runs once for each channel.

use camshaft_vision::heat_map::HeatMap;
use candle_core::{DType, Result, Tensor};

use super::gradients::Gradients;
use super::weighted_maps::{rows_of_classes, weighted_maps, weighted_maps_of_image};

/// Maps of a layer on which logits depend linearly, one for each target: without a channel, a logit
/// lacks exactly the channel's contribution. `logits` are the targets' `[P]`, f32.
///
/// # Errors
/// If shapes don't fit or the device fails.
pub fn linear(layer: &Gradients, logits: &Tensor) -> Result<Vec<HeatMap>> {
    let lost = layer.activations.broadcast_mul(&layer.gradients)?.sum((2, 3))?;
    weighted_maps(&layer.activations, &lost.broadcast_div(&logits.unsqueeze(1)?)?)
}

/// Maps of one image, one for each of `classes`, from the same passes. `activations` are `[C, H,
/// W]`, `logits` are all of the image's, `[K]`; both f32. `rest` runs the rest of the network: up
/// to `batch` outputs of the layer `[B, C, H, W]` to logits `[B, K]`.
///
/// # Errors
/// If shapes don't fit, an index is out of range, or the device fails.
pub fn maps(
    activations: &Tensor,
    logits: &Tensor,
    classes: &[usize],
    batch: usize,
    mut rest: impl FnMut(&Tensor) -> Result<Tensor>,
) -> Result<Vec<HeatMap>> {
    let channels = activations.dim(0)?;
    let device = activations.device();
    let mut without = Vec::new();
    for first in (0..channels).step_by(batch.max(1)) {
        let count = batch.min(channels - first);
        // A row of ones for each channel, with a zero at that channel.
        let rows = Tensor::arange(first as u32, (first + count) as u32, device)?.unsqueeze(1)?;
        let columns = Tensor::arange(0, channels as u32, device)?.unsqueeze(0)?;
        let keep = rows.broadcast_ne(&columns)?.to_dtype(DType::F32)?;
        let keep = keep.reshape((count, channels, 1, 1))?;
        without.push(rest(&keep.broadcast_mul(&activations.unsqueeze(0)?)?)?);
    }
    maps_of_logits(activations, logits, &Tensor::cat(&without, 0)?, classes)
}

/// Maps of one image, one for each of `classes`. `without` are the logits without each channel,
/// `[C, K]`; the others as for [`maps`].
///
/// # Errors
/// If shapes don't fit or an index is out of range.
pub fn maps_of_logits(
    activations: &Tensor,
    logits: &Tensor,
    without: &Tensor,
    classes: &[usize],
) -> Result<Vec<HeatMap>> {
    let lost = without.broadcast_sub(&logits.unsqueeze(0)?)?.neg()?;
    // [K, C]: the share of each class's logit that is lost without each channel.
    let lost = lost.broadcast_div(&logits.unsqueeze(0)?)?.t()?;
    weighted_maps_of_image(activations, &rows_of_classes(&lost, classes)?)
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
