use camshaft_common::model::{CalibrationError, FileDigest, ModelReference};
use serde_json::json;

use super::*;

fn model(weights: &[u8]) -> ModelIdentity {
    let reference: ModelReference = "/models/pets".parse().unwrap();
    ModelIdentity::of_files(reference, weights, b"{}", None)
}

fn calibration() -> Calibration {
    let point = PointStatistics {
        name: "conv1".to_owned(),
        largest: vec![1.5, 0.0],
        mean: vec![0.25, 0.0],
    };
    let found = ActivationStatistics { points: vec![point] };
    Calibration::of_statistics(&model(b"w"), RangeRule::Largest, 7, found)
}

#[test]
fn a_calibration_survives_its_file() {
    let written = calibration();
    let read = Calibration::read(&written.to_json(), &model(b"w")).unwrap();
    assert_eq!(read, written);
    assert_eq!(read.statistics().points[0].largest, [1.5, 0.0]);
}

#[test]
fn what_can_not_be_used_is_refused_in_words_that_help() {
    let refused = |json: &[u8], weights: &[u8]| {
        let error = Calibration::read(json, &model(weights)).unwrap_err();
        assert!(error.to_string().ends_with("make it anew with camshaft calibrate"), "{error}");
        error
    };
    let written = calibration().to_json();
    assert_eq!(refused(&written, b"other"), CalibrationError::OtherModel("pets".to_owned()));
    assert!(matches!(refused(b"no JSON", b"w"), CalibrationError::Unreadable(_)));
    assert!(matches!(
        refused(&written[..written.len() / 2], b"w"),
        CalibrationError::Unreadable(_)
    ));
    let mut newer: serde_json::Value = serde_json::from_slice(&written).unwrap();
    newer["schema"] = json!(2);
    assert_eq!(refused(newer.to_string().as_bytes(), b"w"), CalibrationError::Schema(2));
    newer["schema"] = json!(1);
    newer["points"][0].as_object_mut().unwrap().remove("mean");
    assert!(matches!(refused(newer.to_string().as_bytes(), b"w"), CalibrationError::Unreadable(_)));
}

#[test]
fn the_digest_of_a_model_in_8_bits_is_its_own() {
    let plain = model(b"w");
    let reference = |json: &[u8]| camshaft_common::model::CalibrationReference {
        place: "/out/calibration.json".parse().unwrap(),
        digest: FileDigest::of(json),
    };
    let one = plain.clone().with_calibration(reference(b"1"));
    let other = plain.clone().with_calibration(reference(b"2"));
    assert!(!one.same_content(&plain) && !one.same_content(&other));
    assert_eq!(one.digest, plain.digest);
}
