//! Decides what becomes of a delivery that leaves early, and whether the rest of its run would
//! meet the same error. The one place that does; see `docs/reliability.md`.

use camshaft_common::prediction::FailureClass;
use camshaft_common::store::StoreErrorKind;

use super::exit::ExitCause;
use super::model_files::ModelUnavailable;

/// What becomes of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// It is acknowledged: there is nothing left to do.
    Done,
    /// A failure is stored as the image's result, and the delivery is acknowledged.
    Failure(FailureClass),
    /// It is tried again later.
    Retry,
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
    use Disposition::{DeadLetter, Done, Failure, HandBack, Retry};
    let (disposition, affects) = match cause {
        ExitCause::AlreadyDone => (Done, Affects::OneImage),
        ExitCause::NoTime => (HandBack, Affects::OneImage),
        ExitCause::NotAdmitted(_) => (DeadLetter, Affects::OneImage),
        ExitCause::Source(error) => match error.kind() {
            StoreErrorKind::NotFound => (Failure(FailureClass::NotFound), Affects::OneImage),
            StoreErrorKind::AccessDenied => {
                (Failure(FailureClass::AccessDenied), Affects::OneImage)
            }
            StoreErrorKind::TooLarge => (Failure(FailureClass::TooLarge), Affects::OneImage),
            StoreErrorKind::Unusable => (Failure(FailureClass::Unsupported), Affects::OneImage),
            // As failures, a missing bucket or expired credentials would spoil a whole run.
            StoreErrorKind::NoBucket | StoreErrorKind::BadCredentials => {
                (Retry, Affects::EveryImage)
            }
            StoreErrorKind::NoSpace => (Retry, Affects::OneImage),
            StoreErrorKind::Transient => (Retry, Affects::EveryImageIfSourceIsOut),
        },
        ExitCause::Out(error) => match error.kind() {
            StoreErrorKind::NoBucket
            | StoreErrorKind::BadCredentials
            | StoreErrorKind::AccessDenied
            | StoreErrorKind::NoSpace => (Retry, Affects::EveryImage),
            StoreErrorKind::Transient => (Retry, Affects::EveryImageIfOutIsOut),
            StoreErrorKind::NotFound | StoreErrorKind::TooLarge => (Retry, Affects::OneImage),
            // No failure could be stored under that name either.
            StoreErrorKind::Unusable => (DeadLetter, Affects::OneImage),
        },
        ExitCause::Model(error) => match error {
            // Another worker may have the model, or its store may be back by then.
            ModelUnavailable::Pinned { .. }
            | ModelUnavailable::NotBundled
            | ModelUnavailable::Files(_) => (Retry, Affects::OneImage),
            ModelUnavailable::Changed { .. }
            | ModelUnavailable::Unusable(_)
            | ModelUnavailable::ReaderPanicked => (DeadLetter, Affects::OneImage),
        },
        ExitCause::Device(_) => (Retry, Affects::OneImage),
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use camshaft_common::job::Job;
    use camshaft_decoding::DecodeError;

    use super::super::exit::NotAdmitted;
    use super::*;

    #[test]
    fn a_bad_image_is_a_failure_and_a_bad_message_a_dead_letter() {
        let unreadable = NotAdmitted::Unreadable(Job::parse(b"{}").unwrap_err());
        for (cause, disposition) in [
            (ExitCause::AlreadyDone, Disposition::Done),
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
            (ModelUnavailable::NotBundled.into(), Disposition::Retry),
        ] {
            let affects = Affects::OneImage;
            assert_eq!(classify(&cause), Classification { disposition, affects }, "{cause}");
        }
    }
}
