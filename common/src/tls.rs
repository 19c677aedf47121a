//! TLS, as the clients of the broker, the stores, the hub and the collector share it: the
//! cryptography that rustls uses, what a failed handshake means, and which setting to look at.
//!
//! The clients all use rustls and wrap its errors deep in their own.

use std::error::Error;
use std::io;

use rustls::crypto::{CryptoProvider, ring};
use rustls::{AlertDescription as Alert, CertificateError, Error as TlsError};

/// Chooses the cryptography of every TLS connection of this process, unless it is chosen already.
/// Call it before a client is built: `reqwest` panics if there is none.
pub fn install_crypto_provider() {
    if CryptoProvider::get_default().is_none() {
        // It fails only if another thread has just installed one.
        ring::default_provider().install_default().unwrap_or_default();
    }
}

/// A handshake that fails at every try. Texts speak of the other side as "it".
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum HandshakeFailure {
    /// Its certificate is from an authority that is not trusted here.
    #[error(
        "its certificate is from an authority that is not trusted here; name that authority's file"
    )]
    UntrustedAuthority,
    /// Its certificate has expired.
    #[error("its certificate has expired; renew it, or set this machine's clock")]
    Expired,
    /// Its certificate is not valid yet.
    #[error(
        "its certificate is not valid yet; set the clock of this machine or of the one that made it"
    )]
    NotValidYet,
    /// Its certificate is for another host name.
    #[error("its certificate is for another host name; use that one")]
    OtherHostName,
    /// Its certificate can't be used for another reason.
    #[error("its certificate can't be used: {0}")]
    UnusableCertificate(CertificateError),
    /// It asks for a client certificate, and there is none.
    #[error("it asks for a client certificate; give one")]
    ClientCertificateRequired,
    /// It refused the handshake without a reason.
    #[error("it refused the handshake; if it asks for a client certificate, give one")]
    Refused,
    /// It refused our certificate.
    #[error("it refused our certificate ({0:?}); give one that it trusts")]
    ClientCertificateRefused(Alert),
    /// There is no version of TLS that both sides know.
    #[error("it speaks no TLS 1.2 or 1.3 that both sides know; update it")]
    NoCommonVersion,
    /// It speaks something else than TLS.
    #[error("what answers there doesn't speak TLS; check the port")]
    NotTls,
}

/// The setting that a [`HandshakeFailure`]'s text speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsSetting {
    /// The file of trusted authorities: `name that authority's file`.
    Authorities,
    /// The other side's address: `use that one`, `check the port`.
    Address,
    /// Our own certificate and key: `give one`.
    Identity,
}

impl HandshakeFailure {
    /// What the TLS error behind `error` means; `None` if there is none, or if another try may
    /// help.
    #[must_use]
    pub fn behind(error: &(dyn Error + 'static)) -> Option<Self> {
        Self::of(cause(error)?)
    }

    /// The setting to change, if there is one.
    #[must_use]
    pub fn setting(&self) -> Option<TlsSetting> {
        match self {
            Self::UntrustedAuthority => Some(TlsSetting::Authorities),
            Self::OtherHostName | Self::NotTls => Some(TlsSetting::Address),
            Self::ClientCertificateRequired | Self::Refused | Self::ClientCertificateRefused(_) => {
                Some(TlsSetting::Identity)
            }
            Self::Expired
            | Self::NotValidYet
            | Self::UnusableCertificate(_)
            | Self::NoCommonVersion => None,
        }
    }

    fn of(error: &TlsError) -> Option<Self> {
        Some(match error {
            TlsError::InvalidCertificate(refused) => match refused {
                CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                    Self::UntrustedAuthority
                }
                CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                    Self::Expired
                }
                CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                    Self::NotValidYet
                }
                CertificateError::NotValidForName
                | CertificateError::NotValidForNameContext { .. } => Self::OtherHostName,
                refused => Self::UnusableCertificate(refused.clone()),
            },
            TlsError::AlertReceived(Alert::CertificateRequired) => Self::ClientCertificateRequired,
            TlsError::AlertReceived(Alert::HandshakeFailure) => Self::Refused,
            TlsError::AlertReceived(
                alert @ (Alert::UnknownCA
                | Alert::BadCertificate
                | Alert::UnsupportedCertificate
                | Alert::CertificateRevoked
                | Alert::CertificateExpired
                | Alert::CertificateUnknown
                | Alert::AccessDenied),
            ) => Self::ClientCertificateRefused(*alert),
            TlsError::AlertReceived(Alert::ProtocolVersion) | TlsError::PeerIncompatible(_) => {
                Self::NoCommonVersion
            }
            TlsError::InvalidMessage(_) => Self::NotTls,
            _ => return None,
        })
    }
}

/// What a user calls the settings of TLS.
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

/// What to do about a handshake that fails at every try, with the settings' names; `None` if
/// another try may help.
pub(crate) fn advice(error: &TlsError, settings: &Settings) -> Option<String> {
    let Settings { authority, address, identity } = settings;
    let failure = HandshakeFailure::of(error)?;
    Some(match failure.setting() {
        Some(TlsSetting::Authorities) => format!("{failure} with {authority}"),
        Some(TlsSetting::Address) => format!("{failure} in {address}"),
        Some(TlsSetting::Identity) => format!("{failure} with {identity}"),
        None => failure.to_string(),
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
