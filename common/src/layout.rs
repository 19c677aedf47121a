//! Where results lie under OUT. Same key, same place, every time: doing an image twice
//! does no harm.

use crate::explain::OverlayFormat;
use crate::key::ImageKey;

/// The run's own record.
pub const RUN_FILE: &str = "run.json";
/// What `--trust-sample` found.
pub const TRUST_FILE: &str = "trust.json";
/// Folder of prediction files.
pub const PREDICTIONS: &str = "predictions";
/// Folder of overlays.
pub const OVERLAYS: &str = "overlays";
/// Folder of failure files.
pub const FAILURES: &str = "failures";

const RESULT_SUFFIX: &str = ".json";

/// `predictions/<image key>.json`.
#[must_use]
pub fn prediction(key: &ImageKey) -> String {
    format!("{PREDICTIONS}/{key}{RESULT_SUFFIX}")
}

/// `failures/<image key>.json`.
#[must_use]
pub fn failure(key: &ImageKey) -> String {
    format!("{FAILURES}/{key}{RESULT_SUFFIX}")
}

/// `overlays/<image key>.jpg` for an image's first explanation. Further ones, of other
/// classes, carry their class index: `overlays/<image key>.class-7.jpg`.
#[must_use]
pub fn overlay(
    key: &ImageKey,
    further_class: Option<usize>,
    format: OverlayFormat,
) -> Option<String> {
    let extension = format.extension()?;
    Some(match further_class {
        None => format!("{OVERLAYS}/{key}.{extension}"),
        Some(class) => format!("{OVERLAYS}/{key}.class-{class}.{extension}"),
    })
}

/// The image a file under `predictions/` or `failures/` is about, given its path below
/// that folder; `None` for a file that is not a result.
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
        assert_eq!(
            overlay(&key, None, OverlayFormat::Jpeg).as_deref(),
            Some("overlays/cat/a.jpg.jpg")
        );
        assert_eq!(
            overlay(&key, Some(1), OverlayFormat::Png).as_deref(),
            Some("overlays/cat/a.jpg.class-1.png")
        );
        assert_eq!(overlay(&key, None, OverlayFormat::None), None);
    }

    #[test]
    fn results_name_their_image() {
        let key = ImageKey::parse("cat/a.json").unwrap();
        assert_eq!(image_of_result("cat/a.json.json"), Some(key));
        assert_eq!(image_of_result("cat/a.jpg.tmp"), None);
    }
}
