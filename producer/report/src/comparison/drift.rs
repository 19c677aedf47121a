//! Whether the images of two runs are alike: their light, size and shape, their labels and splits,
//! and what a network sees in them.
//!
//! Numbers are compared by Kolmogorov and Smirnov's test, names by the G-test, embeddings by a
//! linear classifier that has to tell the runs apart. All p-values are corrected together (Benjamini
//! and Hochberg). With a million images every difference is significant, so that an input drifted
//! only if the difference is large enough to matter, too.

use std::collections::BTreeMap;

use serde::Serialize;

use super::key_hash::hash_key;
use crate::predictions::ImageFeature;
use crate::predictions::sketches::{CentredSketches, SketchVector};
use crate::statistics::contingency::association;
use crate::statistics::discriminant::separate;
use crate::statistics::rank_sum::{self, SIGNIFICANT_Q, q_values};
use crate::statistics::robust_spread::median;
use crate::statistics::two_samples::kolmogorov_smirnov;
use crate::table::{TableError, TableReader};

/// The least difference of two distribution functions that matters: a tenth of the images.
const MIN_STATISTIC: f64 = 0.1;
/// The least Cramér's V that matters: "small" by Cohen (1988).
const MIN_CRAMERS_V: f64 = 0.1;
/// The least chance that a classifier ranks an image of this run above one of the other.
const MIN_SEPARATION: f64 = 0.6;
/// An effect this near to one half is no shift up or down, but another spread.
const MIN_SHIFT: f64 = 0.05;
/// The embeddings of each run that are compared.
const SAMPLED_EMBEDDINGS: usize = 4000;
/// The least images of each run.
const MIN_IMAGES: usize = 20;
/// The reason of an input that did not drift.
const ALIKE: &str = "alike";
/// The name of images without a label or split.
const WITHOUT: &str = "none";

/// How an input was compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DriftTest {
    /// Kolmogorov and Smirnov's test of two samples of numbers.
    KolmogorovSmirnov,
    /// The G-test of two samples of names.
    GTest,
    /// A linear classifier that was fitted to half of the images and tested on the others.
    Classifier,
}

/// An input of both runs, and whether it is alike in both.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct InputDrift {
    /// What was compared: `brightness`, `label`, `embedding`, ….
    pub input: String,
    /// How.
    pub test: DriftTest,
    /// How different it is, 0 to 1: the largest difference of the distribution functions, Cramér's
    /// V, or the area under the classifier's ROC curve, which is 0.5 if nothing differs.
    pub effect: f64,
    /// The chance that an image of this run has more of it than one of the other, where a tie counts
    /// half; none for names.
    pub pairs: Option<f64>,
    /// The median of this run; none for names and embeddings.
    pub here: Option<f64>,
    /// The median of the other run.
    pub there: Option<f64>,
    /// The false discovery rate at which the difference counts as a discovery.
    pub q: f64,
    /// Whether the difference is significant and large enough to matter.
    pub drifted: bool,
    /// What differs, in a few words: `brighter in 71 of 100 pairs`.
    pub reason: String,
}

/// Compares every input that both runs have, the drifted ones first.
pub(super) fn find(
    now: &TableReader,
    before: &TableReader,
    is_same_model: bool,
) -> Result<Vec<InputDrift>, TableError> {
    let mut found = Vec::new();
    for feature in ImageFeature::ALL {
        if let (Some(here), Some(there)) = (feature.read(now)?, feature.read(before)?) {
            found.extend(compare_numbers(feature, &here, &there));
        }
    }
    for column in ["label", "split", "camera_make", "camera_model"] {
        if now.has_column(column) && before.has_column(column) {
            found.extend(compare_names(column, &count(now, column)?, &count(before, column)?));
        }
    }
    if is_same_model {
        found.extend(compare_embeddings(now, before)?);
    }
    let p: Vec<f64> = found.iter().map(|drift| drift.q).collect();
    for (drift, q) in found.iter_mut().zip(q_values(&p)) {
        drift.q = q;
        drift.drifted &= q < SIGNIFICANT_Q;
        if !drift.drifted {
            ALIKE.clone_into(&mut drift.reason);
        }
    }
    // How far beyond what matters.
    let strength = |drift: &InputDrift| match drift.test {
        DriftTest::KolmogorovSmirnov => drift.effect / MIN_STATISTIC,
        DriftTest::GTest => drift.effect / MIN_CRAMERS_V,
        DriftTest::Classifier => (drift.effect - 0.5) / (MIN_SEPARATION - 0.5),
    };
    found.sort_by(|a, b| {
        b.drifted.cmp(&a.drifted).then_with(|| strength(b).total_cmp(&strength(a)))
    });
    Ok(found)
}

