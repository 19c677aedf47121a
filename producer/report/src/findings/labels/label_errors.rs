//! Label errors as findings: in words, with what both opinions say.

use super::super::finding::{FindingKind, LabelOpinions, RowFinding};
use super::confident_learning::Opinion;

/// A finding of a label with the names `label` and `suggested`. `model` is what the model says of the
/// image if another opinion is the reason: its most probable class and whether that is the suggested
/// one.
pub(super) fn describe(
    row: usize,
    opinion: &Opinion,
    [label, suggested]: [&str; 2],
    model: Option<(&str, bool)>,
    opinions: LabelOpinions,
) -> RowFinding {
    let mut reason = format!(
        "Labelled {label}, but looks like {suggested}: {} against {}",
        percent(opinion.top_probability),
        percent(opinion.label_probability)
    );
    match model {
        Some((_, true)) => reason.push_str("; the model agrees"),
        Some((class, false)) => reason.push_str(&format!("; the model says {class}")),
        None => {}
    }
    // A score of a half says that it could be either.
    let score = 0.5 + 0.5 * opinion.margin().clamp(0.0, 1.0);
    let found = RowFinding::new(row, FindingKind::LabelError, score, reason);
    RowFinding { suggested: Some(suggested.to_owned()), opinions, ..found }
}

/// `97 %`, `0.2 %`, `over 99.9 %`: with one decimal if it is close to 0 or 100.
fn percent(share: f32) -> String {
    let percent = f64::from(share) * 100.0;
    let from_end = percent.min(100.0 - percent);
    if percent == 0.0 || percent == 100.0 || from_end >= 9.95 {
        format!("{percent:.0} %")
    } else if from_end >= 0.095 {
        format!("{percent:.1} %")
    } else if percent > 50.0 {
        "over 99.9 %".to_owned()
    } else {
        "under 0.1 %".to_owned()
    }
}
