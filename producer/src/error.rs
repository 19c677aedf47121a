//! Why a command failed, and the exit status that tells a script so.

use crate::apply::ApplyError;
#[cfg(feature = "embedded")]
use crate::audit::AuditError;
#[cfg(feature = "embedded")]
use crate::calibrate::CalibrateError;
use crate::cancel::CancelError;
use crate::cli::UsageError;
use crate::decide::DecideError;
use crate::enqueue::EnqueueError;
use crate::export::ExportError;
use crate::images::source_error::SourceError;
use crate::manual::ManualError;
use crate::redrive::RedriveError;
use crate::report::ReportCommandError;
use crate::runs::RunsError;
use crate::serve::ServeError;
use crate::status::StatusError;
#[cfg(feature = "embedded")]
use crate::train::TrainError;

/// Wrong usage, as clap's.
const USAGE: u8 = 2;
/// An audit is done, but too many images failed.
#[cfg(feature = "embedded")]
const TOO_MANY_FAILURES: u8 = 3;
/// A report is done, but a condition of `--fail-on` holds.
const CONDITION_HOLDS: u8 = 4;
/// Every other error.
const FAILURE: u8 = 1;

/// Why a command failed. The text says what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// Arguments that are each right but don't go together.
    #[error(transparent)]
    Usage(#[from] UsageError),
    /// `camshaft audit`.
    #[cfg(feature = "embedded")]
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// `camshaft train`.
    #[cfg(feature = "embedded")]
    #[error(transparent)]
    Train(#[from] TrainError),
    /// `calibrate` failed.
    #[cfg(feature = "embedded")]
    #[error(transparent)]
    Calibrate(#[from] CalibrateError),
    /// `camshaft enqueue`.
    #[error(transparent)]
    Enqueue(#[from] EnqueueError),
    /// `camshaft report`.
    #[error(transparent)]
    Report(#[from] ReportCommandError),
    /// `camshaft serve`.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// `camshaft decide`.
    #[error(transparent)]
    Decide(#[from] DecideError),
    /// `camshaft export`.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// `camshaft apply`.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// `camshaft status`.
    #[error(transparent)]
    Status(#[from] StatusError),
    /// `camshaft cancel`.
    #[error(transparent)]
    Cancel(#[from] CancelError),
    /// `camshaft runs`.
    #[error(transparent)]
    Runs(#[from] RunsError),
    /// `camshaft redrive`.
    #[error(transparent)]
    Redrive(#[from] RedriveError),
    /// `camshaft man`.
    #[error(transparent)]
    Manual(#[from] ManualError),
}

impl CommandError {
    /// The exit status of the program.
    #[must_use]
    pub fn exit_status(&self) -> u8 {
        match self {
            Self::Usage(_) => USAGE,
            Self::Enqueue(EnqueueError::Source(error)) if is_usage(error) => USAGE,
            Self::Enqueue(EnqueueError::Queue(error))
            | Self::Status(StatusError::Queue(error))
            | Self::Runs(RunsError(error))
            | Self::Redrive(RedriveError(error))
                if error.is_wrong_usage() =>
            {
                USAGE
            }
            Self::Report(ReportCommandError::ConditionsHold(_)) => CONDITION_HOLDS,
            #[cfg(feature = "embedded")]
            Self::Audit(error) => match error {
                AuditError::Source(error) if is_usage(error) => USAGE,
                AuditError::TooManyFailures { .. } => TOO_MANY_FAILURES,
                AuditError::ConditionsHold(_) => CONDITION_HOLDS,
                _ => FAILURE,
            },
            _ => FAILURE,
        }
    }
}

/// True if the arguments don't go with the SOURCE that is there.
fn is_usage(error: &SourceError) -> bool {
    matches!(
        error,
        SourceError::OutIsSource | SourceError::OutIsBase | SourceError::GlobsForOneImage(_)
    )
}

#[cfg(test)]
mod tests {
    use camshaft_queue::QueueError;

    use super::*;

    #[test]
    fn exit_statuses_tell_wrong_usage_from_other_errors() {
        let out_is_source = EnqueueError::Source(SourceError::OutIsSource);
        assert_eq!(CommandError::from(out_is_source).exit_status(), 2);
        let url = QueueError::InvalidUrl { reason: "no host".to_owned() };
        assert_eq!(CommandError::from(EnqueueError::from(url.clone())).exit_status(), 2);
        assert_eq!(CommandError::from(StatusError::from(url.clone())).exit_status(), 2);
        assert_eq!(CommandError::from(RunsError::from(url.clone())).exit_status(), 2);
        assert_eq!(CommandError::from(RedriveError::from(url)).exit_status(), 2);
        assert_eq!(CommandError::from(EnqueueError::from(QueueError::Closed)).exit_status(), 1);
        let missing = EnqueueError::Source(SourceError::Missing("cats".to_owned()));
        assert_eq!(CommandError::from(missing).exit_status(), 1);
    }

    #[cfg(feature = "embedded")]
    #[test]
    fn exit_statuses_of_an_audit_tell_what_stopped_it() {
        assert_eq!(CommandError::from(UsageError::ArchitectureOfModel).exit_status(), 2);
        let too_many = AuditError::TooManyFailures {
            failed: 2,
            found: 3,
            max_failure_rate: 0.5,
            out: "/out".parse().expect("it is a place"),
        };
        assert_eq!(CommandError::from(too_many).exit_status(), 3);
        let stopped = [AuditError::Stopped, AuditError::StoppedAtEnd("the report".to_owned())];
        assert_eq!(stopped.map(|error| CommandError::from(error).exit_status()), [1, 1]);
    }
}
