//! What can be wrong with the settings of stores, and the addresses among them.
//!
//! `object_store` panics if an address has no `http://` or a key has the end of a line, so both are
//! checked before a store is opened. HTTP clients log addresses, so users and passwords are taken out.
//! Upstream: [`clouds`](super::clouds) and [`connector`](super::connector), which find the errors.

use std::error::Error;

use url::Url;

use super::StoreOptions;
use super::error_kind::StoreErrorKind;

/// The variables that hold an address of a store, or of a service that gives credentials for it.
const ADDRESSES: [&str; 9] = [
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_ENDPOINT",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_ENDPOINT_URL_STS",
    "AWS_METADATA_ENDPOINT",
    "AZURE_ENDPOINT",
    "AZURE_STORAGE_ENDPOINT",
    "GOOGLE_BASE_URL",
];

/// The variables whose values are sent in headers or become a part of an address.
const SENT: [&str; 4] =
    ["AWS_ACCESS_KEY_ID", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_DEFAULT_REGION"];

/// Why a store can't be used with its settings: every object in it would fail. No text has a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum SettingsError {
    /// An address without a scheme, or with another one.
    #[error(
        "{setting} doesn't begin with http:// or https://; write https://{address}, or \
         http://{address} if the server has no TLS"
    )]
    NoScheme {
        /// The variable.
        setting: String,
        /// The address without its scheme.
        address: String,
    },
    /// An address that is no URL. It is not shown, since it may hold a password.
    #[error("{setting} is no valid URL: {reason}")]
    Malformed {
        /// The variable.
        setting: String,
        /// What is wrong with it.
        reason: url::ParseError,
    },
    /// A value that no request can carry.
    #[error(
        "{setting} has a character that can't be sent, such as a space or the end of a line; set it anew"
    )]
    Unsendable {
        /// The variable.
        setting: String,
    },
    /// Credentials are nowhere. The text says where they were looked for.
    #[error("there are no credentials: {0}")]
    NoCredentials(String),
    /// One of AWS's own files can't be read.
    #[error("cannot read {path}: {reason}")]
    UnreadableFile {
        /// The file.
        path: String,
        /// What the system said.
        reason: String,
    },
    /// `AWS_PROFILE` names no profile.
    #[error("there is no profile {profile:?} in {files}; correct AWS_PROFILE")]
    NoProfile {
        /// The profile.
        profile: String,
        /// Where it was looked for.
        files: String,
    },
    /// A profile has a half of a key.
    #[error("the profile {profile:?} has no {missing} in {files}; add it")]
    HalfKey {
        /// The profile.
        profile: String,
        /// The missing half.
        missing: &'static str,
        /// Where it was looked for.
        files: String,
    },
    /// A profile names a way to credentials that is not followed here.
    #[error(
        "the profile {profile:?} takes its credentials from elsewhere ({setting}), which isn't done \
         here; put them into the environment: eval \"$(aws configure export-credentials --profile \
         {profile:?} --format env)\""
    )]
    ProfileElsewhere {
        /// The profile.
        profile: String,
        /// The profile's setting that says so.
        setting: &'static str,
    },
    /// The program that a profile names gives no credentials.
    #[error("the credential_process of the profile {profile:?} gives no credentials: {reason}")]
    CredentialProcess {
        /// The profile.
        profile: String,
        /// What it did.
        reason: String,
    },
    /// The bucket is in another region than the one that was asked.
    #[error(
        "the bucket is in the region {right}, and another one was asked; set AWS_REGION={right}"
    )]
    WrongRegion {
        /// The bucket's region.
        right: String,
    },
    /// The right region was asked at another region's address.
    #[error(
        "the bucket is in the region {right}, and the endpoint is another region's; correct \
         AWS_ENDPOINT_URL, or unset it"
    )]
    WrongEndpoint {
        /// The bucket's region.
        right: String,
    },
}

impl SettingsError {
    /// The one that is the cause of a store's error.
    pub(super) fn behind(error: &object_store::Error) -> Option<&Self> {
        let mut cause = error.source();
        while let Some(error) = cause {
            if let Some(found) = error.downcast_ref() {
                return Some(found);
            }
            cause = error.source();
        }
        None
    }

    pub(super) fn kind(&self) -> StoreErrorKind {
        match self {
            Self::NoScheme { .. }
            | Self::Malformed { .. }
            | Self::Unsendable { .. }
            | Self::WrongRegion { .. }
            | Self::WrongEndpoint { .. } => StoreErrorKind::BadSettings,
            Self::NoCredentials(_)
            | Self::UnreadableFile { .. }
            | Self::NoProfile { .. }
            | Self::HalfKey { .. }
            | Self::ProfileElsewhere { .. }
            | Self::CredentialProcess { .. } => StoreErrorKind::BadCredentials,
        }
    }
}

impl From<SettingsError> for object_store::Error {
    fn from(error: SettingsError) -> Self {
        Self::Generic { store: "settings", source: Box::new(error) }
    }
}

/// Checks the variables that begin with `prefix`: the addresses, and the values that are sent.
pub(super) fn check(options: &StoreOptions, prefix: &str) -> Result<(), SettingsError> {
    for name in ADDRESSES.into_iter().filter(|name| name.starts_with(prefix)) {
        if let Some(address) = options.variable(name) {
            check_address(name, address)?;
        }
    }
    for name in SENT.into_iter().filter(|name| name.starts_with(prefix)) {
        if let Some(value) = options.variable(name) {
            check_sendable(name, value)?;
        }
    }
    Ok(())
}

