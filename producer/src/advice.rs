//! Errors of the libraries as `camshaft` tells them: what is wrong, and the option to change.
//!
//! Libraries know no command line; see [`camshaft_arguments::advice`], which has the errors that
//! both programs tell. To add an option, name it in the arm of its variant. Matches are
//! exhaustive, so that a new variant doesn't compile until somebody has thought of its option.

use camshaft_arguments::advice::with_option;
pub(crate) use camshaft_arguments::advice::{
    describe_model_files_error, describe_queue_error, describe_run_record_error,
    describe_store_error,
};
use camshaft_decisions::{FindingsError, MergeError};
use camshaft_report::{ReportError, UnknownNumber, UnknownReason};
#[cfg(feature = "embedded")]
pub(crate) use camshaft_worker::advice::{describe_explain_error, describe_model_error};
#[cfg(feature = "embedded")]
pub(crate) use embedded::{
    describe_dataset_error, describe_examination_error, describe_training_error,
};

/// The text of a report's error, with the options to change.
#[must_use]
pub(crate) fn describe_report_error(error: &ReportError) -> String {
    match error {
        ReportError::Run(error) => describe_run_record_error(error),
        ReportError::Store(error) => describe_store_error(error),
        ReportError::NoEmbeddings => format!(
            "{error}; run the audit with --embeddings (and --out elsewhere), or leave --embeddings \
             out here"
        ),
        ReportError::NoSuchFolder { .. } => with_option(error, Some("--group-by")),
        ReportError::NoResults(_)
        | ReportError::AllLeftOut { .. }
        | ReportError::Manifest(_)
        | ReportError::Table(_)
        | ReportError::Temporary(_)
        | ReportError::Panicked => error.to_string(),
    }
}

/// The text of an error about findings.
#[must_use]
pub(crate) fn describe_findings_error(error: &FindingsError) -> String {
    match error {
        FindingsError::Store(error) => describe_store_error(error),
        FindingsError::NoReport(_)
        | FindingsError::OldReport { .. }
        | FindingsError::Table(_)
        | FindingsError::Key(_)
        | FindingsError::Panicked => error.to_string(),
    }
}

/// The text of an error about the decisions in OUT.
#[must_use]
pub(crate) fn describe_merge_error(error: &MergeError) -> String {
    match error {
        MergeError::Store(error) => describe_store_error(error),
        MergeError::Lines(_) | MergeError::Table(_) | MergeError::Panicked => error.to_string(),
    }
}

/// The text of an error about a condition on the report, with its options.
#[must_use]
pub(crate) fn describe_condition_error(error: &UnknownNumber) -> String {
    let UnknownNumber { condition, number, reason } = error;
    let reason = match reason {
        UnknownReason::NoComparison => "there is no --against".to_owned(),
        UnknownReason::NoLabels | UnknownReason::OneLabel | UnknownReason::NothingInCommon => {
            reason.to_string()
        }
        UnknownReason::UnknownLabels => {
            format!("{reason}; say with --label-map which classes they are")
        }
    };
    format!("--fail-on {condition}: {number} is not known, since {reason}")
}

/// Errors of what only the program with an embedded worker does.
#[cfg(feature = "embedded")]
mod embedded {
    use camshaft_model::ModelError;
    use camshaft_training::{
        DatasetError, ListedError, SettingDifference, SettingDifferences, TrainingError,
    };
    use camshaft_trust::examination::ExaminationError;
    use camshaft_worker::advice::describe_model_error;

    use camshaft_arguments::advice::with_option;

    /// The text of an error while maps are measured, with the option to change.
    #[must_use]
    pub(crate) fn describe_examination_error(error: &ExaminationError) -> String {
        match error {
            ExaminationError::Model(error) => describe_model_error(error),
            ExaminationError::Stopped => error.to_string(),
        }
    }

