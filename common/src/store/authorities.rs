//! Whose certificates stores are trusted with: the system's, or those of `AWS_CA_BUNDLE`.

use std::path::Path;

use object_store::{Certificate, ClientOptions};

/// The variable that AWS's own programs read, too.
pub(super) const CA_BUNDLE: &str = "AWS_CA_BUNDLE";

/// The bundle can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CaBundleError {
    /// The file can't be read.
    #[error("cannot read {CA_BUNDLE} {path}: {reason}")]
    Unreadable {
        /// The file.
        path: String,
        /// What the system said.
        reason: String,
    },
    /// The file has no certificate, or something that looks like one and is none.
    #[error("{CA_BUNDLE} {path} has no certificates in PEM form; is it the right file?")]
    NotPem {
        /// The file.
        path: String,
    },
}

/// Certificates of authorities; none means the system's.
#[derive(Clone, Debug, Default)]
pub(super) struct Authorities(Vec<Certificate>);

impl Authorities {
    pub(super) fn read(path: &Path) -> Result<Self, CaBundleError> {
        let shown = path.display().to_string();
        let content = std::fs::read(path).map_err(|error| CaBundleError::Unreadable {
            path: shown.clone(),
            reason: error.to_string(),
        })?;
        match Certificate::from_pem_bundle(&content) {
            Ok(found) if !found.is_empty() => Ok(Self(found)),
            // The library's error may quote the file.
            Ok(_) | Err(_) => Err(CaBundleError::NotPem { path: shown }),
        }
    }

    /// Trusts these only, as AWS's own programs do.
    pub(super) fn instead_of_the_systems(&self, options: ClientOptions) -> ClientOptions {
        let alone = !self.0.is_empty();
        self.beside_the_systems(options).with_no_system_certificates(alone)
    }

    /// For stores that the variable's name doesn't promise anything of: a run that reads from
    /// one cloud and writes to a server of one's own has only this one variable.
    pub(super) fn beside_the_systems(&self, options: ClientOptions) -> ClientOptions {
        self.0.iter().cloned().fold(options, ClientOptions::with_root_certificate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_bundle_is_refused_without_being_shown() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("bundle.pem");
        assert!(matches!(Authorities::read(&file), Err(CaBundleError::Unreadable { .. })));
        for content in ["", "hunter2", "-----BEGIN CERTIFICATE-----\nhunter2\n"] {
            std::fs::write(&file, content).unwrap();
            let error = Authorities::read(&file).unwrap_err();
            assert!(matches!(error, CaBundleError::NotPem { .. }));
            assert!(!format!("{error} {error:?}").contains("hunter2"));
        }
    }
}
