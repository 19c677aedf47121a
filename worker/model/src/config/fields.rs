//! Reading single fields of other programs' configurations.

use camshaft_common::transparency::Transparency;
use serde_json::Value;

/// Why a configuration of another program can't be converted to our format.
pub(super) type Refusal = String;

/// The first of the fields `names` that `object` has and that is not null.
pub(super) fn field<'a>(object: &'a Value, names: &[&str]) -> Option<&'a Value> {
    names.iter().filter_map(|name| object.get(name)).find(|value| !value.is_null())
}

/// What becomes of transparency: a word of our own format that may be added to the others.
pub(super) fn transparency(config: &Value) -> Result<Transparency, Refusal> {
    match config.get("transparency") {
        None => Ok(Transparency::default()),
        Some(word) => serde_json::from_value(word.clone())
            .map_err(|error| format!("\"transparency\" is {word}: {error}")),
    }
}

/// Three numbers: a mean or a standard deviation.
pub(super) fn triple(name: &str, value: &Value) -> Result<[f32; 3], Refusal> {
    let numbers: Option<Vec<f64>> =
        value.as_array().and_then(|list| list.iter().map(Value::as_f64).collect());
    let numbers = numbers.and_then(|numbers| <[f64; 3]>::try_from(numbers).ok());
    let numbers = numbers.ok_or_else(|| format!("\"{name}\" is {value}, not three numbers"))?;
    Ok(numbers.map(|number| number as f32))
}

/// A number of pixels.
pub(super) fn pixels(name: &str, value: &Value) -> Result<usize, Refusal> {
    value
        .as_u64()
        .and_then(|number| usize::try_from(number).ok())
        .ok_or_else(|| format!("\"{name}\" is {value}, not a number of pixels"))
}
