//! What people's decisions say of the findings: how many are right, and how many wrong labels nothing was
//! found of.
//!
//! Only what was drawn at random says something of the rest: people look at the worst findings first. So
//! a check is judged by a sample, or by decisions about all its findings. Decisions of rules don't count.
//! Upstream: decisions and samples in OUT. Downstream: the overview.

use std::collections::{HashMap, HashSet};

use camshaft_common::key::ImageKey;
use camshaft_decisions::{Choice, MergedDecisions, Sample, SampleKind};
use serde::Serialize;
use statrs::distribution::{Beta, ContinuousCDF};

use crate::findings::FindingKind;
use crate::statistics::proportion::share;

/// The confidence of intervals and of the upper bound.
const CONFIDENCE: f64 = 0.95;

/// What people's decisions say of the findings.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Judgements {
    /// The checks of which enough was decided.
    pub checks: Vec<JudgedCheck>,
    /// How many wrong labels are left; none without a sample of images without a label finding.
    pub label_errors_left: Option<LabelErrorsLeft>,
}

/// How many findings of one kind are right.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct JudgedCheck {
    /// The kind.
    pub kind: &'static str,
    /// Images with such a finding.
    pub findings: u64,
    /// Those that were drawn, or all, of which people have decided.
    pub judged: u64,
    /// Those of which people did what the finding says.
    pub right: u64,
    /// The share of right ones, 0 to 1.
    pub precision: f64,
    /// The lower end of its interval (Clopper and Pearson 1934, 95 %); the precision itself if all
    /// were judged.
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

/// An upper bound on the wrong labels that are left after all decisions.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LabelErrorsLeft {
    /// How many labels are wrong at most, with a confidence of 95 %.
    pub at_most: u64,
    /// Images without a label finding of which people have decided, as they were drawn.
    pub judged: u64,
    /// Those of them whose label was wrong.
    pub wrong: u64,
    /// Images without a label finding.
    pub of: u64,
    /// Label findings that nobody has decided about. Each may be right.
    pub undecided: u64,
}

impl Judgements {
    /// Counts. `findings` are their kinds and keys. None if nothing was judged.
    pub(crate) fn count<'f>(
        findings: impl Iterator<Item = (FindingKind, &'f str)>,
        samples: &[Sample],
        decided: &MergedDecisions,
    ) -> Option<Self> {
        let judged = Judged { decided };
        let mut found: HashMap<FindingKind, HashSet<&str>> = HashMap::new();
        for (kind, key) in findings {
            found.entry(kind).or_default().insert(key);
        }
        let checks = FindingKind::ALL.iter().filter_map(|kind| {
            let keys = found.get(kind).filter(|_| says_what_to_do(*kind))?;
            judged.check(*kind, keys, samples)
        });
        let checks: Vec<_> = checks.collect();
        let suspected = found.remove(&FindingKind::LabelError).unwrap_or_default();
        let label_errors_left = judged.label_errors_left(&suspected, samples);
        let is_some = !checks.is_empty() || label_errors_left.is_some();
        is_some.then_some(Self { checks, label_errors_left })
    }
}

/// Whether a finding says that an image is to be dropped or relabelled. The others are about the model.
fn says_what_to_do(kind: FindingKind) -> bool {
    match kind {
        FindingKind::LabelError
        | FindingKind::Duplicate
        | FindingKind::ImageProblem
        | FindingKind::Outlier => true,
        FindingKind::Attention
        | FindingKind::Shortcut
        | FindingKind::Failure
        | FindingKind::Wrong => false,
    }
}

struct Judged<'a> {
    decided: &'a MergedDecisions,
}

