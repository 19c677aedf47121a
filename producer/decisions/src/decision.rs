//! A decision, and its line of JSON. `docs/decisions.md` describes the fields.
//!
//! Pure. Upstream: pages, rules and files, whose lines are checked here. Downstream: everything else in
//! this crate.

use camshaft_common::key::ImageKey;
use chrono::{DateTime, Datelike, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};

/// The version of the line.
const SCHEMA: u32 = 1;
/// What a rule's text begins with in `because`. Kinds of findings, which a person's decision names, have
/// neither colon nor space.
const RULE_MARK: &str = "rule: ";
/// The longest label. A folder's name has at most 255 bytes.
const MAX_LABEL_BYTES: usize = 1024;
/// The longest name of who decides.
pub const MAX_BY_BYTES: usize = 1024;
/// The longest reasons, all together: with the longest key and JSON's escapes they fit a line that is read
/// again.
const MAX_BECAUSE_BYTES: usize = 128 << 10;
/// The last year of a decision. Whoever replaces it decides a moment later, and must still have four digits.
const LAST_YEAR: i32 = 9998;

/// What is decided about an image.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Choice {
    /// It stays as it is, whatever was found.
    Keep,
    /// It is left out.
    Drop,
    /// It gets this label.
    Relabel(String),
    /// Nothing: an earlier decision is taken back.
    Undecided,
}

impl Choice {
    /// The word for it in a line.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Keep => "keep",
            Self::Drop => "drop",
            Self::Relabel(_) => "relabel",
            Self::Undecided => "undecided",
        }
    }

    /// The new label, if there is one.
    #[must_use]
    pub fn label(&self) -> Option<&str> {
        match self {
            Self::Relabel(label) => Some(label),
            Self::Keep | Self::Drop | Self::Undecided => None,
        }
    }
}

/// A decision about an image. A later one about the same image replaces it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The image.
    pub key: ImageKey,
    /// What is decided.
    pub choice: Choice,
    /// Who decided.
    pub by: String,
    /// When, in whole milliseconds.
    pub at: DateTime<Utc>,
    /// Why: kinds of findings for a person, the texts of rules for rules.
    pub because: Vec<String>,
}

/// A line is not a decision.
#[derive(Debug, thiserror::Error)]
pub enum DecisionError {
    /// It is no JSON, or a field is missing or of the wrong kind.
    #[error("it is not a decision: {0}")]
    Json(#[from] serde_json::Error),
    /// Another version wrote it.
    #[error(
        "its schema is {0}, and this version of camshaft reads schema {SCHEMA}; use a later version"
    )]
    Schema(u32),
    /// The word of the decision is unknown.
    #[error("its decision is {0:?}; use keep, drop, relabel or undecided")]
    Word(String),
    /// The image is to get another label, and there is none.
    #[error("it relabels and has no label; add \"label\"")]
    NoLabel,
    /// There is a label, and the image is not to get one.
    #[error("it has a label, and its decision is {0}; only relabel goes with one")]
    Label(&'static str),
    /// The label is none.
    #[error("its label is empty, longer than {MAX_LABEL_BYTES} bytes, or has control characters")]
    BadLabel,
    /// The time is none.
    #[error("its time {0:?} is not like 2026-11-29T07:00:00.123Z, or after the year {LAST_YEAR}")]
    Time(String),
    /// `by` or `because` is longer than anybody needs.
    #[error("its {field} has {bytes} bytes; the most is {most}")]
    TooLong {
        /// The field.
        field: &'static str,
        /// Its length.
        bytes: usize,
        /// The most.
        most: usize,
    },
}

/// The fields of a line, in their order.
#[derive(Serialize, Deserialize)]
struct Line<'a> {
    schema: u32,
    key: ImageKey,
    decision: std::borrow::Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    label: Option<std::borrow::Cow<'a, str>>,
    by: std::borrow::Cow<'a, str>,
    at: String,
    #[serde(skip_serializing_if = "<[String]>::is_empty", default)]
    because: std::borrow::Cow<'a, [String]>,
}