/// Until all p-values are corrected, `q` is the p-value.
fn compare_numbers(feature: ImageFeature, here: &[f32], there: &[f32]) -> Option<InputDrift> {
    let known = |values: &[f32]| -> Vec<f32> {
        values.iter().copied().filter(|value| !value.is_nan()).collect()
    };
    let (mut here, mut there) = (known(here), known(there));
    if here.len().min(there.len()) < MIN_IMAGES {
        return None;
    }
    let test = kolmogorov_smirnov(&here, &there);
    let values = [&here[..], &there[..]].concat();
    let group_of: Vec<u32> = (0..values.len()).map(|at| u32::from(at >= here.len())).collect();
    let pairs = rank_sum::test_against_rest(&values, &group_of, 1)[0].effect;
    let reason = if (pairs - 0.5).abs() < MIN_SHIFT {
        format!("another spread of {}", feature.name())
    } else {
        let word = feature.less_and_more()[usize::from(pairs > 0.5)];
        format!("{word} in {:.0} of 100 pairs", pairs.max(1.0 - pairs) * 100.0)
    };
    Some(InputDrift {
        input: feature.name().to_owned(),
        test: DriftTest::KolmogorovSmirnov,
        effect: test.statistic,
        pairs: Some(pairs),
        here: median(&mut here).map(f64::from),
        there: median(&mut there).map(f64::from),
        q: test.p,
        drifted: test.statistic >= MIN_STATISTIC,
        reason,
    })
}

/// By name, the number of images.
fn count(table: &TableReader, column: &str) -> Result<BTreeMap<String, u64>, TableError> {
    let mut counts = BTreeMap::new();
    for group in 0..table.groups() {
        for name in table.texts(group, column)? {
            let name = name.unwrap_or_else(|| WITHOUT.to_owned());
            match counts.get_mut(&name) {
                Some(count) => *count += 1,
                None => drop(counts.insert(name, 1)),
            }
        }
    }
    Ok(counts)
}

fn compare_names(
    column: &str,
    here: &BTreeMap<String, u64>,
    there: &BTreeMap<String, u64>,
) -> Option<InputDrift> {
    let (all_here, all_there): (u64, u64) = (here.values().sum(), there.values().sum());
    if all_here.min(all_there) < MIN_IMAGES as u64 {
        return None;
    }
    let mut names: Vec<&String> = here.keys().chain(there.keys()).collect();
    names.sort_unstable();
    names.dedup();
    let of = |counts: &BTreeMap<String, u64>, name: &str| counts.get(name).copied().unwrap_or(0);
    let counts = [here, there].into_iter().flat_map(|run| names.iter().map(|name| of(run, name)));
    let found = association(&counts.collect::<Vec<_>>(), names.len())?;
    let shares = |name: &str| {
        let share = |counts, all| of(counts, name) as f64 / all as f64;
        (share(here, all_here), share(there, all_there))
    };
    let change = |name: &str| {
        let (here, there) = shares(name);
        here - there
    };
    let most = names
        .into_iter()
        .max_by(|a, b| change(a).abs().total_cmp(&change(b).abs()).then_with(|| b.cmp(a)))?;
    let input = column.replace('_', " ");
    let (here, there) = shares(most);
    Some(InputDrift {
        effect: found.cramers_v,
        pairs: None,
        here: None,
        there: None,
        q: found.p,
        drifted: found.cramers_v >= MIN_CRAMERS_V,
        reason: format!("{input} {most} at {:.0} %, not {:.0} %", here * 100.0, there * 100.0),
        test: DriftTest::GTest,
        input,
    })
}

/// Compares samples of embeddings; none if a run has too few.
fn compare_embeddings(
    now: &TableReader,
    before: &TableReader,
) -> Result<Option<InputDrift>, TableError> {
    let Some(found) = separate(&sample(now)?, &sample(before)?) else { return Ok(None) };
    let (low, high) = found.interval;
    let percent = |share: f64| share * 100.0;
    Ok(Some(InputDrift {
        input: "embedding".to_owned(),
        test: DriftTest::Classifier,
        effect: found.effect,
        pairs: Some(found.effect),
        here: None,
        there: None,
        q: found.p,
        drifted: found.effect >= MIN_SEPARATION,
        reason: format!(
            "a linear classifier of embeddings tells the runs apart in {:.0} of 100 pairs ({:.0} to \
             {:.0})",
            percent(found.effect),
            percent(low),
            percent(high)
        ),
    }))
}

