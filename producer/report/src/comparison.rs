//! Two runs side by side: which images changed class, and where attention moved most.
//!
//! "Now" is the run that is reported, "before" the one it is held against.

use std::collections::HashMap;
use std::fs::File;
use std::hash::{DefaultHasher, Hasher};

use serde::Serialize;
use statrs::distribution::{Binomial, DiscreteCDF};

use crate::findings::Known;
use crate::findings::known::NONE;
use crate::findings::maps::{self, CELLS};
use crate::overview::share;
use crate::table::{Cell, Column, ColumnKind, TableError, TableReader, TableWriter};

/// Images shown whose attention moved most.
const SHOWN: usize = 200;
/// Changes of class that are told, the most frequent first.
const FLOWS: usize = 50;

/// What changed between two runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Comparison {
    /// The other run's place.
    pub against: String,
    /// Images predicted in both.
    pub both: u64,
    /// Images predicted in this run only.
    pub only_here: u64,
    /// Images predicted in the other only.
    pub only_there: u64,
    /// Images whose most probable class changed.
    pub changed: u64,
    /// Accuracy on the labelled images of both, now.
    pub accuracy_here: Option<f64>,
    /// Accuracy on them before.
    pub accuracy_there: Option<f64>,
    /// Labelled images that are right now and were not.
    pub fixed: u64,
    /// Labelled images that were right and are not now.
    pub broken: u64,
    /// McNemar's exact test of fixed against broken.
    pub p: Option<f64>,
    /// From which class to which.
    pub flows: Vec<Flow>,
    /// Where attention moved most.
    #[serde(skip)]
    pub moved: Vec<Moved>,
}

/// Images that changed from one class to another.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Flow {
    /// Before.
    pub from: String,
    /// Now.
    pub to: String,
    /// Images.
    pub count: u64,
}

/// An image in both runs: a row of `comparison.parquet`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Moved {
    /// Its key.
    pub key: String,
    /// Its label now.
    pub label: Option<String>,
    /// Its class before.
    pub before: String,
    /// Its class now.
    pub now: String,
    /// That class's probability before.
    pub probability_before: f32,
    /// And now.
    pub probability_now: f32,
    /// Hellinger distance of the two first maps, 0 the same to 1; none without maps.
    pub distance: Option<f32>,
    /// The overlay now.
    pub overlay: Option<String>,
}

macro_rules! column {
    ($name:literal $kind:ident $cell:expr) => {
        Column { name: $name, kind: ColumnKind::$kind, cell: $cell }
    };
}

const COLUMNS: &[Column<Moved>] = &[
    column!("key" Text |row| Cell::Text(Some(&row.key))),
    column!("label" Text |row| Cell::Text(row.label.as_deref())),
    column!("before" Text |row| Cell::Text(Some(&row.before))),
    column!("now" Text |row| Cell::Text(Some(&row.now))),
    column!("probability_before" Float |row| Cell::Float(Some(row.probability_before))),
    column!("probability_now" Float |row| Cell::Float(Some(row.probability_now))),
    column!("distance" Float |row| Cell::Float(row.distance)),
    column!("overlay" Text |row| Cell::Text(row.overlay.as_deref())),
];

/// The other run's images, small enough to hold them all: some 90 bytes each.
struct Before {
    known: Known,
    /// Row by a hash of the key.
    rows: HashMap<u64, u32>,
    probability: Vec<f32>,
    /// Square roots of maps in 255ths, all zero without.
    maps: Vec<[u8; CELLS]>,
}

impl Before {
    fn read(table: &TableReader) -> Result<Self, TableError> {
        let known = Known::read(table)?;
        let mut this = Self {
            rows: HashMap::with_capacity(table.rows()),
            probability: table.all_floats("probability")?,
            maps: Vec::with_capacity(table.rows()),
            known,
        };
        for group in 0..table.groups() {
            for (key, map) in table.texts(group, "key")?.iter().zip(maps::read(table, group)?) {
                let row = u32::try_from(this.maps.len()).expect("fewer than four billion rows");
                if this.known.predicted[row as usize] != NONE {
                    this.rows.insert(hash(key.as_deref().unwrap_or_default()), row);
                }
                let coarse = |root: f32| (root * 255.0).round() as u8;
                this.maps.push(map.map_or([0; CELLS], |map| maps::roots(&map).map(coarse)));
            }
        }
        Ok(this)
    }

