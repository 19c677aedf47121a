//! Decodes pictures of every kind and compares the pixels with Pillow's. `tests/pictures/` makes
//! them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use camshaft_common::decoded_scale::DecodedScale;
use camshaft_common::prediction::FailureClass;
use camshaft_common::transparency::Transparency;
use camshaft_decoding::{ImageLimits, decode, decode_at_scale};
use camshaft_tests::repository;
use serde_json::Value;
use tempfile::{TempDir, tempdir};

/// A picture, and what Pillow makes of it.
struct Sample {
    name: String,
    file: Vec<u8>,
    /// Width, height and RGB pixels; `None` if Pillow refuses the file.
    expected: Option<(u32, u32, Vec<u8>)>,
}

fn make(script: &str) -> TempDir {
    let folder = tempdir().unwrap();
    let script = repository::root().join("tests/pictures").join(script);
    let python = repository::tool("venv/bin/python");
    let output = Command::new(python).arg(script).arg(folder.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    folder
}

fn samples(folder: &Path, list: &str, extension: &str) -> Vec<Sample> {
    let pixels = fs::read(folder.join(format!("{list}.bin"))).unwrap();
    let entries: Vec<Value> =
        serde_json::from_slice(&fs::read(folder.join(format!("{list}.json"))).unwrap()).unwrap();
    let sample = |entry: Value| {
        let name = entry["name"].as_str().unwrap().to_owned();
        let side = |side: &str| entry[side].as_u64().unwrap() as u32;
        let expected = entry["offset"].as_u64().map(|offset| {
            let (width, height, offset) = (side("width"), side("height"), offset as usize);
            let bytes = (width * height * 3) as usize;
            (width, height, pixels[offset..offset + bytes].to_vec())
        });
        let file = fs::read(folder.join(format!("{name}{extension}"))).unwrap();
        Sample { name, file, expected }
    };
    entries.into_iter().map(sample).collect()
}

/// What became of the samples.
#[derive(Debug, Default)]
struct Comparison {
    compared: usize,
    worst: f64,
    worst_name: String,
    /// Files that Pillow reads and we refuse as unsupported, with our words.
    refused: BTreeMap<String, String>,
    /// Everything else that differs.
    wrong: Vec<String>,
}

#[expect(clippy::print_stdout, reason = "`--nocapture` shows how far the pictures differ")]
fn compare(samples: &[Sample], transparency: Transparency) -> Comparison {
    let mut comparison = Comparison::default();
    for Sample { name, file, expected } in samples {
        match (decode(file, &ImageLimits::default(), transparency), expected) {
            (Ok(image), Some((width, height, pixels))) => {
                if image.dimensions() != (*width, *height) {
                    comparison.wrong.push(format!("{name}: size {:?}", image.dimensions()));
                    continue;
                }
                let sum: f64 = image
                    .as_raw()
                    .iter()
                    .zip(pixels)
                    .map(|(&ours, &theirs)| f64::from(ours.abs_diff(theirs)))
                    .sum();
                let mean = sum / pixels.len() as f64;
                comparison.compared += 1;
                if mean > comparison.worst {
                    comparison.worst = mean;
                    comparison.worst_name.clone_from(name);
                }
                if mean >= 2.0 {
                    comparison.wrong.push(format!("{name}: {mean:.2} levels from Pillow's"));
                }
            }
            (Ok(_), None) => comparison.wrong.push(format!("{name}: Pillow refuses it")),
            (Err(error), Some(_)) if error.class() == FailureClass::Unsupported => {
                comparison.refused.insert(name.clone(), error.to_string());
            }
            (Err(error), Some(_)) => comparison.wrong.push(format!("{name}: {error}")),
            (Err(_), None) => {}
        }
    }
    println!(
        "{} of {} pictures compared; the worst, {}, differs by {:.3} levels; {} refused",
        comparison.compared,
        samples.len(),
        comparison.worst_name,
        comparison.worst,
        comparison.refused.len(),
    );
    comparison
}

#[test]
fn no_jpeg_is_both_accepted_and_wrong() {
    let folder = make("make_jpegs.py");
    let samples = samples(folder.path(), "expected", ".jpg");
    let comparison = compare(&samples, Transparency::OverWhite);
    assert!(comparison.wrong.is_empty(), "{:#?}", comparison.wrong);
    assert!(comparison.refused.is_empty(), "{:#?}", comparison.refused);
    assert!(comparison.compared > 2000, "only {} pictures were made", comparison.compared);
}

#[test]
fn every_jpeg_is_read_or_refused_alike_at_every_scale() {
    let folder = make("make_jpegs.py");
    let limits = ImageLimits::default();
    for Sample { name, file, .. } in samples(folder.path(), "expected", ".jpg") {
        let whole = decode(&file, &limits, Transparency::OverWhite);
        for scale in DecodedScale::REDUCED {
            let reduced = decode_at_scale(&file, &limits, Transparency::OverWhite, &|_size| scale);
            assert_eq!(reduced.is_ok(), whole.is_ok(), "{name} at {scale:?}");
            let (Ok(reduced), Ok(whole)) = (reduced, &whole) else { continue };
            assert_eq!(reduced.pixels.dimensions(), scale.reduce(whole.dimensions()), "{name}");
        }
    }
}

#[test]
fn every_format_is_read_as_pillow_reads_it_or_called_unsupported() {
    let folder = make("make_formats.py");
    for (list, transparency) in
        [("expected", Transparency::OverWhite), ("ignored", Transparency::Ignore)]
    {
        let comparison = compare(&samples(folder.path(), list, ""), transparency);
        assert!(comparison.wrong.is_empty(), "{list}: {:#?}", comparison.wrong);
    }
}
