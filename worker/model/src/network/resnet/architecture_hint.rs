//! Which architecture a checkpoint has, so that an error can name it.

use super::shape::{ResNetShape, STAGES};
use crate::checkpoint::Weights;
use crate::config::Architecture;
use crate::network::convolution_shape::ConvShape;

/// Every architecture whose convolutions, and no further blocks, are in the file. Architectures
/// that differ only in their strides have the same convolutions.
fn matching_architectures(weights: &Weights<'_>) -> Vec<Architecture> {
    let fits = |architecture: &Architecture| {
        let shape = ResNetShape::of(*architecture);
        (0..STAGES).all(|stage| {
            let there = shape.stage(stage).flat_map(|block| block.path()).all(|named| {
                let ConvShape { inputs, outputs, kernel, .. } = named.shape;
                let wanted = [outputs, inputs, kernel, kernel];
                weights
                    .find(&format!("{}.weight", named.conv))
                    .is_some_and(|(_, shape)| shape == wanted)
            });
            let next = format!("layer{}.{}.conv1.weight", stage + 1, shape.blocks[stage]);
            there && weights.find(&next).is_none()
        })
    };
    Architecture::ALL.into_iter().filter(fits).collect()
}

/// Names the architectures that match the file, for an error about a file that doesn't match
/// `wanted`: `; it looks like "resnet34"`. None if `wanted` matches, or nothing does.
pub(crate) fn architecture_hint(weights: &Weights<'_>, wanted: Architecture) -> Option<String> {
    let matching = matching_architectures(weights);
    if matching.contains(&wanted) {
        return None;
    }
    let names: Vec<_> = matching.iter().map(|fits| format!("{:?}", fits.name())).collect();
    (!names.is_empty()).then(|| format!("; it looks like {}", names.join(" or ")))
}
