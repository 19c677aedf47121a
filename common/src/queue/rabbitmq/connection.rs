//! Reaching the broker: its address, one connection attempt, and what errors mean.
//!
//! Owns the URL, and sees to it that no text made here shows its password. Knows nothing of
//! queues. Reconnecting is left to those who use a connection, since only they know what was
//! under way; [`Patience`] says how long they wait.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use lapin::protocol::{AMQPErrorKind, AMQPHardError, AMQPSoftError};
use lapin::uri::{AMQPScheme, AMQPUri};
use lapin::{Connection, ConnectionProperties, Error, ErrorKind};
use tokio::io::AsyncReadExt;
use tokio::time::Instant;
use url::{Host, Url};

use super::tls::{Tls, TlsError, TlsFiles};
use super::transport::{self, TokioKit};
use crate::backoff::Backoff;
use crate::queue::QueueError;
use crate::secret::Secret;
use crate::tls;

/// A connection or an answer that takes longer is not coming.
pub(super) const OPERATION_TIMEOUT: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// An alert follows a handshake at once.
const ALERT_TIMEOUT: Duration = Duration::from_secs(2);
/// Finds a dead peer within a minute (the broker's default is 60 s); the lower one counts.
const HEARTBEAT_SECONDS: u16 = 30;

/// Opens connections to one broker.
#[derive(Clone)]
pub(super) struct Connector {
    uri: AMQPUri,
    address: String,
    connection_name: String,
    tls: Option<Arc<Tls>>,
}

/// Where a person looks when there is no TLS.
const TLS_SETTINGS: tls::Settings = tls::Settings {
    authority: "--broker-ca",
    address: "--broker",
    identity: "--broker-cert and --broker-key",
};

impl Connector {
    pub(super) fn new(
        url: &Secret,
        connection_name: String,
        files: TlsFiles,
    ) -> Result<Self, QueueError> {
        let invalid = |reason: String| QueueError::InvalidUrl { reason };
        // The library's own errors show the URL, so everything is checked here before.
        let parsed = Url::parse(url.expose()).map_err(|error| invalid(error.to_string()))?;
        if !matches!(parsed.scheme(), "amqp" | "amqps") || parsed.cannot_be_a_base() {
            return Err(invalid("it doesn't start with amqp:// or amqps://".to_owned()));
        }
        let mut uri: AMQPUri = url.expose().parse().map_err(|_: String| {
            invalid("its parts are not percent-encoded UTF-8, or an option is unknown".to_owned())
        })?;
        // The library takes a bracketed IPv6 address for no host at all, and `/` for a virtual
        // host with an empty name, which no broker has.
        if let Some(Host::Ipv6(host)) = parsed.host() {
            uri.authority.host = host.to_string();
        }
        if uri.vhost.is_empty() {
            uri.vhost = "/".to_owned();
        }
        uri.query.heartbeat.get_or_insert(HEARTBEAT_SECONDS);
        let connect_timeout = u64::try_from(CONNECT_TIMEOUT.as_millis()).expect("seconds fit");
        uri.query.connection_timeout.get_or_insert(connect_timeout);
        let host = &uri.authority.host;
        let address = if host.contains(':') {
            format!("[{host}]:{}", uri.authority.port)
        } else {
            format!("{host}:{}", uri.authority.port)
        };
        let tls = Tls::new(files, matches!(uri.scheme, AMQPScheme::AMQPS))
            .map_err(|reason| QueueError::Tls { address: address.clone(), reason })?;
        Ok(Self { uri, address, connection_name, tls: tls.map(Arc::new) })
    }