    /// Hellinger distance of its map to another; none where one is absent.
    fn distance(&self, row: u32, map: Option<&maps::Distribution>) -> Option<f32> {
        let before = &self.maps[row as usize];
        let now = maps::roots(map?);
        let mass: f32 = before.iter().map(|root| (f32::from(*root) / 255.0).powi(2)).sum();
        if mass == 0.0 {
            return None;
        }
        let norm = mass.sqrt() * 255.0;
        let squared = before.iter().zip(now).map(|(a, b)| (f32::from(*a) / norm - b).powi(2));
        Some((squared.sum::<f32>() / 2.0).sqrt())
    }
}

/// 64 bits: among a million keys, two have the same once in 40 million runs.
fn hash(key: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(key.as_bytes());
    hasher.finish()
}

/// Compares two finished tables, and writes a row for each image of both.
pub(crate) fn compare(
    now: &TableReader,
    before: &TableReader,
    against: String,
    file: File,
) -> Result<Comparison, TableError> {
    let before = Before::read(before)?;
    let mut writer = TableWriter::new(file, COLUMNS)?;
    let mut total = Comparison { against, ..Comparison::default() };
    let (mut labelled, mut right) = (0_u64, [0_u64; 2]);
    let mut flows: HashMap<(String, String), u64> = HashMap::new();
    let mut farthest: Vec<Moved> = Vec::new();
    for group in 0..now.groups() {
        let (keys, labels) = (now.texts(group, "key")?, now.texts(group, "label")?);
        let (classes, overlays) = (now.texts(group, "predicted")?, now.texts(group, "overlay")?);
        let probabilities = now.floats(group, "probability")?;
        let maps = maps::read(now, group)?;
        let rows = keys.into_iter().zip(labels).zip(classes).zip(overlays).enumerate();
        for (at, (((key, label), class), overlay)) in rows {
            let (Some(key), Some(class)) = (key, class) else { continue };
            let Some(&row) = before.rows.get(&hash(&key)) else {
                total.only_here += 1;
                continue;
            };
            total.both += 1;
            let was = before.known.names.name(before.known.predicted[row as usize]).to_owned();
            if let Some(label) = &label {
                let (is_right, was_right) = (*label == class, *label == was);
                labelled += 1;
                right[0] += u64::from(is_right);
                right[1] += u64::from(was_right);
                total.fixed += u64::from(is_right && !was_right);
                total.broken += u64::from(!is_right && was_right);
            }
            if was != class {
                total.changed += 1;
                *flows.entry((was.clone(), class.clone())).or_default() += 1;
            }
            let moved = Moved {
                distance: before.distance(row, maps[at].as_ref()),
                key,
                label,
                before: was,
                now: class,
                probability_before: before.probability[row as usize],
                probability_now: probabilities[at],
                overlay,
            };
            keep_farthest(&mut farthest, &moved);
            writer.push(moved)?;
        }
    }
    writer.finish()?;
    total.only_there = before.rows.len() as u64 - total.both;
    total.accuracy_here = share(right[0], labelled);
    total.accuracy_there = share(right[1], labelled);
    total.p = (labelled > 0).then(|| mcnemar(total.fixed, total.broken));
    let mut flows: Vec<_> =
        flows.into_iter().map(|((from, to), count)| Flow { from, to, count }).collect();
    flows.sort_by(|a, b| {
        b.count.cmp(&a.count).then_with(|| (&a.from, &a.to).cmp(&(&b.from, &b.to)))
    });
    flows.truncate(FLOWS);
    total.flows = flows;
    shorten(&mut farthest);
    total.moved = farthest;
    Ok(total)
}

/// Keeps the images whose attention moved most, some more than are shown.
fn keep_farthest(farthest: &mut Vec<Moved>, moved: &Moved) {
    if moved.distance.is_some() {
        farthest.push(moved.clone());
        if farthest.len() > 8 * SHOWN {
            shorten(farthest);
        }
    }
}

fn shorten(farthest: &mut Vec<Moved>) {
    farthest.sort_by(|a, b| {
        let distance = |moved: &Moved| moved.distance.unwrap_or(0.0);
        distance(b).total_cmp(&distance(a)).then_with(|| a.key.cmp(&b.key))
    });
    farthest.truncate(SHOWN);
}

/// Two-sided exact p of McNemar's test (1947): whether as many were broken as fixed.
fn mcnemar(fixed: u64, broken: u64) -> f64 {
    let Ok(binomial) = Binomial::new(0.5, fixed + broken) else { return 1.0 };
    (2.0 * binomial.cdf(fixed.min(broken))).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mcnemar_is_the_exact_binomial() {
        // scipy.stats.binomtest(5, 25).pvalue
        assert!((mcnemar(20, 5) - 0.004_077_315_330_505_371).abs() < 1e-12);
        assert_eq!(mcnemar(0, 0), 1.0);
        assert_eq!(mcnemar(7, 7), 1.0);
    }
}
