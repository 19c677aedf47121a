//! TLS, as the broker's, the stores', the hub's and the collector's clients share it: which
//! cryptography rustls uses, and what a failed handshake means, in words that name the setting to
//! look at.
//!
//! The clients all use rustls and wrap its errors deep in their own.

use std::error::Error;
use std::io;

use rustls::crypto::{CryptoProvider, ring};
use rustls::{AlertDescription as Alert, CertificateError, Error as TlsError};

/// Chooses the cryptography of every TLS connection of this process, unless it is chosen. To be
/// called before a client is built: `reqwest` comes without any and panics if there is none.
pub(crate) fn install_crypto_provider() {
    if CryptoProvider::get_default().is_none() {
        // It fails if another thread was faster, which is as good.
        ring::default_provider().install_default().unwrap_or_default();
    }
}

/// Where a person looks to mend a handshake.
pub(crate) struct Settings {
    /// Names the file of trusted authorities.
    pub(crate) authority: &'static str,
    /// Names the address.
    pub(crate) address: &'static str,
    /// Names our own certificate and key.
    pub(crate) identity: &'static str,
}

/// The TLS error behind another one. `io::Error` hides what it wraps from `source`.
pub(crate) fn cause<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e TlsError> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(tls) = error.downcast_ref::<TlsError>() {
            return Some(tls);
        }
        let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = match wrapped {
            Some(wrapped) => Some(wrapped as &(dyn Error + 'static)),
            None => error.source(),
        };
    }
    None
}

/// What to do about a handshake that no further try can mend; `None` where one may.
pub(crate) fn advice(error: &TlsError, settings: &Settings) -> Option<String> {
    let Settings { authority, address, identity } = settings;
    Some(match error {
        TlsError::InvalidCertificate(refused) => match refused {
            CertificateError::UnknownIssuer | CertificateError::BadSignature => format!(
                "its certificate is from an authority that is not trusted here; name that authority's file with {authority}"
            ),
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "its certificate has expired; renew it, or set this machine's clock".to_owned()
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "its certificate is not valid yet; set the clock of this machine or of the one that made it"
                    .to_owned()
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                format!("its certificate is for another host name; use that one in {address}")
            }
            refused => format!("its certificate can't be used: {refused}"),
        },
        TlsError::AlertReceived(Alert::CertificateRequired) => {
            format!("it asks for a client certificate; give one with {identity}")
        }
        TlsError::AlertReceived(Alert::HandshakeFailure) => format!(
            "it refused the handshake; if it asks for a client certificate, give one with {identity}"
        ),
        TlsError::AlertReceived(
            alert @ (Alert::UnknownCA
            | Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::AccessDenied),
        ) => {
            format!("it refused our certificate ({alert:?}); give one that it trusts with {identity}")
        }
        TlsError::AlertReceived(Alert::ProtocolVersion) | TlsError::PeerIncompatible(_) => {
            "it speaks no TLS 1.2 or 1.3 that both sides know; update it".to_owned()
        }
        TlsError::InvalidMessage(_) => {
            format!("what answers there doesn't speak TLS; check the port in {address}")
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tls_error_is_found_behind_others() {
        #[derive(Debug, thiserror::Error)]
        #[error("cannot connect")]
        struct Outer(#[source] io::Error);
        let tls = TlsError::AlertReceived(Alert::UnknownCA);
        let inner = io::Error::other(tls.clone());
        assert_eq!(cause(&Outer(io::Error::other(Outer(inner)))), Some(&tls));
        assert_eq!(cause(&Outer(io::Error::other("reset"))), None);
    }
}
