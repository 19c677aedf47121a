//! The last step of most methods: from channels and their weights to heat maps.

use camshaft_vision::heat_map::HeatMap;
use candle_core::{Result, Tensor};

/// Computes `relu(sum over C of weights * features)`: features `[P, C, H, W]` and weights `[P, C]`,
/// f32, to P maps.
pub(super) fn weighted_maps(features: &Tensor, weights: &Tensor) -> Result<Vec<HeatMap>> {
    let (_, channels, height, width) = features.dims4()?;
    let features = features.reshape(((), channels, height * width))?;
    let maps = weights.contiguous()?.unsqueeze(1)?.matmul(&features)?;
    rectified(&maps.reshape(((), height, width))?)
}

/// Sets negative values to zero: `[P, H, W]`, f32, any range, to P maps.
pub(super) fn rectified(maps: &Tensor) -> Result<Vec<HeatMap>> {
    let (_, height, width) = maps.dims3()?;
    let maps = maps.relu()?.flatten_from(1)?.to_vec2::<f32>()?;
    Ok(maps.into_iter().map(|values| HeatMap { height, width, values }).collect())
}

/// Maps of one image for several classes: its activations `[C, H, W]`, weighted by `weights`
/// `[P, C]`, one row for each class; all f32.
pub(super) fn weighted_maps_of_image(
    activations: &Tensor,
    weights: &Tensor,
) -> Result<Vec<HeatMap>> {
    let (channels, height, width) = activations.dims3()?;
    let repeated = (weights.dim(0)?, channels, height, width);
    let activations = activations.unsqueeze(0)?.broadcast_as(repeated)?;
    weighted_maps(&activations.contiguous()?, weights)
}

/// The rows of `classes` in a table `[K, C]` with a row for each of the network's classes.
pub(super) fn rows_of_classes(table: &Tensor, classes: &[usize]) -> Result<Tensor> {
    let wanted: Vec<_> = classes.iter().map(|&class| class as u32).collect();
    table.contiguous()?.index_select(&Tensor::new(wanted, table.device())?, 0)
}