/// Checks that an address is an `http://` or `https://` URL.
pub(super) fn check_address(setting: &str, address: &str) -> Result<(), SettingsError> {
    let setting = || setting.to_owned();
    let (scheme, rest) = address.split_once("://").unwrap_or(("", address));
    if !["http", "https"].iter().any(|known| known.eq_ignore_ascii_case(scheme)) {
        // What is before an `@` may be a password.
        let address = rest.rsplit('@').next().unwrap_or(rest).to_owned();
        return Err(SettingsError::NoScheme { setting: setting(), address });
    }
    match Url::parse(address) {
        Ok(_) => Ok(()),
        Err(reason) => Err(SettingsError::Malformed { setting: setting(), reason }),
    }
}

/// Checks that a header can carry a value.
pub(super) fn check_sendable(setting: &str, value: &str) -> Result<(), SettingsError> {
    if value.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(());
    }
    Err(SettingsError::Unsendable { setting: setting.to_owned() })
}

/// True for the name of a variable that holds an address of a store.
pub(super) fn is_address(name: &str) -> bool {
    ADDRESSES.contains(&name)
}

/// An address without its user and password; `None` if it has none.
pub(super) fn without_user(address: &str) -> Option<String> {
    let (scheme, rest) = match address.find("://") {
        Some(at) => address.split_at(at + 3),
        None => ("", address),
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (_user, host) = rest[..end].rsplit_once('@')?;
    Some(format!("{scheme}{host}{}", &rest[end..]))
}

/// True for a variable's value that object_store reads as "on".
pub(super) fn is_on(value: &str) -> bool {
    ["1", "true", "on", "yes", "y"].iter().any(|on| on.eq_ignore_ascii_case(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(name: &str, value: &str) -> StoreOptions {
        StoreOptions::from_variables([(name.to_owned(), value.to_owned())])
    }

    #[test]
    fn an_address_without_a_scheme_is_told_with_the_right_one() {
        for (address, shown) in [
            ("minio:9000", "http://minio:9000"),
            ("minio", "https://minio"),
            ("127.0.0.1:9000", "http://127.0.0.1:9000"),
            ("s3://minio:9000", "http://minio:9000"),
        ] {
            let error = check(&options("AWS_ENDPOINT_URL", address), "AWS_").unwrap_err();
            assert_eq!(error.kind(), StoreErrorKind::BadSettings);
            let text = error.to_string();
            assert!(text.starts_with("AWS_ENDPOINT_URL ") && text.contains(shown), "{text}");
        }
        for address in ["http://minio:9000", "HTTPS://minio", "http://[::1]:9000/x"] {
            check(&options("AWS_ENDPOINT_URL", address), "AWS_").unwrap();
        }
        // Another store's address is none of this one's.
        check(&options("AWS_ENDPOINT_URL", "minio"), "GOOGLE_").unwrap();
    }

    #[test]
    fn no_error_about_an_address_shows_its_password() {
        for address in [
            "user:hunter2@minio:9000",
            "user:hunter2/x@minio:9000",
            "ftp://user:hunter2@minio",
            "http://user:hunter2/x@minio",
            "http://user:hunter2@",
        ] {
            let error = check_address("AWS_ENDPOINT_URL", address).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
        }
    }

    #[test]
    fn a_user_and_a_password_leave_an_address() {
        for (address, without) in [
            ("http://user:p%40ss@minio:9000/x", Some("http://minio:9000/x")),
            ("https://user@minio", Some("https://minio")),
            ("user:pass@minio:9000", Some("minio:9000")),
            ("http://u:p@ss@minio", Some("http://minio")),
            ("http://minio:9000/a@b", None),
            ("minio", None),
        ] {
            assert_eq!(without_user(address).as_deref(), without, "{address}");
        }
        let options = options("AWS_ENDPOINT_URL", "http://user:hunter2@minio:9000");
        assert_eq!(options.variable("AWS_ENDPOINT_URL"), Some("http://minio:9000"));
    }

    #[test]
    fn a_value_that_no_header_can_carry_is_named() {
        let error = check(&options("AWS_SESSION_TOKEN", "hun\nter2"), "AWS_").unwrap_err();
        assert!(error.to_string().starts_with("AWS_SESSION_TOKEN "), "{error}");
        assert!(!format!("{error:?}").contains("hun"), "{error:?}");
        // Files and secrets often end a line.
        check(&options("AWS_ACCESS_KEY_ID", "AKIA\n"), "AWS_").unwrap();
        check(&options("AWS_REGION", "eu-west-1"), "AWS_").unwrap();
    }

    #[test]
    fn the_cause_of_a_stores_error_is_found() {
        #[derive(Debug, thiserror::Error)]
        #[error("outer")]
        struct Outer(#[source] SettingsError);
        let settings = SettingsError::WrongRegion { right: "eu-west-1".to_owned() };
        let source = Outer(settings.clone()).into();
        let error = object_store::Error::Generic { store: "S3", source };
        assert_eq!(SettingsError::behind(&error), Some(&settings));
        let other = object_store::Error::Generic { store: "S3", source: "x".into() };
        assert_eq!(SettingsError::behind(&other), None);
    }
}
