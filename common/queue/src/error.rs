//! What a job queue can fail with.
//!
//! An error says what is wrong and keeps the library's error as its source. It knows no command
//! line: [`QueueError::advice`] tells a program which of its options to name beside the text.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use crate::tls_error::{TlsError, TlsFile};
use camshaft_common::tls::{HandshakeFailure, TlsSetting};

/// What a job queue can fail with. No variant's text, nor its source's, has a password in it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum QueueError {
    /// Nothing answers, or the connection broke: another try may help.
    #[error(
        "cannot reach the broker at {address}: {reason}; is it running, and is the address right?"
    )]
    Unreachable {
        /// Host and port.
        address: String,
        /// What the library said.
        reason: String,
        /// The library's error; `None` if there was no answer at all.
        source: Option<Arc<dyn Error + Send + Sync>>,
    },
    /// The broker doesn't know this user, or forbids what was asked: another try doesn't help.
    #[error(
        "the broker at {address} refused access: {reason}; check user, password, virtual host and permissions"
    )]
    AccessRefused {
        /// Host and port.
        address: String,
        /// What the broker said.
        reason: String,
        /// The library's error.
        source: Option<Arc<dyn Error + Send + Sync>>,
    },
    /// There is no TLS with the broker: another try doesn't help.
    #[error("no TLS with the broker at {address}: {source}")]
    Tls {
        /// Host and port.
        address: String,
        /// Why not, and what to do.
        source: TlsError,
    },
    /// The broker's URL can't be read. The text doesn't show it, since it may hold a password.
    #[error("the broker URL is not valid: {reason}; expected amqp://USER:PASSWORD@HOST:PORT/VHOST")]
    InvalidUrl {
        /// What is wrong with it.
        reason: String,
    },
    /// The broker allows no name that long.
    #[error("the queue's name is too long; choose a shorter one")]
    QueueNameTooLong,
    /// A queue of that name exists with other properties.
    #[error(
        "the broker at {address} has a queue that was made with other settings: {reason}; it may \
         hold jobs, so leave it and choose another name"
    )]
    Topology {
        /// Host and port.
        address: String,
        /// What the broker said.
        reason: String,
        /// The library's error.
        source: Option<Arc<dyn Error + Send + Sync>>,
    },
    /// A message was held for longer than the broker allows. It took back all that came through the
    /// same channel, and delivers it again.
    #[error(
        "the broker at {address} took back what this worker held: a message was not settled within \
         its consumer_timeout{}; give workers a consumer timeout that is no longer than the \
         broker's, so that they hold less",
        within.map_or_else(String::new, |within| format!(" of {} s", within.as_secs_f64()))
    )]
    HeldTooLong {
        /// Host and port.
        address: String,
        /// The broker's `consumer_timeout`, if it told.
        within: Option<Duration>,
        /// The library's error.
        source: Option<Arc<dyn Error + Send + Sync>>,
    },
    /// There is no such queue, and it was not to be created.
    #[error("the broker at {address} has no queue {queue}; enqueue first, or check the name")]
    NoQueue {
        /// Host and port.
        address: String,
        /// The queue.
        queue: String,
    },
    /// The broker takes no messages for now.
    #[error(
        "the broker at {address} takes no messages for now: it is low on memory or disk; see its log, and let workers empty its queues"
    )]
    Blocked {
        /// Host and port.
        address: String,
    },
    /// The broker did not take a message.
    #[error("the broker refused a message: {reason}")]
    Rejected {
        /// What the broker said.
        reason: String,
    },
    /// Another process publishes the same sequence.
    #[error(
        "another enqueue of this run is under way at the broker {address}; wait until it is done, \
         or end it, and start again"
    )]
    SequenceInUse {
        /// Host and port.
        address: String,
    },
    /// The delivery belongs to a connection that is gone; the message will be delivered again.
    #[error("the connection that delivered this message is gone; it will be delivered again")]
    Stale,
    /// The queue was closed.
    #[error("the queue is closed")]
    Closed,
}

/// The setting to change after a [`QueueError`]. The error's text says what to do; a program
/// appends what the setting is called on its command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advice {
    /// Choose another name for the queues.
    ChooseAnotherQueueName,
    /// Correct the broker's URL.
    CorrectBrokerUrl,
    /// Name a file of the authorities to trust.
    NameTrustedAuthorities,
    /// Give a client certificate and its key.
    GiveClientCertificate,
    /// Look at one of the files for TLS, or at its setting.
    CheckTlsFile(TlsFile),
}

