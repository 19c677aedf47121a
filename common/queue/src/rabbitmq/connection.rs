//! Reaching the broker: its address, one try to connect, and what the library's errors mean.
//!
//! Owns the URL, and makes sure that no error shows its password. Knows nothing of queues. Doesn't
//! reconnect: only the users of a connection know what was under way. See
//! [`retry`](super::retry) for how long they try.

use std::error::Error as StdError;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use camshaft_common::secret::Secret;
use camshaft_common::tls::HandshakeFailure;
use lapin::protocol::{AMQPErrorKind, AMQPHardError, AMQPSoftError};
use lapin::uri::{AMQPScheme, AMQPUri};
use lapin::{Connection, ConnectionProperties, Error, ErrorKind};
use tokio::io::AsyncReadExt;
use url::{Host, Url};

use super::tls::{TlsConnectors, TlsFiles};
use super::transport;
use crate::error::QueueError;

/// A connection or an answer that takes longer is not coming.
pub(super) const OPERATION_TIMEOUT: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// An alert follows a handshake at once.
const ALERT_TIMEOUT: Duration = Duration::from_secs(2);
/// Finds a dead peer within a minute (the broker's default is 60 s); the lower one counts.
const HEARTBEAT_SECONDS: u16 = 30;

/// What the broker says as it closes a channel because of a message that it counts as stuck, in
/// `evaluate_consumer_timeout` of its `rabbit_channel`. From 4.3 on it cancels the consumer instead.
const HELD_TOO_LONG: &str = "delivery acknowledgement on channel";
const TIMEOUT_USED: &str = "Timeout value used: ";
/// What it says of a settled message that it does not know (any more).
const UNKNOWN_DELIVERY: &str = "unknown delivery tag";

/// True if a broker's URL leads to another machine, where others may publish, too. False if the URL
/// can't be read: connecting tells that.
#[must_use]
pub fn is_remote(url: &Secret) -> bool {
    let Ok(url) = Url::parse(url.expose()) else { return false };
    // Without a host it is this machine.
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_ascii_lowercase();
    match host.parse::<IpAddr>() {
        Ok(address) => !address.to_canonical().is_loopback() && !address.is_unspecified(),
        Err(_) => !host.is_empty() && host != "localhost" && !host.ends_with(".localhost"),
    }
}

/// Opens connections to one broker.
#[derive(Clone)]
pub(super) struct Connector {
    uri: AMQPUri,
    address: String,
    connection_name: String,
    tls: Option<Arc<TlsConnectors>>,
}

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
        let tls = TlsConnectors::new(files, matches!(uri.scheme, AMQPScheme::AMQPS))
            .map_err(|source| QueueError::Tls { address: address.clone(), source })?;
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
        let connecting = transport::open(self.uri.clone(), tls, properties);
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
        let source = self.source(error);
        match error.kind() {
            ErrorKind::ProtocolError(amqp) => {
                let reason = self.without_password(amqp.get_message().as_str());
                match amqp.kind() {
                    AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED)
                    | AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED) => {
                        QueueError::AccessRefused { address, reason, source }
                    }
                    AMQPErrorKind::Soft(AMQPSoftError::PRECONDITIONFAILED)
                        if reason.contains(HELD_TOO_LONG) =>
                    {
                        let within = quoted_timeout(&reason);
                        QueueError::HeldTooLong { address, within, source }
                    }
                    // This says nothing of a queue, either.
                    AMQPErrorKind::Soft(AMQPSoftError::PRECONDITIONFAILED)
                        if reason.contains(UNKNOWN_DELIVERY) =>
                    {
                        QueueError::Unreachable { address, reason, source }
                    }
                    AMQPErrorKind::Soft(
                        AMQPSoftError::PRECONDITIONFAILED | AMQPSoftError::RESOURCELOCKED,
                    ) => QueueError::Topology { address, reason, source },
                    _ => QueueError::Unreachable { address, reason, source },
                }
            }
            ErrorKind::IOError(error) => match HandshakeFailure::behind(&**error) {
                Some(failure) => QueueError::Tls { address, source: failure.into() },
                None => {
                    let reason = self.without_password(error);
                    QueueError::Unreachable { address, reason, source }
                }
            },
            _ => {
                let reason = self.without_password(error);
                QueueError::Unreachable { address, reason, source }
            }
        }
    }

    /// Waits for an answer, but not for ever: a broker that is low on memory or disk stops reading
    /// from a connection that publishes.
    pub(super) async fn answer<T>(
        &self,
        asking: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, QueueError> {
        match tokio::time::timeout(OPERATION_TIMEOUT, asking).await {
            Ok(result) => result.map_err(|error| self.classify(&error)),
            Err(_) => Err(self.no_answer(OPERATION_TIMEOUT)),
        }
    }

    pub(super) fn no_answer(&self, after: Duration) -> QueueError {
        let reason = format!("no answer within {} s", after.as_secs());
        QueueError::Unreachable { address: self.address.clone(), reason, source: None }
    }

    /// Neither the broker nor the library is known to quote the password; this makes sure.
    fn without_password(&self, text: impl ToString) -> String {
        let password = &self.uri.authority.userinfo.password;
        let text = text.to_string();
        if password.is_empty() { text } else { text.replace(password, "…") }
    }

    /// The error to keep as a source; `None` if it quotes the password.
    fn source(&self, error: &Error) -> Option<Arc<dyn StdError + Send + Sync>> {
        let shown = format!("{error} {error:?}");
        (self.without_password(&shown) == shown).then(|| Arc::new(error.clone()) as _)
    }
}

