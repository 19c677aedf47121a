//! Searches for properties that give a label away: "all wolves are bright". A model may learn the
//! property instead of what the label means.
//!
//! The G-test tells whether labels and a property have to do with each other at all. For each label
//! a second test tells how: of numbers the rank-sum test, of names the G-test on the images with
//! the name and without.

use super::MIN_IMAGES;
use super::properties::{Property, PropertyValues};
use super::slice::{Question, Slice};
use crate::predictions::{ImageClasses, NO_NAME};
use crate::statistics::contingency::{Association, association};
use crate::statistics::rank_sum::{self, RankSumTest, SIGNIFICANT_Q, q_values};

/// The least chance that an image with the label has more (or less) of the property than one
/// without.
const MIN_EFFECT: f64 = 0.8;
/// The least share of the labels' entropy that a property tells if it tells it of no label alone.
const MIN_INFORMATION: f64 = 0.2;
/// The labels that are tested, the most frequent ones.
const MAX_LABELS: usize = 2000;
/// The labels that are listed for a property.
const LISTED_LABELS: usize = 10;
/// The properties and labels that are listed.
const MAX_NUISANCES: usize = 50;
const EXAMPLES: usize = 6;

/// A label and a property.
#[derive(Clone, Debug)]
struct Suspect {
    property: usize,
    /// The number of the label among those tested; none for all of them.
    label: Option<usize>,
    /// The name that its images have; none if the property is a number.
    code: Option<u16>,
    /// The chance that an image with the label has more of the property.
    effect: f64,
    /// The shares of its images, and of the others, that have the name.
    shares: Option<[f64; 2]>,
    p: f64,
}

/// The labels with enough images.
struct Labels {
    /// Their ids, the most frequent first.
    ids: Vec<u32>,
    /// The images of each.
    images: Vec<u64>,
    /// By row, the number of its label; the number of labels for any other, and [`NO_NAME`] without
    /// a label.
    number: Vec<u32>,
}

impl Labels {
    fn new(classes: &ImageClasses) -> Self {
        let mut counts = vec![0_u64; classes.names.len()];
        let is_used =
            |row: usize| classes.given[row] != NO_NAME && classes.predicted[row] != NO_NAME;
        let rows = || (0..classes.given.len()).filter(|row| is_used(*row));
        rows().for_each(|row| counts[classes.given[row] as usize] += 1);
        let mut ids: Vec<u32> =
            (0..counts.len() as u32).filter(|id| counts[*id as usize] >= MIN_IMAGES).collect();
        let name = |id: u32| classes.names.name(id);
        ids.sort_by(|&a, &b| {
            counts[b as usize].cmp(&counts[a as usize]).then_with(|| name(a).cmp(name(b)))
        });
        ids.truncate(MAX_LABELS);
        let mut number_of = vec![ids.len() as u32; counts.len()];
        ids.iter().zip(0..).for_each(|(id, number)| number_of[*id as usize] = number);
        let mut number = vec![NO_NAME; classes.given.len()];
        rows().for_each(|row| number[row] = number_of[classes.given[row] as usize]);
        Self { images: ids.iter().map(|id| counts[*id as usize]).collect(), ids, number }
    }

    /// By label and code, the number of images; the last row is that of all other labels.
    fn counts(&self, property: &Property) -> Vec<u64> {
        let codes = property.code_count();
        let mut counts = vec![0; (self.ids.len() + 1) * codes];
        for (&label, &code) in self.number.iter().zip(&property.codes) {
            if label != NO_NAME && (code as usize) < codes {
                counts[label as usize * codes + code as usize] += 1;
            }
        }
        counts
    }
}

/// Finds the labels that a property gives away, the most certain first. None if there are no two
/// labels with enough images.
pub(super) fn find(classes: &ImageClasses, properties: Vec<Property>) -> Option<Vec<Slice>> {
    let labels = Labels::new(classes);
    if labels.ids.len() < 2 {
        return None;
    }
    let mut suspects = Vec::new();
    let mut associations = Vec::new();
    for (at, property) in properties.iter().enumerate() {
        let counts = labels.counts(property);
        let codes = property.code_count();
        let related = association(&counts, codes).filter(|_| property.is_nuisance);
        associations.push(related);
        if let Some(Association { p, .. }) = related {
            let (label, code, shares) = (None, None, None);
            suspects.push(Suspect { property: at, label, code, effect: 0.5, shares, p });
            suspects.extend(suspects_of(at, property, &labels, &counts));
        }
    }
    let p: Vec<f64> = suspects.iter().map(|suspect| suspect.p).collect();
    let q = q_values(&p);
    let found = choose(&suspects, &q, &associations, labels.ids.len());
    let slices = found.into_iter().filter_map(|at| {
        let suspect = &suspects[at];
        let property = &properties[suspect.property];
        let related = associations[suspect.property].expect("suspects are of related ones");
        let shown = match suspect.label {
            Some(_) => Some(suspect),
            None => clearest(&suspects, &q, suspect.property),
        };
        // A name without a label to it is nothing to look at. Numbers may tell of labels in their
        // middle or at both ends, which is no more and no less.
        let is_number = matches!(property.values, PropertyValues::Bins { .. });
        (shown.is_some() || is_number).then(|| {
            let shown = shown.unwrap_or(suspect);
            describe(suspect, shown, q[at], property, related.information, &labels, classes)
        })
    });
    Some(slices.collect())
}

