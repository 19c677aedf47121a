//! What it costs to explain one image, told before any image is read.
//!
//! Options multiply: a job of a few hundred bytes can ask for a million maps. Upstream: the options of
//! a job. Downstream: [`ModelFiles::check`].

use std::collections::HashSet;

use camshaft_common::explain::{ExplainOptions, FusedLayers, Method, Target, TargetLayer};

use crate::config::ModelConfig;
use crate::model_files::ModelFiles;
use crate::network::layer_point::LayerPoint;
use crate::network::resnet::ResNetShape;

/// What it costs to explain one image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExplanationCost {
    /// Maps.
    pub maps: usize,
    /// Values of all maps together.
    pub values: usize,
    /// Passes of the network, forward or back, besides the one that predicts.
    pub passes: usize,
}

impl ExplanationCost {
    /// The most that an image may cost. All of ImageNet's classes can have a map; as JSON, the values
    /// are a record that can still be read; Score-CAM and Ablation-CAM at every stage are 7,680 passes.
    pub const MOST: Self = Self { maps: 1024, values: 1 << 20, passes: 16_384 };

    /// True if nothing is more than in `limits`.
    #[must_use]
    pub fn is_within(self, limits: Self) -> bool {
        self.maps <= limits.maps && self.values <= limits.values && self.passes <= limits.passes
    }
}

impl ModelFiles {
    /// What it costs to explain an image with `options`; of its classes, the most that they can be.
    #[must_use]
    pub fn explanation_cost(&self, options: &ExplainOptions) -> ExplanationCost {
        self.config().explanation_cost(options)
    }

    /// True if one image fills batches of the network by itself: its maps take a pass for each
    /// channel. Other images beside it would only wait.
    #[must_use]
    pub fn fills_batches(&self, options: &ExplainOptions) -> bool {
        let shape = ResNetShape::of(self.config().architecture);
        let layers = options.layer.iter().flat_map(FusedLayers::as_slice);
        let mut points = layers.filter_map(|&layer| LayerPoint::find(layer, shape));
        points.any(|point| {
            options.method.iter().any(|&method| channel_passes(shape, point, method) > 0)
        })
    }
}

impl ModelConfig {
    /// As [`ModelFiles::explanation_cost`], which needs no weights.
    pub(super) fn explanation_cost(&self, options: &ExplainOptions) -> ExplanationCost {
        let shape = ResNetShape::of(self.architecture);
        let (methods, classes) = (options.method.as_slice(), explained_classes(self, options));
        let values = options.layer.iter().map(|fused| {
            let sizes = fused.as_slice().iter().map(|&layer| map_values(self, shape, layer));
            sizes.max().unwrap_or(0)
        });
        let values = values.fold(0, usize::saturating_add);
        let layers = options.layer.iter().flat_map(FusedLayers::as_slice).copied();
        let layers: HashSet<_> = layers.collect();
        let passes = layers.into_iter().map(|layer| passes(shape, layer, methods, classes));
        ExplanationCost {
            maps: methods.len().saturating_mul(options.layer.as_slice().len() * classes),
            values: values.saturating_mul(methods.len() * classes),
            passes: passes.fold(0, usize::saturating_add),
        }
    }

    /// Bytes that the network holds on a CPU while it predicts one image: the outputs of its first two
    /// stages, mostly. Measured: 8.2 GiB of a ResNet-50 for 4096×4096 pixels, in f32.
    #[must_use]
    pub fn activation_bytes(&self) -> u64 {
        const BYTES_PER_PIXEL: usize = 512;
        (self.input.height.saturating_mul(self.input.width).saturating_mul(BYTES_PER_PIXEL)) as u64
    }
}

/// The most classes of an image that are explained.
fn explained_classes(config: &ModelConfig, options: &ExplainOptions) -> usize {
    let all = config.classes.len();
    match options.target {
        // The label's class is explained beside the most probable ones.
        Target::Top(count) => count.saturating_add(1).min(all),
        Target::Label => 2.min(all),
        Target::Class(_) => 1,
    }
}

/// Values of a map of `layer`; none if there is no such layer.
fn map_values(config: &ModelConfig, shape: ResNetShape, layer: TargetLayer) -> usize {
    let Some(point) = LayerPoint::find(layer, shape) else { return 0 };
    let side = |input: usize| input.div_ceil(point.reduction(shape));
    side(config.input.height) * side(config.input.width)
}

