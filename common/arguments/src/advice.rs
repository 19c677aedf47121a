//! Errors of the queue and the store as a program tells them: what is wrong, and the option to
//! change.
//!
//! Libraries say what is wrong and what to do, but know no command line. A program that shows such
//! an error appends the option in parentheses: `choose another name (--queue)`.
//! Options that only one program has are that program's matter.

use std::fmt::Display;

use camshaft_common::model::{ModelFilesError, ModelFolderError};
use camshaft_common::run::ReadRunError;
use camshaft_common::store::{StoreError, StoreErrorKind};
use camshaft_queue::{Advice, QueueError, TlsFile};

/// The text of an error, and behind it in parentheses the option to change, if there is one.
#[must_use]
pub fn with_option(error: &impl Display, option: Option<&str>) -> String {
    let text = error.to_string();
    match option {
        Some(option) if !text.contains(option) => format!("{text} ({option})"),
        _ => text,
    }
}

/// The text of a queue's error, with the option to change.
#[must_use]
pub fn describe_queue_error(error: &QueueError) -> String {
    let option = error.advice().map(|advice| match advice {
        Advice::ChooseAnotherQueueName => "--queue",
        Advice::CorrectBrokerUrl => "--broker",
        Advice::NameTrustedAuthorities | Advice::CheckTlsFile(TlsFile::Authorities) => {
            "--broker-ca"
        }
        Advice::GiveClientCertificate => "--broker-cert and --broker-key",
        Advice::CheckTlsFile(TlsFile::Certificate) => "--broker-cert",
        Advice::CheckTlsFile(TlsFile::Key) => "--broker-key",
    });
    with_option(error, option)
}

/// The text of an error of the store that results go to, with the option to change.
#[must_use]
pub fn describe_store_error(error: &StoreError) -> String {
    match error.kind() {
        StoreErrorKind::NoSpace => format!("{error}, or choose another --out"),
        StoreErrorKind::NotFound
        | StoreErrorKind::NoBucket
        | StoreErrorKind::AccessDenied
        | StoreErrorKind::BadCredentials
        | StoreErrorKind::BadSettings
        | StoreErrorKind::ArchivedOrEncrypted
        | StoreErrorKind::TooLarge
        | StoreErrorKind::Unusable
        | StoreErrorKind::Transient => error.to_string(),
    }
}

/// The text of an error about a model's files, with the option to change.
#[must_use]
pub fn describe_model_files_error(error: &ModelFilesError) -> String {
    let option = match error {
        ModelFilesError::Folder(
            ModelFolderError::NoConfig { .. } | ModelFolderError::NoClasses { .. },
        )
        | ModelFilesError::ReadClasses(_)
        | ModelFilesError::Classes(_) => Some("--classes"),
        ModelFilesError::ReadCalibration(_) | ModelFilesError::OtherCalibration { .. } => {
            Some("--precision")
        }
        ModelFilesError::OptionsOfBundled => Some("--classes, --ignore-tensors, --weights-key"),
        ModelFilesError::Folder(ModelFolderError::ManyWeights { .. }) => Some("--model"),
        ModelFilesError::Folder(
            ModelFolderError::Absent { .. }
            | ModelFolderError::NoWeights { .. }
            | ModelFolderError::Index { .. },
        )
        | ModelFilesError::Store(_)
        | ModelFilesError::Hub(_) => None,
    };
    with_option(error, option)
}

/// The text of an error about the `run.json` of OUT, with the option to change.
#[must_use]
pub fn describe_run_record_error(error: &ReadRunError) -> String {
    match error {
        ReadRunError::Missing(_) | ReadRunError::Damaged { .. } => error.to_string(),
        ReadRunError::Malformed { .. } => with_option(error, Some("--out")),
        ReadRunError::Store(error) => describe_store_error(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_is_appended_in_parentheses() {
        assert_eq!(with_option(&"no memory", None), "no memory");
        assert_eq!(
            with_option(&"no memory; use smaller batches", Some("--batch")),
            "no memory; use smaller batches (--batch)"
        );
    }
}
