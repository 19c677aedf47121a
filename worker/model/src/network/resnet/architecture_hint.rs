//! Which architecture a checkpoint has, told by the names and shapes of its tensors: to run it if
//! the configuration names none, and to name it in an error if it is another.

use super::shape::{ResNetShape, STAGES};
use crate::checkpoint::{Naming, Weights};
use crate::config::Architecture;
use crate::network::convolution_shape::ConvShape;
use crate::other_network::OtherNetwork;

/// Channels of a plain ResNet's stem.
const STEM_CHANNELS: usize = 64;
/// The stem's weight.
const STEM_SHAPE: [usize; 4] = [STEM_CHANNELS, 3, 7, 7];

/// Every architecture whose convolutions, and no further blocks, are in the file. Architectures
/// that differ only in their strides have the same convolutions.
fn matching_architectures(weights: &Weights<'_>) -> Vec<Architecture> {
    let has = |named: &str, ConvShape { inputs, outputs, kernel, .. }: ConvShape| {
        let found = weights.find(&format!("{named}.weight"));
        found.is_some_and(|(_, shape)| shape == [outputs, inputs, kernel, kernel])
    };
    let fits = |architecture: &Architecture| {
        let shape = ResNetShape::of(*architecture);
        let stem = shape.stem();
        let stages = (0..STAGES).all(|stage| {
            let mut convolutions = shape.stage(stage).flat_map(|block| block.path());
            let next = format!("layer{}.{}.conv1.weight", stage + 1, shape.blocks[stage]);
            convolutions.all(|named| has(&named.conv, named.shape)) && weights.find(&next).is_none()
        });
        stages && has(&stem.conv, stem.shape)
    };
    Architecture::ALL.into_iter().filter(fits).collect()
}

/// The architecture of a file; none if it is none that can be run. Strides can't be told from
/// tensors: they are those of the library whose names the file has.
pub(crate) fn architecture_of(weights: &Weights<'_>) -> Option<Architecture> {
    if !foreign_parts(weights).is_empty() {
        return None;
    }
    let matching = matching_architectures(weights);
    // Only Keras has its strides in the first convolution of a bottleneck.
    let keras = weights.naming() == Naming::Keras;
    let usual = |one: &&Architecture| one.has_stride_first() == keras || one.is_basic();
    matching.iter().find(usual).copied()
}

/// What a file looks like, if that is not `wanted`. None if it can be `wanted`, or if nothing can be
/// told.
pub(crate) fn other_architecture(
    weights: &Weights<'_>,
    wanted: Option<Architecture>,
) -> Option<OtherNetwork> {
    let foreign = foreign_parts(weights);
    let matching = matching_architectures(weights);
    if foreign.is_empty() {
        if wanted.is_some_and(|wanted| matching.contains(&wanted)) {
            return None;
        }
        if !matching.is_empty() {
            let names = matching.iter().map(|architecture| architecture.name());
            return Some(OtherNetwork::Runnable(names.collect()));
        }
    }
    let name = match describe(weights) {
        Some(name) => format!("{name:?}"),
        None if foreign.is_empty() => return None,
        None => "a network".to_owned(),
    };
    let mut with: Vec<_> = foreign.into_iter().map(str::to_owned).collect();
    if let Some((_, stem)) = weights.find("conv1.weight")
        && stem != STEM_SHAPE
    {
        with.push(format!("a first convolution of {stem:?}"));
    }
    let with =
        if with.is_empty() { String::new() } else { format!(" with {}", with.join(" and ")) };
    Some(OtherNetwork::Foreign(name + &with))
}

/// Parts of a file that no architecture here has, in the field's words.
fn foreign_parts(weights: &Weights<'_>) -> Vec<&'static str> {
    let parts: [(&[&str], &'static str); 6] = [
        (&[".se.", ".se_module.", ".attn.fc", ".se_layer."], "squeeze-and-excitation"),
        (&[".filt"], "anti-aliasing filters"),
        (&[".IN."], "instance normalisation"),
        (
            &[".lora_A", ".lora_B", ".lora_down", ".lora_up"],
            "the low-rank matrices of an adapter (merge them into the weights first)",
        ),
        (
            &["qweight", ".weight_scale", ".zero_point", "_packed_params", "weight_fake_quant"],
            "quantised weights",
        ),
        (&[".cbam.", ".channel_attention.", ".spatial_attention."], "attention modules"),
    ];
    let there =
        |(marks, _): &(&[&str], &'static str)| marks.iter().any(|mark| weights.any_name_has(mark));
    parts.into_iter().filter(there).map(|(_, what)| what).collect()
}

/// timm's name of the network in a file, as far as its blocks and stem tell; none without blocks.
fn describe(weights: &Weights<'_>) -> Option<String> {
    let shape = |name: &str| weights.find(name).map(|(_, shape)| shape);
    let blocks = |stage: usize| {
        let there = |block: &usize| shape(&format!("layer{stage}.{block}.conv1.weight")).is_some();
        (0..).take_while(there).count()
    };
    let blocks: usize = (1..=STAGES).map(blocks).sum();
    let [width, ..] = shape("layer1.0.conv1.weight")?[..] else { return None };
    let [_, inputs, ..] = shape("layer1.0.conv2.weight")?[..] else { return None };
    let convolutions = if shape("layer1.0.conv3.weight").is_some() { 3 } else { 2 };
    // The stem and the head are the other two layers.
    let depth = convolutions * blocks + 2;
    let groups = width.checked_div(inputs).unwrap_or(1);
    let se = if weights.any_name_has(".se.") { "se" } else { "" };
    let mut name = match (groups, width / STEM_CHANNELS) {
        (2.., _) => format!("{se}resnext{depth}_{groups}x{inputs}d"),
        (_, factor @ 2..) => format!("{se}wide_resnet{depth}_{factor}"),
        _ => format!("{se}resnet{depth}"),
    };
    // Three 3×3 convolutions in the stem: timm's "c" with a convolution of stride 2 in shortcuts,
    // "d" with an average pooling before it.
    if shape("conv1.0.weight").is_some() {
        let pooled = shape("layer2.0.downsample.1.weight").is_some_and(|shape| shape.len() == 4);
        name.push(if pooled { 'd' } else { 'c' });
    }
    Some(name)
}