/// The `consumer_timeout` that the broker's error quotes.
fn quoted_timeout(reason: &str) -> Option<Duration> {
    let (_, after) = reason.split_once(TIMEOUT_USED)?;
    let milliseconds = after.split(' ').next()?.parse().ok()?;
    Some(Duration::from_millis(milliseconds))
}

#[cfg(test)]
mod tests {
    use lapin::protocol::AMQPError;

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
    fn a_broker_on_this_machine_is_told_from_a_remote_one() {
        for url in [
            "amqp://u:p@localhost:5672/%2f",
            "amqps://LOCALHOST",
            "amqp://broker.localhost/x",
            "amqp://127.0.0.1:5672",
            "amqp://127.1.2.3/",
            "amqp://u:p@[::1]:5672/x",
            "amqp://[::ffff:127.0.0.1]",
            "amqp://0.0.0.0:5672",
            "amqp:///x",
            "no URL",
        ] {
            assert!(!is_remote(&Secret::from(url.to_owned())), "{url}");
        }
        for url in [
            "amqp://u:p@rabbitmq:5672/%2f",
            "amqps://broker.example",
            "amqp://10.0.0.1",
            "amqp://u:p@[2001:db8::1]/",
            "amqp://localhost.example",
        ] {
            assert!(is_remote(&Secret::from(url.to_owned())), "{url}");
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

    #[test]
    fn only_a_queue_that_was_made_otherwise_is_an_error_of_topology() {
        let connector = connector("amqp://broker").unwrap();
        let classified = |soft: AMQPSoftError, reason: &str| {
            let error = AMQPError::new(AMQPErrorKind::Soft(soft), reason.into());
            connector.classify(&Error::from(ErrorKind::ProtocolError(error)))
        };
        // RabbitMQ 3.10's own words, and those of 4.2.
        let timed_out = "PRECONDITION_FAILED - delivery acknowledgement on channel 1 timed out. \
                         Timeout value used: 90500 ms. This timeout value can be configured, see \
                         consumers doc guide to learn more";
        let error = classified(AMQPSoftError::PRECONDITIONFAILED, timed_out);
        let QueueError::HeldTooLong { within, .. } = &error else { panic!("{error:?}") };
        assert_eq!(*within, Some(Duration::from_millis(90_500)));
        assert!(error.is_transient() && error.to_string().contains("of 90.5 s;"), "{error}");
        let unknown = "PRECONDITION_FAILED - unknown delivery tag 7";
        assert!(classified(AMQPSoftError::PRECONDITIONFAILED, unknown).is_transient());
        let differs = "PRECONDITION_FAILED - inequivalent arg 'x-queue-type' for queue \
                       'camshaft.jobs' in vhost 'jobs': received 'quorum' but current is 'classic'";
        let error = classified(AMQPSoftError::PRECONDITIONFAILED, differs);
        assert!(matches!(error, QueueError::Topology { .. }), "{error:?}");
        assert!(!error.to_string().contains("delete"), "{error}");
        for reason in ["", "Timeout value used: ", "Timeout value used: soon ms"] {
            assert_eq!(quoted_timeout(reason), None, "{reason}");
        }
    }
}
