//! All searches on tables made by hand: of full results, and of results that lack what older
//! versions did not record.

use camshaft_common::measure::{ImageMeasures, PerceptualHash};

use super::finding::RowFinding;
use super::{FindingKind, Findings, LabelOptions, Problem, find, wrong};
use crate::predictions::{
    COLUMNS, ImageClasses, ImageRow, LabelMeaning, RowFailure, RowPrediction, usual_measures,
};
use crate::table::{TableReader, table_of};

fn found(rows: Vec<ImageRow>) -> Findings {
    let table = table(rows);
    let classes = ImageClasses::read(&table).unwrap();
    find(&table, &classes, LabelOptions::default(), &[]).unwrap()
}

fn table(rows: Vec<ImageRow>) -> TableReader {
    table_of(rows, COLUMNS)
}

/// As results were before anything was measured of images.
fn old(key: &str, label: &str, cat: f32) -> ImageRow {
    let (labels, probabilities) = if cat > 0.5 {
        (["cat", "dog"], [cat, 1.0 - cat])
    } else {
        (["dog", "cat"], [1.0 - cat, cat])
    };
    let predicted = RowPrediction {
        label_probability: Some(if label == "cat" { cat } else { 1.0 - cat }),
        labels: labels.map(str::to_owned).to_vec(),
        probabilities: probabilities.to_vec(),
        ..RowPrediction::default()
    };
    ImageRow {
        key: key.to_owned(),
        label: Some(label.to_owned()),
        meaning: LabelMeaning::Class(usize::from(label != "cat"), label.to_owned()),
        predicted: Some(predicted),
        ..ImageRow::default()
    }
}

