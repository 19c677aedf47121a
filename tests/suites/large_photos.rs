//! Photographs that are larger than their overlays: JPEGs are decoded at a reduced scale, and results
//! are those of the full size.

use std::fs;
use std::path::Path;

use camshaft_common::decoded_scale::DecodedScale;
use camshaft_common::explain::OverlaySize;
use camshaft_common::prediction::PredictionRecord;
use camshaft_tests::images::{turned, write_large_photos};
use camshaft_tests::programs::{camshaft, run};
use camshaft_tests::results::{Results, local};
use camshaft_tests::small_run::SmallRun;
use serde_json::Value;
use tempfile::tempdir;

use super::accuracy::cosine;

fn audited(source: &Path, more: &[&str]) -> (Results, tempfile::TempDir) {
    let out = tempdir().unwrap();
    let mut command = camshaft(["audit", "--precision", "f32", "--labels", "none"]);
    let _ended = run(command.arg(source).arg("--out").arg(out.path()).args(more)).expect(0);
    (Results::read(&local(out.path())), out)
}

fn overlay_size(out: &Path, key: &str) -> (u32, u32) {
    image::image_dimensions(out.join(format!("overlays/{key}.jpg"))).unwrap()
}

fn assert_same_measures(key: &str, full: &PredictionRecord, reduced: &PredictionRecord) {
    let [full, reduced] = [full, reduced].map(|record| record.image.measures.unwrap());
    assert_eq!((full.blocking.is_some(), reduced.blocking), (true, None), "{key}");
    let differing = (full.perceptual_hash.0 ^ reduced.perceptual_hash.0).count_ones();
    assert!(differing <= 1, "{key}: {differing} bits of the hash");
    for (name, full, reduced) in [
        ("brightness", full.brightness, reduced.brightness),
        ("contrast", full.contrast, reduced.contrast),
        ("information", full.information, reduced.information),
        ("blur", full.blur, reduced.blur),
        ("chroma", full.chroma, reduced.chroma),
    ] {
        assert!((full - reduced).abs() < 0.01, "{key}: {name} {full} and {reduced}");
    }
}

#[test]
fn results_at_a_reduced_scale_are_those_of_the_full_size() {
    let source = tempdir().unwrap();
    let keys = write_large_photos(source.path());
    let (full, full_out) = audited(source.path(), &["--overlay-size", "full"]);
    let (usual, usual_out) = audited(source.path(), &[]);
    let (none, _none_out) = audited(source.path(), &["--overlay", "none"]);
    let mut least: f64 = 1.0;
    for (key, size) in &keys {
        let [full, usual, none] = [&full, &usual, &none].map(|results| &results.predictions[key]);
        let scales = [full, usual, none].map(|record| record.image.decoded_scale);
        assert_eq!(
            scales,
            [DecodedScale::Full, DecodedScale::Half, DecodedScale::Quarter],
            "{key}"
        );
        for reduced in [usual, none] {
            let sizes = [full, reduced].map(|record| (record.image.width, record.image.height));
            assert_eq!(sizes, [(Some(size.0), Some(size.1)); 2], "{key}");
            assert_eq!(full.image.region, reduced.image.region, "{key}");
            let [one, other] = [full, reduced].map(|record| record.predictions[0].class);
            assert_eq!(one, other, "{key}");
            let [one, other] = [full, reduced].map(|record| &record.explanations[0]);
            least = least.min(cosine(&one.map.values, &other.map.values));
            for (one, other) in one.centroid.iter().zip(other.centroid) {
                assert!((one - other).abs() < 0.005, "{key}: centroid {one} and {other}");
            }
            assert_same_measures(key, full, reduced);
        }
        assert_eq!(overlay_size(full_out.path(), key), *size, "{key}");
        let half = (size.0.div_ceil(2), size.1.div_ceil(2));
        assert_eq!(overlay_size(usual_out.path(), key), half, "{key}");
    }
    println!("{} photographs; least cosine of maps {least}", keys.len());
    assert!(least >= 0.999, "{least}");
}

