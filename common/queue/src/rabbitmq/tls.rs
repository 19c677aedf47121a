//! TLS to the broker: which authorities are trusted, and our own certificate, from PEM files.
//!
//! Files are read again for each connection, so that a certificate can be renewed under a running
//! worker. No text made here shows what a file holds.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use camshaft_common::tls::install_crypto_provider;
use parking_lot::Mutex;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;

use crate::tls_error::{TlsError, TlsFile};

/// PEM files for `amqps://`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// The authorities the broker's certificate may come from, instead of the system's.
    pub ca: Option<PathBuf>,
    /// Our own certificate, followed by those between it and its authority.
    pub certificate: Option<PathBuf>,
    /// Its private key, not encrypted.
    pub key: Option<PathBuf>,
}

struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl TlsFiles {
    /// The first file that is named.
    fn any(&self) -> Option<TlsFile> {
        [
            (&self.ca, TlsFile::Authorities),
            (&self.certificate, TlsFile::Certificate),
            (&self.key, TlsFile::Key),
        ]
        .into_iter()
        .find_map(|(path, file)| path.is_some().then_some(file))
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
            Some(Identity { chain, key }) => {
                builder.with_client_auth_cert(chain, key).map_err(|_| self.mismatch())?
            }
        };
        Ok(Arc::new(config).into())
    }

    fn identity(&self) -> Result<Option<Identity>, TlsError> {
        match (&self.certificate, &self.key) {
            (None, None) => Ok(None),
            (Some(_), None) => Err(TlsError::IncompleteIdentity { missing: TlsFile::Key }),
            (None, Some(_)) => Err(TlsError::IncompleteIdentity { missing: TlsFile::Certificate }),
            (Some(certificate), Some(path)) => {
                let chain = certificates(TlsFile::Certificate, certificate)?;
                let key = PrivateKeyDer::from_pem_slice(&read(TlsFile::Key, path)?)
                    .map_err(|_| not_pem(TlsFile::Key, path, "unencrypted private key"))?;
                Ok(Some(Identity { chain, key }))
            }
        }
    }

    fn mismatch(&self) -> TlsError {
        let shown =
            |file: &Option<PathBuf>| file.as_deref().unwrap_or(Path::new("")).display().to_string();
        TlsError::KeyMismatch { key: shown(&self.key), certificate: shown(&self.certificate) }
    }
}

/// The authorities in a file.
fn authorities(file: &Path) -> Result<RootCertStore, TlsError> {
    let mut trusted = RootCertStore::empty();
    for authority in certificates(TlsFile::Authorities, file)? {
        let unusable = |_| not_pem(TlsFile::Authorities, file, "certificate of an authority");
        trusted.add(authority).map_err(unusable)?;
    }
    Ok(trusted)
}

/// The authorities of this machine, without the certificates that cannot be used.
fn system_authorities() -> Result<RootCertStore, TlsError> {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "cannot read some of the system's certificates of authorities");
    }
    let mut trusted = RootCertStore::empty();
    trusted.add_parsable_certificates(found.certs);
    if trusted.is_empty() { Err(TlsError::NoAuthorities) } else { Ok(trusted) }
}

fn certificates(file: TlsFile, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let content = read(file, path)?;
    let found: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(&content).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        // The library's error quotes lines of the file, which may be a key's.
        Ok(_) | Err(_) => Err(not_pem(file, path, "certificate")),
    }
}

fn read(file: TlsFile, path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|error| TlsError::Unreadable {
        file,
        path: path.display().to_string(),
        source: Arc::new(error),
    })
}

fn not_pem(file: TlsFile, path: &Path, wanted: &'static str) -> TlsError {
    TlsError::NotPem { file, path: path.display().to_string(), wanted }
}

/// Makes TLS connectors for one broker.
pub(super) struct TlsConnectors {
    files: TlsFiles,
    last: Mutex<TlsConnector>,
}

impl TlsConnectors {
    /// Reads the files for the first time; `None` for a broker without TLS.
    pub(super) fn new(files: TlsFiles, encrypted: bool) -> Result<Option<Self>, TlsError> {
        if !encrypted {
            return match files.any() {
                Some(file) => Err(TlsError::NotEncrypted { file }),
                None => Ok(None),
            };
        }
        let last = Mutex::new(files.connector()?);
        Ok(Some(Self { files, last }))
    }

    /// A connector with the files as they are now. If they can't be used, perhaps because one of
    /// them is just being replaced, the connector made before.
    pub(super) fn connector(&self) -> TlsConnector {
        let mut last = self.last.lock();
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
        let error = files.connector().err();
        assert!(
            matches!(error, Some(TlsError::IncompleteIdentity { missing: TlsFile::Key })),
            "{error:?}"
        );
        let files = TlsFiles { ca: named, ..TlsFiles::default() };
        let error = TlsConnectors::new(files, false).err();
        assert!(
            matches!(error, Some(TlsError::NotEncrypted { file: TlsFile::Authorities })),
            "{error:?}"
        );
        assert!(TlsConnectors::new(TlsFiles::default(), false).unwrap().is_none());
    }
}
