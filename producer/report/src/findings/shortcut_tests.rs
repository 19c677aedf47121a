//! A planted cluster, from the table to its proof: what is offered for measuring, and what becomes
//! of what was measured.

use camshaft_common::explain::{FusedLayers, Method};
use camshaft_common::prediction::{Explanation, MapRecord};
use camshaft_common::shortcuts::ShortcutProof;
use serde_json::{Value, json};

use super::{Finding, FindingKind, Findings, LabelOptions, find, suspects};
use crate::predictions::{COLUMNS, ImageClasses, ImageRow, LabelMeaning, RowPrediction};
use crate::table::{TableReader, table_of};

/// A proof as the file has it, with one patch.
pub(crate) fn proof(key: &str, digest: Option<&str>, verdict: &str) -> Value {
    let rate = |flips: u64| json!({"mean": flips as f64 / 50.0, "low": 0.0, "high": 1.0, "n": 50});
    let effect =
        |flips| json!({"flips": flips, "rate": rate(flips), "probability_rise": rate(flips)});
    let control = |flips| {
        let mut control = effect(flips);
        control["difference"] = rate(40);
        control["p"] = json!(0.001);
        control
    };
    json!({
        "class": "cat", "images": 20,
        "patches": [{"key": key, "digest": digest, "region": [0.7, 0.7, 1.0, 1.0]}],
        "sample": {"chosen": 50, "measured": 50, "left_out": 0},
        "patch": effect(40), "random_place": control(1), "usual_place": control(5),
        "verdict": verdict
    })
}

/// An image whose map is hot in one cell of 7 × 7.
fn row(class: &str, index: usize, cell: usize, margin: f32) -> ImageRow {
    let is_cat = class == "cat";
    let labels = if is_cat { ["cat", "dog"] } else { ["dog", "cat"] };
    let mut values = vec![0.2; 49];
    // A little different in each image.
    values[cell] = 8.0 + (index % 7) as f32 / 10.0;
    values[(cell + 48 + 2 * (index % 2)) % 49] = 4.0;
    let [max, mass, entropy] = [values[cell], values.iter().sum(), 0.5];
    let map = MapRecord { height: 7, width: 7, values };
    let explanation = Explanation {
        method: Method::GradCam,
        layer: "layer4".parse::<FusedLayers>().unwrap(),
        class: usize::from(!is_cat),
        label: class.to_owned(),
        overlay: None,
        map,
        max,
        mass,
        entropy,
        centroid: [0.5, 0.5],
        border_share: 0.1,
    };
    let predicted = RowPrediction {
        labels: labels.map(str::to_owned).to_vec(),
        probabilities: vec![0.9, 0.1],
        label_probability: Some(0.9),
        logit_margin: Some(margin),
        explanation: Some(explanation),
        ..RowPrediction::default()
    };
    ImageRow {
        key: format!("{class}/{index:03}.jpg"),
        label: Some(class.to_owned()),
        meaning: LabelMeaning::Class(usize::from(!is_cat), class.to_owned()),
        digest: Some(format!("sha256:{index:064x}")),
        predicted: Some(predicted),
        ..ImageRow::default()
    }
}

/// A hundred cats, of which the first twenty have something in the bottom right corner that the model
/// is sure of, and sixty dogs.
fn planted() -> TableReader {
    let cats = (0..100).map(|index| {
        let (cell, margin) = if index < 20 { (47, 9.0) } else { (16 + index % 3, 2.0) };
        row("cat", index, cell, margin + (index % 9) as f32 / 10.0)
    });
    let dogs =
        (0..60).map(|index| row("dog", index, 24 + index % 3, 3.0 + (index % 9) as f32 / 10.0));
    table_of(cats.chain(dogs), COLUMNS)
}

fn with_proofs(proofs: &[Value]) -> Findings {
    let proofs: Vec<ShortcutProof> =
        proofs.iter().map(|proof| serde_json::from_value(proof.clone()).unwrap()).collect();
    let table = planted();
    let classes = ImageClasses::read(&table).unwrap();
    find(&table, &classes, LabelOptions::default(), &proofs).unwrap()
}

