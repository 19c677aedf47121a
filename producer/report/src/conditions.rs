//! `--fail-on`: conditions on a report's numbers, so that a scheduled job can stop on them.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// Numbers that conditions may name, in the order of `--help`.
pub const MEASURES: [&str; 20] = [
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
];

/// `accuracy<0.9`.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    measure: &'static str,
    comparison: Comparison,
    limit: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Less,
    AtMost,
    More,
    AtLeast,
}

impl Comparison {
    /// Longer ones first, as they are looked for in this order.
    const ALL: [(&'static str, Self); 4] =
        [("<=", Self::AtMost), (">=", Self::AtLeast), ("<", Self::Less), (">", Self::More)];
}

/// A text that is no condition.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseConditionError {
    /// Not of this form.
    #[error("{0:?} is not a condition; write a name, <, <=, > or >=, and a number: accuracy<0.9")]
    Malformed(String),
    /// A number that no report has.
    #[error("a report has no {0:?}; use {list}", list = MEASURES.join(", "))]
    Unknown(String),
}

/// A condition on a number that this report has not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("--fail-on {condition}: {measure} is not known, {why}")]
pub struct NotKnown {
    condition: String,
    measure: &'static str,
    why: &'static str,
}

impl FromStr for Condition {
    type Err = ParseConditionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let malformed = || ParseConditionError::Malformed(text.to_owned());
        let found = Comparison::ALL.iter().find_map(|(sign, comparison)| {
            text.split_once(sign).map(|(name, limit)| (name.trim(), *comparison, limit.trim()))
        });
        let (name, comparison, limit) = found.ok_or_else(malformed)?;
        let limit: f64 = limit.parse().map_err(|_| malformed())?;
        if !limit.is_finite() {
            return Err(malformed());
        }
        let measure = MEASURES.into_iter().find(|measure| *measure == name);
        let measure = measure.ok_or_else(|| ParseConditionError::Unknown(name.to_owned()))?;
        Ok(Self { measure, comparison, limit })
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = Comparison::ALL.iter().find(|(_, comparison)| *comparison == self.comparison);
        write!(f, "{}{}{}", self.measure, sign.map_or("", |(sign, _)| sign), self.limit)
    }
}

impl Condition {
    /// The number that makes it true; none where it isn't.
    ///
    /// # Errors
    /// Where the report has no such number.
    pub fn holds(&self, measures: &BTreeMap<&'static str, f64>) -> Result<Option<f64>, NotKnown> {
        let Some(&value) = measures.get(self.measure) else {
            let why = match self.measure {
                "changed" | "fixed" | "broken" => "since there is no --against",
                _ => "since no image has both a label and a prediction",
            };
            return Err(NotKnown { condition: self.to_string(), measure: self.measure, why });
        };
        let holds = match self.comparison {
            Comparison::Less => value < self.limit,
            Comparison::AtMost => value <= self.limit,
            Comparison::More => value > self.limit,
            Comparison::AtLeast => value >= self.limit,
        };
        Ok(holds.then_some(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_read_printed_and_judged() {
        let measures = BTreeMap::from([("accuracy", 0.9), ("label-errors", 11.0)]);
        for (text, printed, holds) in [
            ("accuracy<0.9", "accuracy<0.9", None),
            ("accuracy <= 0.9", "accuracy<=0.9", Some(0.9)),
            ("label-errors>10", "label-errors>10", Some(11.0)),
            ("label-errors>=12", "label-errors>=12", None),
        ] {
            let condition: Condition = text.parse().unwrap();
            assert_eq!(condition.to_string(), printed);
            assert_eq!(condition.holds(&measures).unwrap(), holds, "{text}");
        }
        let error = "changed>0".parse::<Condition>().unwrap().holds(&measures).unwrap_err();
        assert!(error.to_string().contains("--against"), "{error}");
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
