//! Which architecture a checkpoint is of, for an error that can say so.

use super::config::Architecture;
use super::layers::ResNetShape;
use super::resnet::STAGES;
use super::weights::Weights;

/// Every architecture whose convolutions are in the file, and no more blocks than its own. Two
/// that differ only in where they stride look the same.
pub(super) fn fitting(weights: &Weights<'_>) -> Vec<Architecture> {
    let fits = |architecture: &Architecture| {
        let shape = ResNetShape::of(*architecture);
        (0..STAGES).all(|stage| {
            let there = shape.stage(stage).flat_map(|block| block.path()).all(|(name, _, conv)| {
                let wanted = [conv.outputs, conv.inputs, conv.kernel, conv.kernel];
                weights.find(&format!("{name}.weight")).is_some_and(|(_, shape)| shape == wanted)
            });
            let next = format!("layer{}.{}.conv1.weight", stage + 1, shape.blocks[stage]);
            there && weights.find(&next).is_none()
        })
    };
    Architecture::ALL.into_iter().filter(fits).collect()
}

/// What to say of them beside what doesn't fit `wanted`: nothing where it is one of them, or
/// there are none.
pub(super) fn suggestion(weights: &Weights<'_>, wanted: Architecture) -> Option<String> {
    let fitting = fitting(weights);
    if fitting.contains(&wanted) {
        return None;
    }
    let names: Vec<_> = fitting.iter().map(|fits| format!("{:?}", fits.name())).collect();
    (!names.is_empty()).then(|| format!("; it looks like {}", names.join(" or ")))
}