impl Decision {
    /// Reads a line.
    ///
    /// # Errors
    /// If it is not a decision.
    ///
    /// ```
    /// use camshaft_decisions::{Choice, Decision};
    ///
    /// let line = r#"{"schema":1,"key":"cat/a.jpg","decision":"relabel","label":"dog","by":"ana","at":"2026-11-29T07:00:00.123Z"}"#;
    /// let decision = Decision::parse(line).unwrap();
    /// assert_eq!(decision.choice, Choice::Relabel("dog".to_owned()));
    /// assert_eq!(decision.to_line(), line);
    /// ```
    pub fn parse(line: &str) -> Result<Self, DecisionError> {
        let Line { schema, key, decision, label, by, at, because } = serde_json::from_str(line)?;
        if schema != SCHEMA {
            return Err(DecisionError::Schema(schema));
        }
        let choice = match (&*decision, label) {
            ("relabel", Some(label)) => Choice::relabel(&label)?,
            ("relabel", None) => return Err(DecisionError::NoLabel),
            ("keep", None) => Choice::Keep,
            ("drop", None) => Choice::Drop,
            ("undecided", None) => Choice::Undecided,
            ("keep", Some(_)) => return Err(DecisionError::Label("keep")),
            ("drop", Some(_)) => return Err(DecisionError::Label("drop")),
            ("undecided", Some(_)) => return Err(DecisionError::Label("undecided")),
            (other, _) => return Err(DecisionError::Word(other.to_owned())),
        };
        let time = DateTime::parse_from_rfc3339(&at).ok().map(|time| whole_millis(time.to_utc()));
        let time = time.filter(|time| (0..=LAST_YEAR).contains(&time.year()));
        let at = time.ok_or(DecisionError::Time(at))?;
        let reasons = because.iter().map(String::len).sum();
        let limits = [("by", by.len(), MAX_BY_BYTES), ("because", reasons, MAX_BECAUSE_BYTES)];
        if let Some((field, bytes, most)) = limits.into_iter().find(|(_, bytes, most)| bytes > most)
        {
            return Err(DecisionError::TooLong { field, bytes, most });
        }
        Ok(Self { key, choice, by: by.into_owned(), at, because: because.into_owned() })
    }

    /// The line, without its end.
    ///
    /// # Panics
    /// Never: a line has only texts and a number.
    #[must_use]
    pub fn to_line(&self) -> String {
        let Self { key, choice, by, at, because } = self;
        let line = Line {
            schema: SCHEMA,
            key: key.clone(),
            decision: choice.word().into(),
            label: choice.label().map(Into::into),
            by: by.as_str().into(),
            at: at.to_rfc3339_opts(SecondsFormat::Millis, true),
            because: because.into(),
        };
        serde_json::to_string(&line).expect("a line has only texts and a number")
    }

    /// True if a rule made it, and no person.
    #[must_use]
    pub fn is_by_rule(&self) -> bool {
        is_by_rule(&self.because)
    }
}

impl Choice {
    /// To give an image this label.
    ///
    /// # Errors
    /// If it is empty, very long, or has control characters.
    pub fn relabel(label: &str) -> Result<Self, DecisionError> {
        let is_label = !label.trim().is_empty()
            && label.len() <= MAX_LABEL_BYTES
            && !label.contains(char::is_control);
        if is_label { Ok(Self::Relabel(label.to_owned())) } else { Err(DecisionError::BadLabel) }
    }
}

/// What a decision by a rule has in `because`.
pub(crate) fn because_of_rule(rule: &str) -> String {
    format!("{RULE_MARK}{rule}")
}

/// True for the `because` of a decision that a rule made.
pub(crate) fn is_by_rule(because: &[String]) -> bool {
    because.iter().any(|reason| reason.starts_with(RULE_MARK))
}

