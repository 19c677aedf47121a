//! Why an image can't be explained.

use camshaft_common::explain::TargetLayer;

use super::cost::ExplanationCost;

/// Why one image can't be explained. Trying again would not help.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExplainError {
    /// The label is to be explained, and the image has none.
    #[error("the image has no label to explain")]
    NoLabel,
    /// The label is to be explained, and means none of the model's classes.
    #[error("the label {label:?} is none of the model's classes, which are {classes}")]
    UnknownLabel {
        /// The label.
        label: String,
        /// The first classes of the model, and the number of the others.
        classes: String,
    },
    /// The label is to be explained, and several classes are called so.
    #[error("the label {label:?} could be several of the model's classes")]
    AmbiguousLabel {
        /// The label.
        label: String,
    },
    /// A class name that is not one of the model's classes.
    #[error("the model has no class {name:?}; its classes are {classes}")]
    UnknownClass {
        /// The name.
        name: String,
        /// The first classes of the model, and the number of the others.
        classes: String,
    },
    /// Several of the model's classes have the name.
    #[error(
        "the model has {count} classes named {name:?}; give them different names in config.json"
    )]
    AmbiguousClass {
        /// The name.
        name: String,
        /// Number of classes with that name.
        count: usize,
    },
    /// The model has no such target layer.
    #[error("the model has no layer {layer}; {has}")]
    UnknownLayer {
        /// The layer.
        layer: TargetLayer,
        /// The layers that it has.
        has: String,
    },
    /// There are too many maps, or maps that take too many passes.
    #[error(
        "{maps} maps with {values} values and {passes} passes of the network for each image are more \
         than {} maps, {} values or {} passes",
        limits.maps, limits.values, limits.passes
    )]
    TooCostly {
        /// Maps of an image.
        maps: usize,
        /// Values of its maps.
        values: usize,
        /// Passes of the network.
        passes: usize,
        /// The most that may be asked for.
        limits: ExplanationCost,
    },
    /// A logit is infinite or NaN.
    #[error("the model's logits are not finite")]
    LogitsNotFinite,
    /// A value of a map is infinite or NaN.
    #[error("the map for class {class:?} is not finite")]
    MapNotFinite {
        /// Class name.
        class: String,
    },
}
