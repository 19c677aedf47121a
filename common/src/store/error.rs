//! The meaning of stores' errors: their kind, and one line for a person.
//!
//! [`StoreErrorKind`] decides whether the same request may work later; callers ask nothing else.

use std::error::Error;
use std::io;

use super::authorities::CA_BUNDLE;
use crate::printable::{printable, shortened};
use crate::tls;

/// Most characters of a store's answer in an error; some answer with pages of XML or HTML.
const MAX_REASON_CHARS: usize = 200;

/// The settings that a failed TLS handshake's advice names.
const TLS_SETTINGS: tls::Settings = tls::Settings {
    authority: CA_BUNDLE,
    address: "the store's endpoint (AWS_ENDPOINT_URL)",
    identity: "a proxy: stores are not asked with one",
};

/// What `object_store` calls its store of local files in an error.
const LOCAL: &str = "LocalFileSystem";

/// A failed request to a store, told in one line.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {place}: {reason}")]
pub struct StoreError {
    action: &'static str,
    place: String,
    reason: String,
    kind: StoreErrorKind,
    #[source]
    source: Option<Box<object_store::Error>>,
}

/// The kind of a [`StoreError`], which decides what to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreErrorKind {
    /// The object does not exist.
    NotFound,
    /// The bucket does not exist, so that every object in it would fail.
    NoBucket,
    /// This object is forbidden.
    AccessDenied,
    /// The credentials are missing, wrong or expired, so that every object would fail.
    BadCredentials,
    /// The object has more bytes than allowed.
    TooLarge,
    /// This object can never be read or written: its name is too long or not allowed there, or names
    /// a loop of links, a pipe or a device.
    Unusable,
    /// The disk or the store's quota is full.
    NoSpace,
    /// Anything else: it may work later.
    Transient,
}

impl StoreErrorKind {
    /// True if the same request may work later without a change to the configuration.
    #[must_use]
    pub fn may_pass(self) -> bool {
        match self {
            Self::NoSpace | Self::Transient => true,
            Self::NotFound
            | Self::NoBucket
            | Self::AccessDenied
            | Self::BadCredentials
            | Self::TooLarge
            | Self::Unusable => false,
        }
    }
}

impl StoreError {
    pub(super) fn new(action: &'static str, place: String, source: object_store::Error) -> Self {
        let whole = with_causes(&source);
        let kind = classify(&source, &whole);
        let reason = match kind {
            StoreErrorKind::NotFound => "it isn't there".to_owned(),
            StoreErrorKind::NoBucket => {
                "the bucket doesn't exist; create it, or correct the URL and endpoint".to_owned()
            }
            StoreErrorKind::AccessDenied => "access denied; check permissions".to_owned(),
            StoreErrorKind::BadCredentials => match tag(&whole, "Code") {
                Some(code) => format!("the store refused the credentials ({code}); check them"),
                None => "the store refused the credentials; check them".to_owned(),
            },
            StoreErrorKind::NoSpace => {
                "no space is left there; free some, or choose another --out".to_owned()
            }
            StoreErrorKind::TooLarge | StoreErrorKind::Unusable | StoreErrorKind::Transient => {
                summary(&source, &whole)
            }
        };
        Self { action, place, reason, kind, source: Some(Box::new(source)) }
    }

    pub(super) fn too_large(place: String, size_bytes: u64, max_bytes: u64) -> Self {
        Self {
            action: "read",
            place,
            reason: format!("{size_bytes} bytes are more than the limit of {max_bytes}"),
            kind: StoreErrorKind::TooLarge,
            source: None,
        }
    }

    /// The kind of the error.
    #[must_use]
    pub fn kind(&self) -> StoreErrorKind {
        self.kind
    }
}

/// True if the same request may work later.
pub(super) fn may_pass(error: &object_store::Error) -> bool {
    classify(error, &with_causes(error)).may_pass()
}

/// The texts of an error and all its causes, to search in. Some repeat the text of their cause.
fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push('\n');
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

