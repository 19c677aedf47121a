//! What the parts of the queue share: the way to the broker, and the settings.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;

use super::connection::Connector;
use super::publisher::Publisher;
use super::shared_connection::SharedConnection;
use super::topology::Topology;
use crate::retry_delays::RetryDelays;

/// One broker and one set of queues on it.
pub(super) struct Broker {
    pub(super) connector: Connector,
    pub(super) topology: Topology,
    pub(super) connection: Arc<SharedConnection>,
    pub(super) publisher: Publisher,
    pub(super) delays: RetryDelays,
    /// How long publishing, counting and redriving try to go on once a connection is lost.
    pub(super) retry_limit: Duration,
    /// Receipts may be dropped outside of the runtime, and need it then.
    pub(super) runtime: Handle,
}

impl Broker {
    /// Must be called within the runtime. Does not connect yet.
    pub(super) fn new(
        connector: Connector,
        topology: Topology,
        delays: RetryDelays,
        retry_limit: Duration,
        creates_queues: bool,
    ) -> Self {
        let connection = SharedConnection::new(connector.clone(), topology.clone(), creates_queues);
        let connection = Arc::new(connection);
        Self {
            connector,
            topology,
            publisher: Publisher::new(Arc::clone(&connection)),
            connection,
            delays,
            retry_limit,
            runtime: Handle::current(),
        }
    }
}
