//! The paths of results under OUT.
//!
//! One key has one place, so that an image that is done twice has one result. Does no I/O.

use crate::explain::{FusedLayers, Method, OverlayFormat};
use crate::key::ImageKey;

/// The record of the run.
pub const RUN_FILE: &str = "run.json";
/// The measures of `--trust-sample`.
pub const TRUST_FILE: &str = "trust.json";
/// Folder of prediction files.
pub const PREDICTIONS: &str = "predictions";
/// Folder of overlays.
pub const OVERLAYS: &str = "overlays";
/// Folder of failure files.
pub const FAILURES: &str = "failures";

/// Folder of the report.
pub const REPORT: &str = "report";

const RESULT_SUFFIX: &str = ".json";

/// `predictions/<image key>.json`.
///
/// ```
/// use camshaft_common::key::ImageKey;
/// use camshaft_common::layout;
///
/// let key = ImageKey::parse("cat/a.jpg").unwrap();
/// assert_eq!(layout::prediction(&key), "predictions/cat/a.jpg.json");
/// ```
#[must_use]
pub fn prediction(key: &ImageKey) -> String {
    format!("{PREDICTIONS}/{key}{RESULT_SUFFIX}")
}

/// `failures/<image key>.json`.
#[must_use]
pub fn failure(key: &ImageKey) -> String {
    format!("{FAILURES}/{key}{RESULT_SUFFIX}")
}

/// `overlays/<image key>.jpg` for an image's first explanation. The names of the others say how they
/// differ from the first: `overlays/<image key>.layer-cam.layer3.class-7.jpg`.
#[must_use]
pub fn overlay(
    key: &ImageKey,
    differs: OverlayDifference<'_>,
    format: OverlayFormat,
) -> Option<String> {
    use std::fmt::Write;
    let extension = format.extension()?;
    let mut path = format!("{OVERLAYS}/{key}");
    let OverlayDifference { method, layer, class } = differs;
    let written = [
        method.map(|method| write!(path, ".{method}")),
        layer.map(|layer| write!(path, ".{layer}")),
        class.map(|class| write!(path, ".class-{class}")),
        Some(write!(path, ".{extension}")),
    ];
    for written in written.into_iter().flatten() {
        written.expect("writing to a string can't fail");
    }
    Some(path)
}

/// How an explanation differs from the first one of its image.
#[derive(Clone, Copy, Debug, Default)]
pub struct OverlayDifference<'a> {
    /// Its method, if another.
    pub method: Option<Method>,
    /// Its layers, if others.
    pub layer: Option<&'a FusedLayers>,
    /// The index of its class, if another.
    pub class: Option<usize>,
}

/// The key of the image that a result is about, from the result's path below `predictions/` or
/// `failures/`; `None` if the file is not a result.
#[must_use]
pub fn image_of_result(path_below_folder: &str) -> Option<ImageKey> {
    ImageKey::parse(path_below_folder.strip_suffix(RESULT_SUFFIX)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_is_the_contracts() {
        let key = ImageKey::parse("cat/a.jpg").unwrap();
        assert_eq!(prediction(&key), "predictions/cat/a.jpg.json");
        assert_eq!(failure(&key), "failures/cat/a.jpg.json");
        let overlay = |differs, format| overlay(&key, differs, format);
        let first = OverlayDifference::default();
        let layer = "layer3+layer4".parse().unwrap();
        let method = Some(Method::GradCamPlusPlus);
        let other = OverlayDifference { method, layer: Some(&layer), class: Some(1) };
        for (differs, format, path) in [
            (first, OverlayFormat::Jpeg, Some("overlays/cat/a.jpg.jpg")),
            (
                other,
                OverlayFormat::Png,
                Some("overlays/cat/a.jpg.grad-cam++.layer3+layer4.class-1.png"),
            ),
            (first, OverlayFormat::None, None),
        ] {
            assert_eq!(overlay(differs, format).as_deref(), path);
        }
    }

    #[test]
    fn results_name_their_image() {
        let key = ImageKey::parse("cat/a.json").unwrap();
        assert_eq!(image_of_result("cat/a.json.json"), Some(key));
        assert_eq!(image_of_result("cat/a.jpg.tmp"), None);
    }
}
