//! A request to explain an image, and the result.

use camshaft_common::explain::{ExplainOptions, FusedLayers, Method};
use camshaft_common::label::LabelProblem;
use camshaft_common::prediction::ClassPrediction;
use camshaft_vision::heat_map::HeatMap;

use crate::cam::MapStatistics;
use crate::compute::Precision;

/// A request to explain one image of a batch.
#[derive(Clone, Copy, Debug)]
pub struct ExplainRequest<'a> {
    /// Methods, layers and classes.
    pub options: &'a ExplainOptions,
    /// The image's label, if it has one, in any spelling.
    pub label: Option<&'a str>,
}

/// An image's predictions and maps.
#[derive(Clone, Debug, PartialEq)]
pub struct ExplainedImage {
    /// The five most probable classes, every explained class and the label's, most probable first.
    pub predictions: Vec<ClassPrediction>,
    /// Entropy of the softmax over all classes, divided by ln(classes).
    pub entropy: f32,
    /// Index of the class that the label means, if there is a label.
    pub label: Option<Result<usize, LabelProblem>>,
    /// The last stage's output averaged over space, one number for each channel, zero or more.
    pub features: Vec<f32>,
    /// One for each method, layer and target class, in this order. The most probable classes come
    /// first, then the given label; for
    /// [`Target::Label`](camshaft_common::explain::Target::Label) the label comes first.
    pub explanations: Vec<ClassMap>,
    /// The number format that it was computed in.
    pub precision: Precision,
}

/// A map of one class.
#[derive(Clone, Debug, PartialEq)]
pub struct ClassMap {
    /// The method that computed the map.
    pub method: Method,
    /// The layer, or fused layers, whose output the map weights.
    pub layer: FusedLayers,
    /// Class index.
    pub class: usize,
    /// Class name.
    pub label: String,
    /// The map, at the layer's own resolution.
    pub map: HeatMap,
    /// Numbers that describe the map.
    pub statistics: MapStatistics,
}
