//! Our own format: what may be missing in it, because it is known otherwise, and what must not be
//! there.

use serde_json::Value;

use super::architecture::Architecture;
use super::fields::Refusal;

/// Fields of a configuration, and of its `input`.
const FIELDS: [&str; 7] =
    ["architecture", "head", "classes", "aliases", "input", "transparency", "trained_layers"];
const INPUT_FIELDS: [&str; 8] =
    ["height", "width", "resize", "interpolation", "scale", "mean", "std", "color"];
/// A field whose name differs from a known one by one letter, or in a long name by two, is taken for a
/// misspelling.
const LONG_NAME: usize = 8;

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
        // The file's further names are of its own classes.
        let aliases = fields.get("aliases").and_then(Value::as_array);
        if aliases.is_some_and(|aliases| aliases.len() != classes.len()) {
            fields.remove("aliases");
        }
        fields.insert("classes".to_owned(), classes.into());
    }
    changes
}

/// Refuses a field that would be ignored although it was meant to do something: every unknown one in
/// `input`, and elsewhere those with nearly the name of a known one. Others are notes, such as
/// `license`.
pub(super) fn check_fields(config: &Value) -> Result<(), Refusal> {
    for name in names(config) {
        if FIELDS.contains(&name) {
            continue;
        }
        if INPUT_FIELDS.contains(&name) {
            return Err(format!("{name:?} is beside \"input\"; move it into that"));
        }
        if let Some(known) = FIELDS.iter().find(|known| is_like(name, known)) {
            return Err(format!("it has an unknown field {name:?}; did you mean {known:?}?"));
        }
    }
    for name in config.get("input").into_iter().flat_map(names) {
        if FIELDS.contains(&name) {
            return Err(format!("{name:?} is in \"input\"; move it out of that"));
        }
        if !INPUT_FIELDS.contains(&name) {
            return Err(format!(
                "its \"input\" has an unknown field {name:?}; there can be {}",
                INPUT_FIELDS.join(", ")
            ));
        }
    }
    Ok(())
}

fn names(object: &Value) -> impl Iterator<Item = &str> {
    object.as_object().into_iter().flat_map(|fields| fields.keys().map(String::as_str))
}

fn is_like(name: &str, known: &str) -> bool {
    let name = name.to_lowercase();
    let limit = if known.len() < LONG_NAME { 1 } else { 2 };
    strsim::osa_distance(&name, known) <= limit
}
