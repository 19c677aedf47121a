//! What a rule means: whether it holds for an image with its findings.
//!
//! - A word holds if the image has a finding of that kind or problem; `best`, if the image is the best of
//!   its group of duplicates.
//! - `not` before a word, or before brackets with a word in them, holds if what follows does not hold for
//!   the image.
//! - A condition is about one finding. In a chain of `and` that is a finding with the word before it, or,
//!   if no word is before it, with the first one after it; all conditions between two words are about
//!   the same finding. Without any such word it is any finding of the image.
//! - Brackets without a word in them are one condition.
//!
//! Pure.

use camshaft_common::split_names;

use super::{Condition, Expression, NumberField, NumberOperator, TextField};
use crate::findings::{BEST, Finding, ImageFindings};

/// True if the expression holds for the image, by findings that meet all `conditions`.
pub(super) fn holds(
    expression: &Expression,
    conditions: &[&Expression],
    image: &ImageFindings,
) -> bool {
    if expression.is_condition() {
        let all: Vec<_> = conditions.iter().copied().chain([expression]).collect();
        return any_meets(&all, image);
    }
    match expression {
        Expression::Word(BEST) => {
            image.best.as_ref().is_some_and(|best| meets_all(conditions, best, image))
        }
        Expression::Word(word) => image
            .findings
            .iter()
            .any(|finding| finding.has(word) && meets_all(conditions, finding, image)),
        Expression::Not(inner) => {
            !holds(inner, &[], image) && (conditions.is_empty() || any_meets(conditions, image))
        }
        Expression::Or(parts) => parts.iter().any(|part| holds(part, conditions, image)),
        Expression::And(parts) => chain_holds(parts, conditions, image),
        // It has no word.
        Expression::Condition(_) => false,
    }
}

/// True if a chain of `and` holds.
fn chain_holds(parts: &[Expression], outer: &[&Expression], image: &ImageFindings) -> bool {
    // Each part that names findings, with the conditions that are about these.
    let mut subjects: Vec<(&Expression, Vec<&Expression>)> = Vec::new();
    let mut before_first = Vec::new();
    for part in parts {
        match part {
            part if part.is_condition() => match subjects.last_mut() {
                Some((_, conditions)) => conditions.push(part),
                None => before_first.push(part),
            },
            Expression::Not(inner) => {
                if holds(inner, &[], image) {
                    return false;
                }
            }
            subject => subjects.push((subject, std::mem::take(&mut before_first))),
        }
    }
    match subjects.last_mut() {
        Some((_, conditions)) => conditions.extend(outer),
        None => {
            before_first.extend(outer);
            return before_first.is_empty() || any_meets(&before_first, image);
        }
    }
    subjects.iter().all(|(subject, conditions)| holds(subject, conditions, image))
}

/// True if one finding of the image meets all conditions.
fn any_meets(conditions: &[&Expression], image: &ImageFindings) -> bool {
    image.findings.iter().any(|finding| meets_all(conditions, finding, image))
}

fn meets_all(conditions: &[&Expression], finding: &Finding, image: &ImageFindings) -> bool {
    conditions.iter().all(|condition| meets(condition, finding, image))
}

/// True if a finding meets an expression without words.
fn meets(expression: &Expression, finding: &Finding, image: &ImageFindings) -> bool {
    match expression {
        Expression::Word(word) => finding.has(word),
        Expression::Condition(condition) => meets_condition(condition, finding, image),
        Expression::Not(inner) => !meets(inner, finding, image),
        Expression::And(parts) => parts.iter().all(|part| meets(part, finding, image)),
        Expression::Or(parts) => parts.iter().any(|part| meets(part, finding, image)),
    }
}

