//! The meaning of stores' errors: their kind, and one line for a person.
//!
//! [`StoreErrorKind`] decides whether the same request may work later; callers ask nothing else.

use std::error::Error;
use std::io;

use super::authorities::CA_BUNDLE;
use super::error_codes::{self, StorageProblem};
use super::error_kind::StoreErrorKind;
use super::settings::SettingsError;
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

/// Is in each answer of the service that gives credentials for a role, and in none of a store.
const ROLE_SERVICE: &str = "https://sts.amazonaws.com/doc/";
/// The role service's code for a trouble of its own.
const ROLE_SERVICE_BUSY: &str = "IDPCommunicationError";
/// `object_store`'s text for a redirect that names no address.
const BARE_REDIRECT: &str = "Received redirect without LOCATION";
/// The HTTP client's text if it is told to use `https://` only.
const HTTP_REFUSED: &str = "URL scheme is not allowed";

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

impl StoreError {
    pub(super) fn new(action: &'static str, place: String, source: object_store::Error) -> Self {
        let whole = with_causes(&source);
        let kind = classify(&source, &whole);
        let reason = match kind {
            StoreErrorKind::NotFound => "it isn't there".to_owned(),
            StoreErrorKind::NoBucket => {
                "the bucket doesn't exist; create it, or correct the URL and endpoint".to_owned()
            }
            StoreErrorKind::AccessDenied if action == "list" && code(&whole).is_some() => {
                "access denied; a listing needs a permission of its own, such as s3:ListBucket"
                    .to_owned()
            }
            StoreErrorKind::AccessDenied
                if io_kind(&source) == Some(io::ErrorKind::ReadOnlyFilesystem) =>
            {
                "access denied: the file system is read-only".to_owned()
            }
            StoreErrorKind::AccessDenied => "access denied; check permissions".to_owned(),
            StoreErrorKind::BadCredentials => describe_credentials(&source, &whole),
            StoreErrorKind::BadSettings => describe_settings(&source, &whole),
            StoreErrorKind::ArchivedOrEncrypted => {
                let answer = summary(&source, &whole);
                match problem_in(&whole) {
                    Some(problem) => problem.describe(&answer),
                    None => answer,
                }
            }
            StoreErrorKind::NoSpace => "no space is left there; free some".to_owned(),
            StoreErrorKind::TooLarge | StoreErrorKind::Unusable | StoreErrorKind::Transient => {
                summary(&source, &whole)
            }
        };
        Self { action, place, reason, kind, source: Some(Box::new(source)) }
    }

