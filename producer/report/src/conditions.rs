//! Conditions on the numbers of a report, such as `accuracy<0.9`, so that a scheduled job can fail.
//!
//! Owns how a condition is written and when it holds. Upstream: the program's arguments, and the
//! numbers of a [`Summary`](crate::Summary).

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// The names of the numbers that conditions may be about.
pub const NUMBER_NAMES: [&str; 27] = [
    "images",
    "predicted",
    "failed",
    "failure-rate",
    "accuracy",
    "ece",
    "findings",
    "label-errors",
    "estimated-label-errors",
    "duplicates",
    "duplicate-groups",
    "leaks",
    "conflicts",
    "image-problems",
    "outliers",
    "attention",
    "shortcuts",
    "changed",
    "fixed",
    "broken",
    "unreadable",
    "outdated",
    "unknown-labels",
    "wrong",
    "slices",
    "nuisances",
    "drift",
];

/// A condition such as `accuracy<0.9`.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    number: &'static str,
    operator: Operator,
    limit: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Less,
    AtMost,
    More,
    AtLeast,
}

impl Operator {
    /// The longer signs first, because a text is searched for them in this order.
    const ALL: [(&'static str, Self); 4] =
        [("<=", Self::AtMost), (">=", Self::AtLeast), ("<", Self::Less), (">", Self::More)];
}

/// A text is not a condition.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseConditionError {
    /// It is not a name, a sign and a number.
    #[error("{0:?} is not a condition; write a name, <, <=, > or >=, and a number: accuracy<0.9")]
    Malformed(String),
    /// No report has a number of this name.
    #[error("a report has no {0:?}; use {list}", list = NUMBER_NAMES.join(", "))]
    UnknownName(String),
}

/// A condition is about a number that this report lacks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{condition}: {number} is not known, since {reason}")]
pub struct UnknownNumber {
    /// The condition as text.
    pub condition: String,
    /// The name of the number.
    pub number: &'static str,
    /// Why the report lacks it.
    pub reason: UnknownReason,
}

/// Why a report lacks a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnknownReason {
    /// The number is about a comparison.
    #[error("the report compares no other run")]
    NoComparison,
    /// The number is about images of both runs.
    #[error(
        "no image is predicted in both runs, which then compare by the drift of their inputs only"
    )]
    NothingInCommon,
    /// The number is about labels.
    #[error("no image has both a label and a prediction")]
    NoLabels,
    /// The number compares labels with each other.
    #[error("fewer than two labels have images to compare")]
    OneLabel,
    /// The number is about labels, and none of them means a class.
    #[error("no label is one of the model's classes")]
    UnknownLabels,
}

impl FromStr for Condition {
    type Err = ParseConditionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let malformed = || ParseConditionError::Malformed(text.to_owned());
        let found = Operator::ALL.iter().find_map(|(sign, operator)| {
            text.split_once(sign).map(|(name, limit)| (name.trim(), *operator, limit.trim()))
        });
        let (name, operator, limit) = found.ok_or_else(malformed)?;
        let limit: f64 = limit.parse().map_err(|_| malformed())?;
        if !limit.is_finite() {
            return Err(malformed());
        }
        let number = NUMBER_NAMES.into_iter().find(|number| *number == name);
        let number = number.ok_or_else(|| ParseConditionError::UnknownName(name.to_owned()))?;
        Ok(Self { number, operator, limit })
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = Operator::ALL.iter().find(|(_, operator)| *operator == self.operator);
        write!(f, "{}{}{}", self.number, sign.map_or("", |(sign, _)| sign), self.limit)
    }
}

impl Condition {
    /// True if the condition is about a comparison with another run.
    #[must_use]
    pub fn is_of_comparison(&self) -> bool {
        ["changed", "fixed", "broken", "drift"].contains(&self.number)
    }

    /// The number if the condition holds, none if it does not. `numbers` are those of the report,
    /// by name.
    ///
    /// # Errors
    /// If the report lacks the number.
    pub fn value_if_true(
        &self,
        numbers: &BTreeMap<&'static str, f64>,
    ) -> Result<Option<f64>, UnknownNumber> {
        let Some(&value) = numbers.get(self.number) else {
            let reason = if self.is_of_comparison() && numbers.contains_key("drift") {
                UnknownReason::NothingInCommon
            } else if self.is_of_comparison() {
                UnknownReason::NoComparison
            } else if self.number == "nuisances" {
                UnknownReason::OneLabel
            } else if numbers.get("unknown-labels").is_some_and(|&images| images > 0.0) {
                UnknownReason::UnknownLabels
            } else {
                UnknownReason::NoLabels
            };
            return Err(UnknownNumber { condition: self.to_string(), number: self.number, reason });
        };
        let holds = match self.operator {
            Operator::Less => value < self.limit,
            Operator::AtMost => value <= self.limit,
            Operator::More => value > self.limit,
            Operator::AtLeast => value >= self.limit,
        };
        Ok(holds.then_some(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_read_printed_and_judged() {
        let numbers = BTreeMap::from([("accuracy", 0.9), ("label-errors", 11.0)]);
        for (text, printed, holds) in [
            ("accuracy<0.9", "accuracy<0.9", None),
            ("accuracy <= 0.9", "accuracy<=0.9", Some(0.9)),
            ("label-errors>10", "label-errors>10", Some(11.0)),
            ("label-errors>=12", "label-errors>=12", None),
        ] {
            let condition: Condition = text.parse().unwrap();
            assert_eq!(condition.to_string(), printed);
            assert_eq!(condition.value_if_true(&numbers).unwrap(), holds, "{text}");
        }
        let condition = "changed>0".parse::<Condition>().unwrap();
        let error = condition.value_if_true(&numbers).unwrap_err();
        assert_eq!(error.reason, UnknownReason::NoComparison);
        assert_eq!(
            error.to_string(),
            "changed>0: changed is not known, since the report compares no other run"
        );
    }

    #[test]
    fn a_condition_on_labels_that_the_model_does_not_know_says_so() {
        let numbers = BTreeMap::from([("unknown-labels", 6.0)]);
        let condition: Condition = "accuracy<0.5".parse().unwrap();
        let error = condition.value_if_true(&numbers).unwrap_err();
        assert_eq!(error.reason, UnknownReason::UnknownLabels);
        let condition: Condition = "unknown-labels>0".parse().unwrap();
        assert_eq!(condition.value_if_true(&numbers).unwrap(), Some(6.0));
    }

    #[test]
    fn a_condition_on_images_of_both_runs_says_that_there_are_none() {
        let numbers = BTreeMap::from([("drift", 2.0)]);
        let condition: Condition = "broken>0".parse().unwrap();
        let error = condition.value_if_true(&numbers).unwrap_err();
        assert_eq!(error.reason, UnknownReason::NothingInCommon);
        let condition: Condition = "drift>1".parse().unwrap();
        assert!(condition.is_of_comparison());
        assert_eq!(condition.value_if_true(&numbers).unwrap(), Some(2.0));
    }

    #[test]
    fn what_is_no_condition_is_refused_with_what_is() {
        for text in ["", "accuracy", "accuracy=1", "accuracy<", "accuracy<nan", "<1"] {
            assert!(text.parse::<Condition>().is_err(), "{text}");
        }
        let error = "acuracy<1".parse::<Condition>().unwrap_err().to_string();
        assert!(error.contains("accuracy"), "{error}");
    }
}
