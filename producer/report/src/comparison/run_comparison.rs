//! What a comparison tells, and the columns of `comparison.parquet`. Describes them only.

use serde::Serialize;

use super::drift::InputDrift;
use crate::table::{Cell, Column, columns};

/// What changed between two runs. Its fields are those of the page's data and of the JSON
/// summary.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct RunComparison {
    /// Where the other run is.
    pub against: String,
    /// Images predicted in both.
    pub both: u64,
    /// Images predicted in this run only.
    pub only_here: u64,
    /// Images predicted in the other only.
    pub only_there: u64,
    /// Images of both that have another label now. Each run is judged by its own labels.
    pub relabelled: u64,
    /// Images whose most probable class changed.
    pub changed: u64,
    /// Accuracy now, on the labelled images of both.
    pub accuracy_here: Option<f64>,
    /// Accuracy before, on the same images.
    pub accuracy_there: Option<f64>,
    /// Labelled images that are right now and were wrong before.
    pub fixed: u64,
    /// Labelled images that are wrong now and were right before.
    pub broken: u64,
    /// The p-value of McNemar's exact test of fixed against broken; none without labels.
    pub p: Option<f64>,
    /// The changes of class, the most frequent first.
    pub flows: Vec<ClassChange>,
    /// Whether the inputs of both runs are alike, the most different first.
    pub drift: Vec<InputDrift>,
    /// The images whose attention moved most.
    #[serde(skip)]
    pub moved: Vec<ComparedImage>,
}

impl RunComparison {
    /// The number of inputs that drifted.
    #[must_use]
    pub fn drifted(&self) -> u64 {
        self.drift.iter().filter(|input| input.drifted).count() as u64
    }
}

/// The images that changed from one class to another.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClassChange {
    /// The class before.
    pub from: String,
    /// The class now.
    pub to: String,
    /// The number of images.
    pub count: u64,
}

/// An image that both runs predicted: a row of `comparison.parquet`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ComparedImage {
    /// Its key.
    pub key: String,
    /// Its label now.
    pub label: Option<String>,
    /// Its class before.
    pub before: String,
    /// Its class now.
    pub now: String,
    /// The probability of the class before.
    pub probability_before: f32,
    /// The probability of the class now.
    pub probability_now: f32,
    /// The Hellinger distance of the first maps of both runs, from 0 for equal maps to 1; none
    /// without maps.
    pub distance: Option<f32>,
    /// The overlay now.
    pub overlay: Option<String>,
}

pub(super) const COLUMNS: &[Column<ComparedImage>] = columns! {
    "key" Text |row| Cell::Text(Some(&row.key));
    "label" Text |row| Cell::Text(row.label.as_deref());
    "before" Text |row| Cell::Text(Some(&row.before));
    "now" Text |row| Cell::Text(Some(&row.now));
    "probability_before" Float |row| Cell::Float(Some(row.probability_before));
    "probability_now" Float |row| Cell::Float(Some(row.probability_now));
    "distance" Float |row| Cell::Float(row.distance);
    "overlay" Text |row| Cell::Text(row.overlay.as_deref());
};
