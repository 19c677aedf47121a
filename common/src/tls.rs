//! What a failed TLS handshake means, in words that name the setting to look at.
//!
//! The broker's and the stores' clients both use rustls and wrap its errors deep in their own.

use std::error::Error;
use std::io;

use rustls::{AlertDescription as Alert, CertificateError, Error as TlsError};

/// Where a person looks to mend a handshake.
pub struct Settings {
    /// Names the file of trusted authorities.
    pub authority: &'static str,
    /// Names the address.
    pub address: &'static str,
    /// Names our own certificate and key.
    pub identity: &'static str,
}

/// The TLS error behind another one. `io::Error` hides what it wraps from `source`.
pub fn cause<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e TlsError> {
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
pub fn advice(error: &TlsError, settings: &Settings) -> Option<String> {
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