/// The time as a line has it.
pub(crate) fn whole_millis(time: DateTime<Utc>) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(time.timestamp_millis()).unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lines_are_the_pages() {
        for line in [
            r#"{"schema":1,"key":"cat/a.jpg","decision":"keep","by":"ana","at":"2026-11-29T07:00:00.123Z"}"#,
            r#"{"schema":1,"key":"cat/a.jpg","decision":"drop","by":"ana","at":"2026-11-29T07:00:00.000Z","because":["duplicate","blurred"]}"#,
            r#"{"schema":1,"key":"cat/a.jpg","decision":"relabel","label":"dog","by":"","at":"2026-11-29T07:00:00.123Z"}"#,
            r#"{"schema":1,"key":"cat/a.jpg","decision":"undecided","by":"ana","at":"2026-11-29T07:00:00.123Z"}"#,
        ] {
            let decision = Decision::parse(line).unwrap();
            assert_eq!(decision.to_line(), line);
            assert!(!decision.is_by_rule());
        }
        let because = vec![because_of_rule("label-error")];
        assert!(is_by_rule(&because) && !is_by_rule(&["label-error".to_owned()]));
    }

    #[test]
    fn what_is_no_decision_is_refused_with_the_reason() {
        let line = |fields: &str| {
            let text = format!(
                r#"{{"schema":1,"key":"a.jpg","by":"ana","at":"2026-11-29T07:00:00Z",{fields}}}"#
            );
            Decision::parse(&text).unwrap_err().to_string()
        };
        for (fields, reason) in [
            (r#""decision":"delete""#, "use keep, drop, relabel or undecided"),
            (r#""decision":"relabel""#, "has no label"),
            (r#""decision":"keep","label":"dog""#, "only relabel"),
            (r#""decision":"relabel","label":" ""#, "label is empty"),
            (r#""decision":3"#, "not a decision"),
            (r#""label":"dog""#, "missing field `decision`"),
        ] {
            let error = line(fields);
            assert!(error.contains(reason), "{fields}: {error}");
        }
        for (text, reason) in [
            ("", "not a decision"),
            (r#"{"schema":2,"key":"a","decision":"keep","by":"","at":"x"}"#, "later version"),
            (r#"{"schema":1,"key":"../a","decision":"keep","by":"","at":"x"}"#, "relative path"),
            (r#"{"schema":1,"key":"a","decision":"keep","by":"","at":"x"}"#, "time \"x\""),
            (
                r#"{"schema":1,"key":"a","decision":"keep","by":"","at":"9999-12-31T23:59:59Z"}"#,
                "after the year 9998",
            ),
            (
                &format!(
                    r#"{{"schema":1,"key":"a","decision":"keep","by":"{}","at":"2026-11-29T07:00:00Z"}}"#,
                    "a".repeat(1025)
                ),
                "its by has 1025 bytes",
            ),
            (
                &format!(
                    r#"{{"schema":1,"key":"a","decision":"keep","by":"","at":"2026-11-29T07:00:00Z","because":["{}"]}}"#,
                    "a".repeat(200_000)
                ),
                "its because has 200000 bytes",
            ),
        ] {
            let error = Decision::parse(text).unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn decisions_survive_their_line(
            label in "[^\\p{Cc}]{1,20}",
            by in ".{0,20}",
            millis in 0_i64..4_000_000_000_000,
            because in proptest::collection::vec(".{0,10}", 0..3),
        ) {
            prop_assume!(!label.trim().is_empty());
            let decision = Decision {
                key: ImageKey::from_name(label.as_bytes()).unwrap(),
                choice: Choice::relabel(&label).unwrap(),
                by,
                at: DateTime::from_timestamp_millis(millis).unwrap(),
                because,
            };
            let line = decision.to_line();
            prop_assert!(!line.contains('\n'));
            prop_assert_eq!(Decision::parse(&line).unwrap(), decision);
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in ".{0,200}") {
            prop_assert!(Decision::parse(&text).is_err());
        }
    }
}