/// The sketches of the images whose keys have the smallest hashes: the same images whatever the
/// order of the table, in an order that has nothing to do with them.
fn sample(table: &TableReader) -> Result<Vec<SketchVector>, TableError> {
    let reader = CentredSketches::uncentred();
    let mut sampled: Vec<(u64, SketchVector)> = Vec::new();
    let keep_smallest = |sampled: &mut Vec<(u64, SketchVector)>| {
        sampled.sort_by_key(|(hash, _)| *hash);
        sampled.truncate(SAMPLED_EMBEDDINGS);
    };
    for group in 0..table.groups() {
        let sketches = reader.of_group(table, group)?;
        for (key, sketch) in table.texts(group, "key")?.iter().zip(sketches) {
            let Some(sketch) = sketch else { continue };
            sampled.push((hash_key(key.as_deref().unwrap_or_default()), sketch));
        }
        keep_smallest(&mut sampled);
    }
    Ok(sampled.into_iter().map(|(_, sketch)| sketch).collect())
}

#[cfg(test)]
mod tests {
    use camshaft_common::measure::ImageMeasures;
    use rand::{RngExt, SeedableRng};
    use rand_pcg::Pcg64;

    use super::*;
    use crate::predictions::{COLUMNS, ImageRow, RowPrediction, SketchBytes, usual_measures};
    use crate::table::table_of;

    /// A run of images with random measures and sketches. `change` may alter each of them.
    fn run(count: usize, seed: u64, change: impl Fn(usize, &mut ImageRow)) -> TableReader {
        let mut random = Pcg64::seed_from_u64(seed);
        let rows = (0..count).map(|at| {
            let measures = ImageMeasures {
                brightness: random.random(),
                contrast: random.random(),
                blur: random.random(),
                chroma: random.random(),
                ..usual_measures()
            };
            let numbers = (0..128).map(|_| random.random::<u8>() / 2).collect();
            let predicted = RowPrediction {
                labels: vec!["cat".to_owned()],
                probabilities: vec![0.9],
                sketch: Some(SketchBytes { scale: 0.1, numbers }),
                ..RowPrediction::default()
            };
            let mut row = ImageRow {
                key: format!("{seed}-{at}.jpg"),
                label: Some(["cat", "dog"][at % 2].to_owned()),
                measures: Some(measures),
                bytes: Some(random.random_range(10_000..20_000)),
                width: Some(400),
                height: Some(random.random_range(300..500)),
                predicted: Some(predicted),
                ..ImageRow::default()
            };
            change(at, &mut row);
            row
        });
        table_of(rows, COLUMNS)
    }

    fn drifted(here: &TableReader, there: &TableReader) -> Vec<(String, String)> {
        let found = find(here, there, true).unwrap();
        assert!(found.iter().any(|input| input.input == "embedding"), "{found:?}");
        let drifted = found.into_iter().filter(|input| input.drifted);
        drifted.map(|input| (input.input, input.reason)).collect()
    }

    #[test]
    fn runs_of_images_alike_have_no_drift() {
        for seed in 0..20 {
            let [here, there] = [0, 1000].map(|from| run(400, from + seed, |_, _| ()));
            assert_eq!(drifted(&here, &there), [], "seed {seed}");
        }
        let same = run(100, 1, |_, _| ());
        let found = find(&same, &same, true).unwrap();
        assert!(found.iter().all(|input| input.q == 1.0 && !input.drifted), "{found:?}");
    }

    #[test]
    fn brighter_images_and_other_labels_are_drift() {
        let here = run(400, 1, |at, row| {
            row.measures.as_mut().unwrap().brightness += 0.3;
            row.label = Some(["cat", "dog"][usize::from(at % 5 == 0)].to_owned());
        });
        let there = run(400, 2, |_, _| ());
        let found = drifted(&here, &there);
        let [brightness, label] = &found[..] else { panic!("{found:?}") };
        assert!(brightness.1.starts_with("brighter in 7"), "{found:?}");
        assert_eq!((&*label.0, &*label.1), ("label", "label cat at 80 %, not 50 %"));
    }

    #[test]
    fn embeddings_are_compared_of_one_model_only() {
        let here = run(400, 1, |_, row| {
            let sketch = row.predicted.as_mut().unwrap().sketch.as_mut().unwrap();
            sketch.numbers[..3].iter_mut().for_each(|number| *number = *number / 2 + 60);
        });
        let there = run(400, 2, |_, _| ());
        let found = drifted(&here, &there);
        let [embedding] = &found[..] else { panic!("{found:?}") };
        assert!(embedding.1.contains("tells the runs apart in "), "{found:?}");
        let found = find(&here, &there, false).unwrap();
        assert!(found.iter().all(|input| input.input != "embedding"), "{found:?}");
    }

    #[test]
    fn a_few_images_say_nothing() {
        let few = run(10, 1, |_, _| ());
        assert_eq!(find(&few, &few, true).unwrap(), []);
    }
}
