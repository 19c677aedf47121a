//! `index.html`: one file that holds everything but the pictures, and works from a disk or a
//! bucket.
//!
//! Fills the template with the styles, the scripts and the data: [`data`] for what is seen first,
//! [`images`] for the views of all images. The look of the page is in the `.html`, `.css` and `.js` files
//! beside this one; [`thumbnails`] makes the small pictures.

mod data;
mod image_columns;
pub(crate) mod image_files;
mod image_keys;
pub(crate) mod images;
pub(crate) mod thumbnails;
pub(crate) mod wanted;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use sha2::{Digest, Sha256};

pub(crate) use data::{AvailablePictures, LISTED_FINDINGS, PageData, RunFacts, TrustFacts, title};
use images::ImagesData;
use serde::Serialize;

const TEMPLATE: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
/// The scripts. Each one builds on those before it.
const SCRIPTS: [&str; 25] = [
    include_str!("base.js"),
    include_str!("terms.js"),
    include_str!("pictures.js"),
    include_str!("charts.js"),
    include_str!("heat.js"),
    include_str!("addresses.js"),
    include_str!("images.js"),
    include_str!("areas.js"),
    include_str!("all-images.js"),
    include_str!("work-index.js"),
    include_str!("decisions.js"),
    include_str!("served.js"),
    include_str!("dialogs.js"),
    include_str!("tile.js"),
    include_str!("grid.js"),
    include_str!("deciding.js"),
    include_str!("work-list.js"),
    include_str!("stage.js"),
    include_str!("detail.js"),
    include_str!("map.js"),
    include_str!("summary.js"),
    include_str!("overview.js"),
    include_str!("groups.js"),
    include_str!("slices.js"),
    include_str!("page.js"),
];

/// Renders the page. Its security policy allows the scripts and styles by their digests, so that
/// nothing else runs, whatever text is in a key or a label.
pub(crate) fn render(data: &PageData<'_>, images: &ImagesData) -> String {
    let script = SCRIPTS.join("\n");
    let digest = |text: &str| BASE64.encode(Sha256::digest(text));
    let (csp_style, csp_script) = (digest(STYLE), digest(&script));
    fill(TEMPLATE, |name| match name {
        "title" => escape(&data.title),
        "style" => STYLE.to_owned(),
        "script" => script.clone(),
        "csp_style" => csp_style.clone(),
        "csp_script" => csp_script.clone(),
        "data" => json_in_page(data),
        "images" => json_in_page(images),
        other => unreachable!("the template names {other}"),
    })
}

fn json_in_page(data: &impl Serialize) -> String {
    let json = serde_json::to_string(data).expect("the data have only strings and numbers");
    // The texts `</script>` and `<!--` would end the data.
    json.replace('<', "\\u003c")
}

/// Replaces each `{{name}}` of the template by its value, in one pass, so that `{{name}}` in a
/// value stays as it is.
fn fill(template: &str, value: impl Fn(&str) -> String) -> String {
    let mut page = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        let (name, after) = after.split_once("}}").expect("every name ends with braces");
        page.push_str(before);
        page.push_str(&value(name));
        rest = after;
    }
    page.push_str(rest);
    page
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The scripts are one module: a name that two of them declare would stop the page.
    #[test]
    fn no_two_scripts_declare_one_name() {
        let mut names = std::collections::HashSet::new();
        for line in SCRIPTS.iter().flat_map(|script| script.lines()) {
            let line = line.strip_prefix("async ").unwrap_or(line);
            let declared = ["const ", "let ", "function ", "class "];
            let Some(rest) = declared.iter().find_map(|word| line.strip_prefix(word)) else {
                continue;
            };
            let is_of_name = |c: char| c.is_alphanumeric() || "_$".contains(c);
            let name = rest.split(|c| !is_of_name(c)).next().unwrap_or_default();
            assert!(name.is_empty() || names.insert(name), "{name} is declared twice");
        }
        assert!(names.len() > 100, "{}", names.len());
    }

    #[test]
    fn places_are_filled_once_and_text_is_escaped() {
        let filled = fill("<h1>{{title}}</h1>{{data}}", |name| match name {
            "title" => escape("{{data}} <b>\"&"),
            _ => "x".to_owned(),
        });
        assert_eq!(filled, "<h1>{{data}} &lt;b&gt;&quot;&amp;</h1>x");
    }
}
