//! What rules decide about the images of a report, beside what is decided already.
//!
//! People go first: a rule leaves an image alone about which a person has decided, unless it is told
//! otherwise. Two rules that want different things of one image are an error: nobody knows which is right.
//! Pure. Upstream: [`findings`](super::findings), [`rule`](super::rule) and [`merge`](super::merge).
//! Downstream: the program, which writes the decisions.

use camshaft_common::key::ImageKey;
use chrono::{DateTime, TimeDelta, Utc};

use crate::decision::{Choice, Decision, because_of_rule, whole_millis};
use crate::findings::{Findings, ImageFindings};
use crate::merge::MergedDecisions;
use crate::rule::Rule;

/// What a rule does with the images that meet it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuleAction {
    /// It drops them.
    Drop,
    /// It keeps them.
    Keep,
    /// It gives each the label that its finding suggests.
    Relabel,
}

impl RuleAction {
    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Drop => "drop",
            Self::Keep => "keep",
            Self::Relabel => "relabel",
        }
    }
}

/// A rule, and what it does.
#[derive(Clone, Debug)]
pub struct RuleFor {
    /// What becomes of the images that meet the rule.
    pub action: RuleAction,
    /// The rule.
    pub rule: Rule,
}

/// What rules decide.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judged {
    /// The new decisions, in the order of keys.
    pub decisions: Vec<Decision>,
    /// For each rule, how many images meet it.
    pub met: Vec<u64>,
    /// Images of which the same was decided already.
    pub unchanged: u64,
    /// Images that people have decided about, and that are left as they decided.
    pub by_people: u64,
    /// Images that are to get the suggested label, and that no finding suggests one for.
    pub without_suggestion: u64,
}

/// Rules contradict each other.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "two rules decide differently about {key}{}: {one} and {other}; write into one of them that it leaves \
     out what the other takes (and not …), or decide about such images one by one",
    if *images > 1 { format!(" and {} more", images - 1) } else { String::new() }
)]
pub struct JudgeError {
    /// The first image.
    pub key: ImageKey,
    /// One rule, with what it does.
    pub one: String,
    /// The other.
    pub other: String,
    /// How many images.
    pub images: u64,
}

/// Decides about every image that meets a rule. `decided` is what is decided so far; with
/// `override_people` also people's decisions are replaced.
///
/// # Errors
/// If two rules want different things of one image.
pub fn judge(
    findings: &Findings,
    rules: &[RuleFor],
    decided: &MergedDecisions,
    by: &str,
    now: DateTime<Utc>,
    override_people: bool,
) -> Result<Judged, JudgeError> {
    let mut judged = Judged { met: vec![0; rules.len()], ..Judged::default() };
    let mut contradiction: Option<JudgeError> = None;
    for image in findings.images() {
        let meets: Vec<_> = (0..rules.len()).filter(|at| rules[*at].rule.holds(image)).collect();
        meets.iter().for_each(|at| judged.met[*at] += 1);
        if meets.is_empty() {
            continue;
        }
        let before = decided.get(&image.key);
        if before.is_some_and(|before| !before.is_by_rule()) && !override_people {
            judged.by_people += 1;
            continue;
        }
        let able: Vec<_> = meets
            .into_iter()
            .filter_map(|at| Some((at, choice(rules[at].action, image)?)))
            .collect();
        let Some((first, choice)) = able.first() else {
            judged.without_suggestion += 1;
            continue;
        };
        if let Some((second, _)) = able.iter().find(|(_, other)| other != choice) {
            match &mut contradiction {
                Some(error) => error.images += 1,
                None => {
                    let [one, other] = [*first, *second].map(|at| shown(&rules[at]));
                    let key = image.key.clone();
                    contradiction = Some(JudgeError { key, one, other, images: 1 });
                }
            }
            continue;
        }
        if before.is_some_and(|before| before.choice == choice) {
            judged.unchanged += 1;
            continue;
        }
        // Later than what it replaces, also if that was decided by a clock ahead of this one.
        let at = match decided.last(&image.key) {
            Some(last) => now.max(last.at + TimeDelta::milliseconds(1)),
            None => now,
        };
        judged.decisions.push(Decision {
            key: image.key.clone(),
            choice: choice.clone(),
            by: by.to_owned(),
            at: whole_millis(at),
            because: able
                .iter()
                .map(|(at, _)| because_of_rule(&rules[*at].rule.to_string()))
                .collect(),
        });
    }
    match contradiction {
        Some(error) => Err(error),
        None => Ok(judged),
    }
}

