//! Reads records from OUT: a record that was read, written and read again is unchanged.
#![no_main]

use std::fmt::Debug;

use camshaft_common::manifest::ManifestEntry;
use camshaft_common::prediction::{FailureRecord, PredictionRecord};
use camshaft_common::run::RunRecord;
use camshaft_common::trust::TrustRecord;
use libfuzzer_sys::fuzz_target;
use serde::Serialize;
use serde::de::DeserializeOwned;

fuzz_target!(|json: &[u8]| {
    check::<PredictionRecord>(json);
    check::<FailureRecord>(json);
    check::<RunRecord>(json);
    check::<ManifestEntry>(json);
    check::<TrustRecord>(json);
});

fn check<Record: Debug + PartialEq + Serialize + DeserializeOwned>(json: &[u8]) {
    let Ok(record) = serde_json::from_slice::<Record>(json) else { return };
    let written = serde_json::to_vec(&record).expect("a record can be written");
    let again: Record = serde_json::from_slice(&written).expect("what was written can be read");
    assert_eq!(again, record);
    assert_eq!(serde_json::to_vec(&again).expect("a record can be written"), written);
}
