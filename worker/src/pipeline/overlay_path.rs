//! Where an overlay lies, by what tells its map from the others of its image.

use camshaft_common::explain::ExplainOptions;
use camshaft_common::key::ImageKey;
use camshaft_common::layout::{Layout, OverlayDifference};
use camshaft_model::KnownMap;

/// The path of a map's overlay below OUT, if it gets one. `first` is the class of the image's first map.
pub(super) fn overlay_path(
    layout: Layout,
    key: &ImageKey,
    options: &ExplainOptions,
    first: Option<usize>,
    map: KnownMap<'_>,
) -> Option<String> {
    let (method, layer) = (options.method.first(), options.layer.first());
    let difference = OverlayDifference {
        method: Some(map.method).filter(|other| other != method),
        layer: Some(map.layer).filter(|other| *other != layer),
        class: Some(map.class).filter(|other| Some(*other) != first),
    };
    layout.overlay(key, difference, options.overlay)
}