fn classify(error: &object_store::Error, whole: &str) -> StoreErrorKind {
    use object_store::Error as E;
    let code = tag(whole, "Code");
    /// The codes for a full disk or quota: of Ceph, of Google and others, of MinIO.
    const FULL: [&str; 3] = ["QuotaExceeded", "InsufficientStorage", "XMinioStorageFull"];
    /// The codes for a name that the store does not take: of S3, of MinIO, of Azure.
    const BAD_NAME: [&str; 3] =
        ["KeyTooLongError", "XMinioInvalidObjectName", "InvalidResourceName"];
    match error {
        _ if code.is_some_and(|code| FULL.contains(&code)) => StoreErrorKind::NoSpace,
        _ if code.is_some_and(|code| BAD_NAME.contains(&code)) => StoreErrorKind::Unusable,
        _ if code == Some("NoSuchBucket") || whole.contains("ContainerNotFound") => {
            StoreErrorKind::NoBucket
        }
        E::NotFound { .. } => StoreErrorKind::NotFound,
        E::InvalidPath { .. } => StoreErrorKind::Unusable,
        E::Generic { store: LOCAL | "file", .. } if io_error(error).is_some_and(is_about_name) => {
            StoreErrorKind::Unusable
        }
        E::PermissionDenied { .. } | E::Unauthenticated { .. } => match code {
            // An object without the right to read it answers AccessDenied, or nothing (HEAD). All
            // other codes (InvalidAccessKeyId, SignatureDoesNotMatch, ExpiredToken,
            // RequestTimeTooSkewed, …) are about the credentials.
            None | Some("AccessDenied" | "Forbidden") => StoreErrorKind::AccessDenied,
            Some(_) => StoreErrorKind::BadCredentials,
        },
        _ => match io_kind(error) {
            Some(io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem) => {
                StoreErrorKind::AccessDenied
            }
            Some(io::ErrorKind::NotFound) => StoreErrorKind::NotFound,
            Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
                StoreErrorKind::NoSpace
            }
            _ => StoreErrorKind::Transient,
        },
    }
}

fn io_kind(error: &dyn Error) -> Option<io::ErrorKind> {
    io_error(error).map(io::Error::kind)
}

fn io_error(error: &dyn Error) -> Option<&io::Error> {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return Some(error);
        }
        cause = error.source();
    }
    None
}

/// True if a system's error is about the name, or about what has that name, and lasts as long.
fn is_about_name(error: &io::Error) -> bool {
    /// Names that a file system does not take, and what can't be opened as a file.
    const LASTING: [i32; 6] =
        [libc::ENAMETOOLONG, libc::EINVAL, libc::ELOOP, libc::EILSEQ, libc::ENXIO, libc::ENODEV];
    match error.raw_os_error() {
        Some(code) => LASTING.contains(&code),
        None => error.kind() == io::ErrorKind::InvalidInput,
    }
}

/// The content of the first `<name>…</name>`, as S3 and Azure answer errors.
fn tag<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    let start = text.find(&format!("<{name}>"))? + name.len() + 2;
    let length = text[start..].find("</")?;
    Some(&text[start..start + length])
}

fn summary(error: &(dyn Error + 'static), whole: &str) -> String {
    if let Some(code) = tag(whole, "Code") {
        return match tag(whole, "Message") {
            Some(message) => shorten(&format!("{code}: {message}")),
            None => code.to_owned(),
        };
    }
    if let Some(advice) = tls::cause(error).and_then(|error| tls::advice(error, &TLS_SETTINGS)) {
        return format!("no TLS with the store: {advice}");
    }
    if whole.contains("URL scheme is not allowed") {
        return "the endpoint is http://, which is not encrypted; use https://, or allow it with AWS_ALLOW_HTTP=true".to_owned();
    }
    // The innermost cause says what happened; the others repeat the place.
    let mut innermost: &dyn Error = error;
    while let Some(cause) = innermost.source() {
        innermost = cause;
    }
    shorten(&innermost.to_string())
}

fn shorten(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    shortened(&printable(&line), MAX_REASON_CHARS).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forbidden(body: &str) -> StoreError {
        let source = object_store::Error::PermissionDenied {
            path: "a.jpg".into(),
            source: body.to_owned().into(),
        };
        StoreError::new("read", "s3://bucket/a.jpg".into(), source)
    }

    #[test]
    fn a_forbidden_object_is_told_from_bad_credentials() {
        let denied = forbidden("<Error><Code>AccessDenied</Code></Error>");
        assert_eq!(denied.kind(), StoreErrorKind::AccessDenied);
        let expired = forbidden("<Error><Code>ExpiredToken</Code><Message>x</Message></Error>");
        assert_eq!(expired.kind(), StoreErrorKind::BadCredentials);
        assert_eq!(
            expired.to_string(),
            "cannot read s3://bucket/a.jpg: the store refused the credentials (ExpiredToken); check them"
        );
    }

    #[test]
    fn pages_of_answers_become_one_short_line() {
        let source = object_store::Error::Generic {
            store: "S3",
            source: "<html>\n  oh no\n".repeat(100).into(),
        };
        let text = StoreError::new("list", "s3://bucket".into(), source).to_string();
        assert!(!text.contains('\n') && text.chars().count() < 250, "{text}");
    }
}