#[test]
fn overlays_have_at_most_the_size_asked_for() {
    let source = tempdir().unwrap();
    let photo = image::RgbImage::from_fn(900, 600, |x, y| image::Rgb([x as u8, y as u8, 90]));
    for name in ["a.png", "b.jpg"] {
        photo.save(source.path().join(name)).unwrap();
    }
    // Held upright, with sides that are no multiples of eight.
    let upright = turned(&fs::read(source.path().join("b.jpg")).unwrap());
    fs::write(source.path().join("c.jpg"), upright).unwrap();
    for (size, expected) in [
        ("600", [(600, 400), (600, 400), (400, 600)]),
        ("900", [(900, 600), (900, 600), (600, 900)]),
        ("full", [(900, 600), (900, 600), (600, 900)]),
    ] {
        let (results, out) = audited(source.path(), &["--overlay-size", size]);
        for (name, expected) in ["a.png", "b.jpg", "c.jpg"].into_iter().zip(expected) {
            assert_eq!(overlay_size(out.path(), name), expected, "{name} at {size}");
            let image = &results.predictions[name].image;
            let turned = name == "c.jpg";
            let (width, height) = if turned { (600, 900) } else { (900, 600) };
            assert_eq!((image.width, image.height), (Some(width), Some(height)), "{name}");
            assert!(image.decoded_scale.is_full(), "{name}");
        }
    }
    let ended = run(camshaft(["audit", "--overlay-size", "12"]).arg(source.path()));
    let told = &ended.expect(2).stderr;
    assert!(told.contains("full, or the longest side in pixels, 64 to 65535"), "{told}");
}

/// A nightly run: its OUT is of a version whose overlays had the size of their images.
#[test]
fn a_run_of_an_older_version_goes_on_with_overlays_of_full_size() {
    let small = SmallRun::new(2);
    let _first = small.audit(&["--overlay-size", "full"]).expect(0);
    let path = small.out.join("run.json");
    let mut record: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    assert_eq!(record["explain"].as_object_mut().unwrap().remove("overlay_size").unwrap(), "full");
    fs::write(&path, record.to_string()).unwrap();

    let large = image::RgbImage::from_pixel(2600, 1300, image::Rgb([90, 120, 30]));
    large.save(small.source.join("large.jpg")).unwrap();
    let again = small.audit(&[]).expect(0);
    let told = "Goes on with the options of the results in OUT: --overlay-size full";
    assert!(again.stdout.contains(told), "{}", again.stdout);
    assert!(again.stdout.contains("2 had results already"), "{}", again.stdout);
    assert_eq!(overlay_size(&small.out, "large.jpg"), (2600, 1300));
    assert!(small.results().predictions["large.jpg"].image.decoded_scale.is_full());

    let refused = small.audit(&["--overlay-size", "2048"]).expect(1).stderr;
    assert!(refused.contains("--overlay-size was full and is 2048 now"), "{refused}");
    assert!(refused.contains("give --overlay-size full"), "{refused}");
    assert_eq!(OverlaySize::default(), OverlaySize::AtMost(2048));
}

#[test]
fn the_blocks_of_reduced_photographs_can_be_measured_later() {
    let small = SmallRun::new(1);
    let large = image::RgbImage::from_fn(2700, 2100, |x, y| image::Rgb([(x / 9 + y / 7) as u8; 3]));
    large.save(small.source.join("large.jpg")).unwrap();
    let _audited = small.audit(&["--overlay-size", "1300"]).expect(0);
    let measured = || small.results().predictions["large.jpg"].image.measures.unwrap();
    let before = measured();
    assert_eq!(before.blocking, None);
    let ended = small.audit(&["--remeasure"]).expect(0);
    assert!(ended.stdout.contains("Remeasured 1 image"), "{}", ended.stdout);
    let after = measured();
    assert!(after.blocking.is_some());
    assert_eq!((after.blur, after.perceptual_hash), (before.blur, before.perceptual_hash));
}