impl QueueError {
    /// Whether the same call may succeed later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::HeldTooLong { .. }
            | Self::Blocked { .. }
            | Self::Rejected { .. }
            | Self::Stale => true,
            Self::AccessRefused { .. }
            | Self::Tls { .. }
            | Self::InvalidUrl { .. }
            | Self::QueueNameTooLong
            | Self::Topology { .. }
            | Self::NoQueue { .. }
            | Self::SequenceInUse { .. }
            | Self::Closed => false,
        }
    }

    /// True if what was asked for can't be tried at all: another try, or another broker, doesn't
    /// help.
    #[must_use]
    pub fn is_wrong_usage(&self) -> bool {
        matches!(self, Self::InvalidUrl { .. } | Self::QueueNameTooLong)
    }

    /// The setting to change, if there is one.
    #[must_use]
    pub fn advice(&self) -> Option<Advice> {
        match self {
            Self::Tls { source, .. } => source.advice(),
            Self::QueueNameTooLong | Self::Topology { .. } | Self::NoQueue { .. } => {
                Some(Advice::ChooseAnotherQueueName)
            }
            Self::InvalidUrl { .. } => Some(Advice::CorrectBrokerUrl),
            Self::Unreachable { .. }
            | Self::AccessRefused { .. }
            | Self::HeldTooLong { .. }
            | Self::Blocked { .. }
            | Self::Rejected { .. }
            | Self::SequenceInUse { .. }
            | Self::Stale
            | Self::Closed => None,
        }
    }
}

impl TlsError {
    fn advice(&self) -> Option<Advice> {
        match self {
            Self::NotEncrypted { file }
            | Self::Unreadable { file, .. }
            | Self::NotPem { file, .. } => Some(Advice::CheckTlsFile(*file)),
            Self::IncompleteIdentity { missing } => Some(Advice::CheckTlsFile(*missing)),
            Self::KeyMismatch { .. } => Some(Advice::GiveClientCertificate),
            Self::NoAuthorities => Some(Advice::NameTrustedAuthorities),
            Self::Handshake(failure) => failure.setting().map(|setting| match setting {
                TlsSetting::Authorities => Advice::NameTrustedAuthorities,
                TlsSetting::Address => Advice::CorrectBrokerUrl,
                TlsSetting::Identity => Advice::GiveClientCertificate,
            }),
        }
    }
}

impl From<HandshakeFailure> for TlsError {
    fn from(failure: HandshakeFailure) -> Self {
        Self::Handshake(failure)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_names_an_option_of_a_command_line() {
        let address = || "broker:5671".to_owned();
        let tls = |source| QueueError::Tls { address: address(), source };
        let path = || "x.pem".to_owned();
        let topology =
            QueueError::Topology { address: address(), reason: String::new(), source: None };
        let no_queue = QueueError::NoQueue { address: address(), queue: "typo.jobs".to_owned() };
        for (error, advice) in [
            (topology, Advice::ChooseAnotherQueueName),
            (no_queue, Advice::ChooseAnotherQueueName),
            (QueueError::QueueNameTooLong, Advice::ChooseAnotherQueueName),
            (
                tls(TlsError::NotEncrypted { file: TlsFile::Authorities }),
                Advice::CheckTlsFile(TlsFile::Authorities),
            ),
            (
                tls(TlsError::IncompleteIdentity { missing: TlsFile::Key }),
                Advice::CheckTlsFile(TlsFile::Key),
            ),
            (
                tls(TlsError::NotPem { file: TlsFile::Certificate, path: path(), wanted: "x" }),
                Advice::CheckTlsFile(TlsFile::Certificate),
            ),
            (
                tls(TlsError::KeyMismatch { key: path(), certificate: path() }),
                Advice::GiveClientCertificate,
            ),
            (tls(TlsError::NoAuthorities), Advice::NameTrustedAuthorities),
            (tls(HandshakeFailure::UntrustedAuthority.into()), Advice::NameTrustedAuthorities),
            (tls(HandshakeFailure::OtherHostName.into()), Advice::CorrectBrokerUrl),
            (
                tls(HandshakeFailure::ClientCertificateRequired.into()),
                Advice::GiveClientCertificate,
            ),
        ] {
            assert_eq!(error.advice(), Some(advice), "{error}");
            assert!(!error.to_string().contains("--"), "{error}");
        }
        assert_eq!(tls(HandshakeFailure::Expired.into()).advice(), None);
        assert_eq!(QueueError::Stale.advice(), None);
    }
}
