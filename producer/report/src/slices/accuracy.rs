//! Searches for slices in which the model is wrong more often than elsewhere.
//!
//! A slice is compared with all other images of the same classes: hard classes do not make a slice
//! bad. If it were like the others, the number of its wrong images would be a sum of hypergeometric
//! numbers, one for each class, and each of these is a sum of independent events (Vatutin and
//! Mikhailov 1982). Such a sum is at least as far below as the binomial distribution of the same
//! mean (Hoeffding 1956, "On the distribution of the number of successes in independent trials",
//! theorem 4). So the binomial tail is a p-value that is never too small, however few images are
//! wrong.

use super::MIN_IMAGES;
use super::properties::Property;
use super::slice::{Question, Slice};
use crate::predictions::{ImageClasses, NO_NAME};
use crate::statistics::proportion::wilson_interval;
use crate::statistics::rank_sum::SIGNIFICANT_Q;
use crate::table::{TableError, TableReader};
use statrs::distribution::{Binomial, DiscreteCDF};

/// The least difference of accuracy that is listed: five points. With a million images smaller ones
/// are significant, too, and nobody acts on them.
const MIN_EFFECT: f64 = 0.05;
/// The slices that are listed.
const MAX_SLICES: usize = 50;
/// The slices that are looked at, the most significant first.
const MAX_CANDIDATES: usize = 1000;
/// The examples of a slice.
const EXAMPLES: usize = 6;

/// Images, and how many of them are wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct WrongCount {
    images: u64,
    wrong: u64,
}

impl WrongCount {
    fn add(&mut self, is_wrong: bool) {
        self.images += 1;
        self.wrong += u64::from(is_wrong);
    }

    fn plus(self, other: Self) -> Self {
        Self { images: self.images + other.images, wrong: self.wrong + other.wrong }
    }

    fn minus(self, other: Self) -> Self {
        Self { images: self.images - other.images, wrong: self.wrong - other.wrong }
    }

    fn rate(self) -> f64 {
        self.wrong as f64 / self.images as f64
    }
}

/// A slice against the other images of its classes.
#[derive(Clone, Copy, Debug, PartialEq)]
struct SliceTest {
    /// The images of the slice whose classes have others.
    inside: WrongCount,
    /// The share of wrong images among the others, with as many of each class as the slice has.
    rest: f64,
    /// The share of wrong images of the slice less that of the others.
    effect: f64,
    p: f64,
    /// Deviations above the mean, which orders slices whose p-values are too small for a number.
    deviations: f64,
}

impl SliceTest {
    /// Tests the tallies of a slice's classes, each with the tally of the whole class.
    fn of(classes: impl Iterator<Item = (WrongCount, WrongCount)>) -> Option<Self> {
        let (mut inside, mut mean, mut rest) = (WrongCount::default(), 0.0, 0.0);
        let mut others = 0;
        for (slice, class) in classes {
            let other = class.minus(slice);
            if slice.images > 0 && other.images > 0 {
                inside = inside.plus(slice);
                mean += slice.images as f64 * class.rate();
                rest += slice.images as f64 * other.rate();
                others += other.images;
            }
        }
        if inside.images.min(others) < MIN_IMAGES {
            return None;
        }
        let images = inside.images as f64;
        let chance = mean / images;
        let p = match inside.wrong.checked_sub(1) {
            None => 1.0,
            Some(below) => Binomial::new(chance, inside.images).map_or(1.0, |b| b.sf(below)),
        };
        let deviation = (mean * (1.0 - chance)).sqrt().max(f64::MIN_POSITIVE);
        Some(Self {
            inside,
            rest: rest / images,
            effect: inside.rate() - rest / images,
            p,
            deviations: (inside.wrong as f64 - mean) / deviation,
        })
    }
}

/// A slice to be tested.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    /// The index of its property.
    property: usize,
    /// The codes of the property, without the last.
    range: (u16, u16),
    /// Its class, by its number among the classes that labels mean; none for all.
    class: Option<u32>,
    test: SliceTest,
}

impl Candidate {
    /// Whether it is another cut of the same fact: the same property and class, and a range that has
    /// bins of the other's.
    fn extends(&self, other: &Self) -> bool {
        self.property == other.property
            && self.class == other.class
            && self.range.0.max(other.range.0) < self.range.1.min(other.range.1)
    }
}

/// The images whose accuracy is known.
struct Judged<'a> {
    properties: &'a [Property],
    /// By row, the number of its label's class; [`NO_NAME`] if it is not judged.
    class: Vec<u32>,
    /// By row.
    wrong: Vec<bool>,
    /// The id of each class.
    ids: Vec<u32>,
}