/// The test of a label, and of a name if the property has names, that tells most: how a property is
/// described that tells of many labels a little.
fn clearest<'a>(suspects: &'a [Suspect], q: &[f64], property: usize) -> Option<&'a Suspect> {
    let strength = |suspect: &Suspect| (suspect.effect - 0.5).abs();
    let of_labels = suspects.iter().zip(q).filter(|(suspect, q)| {
        let is_positive = suspect.code.is_none() || suspect.effect > 0.5;
        let is_certain = **q < SIGNIFICANT_Q;
        suspect.property == property && suspect.label.is_some() && is_positive && is_certain
    });
    let of_labels = of_labels.map(|(suspect, _)| suspect);
    of_labels.reduce(|best, next| if strength(next) > strength(best) { next } else { best })
}

/// The tests of each label: one for a number, one for each name.
fn suspects_of(at: usize, property: &Property, labels: &Labels, counts: &[u64]) -> Vec<Suspect> {
    let of_number = |label, test: RankSumTest| {
        let (code, shares) = (None, None);
        Suspect { property: at, label: Some(label), code, effect: test.effect, shares, p: test.p }
    };
    match &property.values {
        PropertyValues::Bins { values, .. } => {
            // Images without a label are none of the others.
            let known = values
                .iter()
                .zip(&labels.number)
                .map(|(value, label)| if *label == NO_NAME { f32::NAN } else { *value });
            let known: Vec<f32> = known.collect();
            let tests = rank_sum::test_against_rest(&known, &labels.number, labels.ids.len());
            let tests = tests.into_iter().enumerate().filter(|(_, test)| test.count >= MIN_IMAGES);
            tests.map(|(label, test)| of_number(label, test)).collect()
        }
        PropertyValues::Names(_) => {
            let codes = property.code_count();
            let mut code_sums = vec![0; codes];
            for row in counts.chunks_exact(codes) {
                code_sums.iter_mut().zip(row).for_each(|(sum, count)| *sum += count);
            }
            let total: u64 = code_sums.iter().sum();
            let rows = counts.chunks_exact(codes).take(labels.ids.len()).enumerate();
            rows.flat_map(|(label, row)| {
                let images: u64 = row.iter().sum();
                let tests =
                    row.iter().zip(&code_sums).zip(0_u16..).filter_map(|((&both, &sum), code)| {
                        let others = total - images;
                        if images < MIN_IMAGES || others < MIN_IMAGES {
                            return None;
                        }
                        let four = [both, images - both, sum - both, others - (sum - both)];
                        let p = association(&four, 2).map_or(1.0, |found| found.p);
                        let share = both as f64 / images as f64;
                        let share_of_others = (sum - both) as f64 / others as f64;
                        let effect = 0.5 + (share - share_of_others) / 2.0;
                        let shares = Some([share, share_of_others]);
                        Some(Suspect {
                            property: at,
                            label: Some(label),
                            code: Some(code),
                            effect,
                            shares,
                            p,
                        })
                    });
                tests.collect::<Vec<_>>()
            })
            .collect()
        }
    }
}

