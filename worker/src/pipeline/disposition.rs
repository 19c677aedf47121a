//! Decides what becomes of a delivery that leaves early, whose fault it is, and whether the rest of
//! its run would meet the same error. The one place that does; see `docs/reliability.md`.

use std::time::Duration;

use camshaft_common::model::ModelFilesError;
use camshaft_common::prediction::FailureClass;
use camshaft_common::store::{StoreError, StoreErrorKind};
use camshaft_model::ModelError;

use super::exit::{ExitCause, NotAdmitted};
use super::model_files::ModelUnavailable;
use super::recent_jobs::Fault;
use super::source_access::SourceProblem;

/// When an image comes again that is forbidden, if its worker has read no other one yet, or that was
/// not there.
const UNREAD_AGAIN: Duration = Duration::from_secs(2);

/// What becomes of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// It is acknowledged: there is nothing left to do.
    Done,
    /// A failure is stored as the image's result, and the delivery is acknowledged.
    Failure(FailureClass),
    /// It is tried again later.
    Retry,
    /// This worker can't try it, and another may: it is delivered again, and no try is counted.
    Refuse(Fault),
    /// This worker can't try it yet, since its model is not read, or since it is not known whether it may
    /// read its SOURCE: it is delivered again after about this time, and no try is counted.
    Postpone(Duration),
    /// It goes back to the queue, and nothing is counted.
    HandBack,
    /// It becomes a dead letter: another try would not help, and the image is not at fault.
    DeadLetter,
}

/// Which images of the run meet the same error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Affects {
    /// This image only, as far as is known.
    OneImage,
    /// Every further image, until somebody mends the cause.
    EveryImage,
    /// Every further image, if the store of SOURCE is out.
    EveryImageIfSourceIsOut,
    /// Every further image, if the store of OUT is out.
    EveryImageIfOutIsOut,
}

/// What an [`ExitCause`] means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Classification {
    /// What becomes of the delivery.
    pub disposition: Disposition,
    /// Which images meet the same error.
    pub affects: Affects,
}