/// Passes for the maps of one layer.
fn passes(shape: ResNetShape, layer: TargetLayer, methods: &[Method], classes: usize) -> usize {
    let Some(point) = LayerPoint::find(layer, shape) else { return 0 };
    let closed_form = point.is_last(shape);
    let needs_gradient = |method: &Method| {
        !matches!(method, Method::EigenCam | Method::ScoreCam | Method::AblationCam)
    };
    // All of them take the same gradients.
    let backward = if !closed_form && methods.iter().any(needs_gradient) { classes } else { 0 };
    let by_channel = methods.iter().map(|&method| channel_passes(shape, point, method));
    by_channel.fold(backward, usize::saturating_add)
}

/// Passes of a method that takes one for each channel of a layer.
fn channel_passes(shape: ResNetShape, point: LayerPoint, method: Method) -> usize {
    match method {
        Method::ScoreCam => point.channels(shape),
        Method::AblationCam if !point.is_last(shape) => point.channels(shape),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(methods: &str, layers: &str, target: &str) -> ExplainOptions {
        ExplainOptions {
            method: methods.parse().unwrap(),
            layer: layers.parse().unwrap(),
            target: target.parse().unwrap(),
            ..Default::default()
        }
    }

    /// The bundled ResNet-50 for 224×224 pixels and two classes.
    fn cost(methods: &str, layers: &str, target: &str) -> ExplanationCost {
        ModelFiles::bundled().explanation_cost(&options(methods, layers, target))
    }

    #[test]
    fn the_cost_is_that_of_all_maps() {
        let cheap = ExplanationCost { maps: 2, values: 2 * 7 * 7, passes: 0 };
        assert_eq!(cost("grad-cam", "layer4", "top1"), cheap);
        // Only the head follows layer4; from layer3 both methods take the same gradients.
        let fused = ExplanationCost { maps: 2, values: 2 * 14 * 14, passes: 1 };
        assert_eq!(cost("grad-cam,hires-cam", "layer3+layer4", "class:cat"), fused);
        // A pass for each channel, but none for Ablation-CAM where only the head follows.
        let passes = (2048 + 256 + 1024) + (256 + 1024);
        let values = 2 * (7 * 7 + 56 * 56 + 14 * 14);
        let costly = ExplanationCost { maps: 6, values, passes };
        let layers = "layer4,layer1,layer3.0.conv3";
        assert_eq!(cost("score-cam,ablation-cam", layers, "class:cat"), costly);
    }

    #[test]
    fn an_image_fills_batches_if_there_is_a_pass_for_each_channel() {
        let files = ModelFiles::bundled();
        for (methods, layers, fills) in [
            ("grad-cam", "layer4", false),
            ("grad-cam,layer-cam", "layer2,layer3", false),
            ("ablation-cam", "layer4", false),
            ("ablation-cam", "layer3", true),
            ("grad-cam,score-cam", "layer4", true),
        ] {
            let options = options(methods, layers, "top-1000");
            assert_eq!(files.fills_batches(&options), fills, "{methods} {layers}");
        }
    }

    #[test]
    fn a_convolution_before_its_blocks_stride_has_the_size_of_its_input() {
        for (layer, side) in [
            ("conv1", 112),
            ("layer2.0.conv1", 56),
            ("layer2.0.conv2", 28),
            ("layer2.0.downsample.0", 28),
            ("layer2.1.conv1", 28),
            ("layer4.2", 7),
        ] {
            let values = cost("eigen-cam", layer, "class:cat").values;
            assert_eq!(values, side * side, "{layer}");
        }
    }

    #[test]
    fn what_multiplies_to_a_million_maps_is_refused_with_its_cost() {
        let files = ModelFiles::bundled();
        let methods = Method::ALL.iter().map(Method::to_string).collect::<Vec<_>>().join(",");
        let blocks = [(1, 3), (2, 4), (3, 6), (4, 3)];
        let blocks = blocks.iter().flat_map(|&(stage, blocks)| {
            (0..blocks).map(move |block| format!("layer{stage}.{block}"))
        });
        let layers = blocks.collect::<Vec<_>>().join(",");
        let all = options(&methods, &layers, "top-1000");
        let error = files.check(&all).unwrap_err().to_string();
        let told = "288 maps with 249606 values and 28190 passes of the network for each image are \
                    more than 1024 maps, 1048576 values or 16384 passes";
        assert_eq!(error, told);
        for fine in [
            options("grad-cam", "layer4", "top-1000"),
            options("score-cam,ablation-cam", "layer1,layer2,layer3,layer4", "label"),
        ] {
            assert_eq!(files.check(&fine), Ok(()));
        }
    }
}
