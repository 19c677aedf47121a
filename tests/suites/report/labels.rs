//! Tests the audit of labels that the model does not know: textures, under names of the user's own.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use camshaft_tests::images::write_small_model;
use camshaft_tests::programs::{camshaft, run};
use image::RgbImage;
use tempfile::tempdir;

use super::{duckdb, found, report, summary};

/// Images of each texture.
const IMAGES: usize = 30;
const TEXTURES: [&str; 4] = ["checks", "dots", "rings", "stripes"];

/// A picture of a texture; each index has colours and a size of its own.
fn texture(kind: usize, index: usize) -> RgbImage {
    let size = 5 + index % 4;
    let bright = [150 + index * 3 % 100, 120 + index * 7 % 130, 140 + index * 11 % 110];
    let dark = [index * 5 % 60, index * 13 % 70, index * 17 % 80];
    RgbImage::from_fn(96, 96, |x, y| {
        let (x, y) = (x as usize + index % 7, y as usize + index % 5);
        let is_bright = match kind {
            0 => (x / (2 * size) + y / (2 * size)).is_multiple_of(2),
            1 => (x % (3 * size)).pow(2) + (y % (3 * size)).pow(2) < (2 * size).pow(2),
            2 => ((x.abs_diff(48).pow(2) + y.abs_diff(48).pow(2)).isqrt() / size).is_multiple_of(2),
            _ => (x / size).is_multiple_of(2),
        };
        image::Rgb(if is_bright { bright } else { dark }.map(|value| value as u8))
    })
}

/// Writes all textures, the fourth of every kind with the label of the next one. Returns the keys of
/// those.
fn write_textures(source: &Path) -> BTreeSet<String> {
    let mut wrong = BTreeSet::new();
    for (kind, name) in TEXTURES.iter().enumerate() {
        for index in 0..IMAGES {
            let label = if index == 3 { TEXTURES[(kind + 1) % TEXTURES.len()] } else { name };
            let key = format!("train/{label}/{name}-{index}.png");
            let path = source.join(&key);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            texture(kind, index).save(path).unwrap();
            if index == 3 {
                wrong.insert(key);
            }
        }
    }
    wrong
}

#[test]
fn labels_of_the_users_own_are_judged_with_a_hold_out_and_in_groups() {
    let directory = tempdir().unwrap();
    let [source, model, out] = ["images", "model", "out"].map(|name| directory.path().join(name));
    let wrong = write_textures(&source);
    write_small_model(&model);
    let mut audit = camshaft(["audit", "--overlay", "none"]);
    let _audited =
        run(audit.arg(&source).arg("--out").arg(&out).arg("--model").arg(&model)).expect(0);

    let table = summary(&out, &["--thumbnails", "0"]);
    let suspected = found(&out, "kind = 'label-error'");
    let right = suspected.intersection(&wrong).count();
    assert!(right >= 3 && suspected.len() <= right + 2, "{suspected:?}");
    let audit = &table["label_audit"];
    assert_eq!((&audit["images"], &audit["classes"]), (&120.into(), &4.into()), "{table}");
    let [low, count, high] = ["_low", "", "_high"]
        .map(|end| table[format!("estimated_label_errors{end}")].as_u64().unwrap());
    assert!(low < count && count < high, "{low} {count} {high}");
    let rows = "SELECT count(*) AS images, count(fold) AS judged, count(held_out_probability) AS sure, \
        count(*) FILTER (suspected) AS suspected FROM '{out}/report/labels.parquet'";
    let [row] = &duckdb(&out, rows)[..] else { panic!("one row") };
    assert_eq!(
        (&row["images"], &row["judged"], &row["sure"]),
        (&120.into(), &120.into(), &120.into())
    );
    assert_eq!(row["suspected"], suspected.len());

    let printed = report(&out, &["--thumbnails", "0", "--holdout", "0.3"]).expect(0).stdout;
    assert!(printed.contains("Estimated label errors: "), "{printed}");
    assert!(
        printed.contains("held out: ") && printed.contains("without the suspected"),
        "{printed}"
    );
    let kept_out = "SELECT count(*) AS images FROM '{out}/report/labels.parquet' AS labels \
        JOIN '{out}/report/findings.parquet' AS findings USING (key) WHERE labels.holdout";
    assert_eq!(duckdb(&out, kept_out)[0]["images"], 0);

    // Each label is a group of its own, so no head could have learnt it from other groups.
    let grouped = summary(&out, &["--thumbnails", "0", "--group-by", "2"]);
    assert!(grouped["label_audit"].is_null(), "{grouped}");
    report(&out, &["--group-by", "3"]).expect_one_line(&["--group-by", "3 folders", "train/"]);
    for (option, value) in [("--holdout", "0.9"), ("--holdout", "x"), ("--group-by", "0")] {
        let refused = report(&out, &[option, value]).expect(2);
        assert!(refused.stderr.contains(option), "{}", refused.stderr);
    }
}
