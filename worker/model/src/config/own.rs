//! Our own format: what may be missing in it, because it is known otherwise.

use serde_json::Value;

use super::architecture::Architecture;

/// A configuration without architecture and classes, for a file of weights alone: the input that
/// torchvision's `ImageClassification` preset prepares, for its weights of before 2022 and most
/// training programs.
pub(super) const TORCHVISIONS_INPUT: &str = r#"{
    "input": {
        "height": 224, "width": 224, "resize": {"shorter-side": 256},
        "interpolation": "bilinear-antialiased", "scale": "1/255",
        "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "color": "rgb"
    }
}"#;

/// Fills in an architecture that a configuration does not name, and puts the user's classes into
/// it. False if there was nothing to do.
pub(super) fn fill_in(
    config: &mut Value,
    architecture: Option<Architecture>,
    classes: Option<Vec<String>>,
) -> bool {
    let Some(fields) = config.as_object_mut() else { return false };
    let architecture = architecture.filter(|_| !fields.contains_key("architecture"));
    let changes = architecture.is_some() || classes.is_some();
    if let Some(architecture) = architecture {
        fields.insert("architecture".to_owned(), architecture.name().into());
    }
    if let Some(classes) = classes {
        fields.insert("classes".to_owned(), classes.into());
    }
    changes
}
