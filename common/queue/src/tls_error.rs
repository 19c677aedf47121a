//! Why there is no TLS with the broker.
//!
//! Texts name a file by what it holds, and never show what is in it.

use std::fmt;
use std::io;
use std::sync::Arc;

use camshaft_common::tls::HandshakeFailure;

/// A PEM file that TLS with the broker needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsFile {
    /// The authorities that the broker's certificate may come from.
    Authorities,
    /// Our own certificate.
    Certificate,
    /// The private key of our own certificate.
    Key,
}

impl fmt::Display for TlsFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Authorities => "file of trusted authorities",
            Self::Certificate => "client certificate",
            Self::Key => "private key",
        })
    }
}

/// Why there is no TLS with the broker. Another try doesn't help.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TlsError {
    /// There are files for TLS, but the broker's URL is without TLS.
    #[error("the {file} is for amqps://, and the broker's URL says amqp://; change one of them")]
    NotEncrypted {
        /// One of the files.
        file: TlsFile,
    },
    /// There is a certificate without its key, or a key without its certificate.
    #[error("a client certificate and its private key go together; the {missing} is missing")]
    IncompleteIdentity {
        /// The file that is missing.
        missing: TlsFile,
    },
    /// A file can't be read.
    #[error("cannot read the {file} {path}: {source}")]
    Unreadable {
        /// What the file holds.
        file: TlsFile,
        /// The file.
        path: String,
        /// The system's error.
        source: Arc<io::Error>,
    },
    /// A file doesn't hold what is needed. Has no source: the parser's error quotes the file,
    /// which may hold a key.
    #[error("the {file} {path} has no {wanted} in PEM form; is it the right file?")]
    NotPem {
        /// What the file should hold.
        file: TlsFile,
        /// The file.
        path: String,
        /// What was looked for in it.
        wanted: &'static str,
    },
    /// The key belongs to another certificate, or is of a kind that can't be used.
    #[error("the private key {key} doesn't belong to the client certificate {certificate}")]
    KeyMismatch {
        /// The key's file.
        key: String,
        /// The certificate's file.
        certificate: String,
    },
    /// This machine trusts nobody.
    #[error(
        "this machine has no certificates of authorities; install ca-certificates, or name a file \
         of them"
    )]
    NoAuthorities,
    /// One side refused the other.
    #[error(transparent)]
    Handshake(HandshakeFailure),
}