    /// A store that can't be opened. No request was made yet, so its settings are the cause.
    pub(super) fn of_settings(place: String, source: object_store::Error) -> Self {
        let error = Self::new("open", place, source);
        match error.kind {
            StoreErrorKind::Transient => Self { kind: StoreErrorKind::BadSettings, ..error },
            _ => error,
        }
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
    if let Some(error) = SettingsError::behind(error) {
        return error.kind();
    }
    let (code, status) = (code(whole), status(whole));
    if whole.contains(ROLE_SERVICE) {
        let may_pass =
            code == Some(ROLE_SERVICE_BUSY) || status.is_some_and(|status| status >= 500);
        return if may_pass { StoreErrorKind::Transient } else { StoreErrorKind::BadCredentials };
    }
    if is_about_token_file(whole) {
        return StoreErrorKind::BadCredentials;
    }
    // The bucket is elsewhere, or would be asked without encryption.
    if [BARE_REDIRECT, HTTP_REFUSED].iter().any(|text| whole.contains(text))
        || region_in(whole).is_some()
    {
        return StoreErrorKind::BadSettings;
    }
    let message = tag(whole, "Message").unwrap_or_default();
    if let Some(kind) = code.and_then(|code| error_codes::kind_of(code, message)) {
        return kind;
    }
    let is_of_object = matches!(error, E::PermissionDenied { .. } | E::Unauthenticated { .. });
    match error {
        E::NotFound { .. } => StoreErrorKind::NotFound,
        E::InvalidPath { .. } => StoreErrorKind::Unusable,
        E::Generic { store: LOCAL | "file", .. } if io_error(error).is_some_and(is_about_name) => {
            StoreErrorKind::Unusable
        }
        // An object without the right to read it answers AccessDenied, or nothing (HEAD). All
        // other codes (InvalidAccessKeyId, SignatureDoesNotMatch, RequestTimeTooSkewed, …) are about
        // the credentials.
        _ if matches!(code, Some("AccessDenied" | "Forbidden")) => StoreErrorKind::AccessDenied,
        _ if is_of_object && code.is_none() => StoreErrorKind::AccessDenied,
        _ if is_of_object || matches!(status, Some(401 | 403)) => StoreErrorKind::BadCredentials,
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

/// True for a refusal without a text that says why, as every one of `HEAD` is.
pub(super) fn is_unexplained_refusal(error: &object_store::Error) -> bool {
    let whole = with_causes(error);
    status(&whole).is_some_and(|status| matches!(status, 400..=499) && status != 404)
        && code(&whole).is_none()
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

/// The code of a store's answer.
fn code(whole: &str) -> Option<&str> {
    tag(whole, "Code").or_else(|| {
        // As `object_store` writes what S3 answers to a deletion of several objects.
        let (_, answer) = whole.split_once("DeleteObjects request failed for key ")?;
        let (_, code) = answer.lines().next()?.rsplit_once("(code: ")?;
        code.strip_suffix(')')
    })
}

/// The HTTP status of a store's answer, as `object_store` writes it.
fn status(whole: &str) -> Option<u16> {
    let (_, status) = whole.split_once("Server returned non-2xx status code: ")?;
    status.get(..3)?.parse().ok()
}

/// What an answer says about how its object is stored.
fn problem_in(whole: &str) -> Option<StorageProblem> {
    StorageProblem::of(code(whole)?, tag(whole, "Message").unwrap_or_default())
}

/// The region that S3 names if a signature is for another one.
fn region_in(whole: &str) -> Option<&str> {
    let is_wrong = code(whole) == Some("AuthorizationHeaderMalformed");
    tag(whole, "Region").filter(|region| is_wrong && !region.is_empty())
}

/// True if the file with the token for a role or a pod can't be read.
fn is_about_token_file(whole: &str) -> bool {
    ["Failed to read token file", "Failed to read EKS token file"]
        .iter()
        .any(|text| whole.contains(text))
}

fn describe_credentials(error: &object_store::Error, whole: &str) -> String {
    if let Some(error) = SettingsError::behind(error) {
        return printable(&error.to_string()).into_owned();
    }
    let of_role = whole.contains(ROLE_SERVICE);
    match code(whole) {
        Some(code) if of_role => {
            format!(
                "AWS gives no credentials for the role ({code}); check AWS_ROLE_ARN and its trust"
            )
        }
        Some(code) => format!("the store refused the credentials ({code}); check them"),
        None if is_about_token_file(whole) => summary(error, whole),
        None => "the store refused the credentials; check them".to_owned(),
    }
}

fn describe_settings(error: &object_store::Error, whole: &str) -> String {
    let region = region_in(whole).map(|right| {
        let right = shorten(right);
        SettingsError::WrongRegion { right }.to_string()
    });
    match SettingsError::behind(error) {
        Some(error) => printable(&error.to_string()).into_owned(),
        None if whole.contains(BARE_REDIRECT) => {
            "the store redirects to elsewhere; check AWS_REGION, and AWS_ENDPOINT_URL if it is set"
                .to_owned()
        }
        None => region.unwrap_or_else(|| summary(error, whole)),
    }
}

fn summary(error: &(dyn Error + 'static), whole: &str) -> String {
    if let Some(code) = tag(whole, "Code") {
        return match tag(whole, "Message").filter(|message| !message.is_empty()) {
            Some(message) => shorten(&format!("{code}: {message}")),
            None => code.to_owned(),
        };
    }
    if let Some(advice) = tls::cause(error).and_then(|error| tls::advice(error, &TLS_SETTINGS)) {
        return format!("no TLS with the store: {advice}");
    }
    if whole.contains(HTTP_REFUSED) {
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
mod tests;