/// Classifies why a delivery leaves early.
#[must_use]
pub fn classify(cause: &ExitCause) -> Classification {
    use Disposition::{DeadLetter, Done, Failure, HandBack, Postpone, Refuse, Retry};
    let (disposition, affects) = match cause {
        ExitCause::AlreadyDone | ExitCause::Kept(_) | ExitCause::Superseded => {
            (Done, Affects::OneImage)
        }
        ExitCause::NoTime => (HandBack, Affects::OneImage),
        ExitCause::NotAdmitted(NotAdmitted::Unreadable(_)) => (DeadLetter, Affects::OneImage),
        // Another worker may use the place, or have other settings for the store.
        ExitCause::NotAdmitted(NotAdmitted::Refused(_)) | ExitCause::Unopened(_) => {
            (Refuse(Fault::WorkerOrRun), Affects::EveryImage)
        }
        ExitCause::Source(error) => match error.kind() {
            StoreErrorKind::NotFound => (Failure(FailureClass::NotFound), Affects::OneImage),
            StoreErrorKind::AccessDenied | StoreErrorKind::ArchivedOrEncrypted => {
                (Failure(FailureClass::AccessDenied), Affects::OneImage)
            }
            StoreErrorKind::TooLarge => (Failure(FailureClass::TooLarge), Affects::OneImage),
            StoreErrorKind::Unusable => (Failure(FailureClass::Unsupported), Affects::OneImage),
            // As failures, a missing bucket or expired credentials would spoil a whole run.
            StoreErrorKind::NoBucket
            | StoreErrorKind::BadCredentials
            | StoreErrorKind::BadSettings => (Refuse(fault_of(error)), Affects::EveryImage),
            StoreErrorKind::NoSpace => (Retry, Affects::OneImage),
            StoreErrorKind::Transient => (Retry, Affects::EveryImageIfSourceIsOut),
        },
        ExitCause::WholeSource(problem) => match problem {
            // By then this worker has read others, or knows that it can't; or the image is read.
            SourceProblem::PerhapsForbidden(_) | SourceProblem::CameBack(_) => {
                (Postpone(UNREAD_AGAIN), Affects::OneImage)
            }
            // Another worker may have the rights, or the folder mounted.
            SourceProblem::Forbidden { .. } | SourceProblem::Empty(_) => {
                (Refuse(Fault::WorkerOrRun), Affects::EveryImage)
            }
        },
        ExitCause::Out(error) => match error.kind() {
            // What is written is encrypted with the bucket's key, whatever image it is about.
            StoreErrorKind::NoBucket
            | StoreErrorKind::BadCredentials
            | StoreErrorKind::BadSettings
            | StoreErrorKind::ArchivedOrEncrypted
            | StoreErrorKind::AccessDenied => (Refuse(fault_of(error)), Affects::EveryImage),
            StoreErrorKind::NoSpace => (Retry, Affects::EveryImage),
            StoreErrorKind::Transient => (Retry, Affects::EveryImageIfOutIsOut),
            StoreErrorKind::NotFound | StoreErrorKind::TooLarge => (Retry, Affects::OneImage),
            // No failure could be stored under that name either.
            StoreErrorKind::Unusable => (DeadLetter, Affects::OneImage),
        },
        ExitCause::Model(error) => of_model(error),
        ExitCause::Device(error) => (of_device(error), Affects::OneImage),
        ExitCause::Decode(error) => (Failure(error.class()), Affects::OneImage),
        ExitCause::DecoderPanicked | ExitCause::DecoderTimedOut(_) => {
            (Failure(FailureClass::Undecodable), Affects::OneImage)
        }
        ExitCause::OverlaysTooLarge { .. } => (Failure(FailureClass::TooLarge), Affects::OneImage),
        ExitCause::Explain(_) | ExitCause::ExplainTimedOut(_) | ExitCause::Encode(_) => {
            (Failure(FailureClass::ExplainFailed), Affects::OneImage)
        }
    };
    Classification { disposition, affects }
}

/// What becomes of a job whose model can't be used.
fn of_model(error: &ModelUnavailable) -> (Disposition, Affects) {
    use Disposition::{DeadLetter, Postpone, Refuse};
    let refused = |fault| (Refuse(fault), Affects::EveryImage);
    match error {
        ModelUnavailable::BeingRead { waited, .. } => (Postpone(*waited), Affects::OneImage),
        // Another worker may have the model, or may read it, or has the memory for it.
        ModelUnavailable::Pinned { .. }
        | ModelUnavailable::LargeInput { .. }
        | ModelUnavailable::NotBundled
        | ModelUnavailable::OtherCopy { .. } => refused(Fault::WorkerOrRun),
        ModelUnavailable::Files(error) => match error {
            ModelFilesError::Store(error)
            | ModelFilesError::ReadClasses(error)
            | ModelFilesError::ReadCalibration(error) => refused(fault_of(error)),
            ModelFilesError::Hub(_)
            | ModelFilesError::Folder(_)
            | ModelFilesError::Classes(_)
            | ModelFilesError::OtherCalibration { .. } => refused(Fault::WorkerOrRun),
            ModelFilesError::OptionsOfBundled => (DeadLetter, Affects::OneImage),
        },
        ModelUnavailable::Unusable(error) => match &**error {
            // Another worker has another device.
            ModelError::Device(_)
            | ModelError::Precision(_)
            | ModelError::OutOfMemory(_)
            | ModelError::DeviceLost(_)
            | ModelError::Compute(_) => refused(Fault::WorkerOrRun),
            _ => (DeadLetter, Affects::OneImage),
        },
        ModelUnavailable::Changed { .. } | ModelUnavailable::ReaderPanicked => {
            (DeadLetter, Affects::OneImage)
        }
    }
}

