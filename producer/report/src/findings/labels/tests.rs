//! The search for label errors on tables made by hand, whose sketches tell what an image shows.

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

use super::super::finding::FindingKind;
use super::super::{Findings, LabelOptions, find};
use crate::error::ReportError;
use crate::predictions::{
    COLUMNS, ImageClasses, ImageRow, LabelMeaning, RowPrediction, SketchBytes,
};
use crate::table::table_of;

/// Labels that the model has never heard of.
const LABELS: [&str; 3] = ["alpha", "beta", "gamma"];

/// An image that shows `kind`. The model predicts `predicted` for it, one of its own classes.
fn image(
    key: String,
    label: &str,
    kind: usize,
    predicted: &str,
    chance: &mut Pcg64Mcg,
) -> ImageRow {
    let numbers = (0..128).map(|at| {
        let centre = if at % LABELS.len() == kind { 40 } else { 0 };
        (centre + chance.random_range(-60..60_i32)) as i8 as u8
    });
    let predicted = RowPrediction {
        labels: vec![predicted.to_owned()],
        probabilities: vec![1.0],
        sketch: Some(SketchBytes { scale: 0.01, numbers: numbers.collect() }),
        ..RowPrediction::default()
    };
    let digest = Some(format!("sha256:{:032x}{:032x}", chance.random::<u128>(), 0));
    let label = Some(label.to_owned());
    ImageRow { key, label, digest, predicted: Some(predicted), ..ImageRow::default() }
}

/// Ninety images of each label, and three of them with the label of another kind: `wrong/0.jpg`, ….
fn planted(model_knows: bool) -> Vec<ImageRow> {
    let mut chance = Pcg64Mcg::seed_from_u64(3);
    let mut rows = Vec::new();
    for (at, key) in (0..270).map(|at| (at, format!("site-{}/{at}.jpg", at % 9))) {
        rows.push(image(key, LABELS[at % 3], at % 3, LABELS[at % 3], &mut chance));
    }
    for kind in 0..3 {
        let (label, key) = (LABELS[(kind + 1) % 3], format!("wrong/{kind}.jpg"));
        rows.push(image(key, label, kind, label, &mut chance));
    }
    if model_knows {
        // It has learnt every label by heart, the wrong ones included.
        for row in &mut rows {
            let label = row.label.clone().unwrap();
            let class = LABELS.iter().position(|name| *name == label).unwrap();
            row.meaning = LabelMeaning::Class(class, label);
            row.predicted.as_mut().unwrap().label_probability = Some(1.0);
        }
    }
    rows
}

fn try_to_find(rows: Vec<ImageRow>, options: LabelOptions) -> Result<Findings, ReportError> {
    let table = table_of(rows, COLUMNS);
    let classes = ImageClasses::read(&table).unwrap();
    find(&table, &classes, options, &[])
}

fn found(rows: Vec<ImageRow>, options: LabelOptions) -> Findings {
    try_to_find(rows, options).unwrap()
}

fn suspected(findings: &Findings) -> Vec<(&str, Option<&str>)> {
    let of_kind = findings.list.iter().filter(|found| found.kind == FindingKind::LabelError);
    let mut keys: Vec<_> =
        of_kind.map(|found| (found.key.as_str(), found.suggested.as_deref())).collect();
    keys.sort_unstable();
    keys
}

const WRONG: [(&str, Option<&str>); 3] =
    [("wrong/0.jpg", Some("alpha")), ("wrong/1.jpg", Some("beta")), ("wrong/2.jpg", Some("gamma"))];

#[test]
fn labels_that_the_model_does_not_know_are_judged_by_heads_that_have_not_seen_them() {
    let mut rows = planted(false);
    // Another spelling is the same label.
    rows[3].label = Some("ALPHA".to_owned());
    let findings = found(rows, LabelOptions::default());
    assert_eq!(suspected(&findings), WRONG);
    let audit = findings.label_audit.unwrap();
    assert_eq!((audit.images, audit.classes, audit.features), (273, 3, "sketches"));
    assert!(audit.accuracy.share > 0.95 && audit.model.is_none(), "{audit:?}");
    let errors = findings.estimated_label_errors.unwrap();
    // An estimate: the first heads, which no suspicion was told, are less sure than the second ones.
    assert!(errors.count.abs_diff(3) <= 1, "{errors:?}");
    assert!(errors.low < 3 && errors.high > 3, "{errors:?}");
    let finding = findings.list.iter().find(|found| found.key == "wrong/0.jpg").unwrap();
    assert!(finding.held_out_probability > finding.held_out_label_probability);
    assert_eq!((finding.model_label_probability, finding.model_agrees), (None, None));
}

