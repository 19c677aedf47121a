//! Grad-CAM: Selvaraju et al. 2017, <https://arxiv.org/abs/1610.02391>.
//!
//! The gradient of a class's logit with respect to a layer's output, averaged over space,
//! weights that output's channels (equation 1); their sum is rectified (equation 2). Two
//! ways to the gradient: written down where a linear layer on a global average follows,
//! and back through the rest of the network elsewhere.

use candle_core::{Result, Tensor, Var};

use super::{CamTarget, HeatMap};

/// Maps for a layer that only a global average and a linear layer follow: there the
/// gradient of a logit is `head_weight[class] / (H * W)` everywhere.
///
/// `features` `[N, C, H, W]` and `head_weight` `[K, C]`, both f32 on one device.
///
/// # Errors
/// Where shapes don't fit, an index is out of range, or the device fails.
pub fn closed_form(
    features: &Tensor,
    head_weight: &Tensor,
    targets: &[CamTarget],
) -> Result<Vec<HeatMap>> {
    if targets.is_empty() {
        return Ok(Vec::new());
    }
    let (_, _, height, width) = features.dims4()?;
    let weights = head_weight.index_select(&indices(targets, |t| t.class, features)?, 0)?;
    let weights = (weights / (height * width) as f64)?;
    weighted_maps(&select_images(features, targets)?, &weights)
}

/// Maps for any layer, by going back through `rest`, which takes the layer's output
/// `[P, C, H, W]` to logits `[P, K]`, P the number of targets, each row from its own image
/// alone.
///
/// `features` `[N, C, H, W]`, f32.
///
/// # Errors
/// Where shapes don't fit, an index is out of range, `rest` can't be differentiated, or the
/// device fails.
pub fn by_gradient(
    features: &Tensor,
    targets: &[CamTarget],
    rest: impl FnOnce(&Tensor) -> Result<Tensor>,
) -> Result<Vec<HeatMap>> {
    if targets.is_empty() {
        return Ok(Vec::new());
    }
    let features = Var::from_tensor(&select_images(features, targets)?)?;
    let logits = rest(&features)?;
    let classes = indices(targets, |t| t.class, &logits)?.unsqueeze(1)?;
    // Rows don't depend on each other, so one backward pass from their sum serves them all.
    let gradients = logits.gather(&classes, 1)?.sum_all()?.backward()?;
    let Some(gradient) = gradients.get(&features) else {
        candle_core::bail!("the logits don't depend on the target layer");
    };
    weighted_maps(&features, &gradient.mean((2, 3))?)
}

/// `relu(sum over C of weights * features)`: `[P, C, H, W]` and `[P, C]` to P maps.
fn weighted_maps(features: &Tensor, weights: &Tensor) -> Result<Vec<HeatMap>> {
    let (count, channels, height, width) = features.dims4()?;
    let features = features.reshape((count, channels, height * width))?;
    let maps = weights.unsqueeze(1)?.matmul(&features)?.squeeze(1)?.relu()?.to_vec2::<f32>()?;
    Ok(maps.into_iter().map(|values| HeatMap { height, width, values }).collect())
}

fn select_images(features: &Tensor, targets: &[CamTarget]) -> Result<Tensor> {
    // One target for each image, the usual case, needs no copy.
    if targets.iter().map(|target| target.image).eq(0..features.dim(0)?) {
        return features.contiguous();
    }
    features.contiguous()?.index_select(&indices(targets, |t| t.image, features)?, 0)
}

/// One part of every target as a tensor on the device of `like`.
fn indices(
    targets: &[CamTarget],
    part: impl Fn(&CamTarget) -> usize,
    like: &Tensor,
) -> Result<Tensor> {
    let indices: Vec<_> = targets.iter().map(|target| part(target) as u32).collect();
    Tensor::new(indices, like.device())
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::model::testing::noise;

    const TARGETS: [CamTarget; 4] = [
        CamTarget { image: 2, class: 0 },
        CamTarget { image: 0, class: 4 },
        CamTarget { image: 0, class: 1 },
        CamTarget { image: 1, class: 4 },
    ];

    #[test]
    fn closed_form_equals_the_gradients_map() {
        let features = noise(&[3, 64, 7, 5], 1).relu().unwrap();
        let weight = noise(&[5, 64], 2);
        let closed = closed_form(&features, &weight, &TARGETS).unwrap();
        let gradient = by_gradient(&features, &TARGETS, |x| x.mean((2, 3))?.matmul(&weight.t()?));
        for (closed, gradient) in closed.iter().zip(gradient.unwrap()) {
            let max = closed.values.iter().copied().fold(0.0, f32::max);
            assert!(max > 0.0);
            for (a, b) in closed.values.iter().zip(gradient.values) {
                assert!((a - b).abs() <= 1e-5 * max, "{a} and {b}");
            }
        }
    }

    #[test]
    fn closed_form_by_hand() {
        // Channels [[1, 2]] and [[3, 0]], weights 2 and -1: [2 - 3, 4 - 0] / 2 cells.
        let features = Tensor::new(&[[[[1f32, 2.0]], [[3.0, 0.0]]]], &Device::Cpu).unwrap();
        let weight = Tensor::new(&[[0f32, 0.0], [2.0, -1.0]], &Device::Cpu).unwrap();
        let maps = closed_form(&features, &weight, &[CamTarget { image: 0, class: 1 }]).unwrap();
        assert_eq!(maps, [HeatMap { height: 1, width: 2, values: vec![0.0, 2.0] }]);
    }

    #[test]
    fn a_class_out_of_range_is_an_error() {
        let features = Tensor::ones((1, 2, 1, 1), candle_core::DType::F32, &Device::Cpu).unwrap();
        let weight = Tensor::ones((3, 2), candle_core::DType::F32, &Device::Cpu).unwrap();
        assert!(closed_form(&features, &weight, &[CamTarget { image: 0, class: 3 }]).is_err());
        assert!(closed_form(&features, &weight, &[CamTarget { image: 1, class: 0 }]).is_err());
    }
}
