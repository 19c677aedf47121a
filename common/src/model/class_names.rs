//! Names of classes: reading them from a file, and whether they can be told apart.
//!
//! Does not know how many classes a model has. Upstream: the file of `--classes`. Downstream: the
//! worker, which compares them with the model's head.

use std::collections::HashMap;

use serde_json::Value;

/// Names of a model's classes that `--classes` gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClassNames {
    /// Those of ImageNet-1k.
    ImageNet1k,
    /// These, by class index.
    List(Vec<String>),
}

/// A file of class names can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the class names in {place} can't be used: {problem}")]
pub struct ClassNamesError {
    place: String,
    problem: String,
}

/// Reads class names from the content of the file at `place`: one name a line, a JSON list of
/// names, or a JSON object of names by id (`{"0": "cat"}`) or ids by name (`{"cat": 0}`). Spaces
/// around a name don't count.
///
/// # Errors
/// If the content has another form, if a class has no name, or if two have the same.
pub(super) fn parse_class_names(
    place: &str,
    content: &[u8],
) -> Result<Vec<String>, ClassNamesError> {
    let refused = |problem| ClassNamesError { place: place.to_owned(), problem };
    let text = std::str::from_utf8(content).map_err(|_| {
        refused("it is not UTF-8 text; write one name a line, or a JSON list".to_owned())
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let names = match text.trim_start().as_bytes().first() {
        Some(b'[' | b'{') => from_json(text).map_err(refused)?,
        _ => from_lines(text).map_err(refused)?,
    };
    check_class_names(&names).map_err(refused)?;
    Ok(names)
}

/// Checks that every class has a name and no two have the same. Spaces around a name don't count.
///
/// # Errors
/// A description of the first class that doesn't, and what to do.
pub fn check_class_names(names: &[String]) -> Result<(), String> {
    if names.is_empty() {
        return Err("there are none; list the class names in order".to_owned());
    }
    let mut known = HashMap::new();
    for (class, name) in names.iter().enumerate() {
        let name = name.trim();
        if name.is_empty() {
            return Err(format!("class {class} has an empty name; name every class"));
        }
        if let Some(first) = known.insert(name, class) {
            return Err(format!(
                "classes {first} and {class} are both called {name:?}; give them different names"
            ));
        }
    }
    Ok(())
}

fn from_lines(text: &str) -> Result<Vec<String>, String> {
    // Editors leave empty lines at the end. A forgotten last name is found by the number of classes.
    let lines: Vec<_> = text.trim_end().lines().map(str::trim).collect();
    if let Some(empty) = lines.iter().position(|line| line.is_empty()).filter(|_| lines.len() > 1) {
        return Err(format!("line {} is empty; name every class", empty + 1));
    }
    let numbered = |line: &&str| {
        let rest = line.trim_start_matches(|c: char| c.is_ascii_digit());
        rest.len() < line.len() && rest.starts_with([',', ';', ':', '\t'])
    };
    if !lines.is_empty() && lines.iter().all(numbered) {
        return Err("every line begins with a number; leave the numbers out and put the names in \
                    their order, or write a JSON object of names by id"
            .to_owned());
    }
    Ok(lines.into_iter().map(str::to_owned).filter(|name| !name.is_empty()).collect())
}

fn from_json(text: &str) -> Result<Vec<String>, String> {
    let value = serde_json::from_str(text)
        .map_err(|error| format!("it begins as JSON and is none ({error})"))?;
    let form = || {
        "it is JSON, but neither a list of names nor an object of names by id or ids by name"
            .to_owned()
    };
    match value {
        Value::Array(names) => {
            let names = names.iter().map(|name| name.as_str().map(|name| name.trim().to_owned()));
            names.collect::<Option<_>>().ok_or_else(form)
        }
        Value::Object(entries) => {
            let by_id = entries.iter().map(|(key, value)| {
                Some((key.trim().parse::<usize>().ok()?, value.as_str()?.trim().to_owned()))
            });
            let by_name = entries.iter().map(|(key, value)| {
                Some((usize::try_from(value.as_u64()?).ok()?, key.trim().to_owned()))
            });
            let by_id: Option<Vec<_>> = by_id.collect();
            in_order(by_id.or_else(|| by_name.collect()).ok_or_else(form)?)
        }
        _ => Err(form()),
    }
}

/// Puts names into the order of their ids, which must be 0, 1, 2 and so on.
fn in_order(mut named: Vec<(usize, String)>) -> Result<Vec<String>, String> {
    named.sort();
    match named.iter().enumerate().find(|(class, (id, _))| class != id) {
        None => Ok(named.into_iter().map(|(_, name)| name).collect()),
        Some((class, (id, _))) if *id > class => {
            Err(format!("class {class} has no name; ids go from 0 up without a gap"))
        }
        Some((_, (id, name))) => {
            Err(format!("id {id} is there twice, the second time as {name:?}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Vec<String>, String> {
        parse_class_names("names", text.as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn names_are_read_in_every_form() {
        for text in [
            "cat\ndog\nkoi carp",
            "\u{feff}cat\r\n dog \r\nkoi carp\r\n\r\n",
            r#"["cat", "dog ", "koi carp"]"#,
            r#"{"2": "koi carp", "0": "cat", "1": "dog"}"#,
            r#"{"koi carp": 2, "dog": 1, "cat": 0}"#,
        ] {
            assert_eq!(parse(text).unwrap(), ["cat", "dog", "koi carp"], "{text}");
        }
        // Names that are numbers, by their own index.
        assert_eq!(parse(r#"{"0": 0, "1": 1}"#).unwrap(), ["0", "1"]);
    }

    #[test]
    fn classes_without_a_name_of_their_own_are_refused_by_name() {
        for (text, part) in [
            ("", "there are none"),
            ("[]", "there are none"),
            ("cat\n\ndog", "line 2 is empty"),
            ("\ncat\ndog", "line 1 is empty"),
            ("cat\ndog\n cat ", "classes 0 and 2 are both called \"cat\""),
            (r#"["cat", " "]"#, "class 1 has an empty name"),
            (r#"["cat", "cat\t"]"#, "classes 0 and 1 are both called \"cat\""),
            (r#"{"0": "cat", "2": "dog"}"#, "class 1 has no name"),
            (r#"{"cat": 1, "dog": 1}"#, "class 0 has no name"),
            (r#"{"cat": 0, "dog": 0}"#, "id 0 is there twice"),
            (r#"{"0": ["n02123045", "tabby"]}"#, "neither a list"),
            (r#"["cat", 1]"#, "neither a list"),
            ("[cat, dog]", "begins as JSON"),
            ("0,cat\n1,dog", "begins with a number"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(part) && error.contains("in names"), "{text}: {error}");
        }
        assert!(parse_class_names("names", b"\xff\xfe").is_err());
    }
}