    /// The text of an error about the images to train on, with the option to change.
    #[must_use]
    pub(crate) fn describe_dataset_error(error: &DatasetError) -> String {
        let option = match error {
            DatasetError::ShareAndFolder { .. }
            | DatasetError::Listed(ListedError::ShareAndSplit) => Some("--val-share"),
            DatasetError::Listed(ListedError::Unreadable { .. }) => Some("--base"),
            DatasetError::Listed(ListedError::NoLabel { .. }) => Some("--label-column"),
            DatasetError::OutHasImages { .. } => Some("--out"),
            DatasetError::Unreadable { .. }
            | DatasetError::NoClasses { .. }
            | DatasetError::OneClass { .. }
            | DatasetError::EmptyClass { .. }
            | DatasetError::TooFewImages { .. }
            | DatasetError::Ambiguous { .. }
            | DatasetError::TwoSplits { .. }
            | DatasetError::SplitsInClass { .. }
            | DatasetError::UnknownClass { .. }
            | DatasetError::NoTraining { .. }
            | DatasetError::Listed(
                ListedError::UnknownSplit { .. }
                | ListedError::OneClass { .. }
                | ListedError::TooFewImages { .. }
                | ListedError::UnknownClass { .. }
                | ListedError::NoValidation { .. },
            ) => None,
        };
        with_option(error, option)
    }

    /// The text of a training's error, with the option to change.
    #[must_use]
    pub(crate) fn describe_training_error(error: &TrainingError) -> String {
        let option = match error {
            // `train` takes a model as it is.
            TrainingError::Model(error @ ModelError::Unused { .. }) => return error.to_string(),
            TrainingError::Model(error) => return describe_model_error(error),
            TrainingError::BatchOfOne => Some("--layers all needs --batch 2"),
            TrainingError::Compute(_) => Some("--batch"),
            TrainingError::Diverged { .. } => Some("--learning-rate and --out"),
            TrainingError::OtherTraining(differences) => return describe_differences(differences),
            TrainingError::Checkpoint(_) => Some("--out"),
            TrainingError::UnreadableClass { .. }
            | TrainingError::ImageLost { .. }
            | TrainingError::Stopped => None,
        };
        with_option(error, option)
    }

    /// The text of a refusal to go on with a training, with the options that go on with it.
    fn describe_differences(differences: &SettingDifferences) -> String {
        let mut ways = Vec::new();
        for way in differences.iter().filter_map(way_back) {
            if !ways.contains(&way) {
                ways.push(way);
            }
        }
        let go_on = match ways.as_slice() {
            [] => String::new(),
            ways => format!("to go on with it, {}; ", ways.join(", ")),
        };
        format!(
            "the folder has a training that was started with other settings: {differences}; \
             {go_on}to train anew, choose another folder (--out)"
        )
    }

    /// What takes back a difference from the settings that a training was started with.
    fn way_back(difference: &SettingDifference) -> Option<String> {
        let then = &difference.then;
        let option = match difference.setting.as_str() {
            SettingDifference::IMAGES => return Some("restore the images".to_owned()),
            "flip" if then == "true" => return Some("give --flip horizontal".to_owned()),
            "flip" => return Some("give --flip none".to_owned()),
            "init" => "--init",
            "layers" => "--layers",
            "batch" => "--batch",
            "learning_rate" => "--learning-rate",
            "seed" => "--seed",
            "model.architecture" => "--architecture",
            "model.head" => "--head",
            "model.input.height" | "model.input.width" => "--image-size",
            _ => return None,
        };
        Some(format!("give {option} {then}"))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use camshaft_report::Condition;

    use super::*;

    #[test]
    fn errors_of_a_report_name_the_options_that_help() {
        let unknown = |text: &str| {
            let condition: Condition = text.parse().unwrap();
            describe_condition_error(&condition.value_if_true(&BTreeMap::new()).unwrap_err())
        };
        assert_eq!(
            unknown("changed>0"),
            "--fail-on changed>0: changed is not known, since there is no --against"
        );
        assert_eq!(
            unknown("accuracy<0.9"),
            "--fail-on accuracy<0.9: accuracy is not known, since no image has both a label and a \
             prediction"
        );
        assert_eq!(
            describe_report_error(&ReportError::NoEmbeddings),
            "no result holds an embedding; run the audit with --embeddings (and --out elsewhere), \
             or leave --embeddings out here"
        );
    }
}
