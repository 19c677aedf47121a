//! Rules: expressions about the findings of an image. `docs/decisions.md` has their grammar.
//!
//! A rule has words, which are kinds and problems of findings, and conditions, which compare a field of
//! a finding. Pure. [`parser`] reads a rule, [`meaning`] tells whether it holds for an image. Upstream: the
//! command line. Downstream: [`judge`](super::judge).

mod meaning;
mod parser;

#[cfg(test)]
pub(crate) use meaning::tests as tests_of_meaning;

use std::fmt;
use std::str::FromStr;

use camshaft_common::image_files::Glob;

use crate::findings::ImageFindings;

/// The words of rules: every kind and problem of a finding, and `best`, for the image of a group of
/// duplicates that is best kept.
pub const WORDS: [&str; 28] = [
    "label-error",
    "duplicate",
    "image-problem",
    "outlier",
    "attention",
    "shortcut",
    "failure",
    "wrong",
    "exact",
    "near",
    "leak",
    "conflict",
    "dark",
    "bright",
    "blurred",
    "low-information",
    "odd-size",
    "odd-aspect",
    "grey",
    "border",
    "corner",
    "flat",
    "nothing",
    "unusual",
    "washed-out",
    "letterbox",
    "compression",
    "best",
];

/// A rule that images meet or don't.
#[derive(Clone, Debug)]
pub struct Rule {
    text: String,
    expression: Expression,
}

#[derive(Clone, Debug)]
enum Expression {
    /// One of [`WORDS`].
    Word(&'static str),
    Condition(Condition),
    Not(Box<Expression>),
    And(Vec<Expression>),
    Or(Vec<Expression>),
}

/// A comparison of a field of a finding.
#[derive(Clone, Debug)]
enum Condition {
    Number(NumberField, NumberOperator, f32),
    /// True in the second place: the text is another.
    Text(TextField, bool, String),
    Key(Glob),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NumberField {
    Score,
    Probability,
    HeldOutProbability,
    HeldOutLabelProbability,
    ModelLabelProbability,
}

impl NumberField {
    const ALL: [(&str, Self); 5] = [
        ("score", Self::Score),
        ("probability", Self::Probability),
        ("held_out_probability", Self::HeldOutProbability),
        ("held_out_label_probability", Self::HeldOutLabelProbability),
        ("model_label_probability", Self::ModelLabelProbability),
    ];
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NumberOperator {
    Greater,
    AtLeast,
    Less,
    AtMost,
    Equal,
    Unequal,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TextField {
    Label,
    Suggested,
    Predicted,
    Split,
    Verdict,
    Failure,
    Key,
}

impl TextField {
    const ALL: [(&str, Self); 7] = [
        ("label", Self::Label),
        ("suggested", Self::Suggested),
        ("predicted", Self::Predicted),
        ("split", Self::Split),
        ("verdict", Self::Verdict),
        ("failure", Self::Failure),
        ("key", Self::Key),
    ];
}

/// A text is no rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("at character {character}, {found}: {allowed}")]
pub struct RuleError {
    /// Where, counted from 1.
    pub character: usize,
    /// What is there.
    pub found: String,
    /// What is allowed there.
    pub allowed: String,
}

impl Rule {
    /// True if an image with these findings meets the rule.
    #[must_use]
    pub fn holds(&self, image: &ImageFindings) -> bool {
        meaning::holds(&self.expression, &[], image)
    }

    /// True if the rule has the word `best`.
    #[must_use]
    pub fn mentions_best(&self) -> bool {
        self.expression.mentions(crate::findings::BEST)
    }
}

impl Expression {
    fn mentions(&self, wanted: &str) -> bool {
        match self {
            Self::Word(word) => *word == wanted,
            Self::Condition(_) => false,
            Self::Not(inner) => inner.mentions(wanted),
            Self::And(parts) | Self::Or(parts) => parts.iter().any(|part| part.mentions(wanted)),
        }
    }

    /// True if it has no word: then it is about one finding.
    fn is_condition(&self) -> bool {
        match self {
            Self::Word(_) => false,
            Self::Condition(_) => true,
            Self::Not(inner) => inner.is_condition(),
            Self::And(parts) | Self::Or(parts) => parts.iter().all(Self::is_condition),
        }
    }
}

impl FromStr for Rule {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        let expression = parser::parse(text)?;
        Ok(Self { text: text.to_owned(), expression })
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