/// What the search found.
pub(super) struct WeakSlices {
    /// The most significant first.
    pub(super) slices: Vec<Slice>,
    /// Whether there was anything to compare: enough images, which differ in some property.
    pub(super) compared: bool,
}

/// Finds the slices with a lower accuracy. None if no accuracy is known.
pub(super) fn find(
    table: &TableReader,
    classes: &ImageClasses,
    properties: &[Property],
) -> Result<Option<WeakSlices>, TableError> {
    let judged = Judged::new(classes, properties);
    if judged.ids.is_empty() {
        return Ok(None);
    }
    let mut candidates = judged.candidates();
    let tests = candidates.len();
    candidates.retain(|candidate| {
        candidate.test.p < SIGNIFICANT_Q && candidate.test.effect >= MIN_EFFECT
    });
    candidates.sort_by(|a, b| {
        let order = a.test.p.total_cmp(&b.test.p);
        order.then(b.test.deviations.total_cmp(&a.test.deviations))
    });
    candidates.truncate(MAX_CANDIDATES);
    let probability = table.all_floats("probability")?;
    let kept = judged.without_explained(candidates, tests);
    let slices =
        kept.iter().map(|(candidate, q)| judged.describe(candidate, *q, classes, &probability));
    Ok(Some(WeakSlices { slices: slices.collect(), compared: tests > 0 }))
}

impl<'a> Judged<'a> {
    fn new(classes: &ImageClasses, properties: &'a [Property]) -> Self {
        let mut number_of = vec![NO_NAME; classes.names.len()];
        let mut ids = Vec::new();
        let rows = classes.label.iter().zip(&classes.predicted);
        let class = rows.clone().map(|(&label, &predicted)| {
            if label == NO_NAME || predicted == NO_NAME {
                return NO_NAME;
            }
            let number = &mut number_of[label as usize];
            if *number == NO_NAME {
                *number = ids.len() as u32;
                ids.push(label);
            }
            *number
        });
        let class = class.collect();
        let wrong = rows.map(|(label, predicted)| label != predicted).collect();
        Self { properties, class, wrong, ids }
    }

    /// Tests every range of every property, of all classes and of each.
    fn candidates(&self) -> Vec<Candidate> {
        let mut candidates = Vec::new();
        for (at, property) in self.properties.iter().enumerate() {
            let codes = property.code_count();
            let (tallies, totals) = self.tallies(property);
            for range in property.ranges() {
                let span = range.0 as usize..range.1 as usize;
                let of_class = |class: usize| {
                    let inside = &tallies[class * codes..][span.clone()];
                    let inside =
                        inside.iter().copied().fold(WrongCount::default(), WrongCount::plus);
                    (inside, totals[class])
                };
                let candidate = |class, test: Option<SliceTest>| {
                    test.map(|test| Candidate { property: at, range, class, test })
                };
                let all = SliceTest::of((0..self.ids.len()).map(of_class));
                candidates.extend(candidate(None, all));
                if self.ids.len() > 1 {
                    candidates.extend((0..self.ids.len()).filter_map(|class| {
                        let test = SliceTest::of(std::iter::once(of_class(class)));
                        candidate(Some(class as u32), test)
                    }));
                }
            }
        }
        candidates
    }

    /// The tally of each class and code of a property, and of each class.
    fn tallies(&self, property: &Property) -> (Vec<WrongCount>, Vec<WrongCount>) {
        let codes = property.code_count();
        let mut tallies = vec![WrongCount::default(); self.ids.len() * codes];
        let mut totals = vec![WrongCount::default(); self.ids.len()];
        for ((&class, &code), &wrong) in self.class.iter().zip(&property.codes).zip(&self.wrong) {
            // An image without the property is neither in a slice nor among the rest.
            if class != NO_NAME && (code as usize) < codes {
                tallies[class as usize * codes + code as usize].add(wrong);
                totals[class as usize].add(wrong);
            }
        }
        (tallies, totals)
    }

    fn contains(&self, candidate: &Candidate, row: usize) -> bool {
        let code = self.properties[candidate.property].codes[row];
        let of_class = candidate.class.is_none_or(|class| class == self.class[row]);
        (candidate.range.0..candidate.range.1).contains(&code) && of_class
    }