impl Judged<'_> {
    /// What a person decided about an image.
    fn choice(&self, key: &str) -> Option<&Choice> {
        let decision = self.decided.get(&ImageKey::parse(key).ok()?)?;
        (!decision.is_by_rule()).then_some(decision.choice)
    }

    /// What was decided about drawn images, up to the first of which nothing is: people may have
    /// looked at the easy ones first, and only all of the first ones are a random choice.
    fn choices<'k>(&self, drawn: impl Iterator<Item = &'k str>) -> Vec<&Choice> {
        drawn.map_while(|key| self.choice(key)).collect()
    }

    fn check(
        &self,
        kind: FindingKind,
        found: &HashSet<&str>,
        samples: &[Sample],
    ) -> Option<JudgedCheck> {
        let of_all: Vec<_> = found.iter().filter_map(|key| self.choice(key)).collect();
        let is_whole = of_all.len() == found.len();
        let choices = if is_whole {
            of_all
        } else {
            // Of a sample of all findings, those of one kind are a sample of that kind.
            let drawn = samples.iter().filter(|sample| match &sample.kind {
                SampleKind::Any => true,
                SampleKind::With(word) => word == kind.name(),
                SampleKind::Without(_) => false,
            });
            let of_sample = |sample: &Sample| {
                let keys = sample.keys.iter().map(ImageKey::as_str);
                self.choices(keys.filter(|key| found.contains(key)))
            };
            drawn.map(of_sample).max_by_key(Vec::len)?
        };
        let judged = choices.len() as u64;
        let is_right = |choice: &&&Choice| match choice {
            Choice::Drop => true,
            Choice::Relabel(_) => kind == FindingKind::LabelError,
            Choice::Keep | Choice::Undecided => false,
        };
        let right = choices.iter().filter(is_right).count() as u64;
        let precision = share(right, judged)?;
        let (low, high) = match is_whole {
            true => (precision, precision),
            false => interval(right, judged),
        };
        let findings = found.len() as u64;
        Some(JudgedCheck { kind: kind.name(), findings, judged, right, precision, low, high })
    }

    fn label_errors_left(
        &self,
        suspected: &HashSet<&str>,
        samples: &[Sample],
    ) -> Option<LabelErrorsLeft> {
        let kind = SampleKind::Without(FindingKind::LabelError.name().to_owned());
        let sample = samples.iter().find(|sample| sample.kind == kind)?;
        // The report may find other labels wrong than when the sample was drawn.
        let keys = sample.keys.iter().map(ImageKey::as_str);
        let choices = self.choices(keys.filter(|key| !suspected.contains(key)));
        let judged = choices.len() as u64;
        let is_relabelled = |choice: &Choice| choice.label().is_some();
        let wrong = choices.iter().filter(|choice| is_relabelled(choice)).count() as u64;
        if judged == 0 {
            return None;
        }
        let errors = (at_most(wrong, judged, CONFIDENCE) * sample.of as f64).floor() as u64;
        let decided = self.decided.decided();
        let mended = decided.iter().filter(|(key, decision)| {
            is_relabelled(decision.choice) && !suspected.contains(key.as_str())
        });
        let mended = mended.count() as u64;
        let undecided = suspected.iter().filter(|key| self.is_undecided(key)).count() as u64;
        Some(LabelErrorsLeft {
            at_most: errors.saturating_sub(mended) + undecided,
            judged,
            wrong,
            of: sample.of,
            undecided,
        })
    }

    /// Whether neither a person nor a rule has decided about an image.
    fn is_undecided(&self, key: &str) -> bool {
        ImageKey::parse(key).is_ok_and(|key| self.decided.get(&key).is_none())
    }
}

/// The interval of Clopper and Pearson (1934) for a share of which `part` of `whole` were seen.
fn interval(part: u64, whole: u64) -> (f64, f64) {
    let tail = (1.0 - CONFIDENCE) / 2.0;
    (1.0 - at_most(whole - part, whole, 1.0 - tail), at_most(part, whole, 1.0 - tail))
}

/// The upper bound, at this confidence, of a share of which `part` of `whole` were seen.
fn at_most(part: u64, whole: u64, confidence: f64) -> f64 {
    if part >= whole {
        return 1.0;
    }
    let beta = Beta::new(part as f64 + 1.0, (whole - part) as f64);
    beta.expect("both shapes are positive").inverse_cdf(confidence)
}

#[cfg(test)]
mod tests {
    use camshaft_decisions::Decision;
    use chrono::Utc;

    use super::*;

    fn count(
        kind: FindingKind,
        keys: &[String],
        samples: &[Sample],
        decided: &MergedDecisions,
    ) -> Option<Judgements> {
        Judgements::count(keys.iter().map(|key| (kind, key.as_str())), samples, decided)
    }