fn shortcut(findings: &Findings) -> &Finding {
    let mut shortcuts = findings.list.iter().filter(|f| f.kind == FindingKind::Shortcut);
    let found = shortcuts.next().expect("the planted cluster is flagged");
    assert!(shortcuts.next().is_none(), "nothing else was planted");
    found
}

#[test]
fn a_flagged_cluster_is_offered_with_patches_controls_and_images_of_other_classes() {
    let found = suspects(&planted(), 30).unwrap();
    let [suspect] = &found[..] else { panic!("one was planted: {found:?}") };
    assert_eq!((suspect.class.as_str(), suspect.images), ("cat", 20));
    let number = |key: &str| key[4..7].parse::<u32>().unwrap();
    assert_eq!(suspect.patches.len(), 5);
    for patch in &suspect.patches {
        assert!(patch.key.starts_with("cat/") && number(&patch.key) < 20, "{patch:?}");
        let [left, top, right, bottom] = patch.region;
        assert!(left >= 0.57 && top >= 0.7 && right <= 1.0 && bottom <= 1.0, "{patch:?}");
        assert!(patch.digest.is_some());
    }
    assert_eq!((suspect.controls.len(), suspect.others.len()), (30, 30));
    let is_control = |key: &str| key.starts_with("cat/") && number(key) >= 20;
    assert!(suspect.controls.iter().all(|control| is_control(&control.key)), "{suspect:?}");
    assert!(suspect.others.iter().all(|key| key.starts_with("dog/")), "{suspect:?}");
    assert_eq!(found, suspects(&planted(), 30).unwrap());
}

#[test]
fn the_verdict_stands_in_the_finding_and_moves_it() {
    let digest = format!("sha256:{:064x}", 3);
    let of = |verdict| with_proofs(&[proof("cat/003.jpg", Some(&digest), verdict)]);
    let plain = with_proofs(&[]);
    let plain = shortcut(&plain);
    assert_eq!(plain.verdict, None);
    for (verdict, word) in [
        ("confirmed", "Confirmed: pasted into 50"),
        ("refuted", "Refuted: "),
        ("undecided", "Undecided: "),
    ] {
        let findings = of(verdict);
        let found = shortcut(&findings);
        assert_eq!(found.verdict.map(|verdict| verdict.name()), Some(verdict));
        let reason = &found.reason;
        assert!(reason.starts_with(&plain.reason) && reason.contains(word), "{reason}");
        assert!(reason.contains("turns 40 (80 %, 0 to 100 %) into cat"), "{reason}");
        let moved = found.score.total_cmp(&plain.score) as i8;
        let expected = ["refuted", "undecided", "confirmed"].iter().position(|v| *v == verdict);
        assert_eq!(moved, expected.unwrap() as i8 - 1, "{verdict}");
        let cluster = findings.clusters.iter().find(|cluster| cluster.shortcut).unwrap();
        assert!(cluster.proof.is_some());
        assert!(!findings.notes.iter().any(|note| note.contains("proofs")), "{:?}", findings.notes);
    }
}

#[test]
fn a_proof_of_changed_or_missing_images_is_left_out() {
    let other = format!("sha256:{:064x}", 4);
    for stale in [
        proof("cat/003.jpg", Some(&other), "confirmed"),
        proof("cat/gone.jpg", None, "confirmed"),
        // A dog can't be typical of a cluster of cats.
        proof("dog/003.jpg", None, "confirmed"),
    ] {
        let findings = with_proofs(&[stale]);
        assert_eq!(shortcut(&findings).verdict, None);
        assert!(findings.notes.iter().any(|note| note.contains("1 of 1 proofs")));
    }
}

#[test]
fn a_proof_goes_to_the_cluster_of_its_image_only() {
    let findings = with_proofs(&[proof("cat/050.jpg", None, "confirmed")]);
    assert_eq!(shortcut(&findings).verdict, None);
    let proved: Vec<_> = findings.clusters.iter().filter(|c| c.proof.is_some()).collect();
    assert!(proved.len() == 1 && !proved[0].shortcut);
}