/// What a rule with this action makes of an image; `None` if no label is suggested, or none that is one.
fn choice(action: RuleAction, image: &ImageFindings) -> Option<Choice> {
    match action {
        RuleAction::Drop => Some(Choice::Drop),
        RuleAction::Keep => Some(Choice::Keep),
        RuleAction::Relabel => Choice::relabel(image.suggested()?).ok(),
    }
}

fn shown(rule: &RuleFor) -> String {
    format!("{} {:?}", rule.action.word(), rule.rule.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::tests_of_meaning::{finding, image};

    fn findings() -> Findings {
        Findings::of(vec![
            image("a", vec![finding("label-error", "", 0.9, ["cat", "dog"])], false),
            image("b", vec![finding("duplicate", "exact", 0.9, ["cat", ""])], false),
            image(
                "c",
                vec![
                    finding("label-error", "", 0.5, ["cat", "dog"]),
                    finding("duplicate", "exact", 0.9, ["cat", ""]),
                ],
                false,
            ),
        ])
    }

    fn rule(action: RuleAction, text: &str) -> RuleFor {
        RuleFor { action, rule: text.parse().unwrap() }
    }

    fn at(millis: i64) -> DateTime<Utc> {
        DateTime::from_timestamp_millis(millis).unwrap()
    }

    fn person(key: &str, choice: Choice, millis: i64) -> Decision {
        let (key, because) = (ImageKey::parse(key).unwrap(), vec!["duplicate".to_owned()]);
        Decision { key, choice, by: "ana".to_owned(), at: at(millis), because }
    }

    fn summary(judged: &Judged) -> Vec<(&str, &str)> {
        let found = judged.decisions.iter();
        found.map(|decision| (decision.key.as_str(), decision.choice.word())).collect()
    }

    #[test]
    fn rules_decide_and_contradictions_are_errors() {
        let mut rules =
            vec![rule(RuleAction::Drop, "exact"), rule(RuleAction::Relabel, "label-error")];
        let none = MergedDecisions::default();
        let error = judge(&findings(), &rules, &none, "x", at(5), false).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("about c: drop \"exact\" and relabel \"label-error\""), "{text}");
        rules[1] = rule(RuleAction::Relabel, "label-error and not exact");
        let judged = judge(&findings(), &rules, &none, "x", at(5), false).unwrap();
        assert_eq!(summary(&judged), [("a", "relabel"), ("b", "drop"), ("c", "drop")]);
        assert_eq!(judged.met, [2, 1]);
        assert_eq!(judged.decisions[0].because, ["rule: label-error and not exact"]);
        assert!(judged.decisions[0].is_by_rule());
        rules = vec![rule(RuleAction::Relabel, "exact")];
        let judged = judge(&findings(), &rules, &none, "x", at(5), false).unwrap();
        assert_eq!((summary(&judged), judged.without_suggestion), (vec![("c", "relabel")], 1));
    }

    #[test]
    fn people_go_before_rules_and_later_rules_before_earlier_ones() {
        let mut decided = MergedDecisions::default();
        decided.add(person("b", Choice::Keep, 3));
        decided.add(person("c", Choice::Keep, 3));
        // Taken back by a clock that is ahead.
        decided.add(person("c", Choice::Undecided, 1000));
        let drop = [rule(RuleAction::Drop, "exact")];
        let judged = judge(&findings(), &drop, &decided, "x", at(5), false).unwrap();
        assert_eq!((summary(&judged), judged.by_people), (vec![("c", "drop")], 1));
        assert_eq!(judged.decisions[0].at, at(1001));
        judged.decisions.into_iter().for_each(|decision| decided.add(decision));

        let again = judge(&findings(), &drop, &decided, "x", at(2000), false).unwrap();
        assert_eq!((again.decisions.len(), again.unchanged, again.by_people), (0, 1, 1));
        let keep = [rule(RuleAction::Keep, "exact")];
        let judged = judge(&findings(), &keep, &decided, "x", at(2000), false).unwrap();
        assert_eq!(summary(&judged), [("c", "keep")]);
        let judged = judge(&findings(), &drop, &decided, "x", at(2000), true).unwrap();
        assert_eq!(summary(&judged), [("b", "drop")]);
    }
}