/// Only want of memory passes, once others have given theirs back. A lost device ends this process, and
/// another one does the image. Any other error would come again.
fn of_device(error: &ModelError) -> Disposition {
    match error {
        ModelError::OutOfMemory(_) => Disposition::Retry,
        ModelError::DeviceLost(_) => Disposition::HandBack,
        _ => Disposition::Failure(FailureClass::ExplainFailed),
    }
}

/// Whose fault a store's refusal is. A mistyped place has no bucket, or one of somebody else, but no
/// place makes a store refuse the credentials.
fn fault_of(error: &StoreError) -> Fault {
    match error.kind() {
        StoreErrorKind::BadCredentials => Fault::Worker,
        _ => Fault::WorkerOrRun,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use camshaft_common::job::Job;
    use camshaft_decoding::DecodeError;

    use super::super::allowed_places::{PlaceRefused, PlaceRole};
    use super::*;

    #[test]
    fn a_bad_image_is_a_failure_and_a_bad_message_a_dead_letter() {
        let unreadable = NotAdmitted::Unreadable(Job::parse(b"{}").unwrap_err());
        for (cause, disposition) in [
            (ExitCause::AlreadyDone, Disposition::Done),
            (ExitCause::Superseded, Disposition::Done),
            (unreadable.into(), Disposition::DeadLetter),
            (DecodeError::Empty.into(), Disposition::Failure(DecodeError::Empty.class())),
            (
                ExitCause::DecoderTimedOut(Duration::from_secs(1)),
                Disposition::Failure(FailureClass::Undecodable),
            ),
            (
                ExitCause::ExplainTimedOut(Duration::from_secs(1)),
                Disposition::Failure(FailureClass::ExplainFailed),
            ),
            (ExitCause::NoTime, Disposition::HandBack),
        ] {
            let affects = Affects::OneImage;
            assert_eq!(classify(&cause), Classification { disposition, affects }, "{cause}");
        }
    }

    #[test]
    fn of_a_devices_errors_only_want_of_memory_is_tried_again() {
        let failed = candle_core::Error::Msg("no such operation".to_owned());
        for (error, disposition) in [
            (ModelError::OutOfMemory("2 GiB".to_owned()), Disposition::Retry),
            (ModelError::DeviceLost("illegal address".to_owned()), Disposition::HandBack),
            (ModelError::Compute(failed), Disposition::Failure(FailureClass::ExplainFailed)),
        ] {
            let cause = ExitCause::Device(Arc::new(error));
            let affects = Affects::OneImage;
            assert_eq!(classify(&cause), Classification { disposition, affects }, "{cause}");
        }
    }

    #[test]
    fn what_another_worker_may_do_is_refused() {
        let place = "s3://elsewhere/images".to_owned();
        let outside = PlaceRefused::Outside { role: PlaceRole::Source, place };
        let digests = || ("pets".to_owned(), "sha256:a".to_owned(), "sha256:b".to_owned());
        let (name, found, wanted) = digests();
        let copy = ModelUnavailable::OtherCopy { name, found, wanted };
        let causes: [ExitCause; 4] = [
            NotAdmitted::Refused(outside).into(),
            ExitCause::WholeSource(SourceProblem::Empty("/images".to_owned())),
            ModelUnavailable::NotBundled.into(),
            copy.into(),
        ];
        for cause in causes {
            let disposition = Disposition::Refuse(Fault::WorkerOrRun);
            let affects = Affects::EveryImage;
            assert_eq!(classify(&cause), Classification { disposition, affects }, "{cause}");
        }
        let (name, found, wanted) = digests();
        let changed = ModelUnavailable::Changed { name, found, wanted };
        assert_eq!(classify(&changed.into()).disposition, Disposition::DeadLetter);
        let waited = Duration::from_secs(7);
        let reading =
            ModelUnavailable::BeingRead { name: "pets".to_owned(), waited, problem: None };
        let postponed = classify(&reading.into());
        assert_eq!(postponed.disposition, Disposition::Postpone(waited));
        assert_eq!(postponed.affects, Affects::OneImage);
    }
}