    /// Host and port.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// One try to connect and log in.
    pub(super) async fn connect(&self) -> Result<Connection, QueueError> {
        let properties = ConnectionProperties::default()
            .with_connection_name(self.connection_name.as_str().into());
        let tls = self.tls.as_ref().map(|tls| tls.connector());
        let open = async move |uri: AMQPUri, _| {
            Ok(transport::for_lapin(transport::connect(&uri, tls.as_ref()).await?))
        };
        let runtime = TokioKit::current();
        let connecting = Connection::connector(self.uri.clone(), runtime, open, properties);
        match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => match self.alert_behind(&error).await {
                Some(refused) => Err(refused),
                None => Err(self.classify(&error)),
            },
            Err(_) => Err(self.no_answer(CONNECT_TIMEOUT)),
        }
    }

    /// With TLS 1.3 a broker refuses our certificate, or that there is none, only after the
    /// handshake. By then we are writing, and the connection's end may hide its alert: it is
    /// heard by a connection that says nothing.
    async fn alert_behind(&self, error: &Error) -> Option<QueueError> {
        let (ErrorKind::IOError(cut), Some(tls)) = (error.kind(), &self.tls) else { return None };
        if !matches!(
            cut.kind(),
            io::ErrorKind::ConnectionReset
                | io::ErrorKind::ConnectionAborted
                | io::ErrorKind::BrokenPipe
                | io::ErrorKind::UnexpectedEof
        ) {
            return None;
        }
        let listening = async {
            let mut stream = transport::connect(&self.uri, Some(&tls.connector())).await.ok()?;
            stream.read(&mut [0]).await.err()
        };
        let heard = tokio::time::timeout(ALERT_TIMEOUT, listening).await.ok()??;
        let refused = self.classify(&Error::from(heard));
        matches!(refused, QueueError::Tls { .. }).then_some(refused)
    }

    /// What an error of the library means to the queue's users.
    pub(super) fn classify(&self, error: &Error) -> QueueError {
        let address = self.address.clone();
        match error.kind() {
            ErrorKind::ProtocolError(amqp) => {
                let reason = self.without_password(amqp.get_message().as_str());
                match amqp.kind() {
                    AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED)
                    | AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED) => {
                        QueueError::AccessRefused { address, reason }
                    }
                    AMQPErrorKind::Soft(
                        AMQPSoftError::PRECONDITIONFAILED | AMQPSoftError::RESOURCELOCKED,
                    ) => QueueError::Topology { address, reason },
                    _ => QueueError::Unreachable { address, reason },
                }
            }
            ErrorKind::IOError(error) => {
                match tls::cause(&**error).and_then(|error| tls::advice(error, &TLS_SETTINGS)) {
                    Some(advice) => {
                        QueueError::Tls { address, reason: TlsError::Handshake(advice) }
                    }
                    None => {
                        QueueError::Unreachable { address, reason: self.without_password(error) }
                    }
                }
            }
            _ => QueueError::Unreachable { address, reason: self.without_password(error) },
        }
    }

    pub(super) fn no_answer(&self, after: Duration) -> QueueError {
        let reason = format!("no answer within {} s", after.as_secs());
        QueueError::Unreachable { address: self.address.clone(), reason }
    }

    /// Neither the broker nor the library is known to quote the password; this makes sure.
    fn without_password(&self, text: impl ToString) -> String {
        let password = &self.uri.authority.userinfo.password;
        let text = text.to_string();
        if password.is_empty() { text } else { text.replace(password, "…") }
    }
}

/// How long a caller goes on trying.
pub(super) struct Patience {
    deadline: Option<Instant>,
    backoff: Backoff,
}

impl Patience {
    /// For ever where there is no limit.
    pub(super) fn new(limit: Option<Duration>) -> Self {
        let deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
        Self { deadline, backoff: Backoff::default() }
    }

    /// Waits before the next try, or gives `error` back where a further one is no use.
    pub(super) async fn pause(&mut self, error: QueueError) -> Result<(), QueueError> {
        let delay = self.backoff.next_delay();
        let too_late = self.deadline.is_some_and(|deadline| Instant::now() + delay > deadline);
        if !error.is_transient() || too_late {
            return Err(error);
        }
        warn_of(&error, delay);
        tokio::time::sleep(delay).await;
        Ok(())
    }
}

/// Logs that a try failed and when the next comes.
pub(super) fn warn_of(error: &QueueError, retry_in: Duration) {
    let retry_in_ms = u64::try_from(retry_in.as_millis()).unwrap_or(u64::MAX);
    match error {
        QueueError::Unreachable { address, reason } => {
            tracing::warn!(address, reason, retry_in_ms, "broker not reachable, trying again");
        }
        error => tracing::warn!(%error, retry_in_ms, "broker not ready, trying again"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connector(url: &str) -> Result<Connector, QueueError> {
        Connector::new(&url.parse().unwrap(), "test".to_owned(), TlsFiles::default())
    }

    #[test]
    fn addresses_are_host_and_port() {
        for (url, address, vhost) in [
            ("amqp://u:p@broker:5673/jobs", "broker:5673", "jobs"),
            ("amqp://broker", "broker:5672", "/"),
            ("amqp://broker/", "broker:5672", "/"),
            ("amqp://127.0.0.1/%2f", "127.0.0.1:5672", "/"),
            ("amqps://u:p%40@[::1]/a%20b", "[::1]:5671", "a b"),
        ] {
            let connector = connector(url).unwrap();
            assert_eq!((connector.address(), connector.uri.vhost.as_str()), (address, vhost));
        }
    }

    #[test]
    fn a_bad_url_is_refused_without_being_shown() {
        for url in [
            "hunter2",
            "user:hunter2@broker",
            "http://user:hunter2@broker",
            "amqp:hunter2",
            "amqp://user:hunter2@broker:port",
            "amqp://user:hunter2@broker?heartbeat=hunter2",
            "amqp://user:hunter2%ff@broker",
        ] {
            let error = connector(url).err().unwrap();
            assert!(matches!(error, QueueError::InvalidUrl { .. }), "{error:?}");
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
        }
    }
}