    fn decided(choices: &[(String, &str)]) -> MergedDecisions {
        let mut decided = MergedDecisions::default();
        for (key, choice) in choices {
            let choice = match *choice {
                "drop" => Choice::Drop,
                "keep" => Choice::Keep,
                label => Choice::relabel(label).unwrap(),
            };
            let key = ImageKey::parse(key.as_str()).unwrap();
            let (by, at, because) = ("ana".to_owned(), Utc::now(), Vec::new());
            decided.add(Decision { key, choice, by, at, because });
        }
        decided
    }

    fn sample(kind: &str, keys: &[String], of: u64) -> Sample {
        let keys = keys.iter().map(|key| ImageKey::parse(key.as_str()).unwrap()).collect();
        Sample { schema: 1, kind: kind.to_owned().into(), keys, of, drawn_at: Utc::now() }
    }

    /// Values of R's `binom.test(8, 10)$conf.int` and `binom.test(0, 59, alternative = "less")`.
    #[test]
    fn intervals_are_those_of_clopper_and_pearson() {
        let (low, high) = interval(8, 10);
        assert!(
            (low - 0.443_904_5).abs() < 1e-6 && (high - 0.974_789_3).abs() < 1e-6,
            "{low} {high}"
        );
        assert!((at_most(0, 59, 0.95) - 0.049_507_3).abs() < 1e-6);
        assert_eq!((interval(5, 5).1, interval(0, 5).0), (1.0, 0.0));
    }

    #[test]
    fn a_check_is_judged_by_what_was_drawn() {
        let keys: Vec<String> = (0..20).map(|number| format!("{number:02}")).collect();
        let judge = |samples: &[Sample], decided: &MergedDecisions| {
            count(FindingKind::LabelError, &keys, samples, decided)
        };
        let drawn = sample("label-error", &keys[..6], 20);
        // The last of the sample was left out; one that was not drawn counts for nothing.
        let choices = ["dog", "drop", "keep", "dog", "dog"];
        let choices = keys.iter().cloned().zip(choices).chain([(keys[9].clone(), "keep")]);
        let decided = decided(&choices.collect::<Vec<_>>());
        let judgements = judge(std::slice::from_ref(&drawn), &decided).unwrap();
        let [check] = &judgements.checks[..] else { panic!("{judgements:?}") };
        assert_eq!((check.findings, check.judged, check.right, check.precision), (20, 5, 4, 0.8));
        assert!(check.low < 0.8 && check.high > 0.8);
        assert!(judgements.label_errors_left.is_none());
        assert!(judge(&[], &decided).is_none());
        assert!(judge(&[drawn], &MergedDecisions::default()).is_none());
    }

    #[test]
    fn all_findings_judged_need_no_sample_and_no_interval() {
        let keys = ["a", "b", "c"].map(str::to_owned);
        let choices = keys.iter().cloned().zip(["drop", "keep", "drop"]).collect::<Vec<_>>();
        let judgements = count(FindingKind::Duplicate, &keys, &[], &decided(&choices)).unwrap();
        let check = &judgements.checks[0];
        assert_eq!((check.judged, check.right), (3, 2));
        assert_eq!((check.low, check.high), (check.precision, check.precision));
    }

    #[test]
    fn wrong_labels_that_are_left_have_an_upper_bound() {
        let suspected = ["suspect".to_owned()];
        let keys: Vec<String> = (0..59).map(|number| format!("{number:02}")).collect();
        let drawn = sample("no-label-error", &keys, 1000);
        let mut choices: Vec<_> = keys.iter().map(|key| (key.clone(), "keep")).collect();
        let judge = |choices: &[(String, &str)]| {
            let (drawn, decided) = ([drawn.clone()], decided(choices));
            let judged = count(FindingKind::LabelError, &suspected, &drawn, &decided);
            judged.unwrap().label_errors_left.unwrap()
        };
        // 4.95 % of 1,000, and the finding that nobody looked at.
        let left = judge(&choices);
        assert_eq!((left.at_most, left.judged, left.wrong, left.undecided), (50, 59, 0, 1));
        // One of 59 was wrong, and is mended: at most 7.8 % were.
        choices[3].1 = "dog";
        choices.push(("suspect".to_owned(), "keep"));
        let left = judge(&choices);
        assert_eq!((left.wrong, left.undecided), (1, 0));
        assert_eq!(left.at_most, (at_most(1, 59, 0.95) * 1000.0) as u64 - 1);
    }
}