/// The indices of the suspects to be listed, the largest effects first.
fn choose(
    suspects: &[Suspect],
    q: &[f64],
    associations: &[Option<Association>],
    labels: usize,
) -> Vec<usize> {
    let strength = |at: usize| (suspects[at].effect - 0.5).abs() + 0.5;
    let mut chosen = Vec::new();
    for (property, related) in associations.iter().enumerate() {
        let Some(related) = related else { continue };
        let of_property = || (0..suspects.len()).filter(|&at| suspects[at].property == property);
        let overall =
            of_property().next().expect("every related property has a test of all labels");
        if q[overall] >= SIGNIFICANT_Q {
            continue;
        }
        let strong = |at: &usize| {
            let Suspect { label, code, effect, .. } = suspects[*at];
            // That a label never has a name says less than that it always has.
            let is_positive = code.is_none() || effect > 0.5;
            label.is_some() && is_positive && q[*at] < SIGNIFICANT_Q && strength(*at) >= MIN_EFFECT
        };
        let mut strongest: Vec<usize> = of_property().filter(strong).collect();
        strongest.sort_by(|&a, &b| {
            let tied = suspects[b].effect.total_cmp(&suspects[a].effect);
            strength(b).total_cmp(&strength(a)).then(tied).then(a.cmp(&b))
        });
        // One label, one line. Of two labels, the second says the same the other way round.
        let mut seen = Vec::new();
        strongest.retain(|&at| {
            let is_new = !seen.contains(&suspects[at].label);
            seen.push(suspects[at].label);
            is_new
        });
        if labels == 2 {
            // Rounding may tell their effects apart: the line is that of the label with more.
            strongest.sort_by(|&a, &b| suspects[b].effect.total_cmp(&suspects[a].effect));
            strongest.truncate(1);
        }
        strongest.truncate(LISTED_LABELS);
        if strongest.is_empty() && related.information >= MIN_INFORMATION {
            strongest.push(overall);
        }
        chosen.extend(strongest);
    }
    chosen.sort_by(|&a, &b| strength(b).total_cmp(&strength(a)).then(a.cmp(&b)));
    chosen.truncate(MAX_NUISANCES);
    chosen
}

/// `shown` is the suspect, or the clearest one of a label if the suspect is about all labels.
fn describe(
    suspect: &Suspect,
    shown: &Suspect,
    q: f64,
    property: &Property,
    information: f64,
    labels: &Labels,
    classes: &ImageClasses,
) -> Slice {
    let label = suspect.label.map(|label| classes.names.name(labels.ids[label]));
    let whole = format!("{:.0} % of what the label says", information * 100.0);
    let name = &property.name;
    let shown_label = shown.label.map(|label| classes.names.name(labels.ids[label]));
    let fact = shown_label.and_then(|label| fact(shown, property, label));
    let reason = match (fact, label, &property.values) {
        (Some(fact), Some(_), PropertyValues::Bins { .. }) => {
            format!("{fact}; {name} tells {whole}")
        }
        (Some(fact), Some(_), PropertyValues::Names(_)) => format!("{fact}; it tells {whole}"),
        (Some(fact), None, _) => format!("{fact}; of all labels together, {name} tells {whole}"),
        (None, ..) => format!("The {name} tells {whole}"),
    };
    let is_example = |row: &usize| {
        let number = labels.number[*row];
        shown.label.is_some_and(|label| label as u32 == number)
            && shown.code.is_none_or(|code| code == property.codes[*row])
    };
    let rows = (0..labels.number.len()).filter(is_example);
    let images =
        suspect.label.map_or_else(|| labels.images.iter().sum(), |label| labels.images[label]);
    Slice {
        question: Question::Nuisance,
        class: label.map(str::to_owned),
        feature: property.name.clone(),
        from: None,
        to: None,
        value: suspect.code.and_then(|code| property.value((code, code + 1))),
        images,
        wrong: None,
        accuracy: None,
        accuracy_low: None,
        accuracy_high: None,
        rest_accuracy: None,
        effect: suspect.effect as f32,
        information: Some(information as f32),
        q,
        reason,
        example_rows: typical(rows, property, shown),
        examples: Vec::new(),
        example_keys: Vec::new(),
    }
}

/// How a label and a property go together, in words.
fn fact(suspect: &Suspect, property: &Property, label: &str) -> Option<String> {
    match &property.values {
        PropertyValues::Bins { feature, .. } => {
            let is_more = suspect.effect > 0.5;
            let word = feature.less_and_more()[usize::from(is_more)];
            let pairs = if is_more { suspect.effect } else { 1.0 - suspect.effect } * 100.0;
            Some(format!(
                "Images labelled {label} are {word} than others in {pairs:.0} of 100 pairs"
            ))
        }
        PropertyValues::Names(names) => {
            let (code, [share, others]) = suspect.code.zip(suspect.shares)?;
            Some(format!(
                "{:.0} % of the images labelled {label} have {} {}, {:.0} % of the others",
                share * 100.0,
                property.name,
                names[code as usize],
                others * 100.0
            ))
        }
    }
}

/// The images that have most of the property, or least of it if that is what gives the label away.
fn typical(rows: impl Iterator<Item = usize>, property: &Property, suspect: &Suspect) -> Vec<u32> {
    let rows = rows.map(|row| row as u32);
    let PropertyValues::Bins { values, .. } = &property.values else {
        return rows.take(EXAMPLES).collect();
    };
    let mut rows: Vec<u32> = rows.filter(|row| !values[*row as usize].is_nan()).collect();
    let value = |row: u32| values[row as usize];
    rows.sort_by(|&a, &b| {
        let order = value(b).total_cmp(&value(a));
        let order = if suspect.effect < 0.5 { order.reverse() } else { order };
        order.then(a.cmp(&b))
    });
    rows.truncate(EXAMPLES);
    rows
}
