//! What differs between the run in OUT and the one that is asked for, and how to go on with the first.
//!
//! Pure: makes texts. Upstream: [`run_record`](super::run_record), which refuses to mix them.

use std::collections::{BTreeMap, BTreeSet};
use std::iter;

use camshaft_common::explain::ExplainOptions;
use camshaft_common::location::Location;
use camshaft_common::model::{ModelIdentity, ModelOptions, ModelRequest};
use serde_json::{Map, Value};

use crate::images::list_lines::ListColumns;

/// A difference between two runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Difference {
    /// Completes "OUT holds results …".
    pub(crate) text: String,
    /// What to do to go on with the run in OUT.
    pub(crate) go_on: String,
}

/// SOURCE or `--base` differ; each is given with the base.
#[must_use]
pub(super) fn of_source(
    then: (&str, Option<&Location>),
    now: (&str, Option<&Location>),
) -> Difference {
    if then.0 != now.0 {
        let text = format!("of another SOURCE: it was {} and is {} now", then.0, now.0);
        return Difference { text, go_on: format!("give {} to go on with it", then.0) };
    }
    let base = |base: Option<&Location>| base.map_or("absent".to_owned(), ToString::to_string);
    let [then, now] = [then.1, now.1].map(base);
    let text = format!("of another SOURCE: --base was {then} and is {now} now");
    Difference { text, go_on: format!("give --base {then} to go on with it") }
}

/// The user names other columns of the list.
#[must_use]
pub(super) fn of_columns(then: &ListColumns, now: &ListColumns) -> Difference {
    let (mut texts, mut ways) = (Vec::new(), Vec::new());
    for (option, before, after) in
        [("--key-column", &then.key, &now.key), ("--label-column", &then.label, &now.label)]
    {
        if before != after {
            let text =
                |column: &Option<String>| column.as_deref().map_or("absent".into(), shell_word);
            texts.push(format!("{option} was {} and is {} now", text(before), text(after)));
            ways.push(match before {
                Some(column) => format!("give {option} {}", shell_word(column)),
                None => format!("leave out {option}"),
            });
        }
    }
    Difference {
        text: format!("of other columns of the list: {}", texts.join(", ")),
        go_on: format!("{} to go on with them", ways.join(" and ")),
    }
}

/// The models differ.
#[must_use]
pub(super) fn of_model(then: &ModelIdentity, now: &ModelIdentity) -> Difference {
    if then.reference == now.reference && then.options != now.options {
        let [before, after] = [then, now].map(|model| model_options(&model.options));
        return Difference {
            text: format!("of the same model read otherwise: it was {before} and is {after} now"),
            go_on: match then.options.is_default() {
                true => format!("leave out {after} to go on with them"),
                false => format!("give {before} to go on with them"),
            },
        };
    }
    if then.reference == now.reference {
        // The same place has other files by now.
        let (what, then_digest, now_digest) = if then.digest == now.digest {
            // The file that names the classes may lie elsewhere.
            let what = match then.options.classes {
                Some(_) => "the configuration files, or what --classes names,",
                None => "the configuration files",
            };
            (what, &then.config_digest, &now.config_digest)
        } else {
            ("the weights", &then.digest, &now.digest)
        };
        let text = format!(
            "of another model: the files of {} have changed: {what} had the digest {then_digest} and \
             have {now_digest} now",
            String::from(then.reference.clone())
        );
        return Difference { text, go_on: "restore the model to go on with them".to_owned() };
    }
    let [then, now] = [then, now].map(|model| shell_word(&String::from(model.reference.clone())));
    Difference {
        text: format!("of another model: --model was {then} and is {now} now"),
        go_on: format!("give --model {then} to go on with them"),
    }
}

/// `sha256:` and enough of it to tell calibrations apart.
const SHORT_DIGEST: usize = 15;

/// The options of a model, as a command line has them.
fn model_options(options: &ModelOptions) -> String {
    let mut words = Vec::new();
    if let Some(classes) = &options.classes {
        words.push(format!("--classes {}", shell_word(&classes.to_string())));
    }
    for pattern in &options.ignore_tensors {
        words.push(format!("--ignore-tensors {}", shell_word(pattern)));
    }
    if let Some(key) = &options.weights_key {
        words.push(format!("--weights-key {}", shell_word(key)));
    }
    if let Some(calibration) = &options.calibration {
        // Two runs may differ in nothing else.
        let digest = calibration.digest.as_str();
        let short = &digest[..digest.len().min(SHORT_DIGEST)];
        words.push(format!("--precision int8 (calibration {short}…)"));
    }
    if words.is_empty() { "without options".to_owned() } else { words.join(" ") }
}

/// Options of the explanation differ.
#[must_use]
pub(super) fn of_options(then: &ExplainOptions, now: &ExplainOptions) -> Difference {
    let [then, now] = [then, now].map(fields);
    let only_now = now.keys().filter(|name| !then.contains_key(*name));
    let (mut texts, mut ways) = (Vec::new(), Vec::new());
    for name in then.keys().chain(only_now) {
        let (before, after) = (then.get(name), now.get(name));
        if before == after {
            continue;
        }
        let option = option_name(name);
        let is_flag = [before, after].into_iter().flatten().all(Value::is_boolean);
        let text = |value: Option<&Value>| match value {
            Some(Value::Bool(true)) => "on".to_owned(),
            Some(Value::Bool(false)) => "off".to_owned(),
            None if is_flag => "off".to_owned(),
            None | Some(Value::Null) => "the default".to_owned(),
            Some(Value::String(text)) => shell_word(text),
            Some(other) => other.to_string(),
        };
        texts.push(format!("{option} was {} and is {} now", text(before), text(after)));
        ways.push(match before {
            Some(Value::Bool(true)) => format!("give {option}"),
            None | Some(Value::Null | Value::Bool(false)) => format!("leave out {option}"),
            Some(_) => format!("give {option} {}", text(before)),
        });
    }
    Difference {
        text: format!("made with other options: {}", texts.join(", ")),
        go_on: format!("{} to go on with them", ways.join(" and ")),
    }
}

