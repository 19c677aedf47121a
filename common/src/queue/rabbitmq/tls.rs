//! TLS to the broker: who is trusted and who we are, from PEM files.
//!
//! Files are read again for each connection, so that a certificate can be renewed under a
//! running worker. Nothing here shows what a file holds.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;

use crate::tls::install_crypto_provider;

const CA: &str = "--broker-ca";
const CERTIFICATE: &str = "--broker-cert";
const KEY: &str = "--broker-key";

/// PEM files for `amqps://`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// The authorities the broker's certificate may come from, instead of the system's.
    pub ca: Option<PathBuf>,
    /// Our own certificate, with those between it and its authority behind it.
    pub certificate: Option<PathBuf>,
    /// Its private key, not encrypted.
    pub key: Option<PathBuf>,
}

/// Why there is no TLS with the broker. No further try helps.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    /// Files for TLS, but a URL without.
    #[error("{flag} is for amqps://, and the broker's URL says amqp://; change one of them")]
    NotEncrypted {
        /// A flag that is set.
        flag: &'static str,
    },
    /// A certificate without its key, or the other way round.
    #[error("{CERTIFICATE} and {KEY} go together; {missing} is missing")]
    Half {
        /// The flag that is not set.
        missing: &'static str,
    },
    /// A file can't be read.
    #[error("cannot read {flag} {path}: {reason}")]
    Unreadable {
        /// What names it.
        flag: &'static str,
        /// The file.
        path: String,
        /// What the system said.
        reason: String,
    },
    /// A file has nothing in it that is needed.
    #[error("{flag} {path} has no {wanted} in PEM form; is it the right file?")]
    NotPem {
        /// What names it.
        flag: &'static str,
        /// The file.
        path: String,
        /// What it should have.
        wanted: &'static str,
    },
    /// The key is another certificate's, or of a kind nobody here can use.
    #[error(
        "the key in {KEY} {key} doesn't belong to the certificate in {CERTIFICATE} {certificate}"
    )]
    Mismatch {
        /// The key's file.
        key: String,
        /// The certificate's file.
        certificate: String,
    },
    /// Nobody is trusted.
    #[error(
        "this machine has no certificates of authorities; install ca-certificates, or name a file with {CA}"
    )]
    NoAuthorities,
    /// One side refused the other.
    #[error("{0}")]
    Handshake(String),
}

impl TlsFiles {
    /// The first flag that is set.
    fn any(&self) -> Option<&'static str> {
        [(&self.ca, CA), (&self.certificate, CERTIFICATE), (&self.key, KEY)]
            .into_iter()
            .find_map(|(file, flag)| file.is_some().then_some(flag))
    }

    fn connector(&self) -> Result<TlsConnector, TlsError> {
        let identity = self.identity()?;
        let trusted = match &self.ca {
            Some(ca) => authorities(ca)?,
            None => system_authorities()?,
        };
        install_crypto_provider();
        let builder = ClientConfig::builder().with_root_certificates(trusted);
        let config = match identity {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => {
                builder.with_client_auth_cert(chain, key).map_err(|_| self.mismatch())?
            }
        };
        Ok(Arc::new(config).into())
    }

    fn identity(
        &self,
    ) -> Result<Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>, TlsError> {
        match (&self.certificate, &self.key) {
            (None, None) => Ok(None),
            (Some(_), None) => Err(TlsError::Half { missing: KEY }),
            (None, Some(_)) => Err(TlsError::Half { missing: CERTIFICATE }),
            (Some(certificate), Some(path)) => {
                let chain = certificates(CERTIFICATE, certificate)?;
                let key = PrivateKeyDer::from_pem_slice(&read(KEY, path)?)
                    .map_err(|_| not_pem(KEY, path, "unencrypted private key"))?;
                Ok(Some((chain, key)))
            }
        }
    }

    fn mismatch(&self) -> TlsError {
        let shown =
            |file: &Option<PathBuf>| file.as_deref().unwrap_or(Path::new("")).display().to_string();
        TlsError::Mismatch { key: shown(&self.key), certificate: shown(&self.certificate) }
    }
}