/// What is not known is neither equal nor unequal to anything.
fn meets_condition(condition: &Condition, finding: &Finding, image: &ImageFindings) -> bool {
    match condition {
        Condition::Number(field, operator, limit) => {
            let number = match field {
                NumberField::Score => finding.score,
                NumberField::Probability => finding.probability,
                NumberField::HeldOutProbability => finding.held_out_probability,
                NumberField::HeldOutLabelProbability => finding.held_out_label_probability,
                NumberField::ModelLabelProbability => finding.model_label_probability,
            };
            !number.is_nan()
                && match operator {
                    NumberOperator::Greater => number > *limit,
                    NumberOperator::AtLeast => number >= *limit,
                    NumberOperator::Less => number < *limit,
                    NumberOperator::AtMost => number <= *limit,
                    NumberOperator::Equal => number == *limit,
                    NumberOperator::Unequal => number != *limit,
                }
        }
        Condition::Text(field, differs, wanted) => {
            let text = match field {
                TextField::Label => finding.label.as_deref(),
                TextField::Suggested => finding.suggested.as_deref(),
                TextField::Predicted => finding.predicted.as_deref(),
                TextField::Split => split_names::of_key(image.key.as_str()),
                TextField::Verdict => finding.verdict.as_deref(),
                TextField::Failure => finding.failure.as_deref(),
                TextField::Key => Some(image.key.as_str()),
            };
            text.is_some_and(|text| (text == wanted) != *differs)
        }
        Condition::Key(glob) => glob.matches_key(&image.key),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use camshaft_common::key::ImageKey;

    use super::super::Rule;
    use super::*;

    /// A finding of a test: its kind, its problem or nothing, its score, and label and suggestion.
    pub(crate) fn finding(
        kind: &str,
        problem: &str,
        score: f32,
        [label, suggested]: [&str; 2],
    ) -> Finding {
        let text =
            |text: &str| Some(text.into()).filter(|text: &std::sync::Arc<str>| !text.is_empty());
        Finding {
            kind: kind.into(),
            problem: text(problem),
            label: text(label),
            suggested: text(suggested),
            predicted: None,
            verdict: None,
            failure: None,
            score,
            probability: f32::NAN,
            held_out_probability: f32::NAN,
            held_out_label_probability: f32::NAN,
            model_label_probability: f32::NAN,
        }
    }

    pub(crate) fn image(key: &str, findings: Vec<Finding>, is_best: bool) -> ImageFindings {
        let best = is_best.then(|| finding(BEST, "", f32::NAN, ["cat", ""]));
        ImageFindings { key: ImageKey::parse(key).unwrap(), findings, best }
    }

    #[test]
    fn conditions_are_about_the_finding_named_before_them() {
        let image = image(
            "train/cat/a.jpg",
            vec![
                finding("label-error", "", 0.97, ["cat", "dog"]),
                finding("duplicate", "conflict", 0.4, ["cat", ""]),
                finding("image-problem", "blurred", 0.8, ["cat", ""]),
            ],
            false,
        );
        for (rule, expected) in [
            ("label-error", true),
            ("conflict", true),
            ("duplicate and conflict", true),
            ("exact", false),
            ("label-error and score>0.95", true),
            ("duplicate and score>0.95", false),
            ("score>0.95 and duplicate", false),
            ("score>0.95 and label-error", true),
            ("score>0.95", true),
            ("score>0.98", false),
            ("blurred and score>0.7 and label-error and score>0.95", true),
            ("blurred and label-error and score>0.95", true),
            ("label-error and blurred and score>0.95", false),
            ("(duplicate or label-error) and score>0.95", true),
            ("(duplicate or blurred) and score>0.95", false),
            ("duplicate and score<0.5 and score>0.3", true),
            ("label-error and not duplicate", false),
            ("label-error and not exact and score>0.95", true),
            ("not exact and score>0.95", true),
            ("not (label-error and score>0.99)", true),
            ("not (label-error and score>0.9)", false),
            ("duplicate and not score>0.9", true),
            ("label-error and not score>0.9", false),
            ("label-error and (score<0.1 or suggested=dog)", true),
            ("duplicate and (score<0.1 or suggested=dog)", false),
            ("not suggested=dog", true),
            ("label=cat and split=train", true),
            ("label!=cat", false),
            ("suggested!=cat", true),
            ("duplicate and suggested!=cat", false),
            ("held_out_probability<1", false),
            ("key~'train/**'", true),
            ("key~'*.png' or key=train/cat/a.jpg", true),
            ("best", false),
            ("not best", true),
        ] {
            assert_eq!(rule.parse::<Rule>().unwrap().holds(&image), expected, "{rule}");
        }
    }

    #[test]
    fn the_best_of_a_group_may_have_no_finding() {
        let image = image("cat/b.jpg", Vec::new(), true);
        for (rule, expected) in [
            ("best", true),
            ("best and label=cat", true),
            ("best and label=dog", false),
            ("duplicate", false),
            ("best and not label-error", true),
            ("label=cat", false),
        ] {
            assert_eq!(rule.parse::<Rule>().unwrap().holds(&image), expected, "{rule}");
        }
    }
}