/// The options of `now` that are not as in `then`, as a command line has them.
#[must_use]
pub(super) fn words_of_options(then: &ExplainOptions, now: &ExplainOptions) -> Vec<String> {
    let [then, now] = [then, now].map(fields);
    let names: BTreeSet<_> = then.keys().chain(now.keys()).collect();
    let differing = names.into_iter().filter(|name| then.get(*name) != now.get(*name));
    let word = |name: &String| match now.get(name) {
        Some(Value::Bool(true)) => option_name(name),
        // What is at its default may be absent, as a switch that is off is.
        None if then.get(name).is_some_and(Value::is_boolean) => {
            format!("{}=false", option_name(name))
        }
        None => format!("without {}", option_name(name)),
        Some(Value::String(text)) => format!("{} {}", option_name(name), shell_word(text)),
        Some(other) => format!("{} {other}", option_name(name)),
    };
    differing.map(word).collect()
}

/// The model, as a command line has it.
#[must_use]
pub(super) fn model_words(model: &ModelRequest) -> Vec<String> {
    let reference = format!("--model {}", shell_word(&String::from(model.reference.clone())));
    let options = (!model.options.is_default()).then(|| model_options(&model.options));
    iter::once(reference).chain(options).collect()
}

/// An option with a word, if it has one, as a command line has it.
#[must_use]
pub(super) fn option_with(name: &str, word: Option<&str>) -> Option<String> {
    word.map(|word| format!("{} {}", option_name(name), shell_word(word)))
}

/// A field has its option's name.
fn option_name(field: &str) -> String {
    format!("--{}", field.replace('_', "-"))
}

/// The label maps differ.
#[must_use]
pub(super) fn of_label_maps(then: &BTreeMap<String, String>) -> Difference {
    if then.is_empty() {
        let text = "made without a label map".to_owned();
        return Difference { text, go_on: "leave out --label-map to go on with them".to_owned() };
    }
    let text = "made with another label map".to_owned();
    Difference { text, go_on: "leave out --label-map to go on with them".to_owned() }
}

/// The options by name, as JSON has them; those at their default may be absent.
pub(super) fn fields(options: &ExplainOptions) -> Map<String, Value> {
    // Through text, which has the shortest digits of a number: 0.4, not 0.4000000059604645.
    let json = serde_json::to_string(options).ok();
    json.and_then(|json| serde_json::from_str(&json).ok()).unwrap_or_default()
}

/// A value as a shell reads it.
fn shell_word(text: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "-_=+:,./@%^".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use camshaft_common::explain::{Colormap, Target};

    use super::*;

    #[test]
    fn every_option_that_differs_is_named_with_both_values() {
        let then = ExplainOptions::default();
        let now = ExplainOptions {
            colormap: Colormap::Magma,
            alpha: 0.7,
            embeddings: true,
            ..ExplainOptions::default()
        };
        let difference = of_options(&then, &now);
        assert_eq!(
            difference.text,
            "made with other options: --alpha was 0.4 and is 0.7 now, --colormap was jet and is \
             magma now, --embeddings was off and is on now"
        );
        assert_eq!(
            difference.go_on,
            "give --alpha 0.4 and give --colormap jet and leave out --embeddings to go on with them"
        );
        let then = ExplainOptions { target: Target::Class("great dane".into()), ..then };
        let difference = of_options(&then, &ExplainOptions::default());
        assert_eq!(difference.go_on, "give --target 'class:great dane' to go on with them");
    }

    #[test]
    fn columns_that_differ_are_named() {
        let columns = |key: Option<&str>, label: Option<&str>| ListColumns {
            key: key.map(str::to_owned),
            label: label.map(str::to_owned),
        };
        let difference = of_columns(&columns(None, Some("y")), &columns(Some("a b"), Some("y")));
        assert!(difference.text.ends_with("--key-column was absent and is 'a b' now"));
        assert_eq!(difference.go_on, "leave out --key-column to go on with them");
        let difference = of_columns(&columns(None, Some("y")), &columns(None, Some("z")));
        assert_eq!(difference.go_on, "give --label-column y to go on with them");
    }

    #[test]
    fn another_model_or_source_is_named_beside_the_first() {
        let bundled = ModelIdentity::bundled();
        let reference = "/models/pets".parse().unwrap();
        let pets = ModelIdentity::of_files(reference, b"weights", b"config", None);
        let difference = of_model(&bundled, &pets);
        assert!(
            difference.text.contains("--model was cats-vs-dogs and is /models/pets now"),
            "{difference:?}"
        );
        let changed = ModelIdentity::of_files(pets.reference.clone(), b"others", b"config", None);
        let difference = of_model(&pets, &changed);
        assert!(difference.text.contains("the weights had the digest sha256:"), "{difference:?}");
        let [a, b] = ["s3://data/a", "s3://data/b"].map(|text| text.parse::<Location>().unwrap());
        let difference = of_source(("list:k.csv", Some(&a)), ("list:k.csv", Some(&b)));
        assert!(difference.text.contains("--base was s3://data/a and is s3://data/b now"));
        let difference = of_source(("file:///a", None), ("file:///b", None));
        assert_eq!(difference.go_on, "give file:///a to go on with it");
    }
}