/// Those in a file.
fn authorities(file: &Path) -> Result<RootCertStore, TlsError> {
    let mut trusted = RootCertStore::empty();
    for authority in certificates(CA, file)? {
        let unusable = |_| not_pem(CA, file, "certificate of an authority");
        trusted.add(authority).map_err(unusable)?;
    }
    Ok(trusted)
}

/// Those of this machine. Certificates that can't be used are passed over.
fn system_authorities() -> Result<RootCertStore, TlsError> {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "cannot read some of the system's certificates of authorities");
    }
    let mut trusted = RootCertStore::empty();
    trusted.add_parsable_certificates(found.certs);
    if trusted.is_empty() { Err(TlsError::NoAuthorities) } else { Ok(trusted) }
}

fn certificates(flag: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let content = read(flag, path)?;
    let found: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(&content).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        // The library's error quotes lines of the file, which may be a key's.
        Ok(_) | Err(_) => Err(not_pem(flag, path, "certificate")),
    }
}

fn read(flag: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|error| TlsError::Unreadable {
        flag,
        path: path.display().to_string(),
        reason: error.to_string(),
    })
}

fn not_pem(flag: &'static str, path: &Path, wanted: &'static str) -> TlsError {
    TlsError::NotPem { flag, path: path.display().to_string(), wanted }
}

/// Makes connectors for one broker.
pub(super) struct Tls {
    files: TlsFiles,
    last: Mutex<TlsConnector>,
}

impl Tls {
    /// Reads the files for the first time; `None` for a broker without TLS.
    pub(super) fn new(files: TlsFiles, encrypted: bool) -> Result<Option<Self>, TlsError> {
        if !encrypted {
            return match files.any() {
                Some(flag) => Err(TlsError::NotEncrypted { flag }),
                None => Ok(None),
            };
        }
        let last = Mutex::new(files.connector()?);
        Ok(Some(Self { files, last }))
    }

    /// With the files as they are now. Where they can't be used, perhaps since one of them is
    /// just being replaced, as they were.
    pub(super) fn connector(&self) -> TlsConnector {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match self.files.connector() {
            Ok(connector) => *last = connector,
            Err(error) => tracing::warn!(%error, "keeping the TLS files read before"),
        }
        last.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_message_shows_what_a_file_holds() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file.pem");
        for content in [
            "hunter2",
            "-----BEGIN PRIVATE KEY-----\nhunter2!\n-----END PRIVATE KEY-----\n",
            "-----BEGIN hunter2",
            "-----BEGIN CERTIFICATE-----\nhunter2\n",
            "",
        ] {
            std::fs::write(&file, content).unwrap();
            let named = Some(file.clone());
            for files in [
                TlsFiles { ca: named.clone(), ..TlsFiles::default() },
                TlsFiles { certificate: named.clone(), key: named, ..TlsFiles::default() },
            ] {
                let error = files.connector().err().unwrap();
                let text = format!("{error} {error:?}");
                assert!(text.contains("file.pem") && !text.contains("hunter2"), "{text}");
            }
        }
    }

    #[test]
    fn half_an_identity_and_files_without_tls_are_refused() {
        let named = Some(PathBuf::from("x.pem"));
        let files = TlsFiles { certificate: named.clone(), ..TlsFiles::default() };
        assert_eq!(files.connector().err(), Some(TlsError::Half { missing: KEY }));
        let files = TlsFiles { ca: named, ..TlsFiles::default() };
        assert_eq!(Tls::new(files, false).err(), Some(TlsError::NotEncrypted { flag: CA }));
        assert!(Tls::new(TlsFiles::default(), false).unwrap().is_none());
    }
}