fn measured(key: &str, label: &str, seed: u64) -> ImageRow {
    let hash = PerceptualHash(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let measures = ImageMeasures {
        blur: 0.3 + (seed % 10) as f32 / 100.0,
        perceptual_hash: hash,
        ..usual_measures()
    };
    ImageRow {
        measures: Some(measures),
        perceptual_hash: Some(hash.to_string()),
        digest: Some(format!("sha256:{:032x}{:032x}", seed + 1, 0)),
        width: Some(400),
        height: Some(300),
        ..old(key, label, if label == "cat" { 0.95 } else { 0.05 })
    }
}

fn of_kind(findings: &Findings, kind: FindingKind) -> Vec<(&str, Option<Problem>)> {
    let of_kind = findings.list.iter().filter(|finding| finding.kind == kind);
    of_kind.map(|finding| (finding.key.as_str(), finding.problem)).collect()
}

#[test]
fn nothing_and_failures_alone_give_nothing() {
    assert!(found(Vec::new()).list.is_empty());
    let failed = |key: &str| ImageRow { key: key.to_owned(), ..ImageRow::default() };
    let findings = found(vec![failed("a.jpg"), failed("b.jpg")]);
    assert!(findings.list.is_empty() && findings.clusters.is_empty());
}

#[test]
fn a_label_against_a_sure_prediction_is_suspected_in_old_results_too() {
    let mut rows: Vec<_> = (0..20).map(|at| old(&format!("cat/{at}.jpg"), "cat", 0.95)).collect();
    rows.extend((0..20).map(|at| old(&format!("dog/{at}.jpg"), "dog", 0.05)));
    rows.push(old("dog/wrong.jpg", "dog", 0.99));
    // It could be either.
    rows.push(old("dog/unsure.jpg", "dog", 0.52));
    let findings = found(rows);
    assert_eq!(of_kind(&findings, FindingKind::LabelError), [("dog/wrong.jpg", None)]);
    assert_eq!(findings.list.len(), 1);
    let [wrong] = &findings.list[..] else { panic!() };
    assert_eq!((wrong.suggested.as_deref(), wrong.rank), (Some("cat"), 1));
    assert_eq!(findings.estimated_label_errors.unwrap().count, 1);
    assert!(
        findings.notes.iter().any(|note| note.contains("older version")),
        "{:?}",
        findings.notes
    );
}

#[test]
fn labels_that_are_no_classes_are_told_not_suspected() {
    let strange = |at: usize| {
        let mut row = old(&format!("cats/{at}.jpg"), "cats", 0.95);
        row.predicted.as_mut().unwrap().label_probability = None;
        row.meaning = LabelMeaning::NoClass;
        row
    };
    let findings = found((0..20).map(strange).collect());
    assert!(findings.list.is_empty());
    assert!(findings.notes[0].contains("20 images"), "{:?}", findings.notes);
}

#[test]
fn copies_are_conflicts_leaks_or_plain_duplicates() {
    let mut rows: Vec<_> =
        (0..30).map(|seed| measured(&format!("train/cat/{seed:02}.jpg"), "cat", seed)).collect();
    rows.push(measured("train/dog/conflict.jpg", "dog", 3));
    rows.push(measured("val/cat/leak.jpg", "cat", 4));
    rows.push(measured("train/cat/exact.jpg", "cat", 5));
    // Encoded again: another file, a bit of the hash apart.
    let mut near = measured("train/cat/near.jpg", "cat", 6);
    near.digest = Some(format!("sha256:{:032x}{:032x}", 1000, 0));
    near.perceptual_hash = near
        .perceptual_hash
        .map(|hash| format!("{:016x}", u64::from_str_radix(&hash, 16).unwrap() ^ 4));
    rows.push(near);
    let findings = found(rows);
    let duplicates = of_kind(&findings, FindingKind::Duplicate);
    assert_eq!(
        duplicates,
        [
            ("train/dog/conflict.jpg", Some(Problem::Conflict)),
            ("val/cat/leak.jpg", Some(Problem::Leak)),
            ("train/cat/exact.jpg", Some(Problem::Exact)),
            ("train/cat/near.jpg", Some(Problem::Near)),
        ]
    );
    assert_eq!(findings.list[0].other.as_deref(), Some("train/cat/03.jpg"));
}

#[test]
fn labels_that_mean_one_class_are_no_conflict() {
    let mut rows: Vec<_> =
        (0..30).map(|seed| measured(&format!("cat/{seed:02}.jpg"), "cat", seed)).collect();
    let copy = |key: &str, label: &str, meaning: LabelMeaning, seed| {
        let row = ImageRow {
            key: key.to_owned(),
            label: Some(label.to_owned()),
            ..measured(key, "cat", seed)
        };
        ImageRow { meaning, ..row }
    };
    let cat = || LabelMeaning::Class(0, "cat".to_owned());
    rows.push(copy("x/id.jpg", "n02121808", cat(), 3));
    rows.push(copy("x/spelling.jpg", "Cat", LabelMeaning::NoClass, 4));
    rows.push(copy("x/other.jpg", "wolf", LabelMeaning::NoClass, 5));
    let dog = LabelMeaning::Class(1, "dog".to_owned());
    rows.push(copy("x/dog.jpg", "canine", dog, 6));
    let findings = found(rows);
    let mut duplicates = of_kind(&findings, FindingKind::Duplicate);
    duplicates.sort_unstable();
    assert_eq!(
        duplicates,
        [
            ("x/dog.jpg", Some(Problem::Conflict)),
            ("x/id.jpg", Some(Problem::Exact)),
            ("x/other.jpg", Some(Problem::Conflict)),
            ("x/spelling.jpg", Some(Problem::Exact)),
        ]
    );
}

#[test]
fn poor_pictures_are_named_by_what_is_wrong_with_them() {
    let mut rows: Vec<_> =
        (0..50).map(|seed| measured(&format!("cat/{seed:02}.jpg"), "cat", seed)).collect();
    let change = |row: &mut ImageRow, change: fn(&mut ImageMeasures)| {
        change(row.measures.as_mut().unwrap());
    };
    change(&mut rows[0], |measures| measures.bright_percentile = 0.1);
    change(&mut rows[1], |measures| measures.dark_percentile = 0.95);
    change(&mut rows[2], |measures| measures.blur = 0.8);
    change(&mut rows[3], |measures| measures.information = 0.1);
    change(&mut rows[4], |measures| measures.chroma = 0.0);
    change(&mut rows[7], |measures| (measures.contrast, measures.chroma) = (0.05, 0.03));
    change(&mut rows[8], |measures| measures.border = Some([0.0, 0.1, 0.0, 0.12]));
    change(&mut rows[9], |measures| measures.blocking = Some(1.2));
    // Dark ones are not grey, and a bar on one side is no letterbox.
    change(&mut rows[10], |measures| {
        (measures.bright_percentile, measures.contrast, measures.chroma) = (0.1, 0.03, 0.005);
    });
    change(&mut rows[11], |measures| measures.border = Some([0.0, 0.3, 0.0, 0.01]));
    // Neither is one thing of a strong colour washed out.
    change(&mut rows[12], |measures| (measures.contrast, measures.chroma) = (0.05, 0.4));
    (rows[5].width, rows[5].height) = (Some(4000), Some(3000));
    (rows[6].width, rows[6].height) = (Some(1600), Some(100));
    let findings = found(rows);
    let mut problems = of_kind(&findings, FindingKind::ImageProblem);
    problems.sort_unstable();
    assert_eq!(
        problems,
        [
            ("cat/00.jpg", Some(Problem::Dark)),
            ("cat/01.jpg", Some(Problem::Bright)),
            ("cat/02.jpg", Some(Problem::Blurred)),
            ("cat/03.jpg", Some(Problem::LowInformation)),
            ("cat/04.jpg", Some(Problem::Grey)),
            ("cat/05.jpg", Some(Problem::OddSize)),
            ("cat/06.jpg", Some(Problem::OddAspect)),
            ("cat/07.jpg", Some(Problem::WashedOut)),
            ("cat/08.jpg", Some(Problem::Letterbox)),
            ("cat/09.jpg", Some(Problem::Compression)),
            ("cat/10.jpg", Some(Problem::Dark)),
        ]
    );
}

#[test]
fn failures_are_findings_ranked_by_their_class() {
    let failed = |key: &str, class: &str| ImageRow {
        key: key.to_owned(),
        label: Some("cat".to_owned()),
        failure: Some(RowFailure {
            class: class.to_owned(),
            message: "no start of image".to_owned(),
            attempts: 1,
        }),
        ..ImageRow::default()
    };
    let findings =
        found(vec![failed("cat/a.jpg", "too-large"), failed("cat/b.jpg", "undecodable")]);
    let failures = of_kind(&findings, FindingKind::Failure);
    assert_eq!(failures, [("cat/b.jpg", None), ("cat/a.jpg", None)]);
    let first = &findings.list[0];
    assert_eq!(first.failure.as_deref(), Some("undecodable"));
    assert_eq!(first.label.as_deref(), Some("cat"));
    assert!(
        first.reason.starts_with("Failed, undecodable: no start of image. Replace"),
        "{first:?}"
    );
}

#[test]
fn what_is_surely_wrong_is_found_unless_another_finding_says_more() {
    let mut rows: Vec<_> = (0..20).map(|at| old(&format!("cat/{at}.jpg"), "cat", 0.9)).collect();
    rows.extend([0.95, 0.92, 0.6].map(|cat| old(&format!("dog/{cat}.jpg"), "dog", cat)));
    let table = table(rows);
    let classes = ImageClasses::read(&table).unwrap();
    let wrong = |others: &[RowFinding]| {
        let found = wrong::find(&table, &classes, others, &mut Vec::new()).unwrap();
        found.iter().map(|finding| finding.row).collect::<Vec<_>>()
    };
    // Images of cats have 90 % on average: the third dog could be either.
    assert_eq!(wrong(&[]), [20, 21]);
    let other = RowFinding::new(20, FindingKind::LabelError, 0.5, String::new());
    assert_eq!(wrong(&[other]), [21]);
}

#[test]
fn what_older_results_did_not_measure_is_noted() {
    let mut rows: Vec<_> =
        (0..20).map(|seed| measured(&format!("cat/{seed:02}.jpg"), "cat", seed)).collect();
    assert!(!found(rows).notes.iter().any(|note| note.contains("--remeasure")));
    rows = (0..20).map(|seed| measured(&format!("cat/{seed:02}.jpg"), "cat", seed)).collect();
    for row in &mut rows[..3] {
        let measures = row.measures.as_mut().unwrap();
        (measures.version, measures.border, measures.blocking) = (1, None, None);
    }
    let notes = found(rows).notes;
    assert!(notes.iter().any(|note| note.contains("in 3 images")), "{notes:?}");
}