#[test]
fn a_model_that_has_learnt_wrong_labels_by_heart_hides_none() {
    let findings = found(planted(true), LabelOptions::default());
    assert_eq!(suspected(&findings), WRONG);
    let finding = findings.list.iter().find(|found| found.key == "wrong/0.jpg").unwrap();
    assert_eq!((finding.model_label_probability, finding.model_agrees), (Some(1.0), Some(false)));
    assert!(finding.reason.ends_with("the model says beta"), "{}", finding.reason);
    let model = findings.label_audit.unwrap().model.unwrap();
    assert!(model.model.share == 1.0 && model.heads.share < 1.0, "{model:?}");
}

#[test]
fn no_finding_is_about_the_hold_out_and_its_accuracy_is_told() {
    let options = LabelOptions { holdout: Some(0.5), group_by: None };
    let mut rows = planted(false);
    let copy = |key: &str, digest: &Option<String>, chance: &mut Pcg64Mcg| {
        let row = image(key.to_owned(), "alpha", 0, "alpha", chance);
        ImageRow { digest: digest.clone(), ..row }
    };
    let mut chance = Pcg64Mcg::seed_from_u64(9);
    for at in 0..30 {
        let digest = rows[3 * at].digest.clone();
        rows.push(copy(&format!("copies/{at}.jpg"), &digest, &mut chance));
    }
    let all = found(rows, LabelOptions::default());
    let mut again = planted(false);
    let mut chance = Pcg64Mcg::seed_from_u64(9);
    for at in 0..30 {
        let digest = again[3 * at].digest.clone();
        again.push(copy(&format!("copies/{at}.jpg"), &digest, &mut chance));
    }
    let kept = found(again, options);
    let duplicates = |findings: &Findings| {
        findings.list.iter().filter(|found| found.kind == FindingKind::Duplicate).count()
    };
    assert_eq!(duplicates(&all), 30);
    assert!((5..25).contains(&duplicates(&kept)), "{}", duplicates(&kept));
    let holdout = kept.label_audit.unwrap().holdout.unwrap();
    assert!((100..200).contains(&holdout.before.images), "{holdout:?}");
    assert!(holdout.after.share > 0.9 && holdout.before.images == holdout.after.images);
}

#[test]
fn images_are_grouped_by_a_folder_and_one_that_no_image_has_is_refused() {
    let grouped = LabelOptions { holdout: None, group_by: Some(1) };
    assert_eq!(suspected(&found(planted(false), grouped)), WRONG);
    let missing = LabelOptions { holdout: None, group_by: Some(2) };
    let refused = try_to_find(planted(false), missing).unwrap_err();
    let ReportError::NoSuchFolder { part, example } = refused else { panic!("{refused}") };
    assert_eq!((part, example.as_str()), (2, "site-0/0.jpg"));
}

#[test]
fn embeddings_are_used_if_the_table_has_them_and_images_without_are_left_to_the_model() {
    let mut rows = planted(true);
    let mut chance = Pcg64Mcg::seed_from_u64(4);
    for (at, row) in rows.iter_mut().enumerate() {
        let kind = if at < 270 { at % 3 } else { at - 270 };
        let half = |at: usize| {
            let centre = if at % 3 == kind { 0.6 } else { 0.0 };
            half::f16::from_f32(centre + chance.random::<f32>()).to_le_bytes()
        };
        let width = if at == 5 { 7 } else { 300 };
        let predicted = row.predicted.as_mut().unwrap();
        predicted.embedding = (at != 6).then(|| (0..width).map(half).collect());
    }
    let findings = found(rows, LabelOptions::default());
    assert_eq!(suspected(&findings), WRONG);
    let audit = findings.label_audit.unwrap();
    assert_eq!((audit.features, audit.images), ("embeddings", 271));
    assert!(audit.dimensions <= 256, "{audit:?}");
    assert!(findings.notes.iter().any(|note| note.contains("labels of 2 images")));
}