    /// Leaves out what is worse only because of slices before it: each one is tested again without
    /// the images of those that are kept, and what is left has to be significant.
    ///
    /// `tests` is the number of all tests. A q-value is Benjamini and Hochberg's (1995), but only
    /// slices that are kept count as discoveries before it: one bad slice makes hundreds of
    /// overlapping ones significant, and all of them together would let others pass by chance.
    fn without_explained(&self, candidates: Vec<Candidate>, tests: usize) -> Vec<(Candidate, f64)> {
        let mut left: Vec<bool> = self.class.iter().map(|class| *class != NO_NAME).collect();
        let mut kept: Vec<(Candidate, f64)> = Vec::new();
        for candidate in candidates {
            if kept.iter().any(|(other, _)| candidate.extends(other)) {
                continue;
            }
            let Some(test) = self.test_among(&candidate, &left) else { continue };
            let q = (test.p * tests as f64 / (kept.len() + 1) as f64).min(1.0);
            if q < SIGNIFICANT_Q && test.effect >= MIN_EFFECT {
                for (row, left) in left.iter_mut().enumerate() {
                    *left &= !self.contains(&candidate, row);
                }
                kept.push((candidate, q));
            }
            if kept.len() == MAX_SLICES {
                break;
            }
        }
        kept
    }

    /// Tests a slice among the images that are left.
    fn test_among(&self, candidate: &Candidate, left: &[bool]) -> Option<SliceTest> {
        let property = &self.properties[candidate.property];
        let known = property.code_count();
        let mut tallies = vec![[WrongCount::default(); 2]; self.ids.len()];
        for row in (0..left.len()).filter(|&row| left[row]) {
            if (property.codes[row] as usize) < known {
                let [inside, whole] = &mut tallies[self.class[row] as usize];
                whole.add(self.wrong[row]);
                if self.contains(candidate, row) {
                    inside.add(self.wrong[row]);
                }
            }
        }
        // Classes without an image in the slice count for nothing.
        SliceTest::of(tallies.into_iter().map(|[inside, whole]| (inside, whole)))
    }

    fn describe(
        &self,
        candidate: &Candidate,
        q: f64,
        classes: &ImageClasses,
        probability: &[f32],
    ) -> Slice {
        let property = &self.properties[candidate.property];
        let SliceTest { inside, rest, effect, .. } = candidate.test;
        let (low, high) = wilson_interval(1.0 - inside.rate(), inside.images);
        let class = candidate.class.map(|class| classes.names.name(self.ids[class as usize]));
        let percent = |share: f64| format!("{:.1} %", share * 100.0);
        let whose =
            class.map_or_else(|| "Images".to_owned(), |name| format!("Images labelled {name}"));
        let others = if class.is_some() { "the others" } else { "others of the same labels" };
        let reason = format!(
            "{whose} with {}: {} of {} are wrong, accuracy {} ({} to {}) against {} of {others}",
            property.describe(candidate.range),
            inside.wrong,
            inside.images,
            percent(1.0 - inside.rate()),
            percent(low),
            percent(high),
            percent(1.0 - rest),
        );
        let wrong = (0..self.wrong.len()).filter(|&row| {
            self.wrong[row] && self.class[row] != NO_NAME && self.contains(candidate, row)
        });
        let mut wrong: Vec<usize> = wrong.collect();
        // The surest first: they are the most surprising.
        wrong.sort_by(|&a, &b| probability[b].total_cmp(&probability[a]).then(a.cmp(&b)));
        wrong.truncate(EXAMPLES);
        let (from, to) = property.ends(candidate.range);
        Slice {
            question: Question::Accuracy,
            class: class.map(str::to_owned),
            feature: property.name.clone(),
            from,
            to,
            value: property.value(candidate.range),
            images: inside.images,
            wrong: Some(inside.wrong),
            accuracy: Some((1.0 - inside.rate()) as f32),
            accuracy_low: Some(low as f32),
            accuracy_high: Some(high as f32),
            rest_accuracy: Some((1.0 - rest) as f32),
            effect: effect as f32,
            information: None,
            q,
            reason,
            example_rows: wrong.into_iter().map(|row| row as u32).collect(),
            examples: Vec::new(),
            example_keys: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(images: u64, wrong: u64) -> WrongCount {
        WrongCount { images, wrong }
    }

    #[test]
    fn a_slice_is_compared_with_the_others_of_its_classes() {
        // scipy.stats.binom.sf(6, 30, 0.1)
        let test = SliceTest::of([(tally(30, 7), tally(100, 10))].into_iter()).unwrap();
        assert!((test.p - 0.025_826_788_661_909_9).abs() < 1e-12, "{}", test.p);
        assert!((test.effect - (7.0 / 30.0 - 3.0 / 70.0)).abs() < 1e-12);
        // All of the slice is of a hard class, whose others are as often wrong.
        let hard = [(tally(50, 25), tally(100, 50)), (tally(0, 0), tally(900, 0))];
        let test = SliceTest::of(hard.into_iter()).unwrap();
        assert!(test.effect.abs() < 1e-12 && test.p > 0.4, "{test:?}");
        assert_eq!(SliceTest::of([(tally(100, 10), tally(100, 10))].into_iter()), None);
    }
}
