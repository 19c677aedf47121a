//! A TCP relay between the programs and a real service, for faults of the network: connections
//! that are cut, refused, or open and silent.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;

/// What the network does to connections, new and old.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// Carries everything.
    Up,
    /// Resets every connection.
    Cut,
    /// Keeps every connection open and carries nothing. This is half-open TCP, for example after a
    /// firewall has forgotten the connection.
    Silent,
}

/// Relays connections to a port of this machine. It ends when this is dropped.
#[derive(Debug)]
pub struct Relay {
    port: u16,
    network: Arc<watch::Sender<Network>>,
    _runtime: Runtime,
}

impl Relay {
    /// Starts a relay to the port `target`.
    ///
    /// # Panics
    /// If it cannot listen.
    #[must_use]
    pub fn to(target: u16) -> Self {
        let runtime = runtime();
        let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
        let listener = listener.expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let network = Arc::new(watch::Sender::new(Network::Up));
        let seen = Arc::clone(&network);
        runtime.spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, target, seen.subscribe()));
            }
        });
        Self { port, network, _runtime: runtime }
    }

    /// The relay's port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Changes what the network does from now on.
    pub fn set(&self, network: Network) {
        self.network.send_replace(network);
    }
}

/// Relays one connection while the network is up. A connection that went silent stays silent: lost
/// packets do not come back.
async fn carry(mut client: TcpStream, target: u16, mut network: watch::Receiver<Network>) {
    if *network.borrow() == Network::Up {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, target));
        let Ok(mut server) = TcpStream::connect(address).await else { return };
        tokio::select! {
            _ended = copy_bidirectional(&mut client, &mut server) => return,
            _down = network.wait_for(|state| *state != Network::Up) => {}
        }
        // The server's side stays open too: the server finds out by its own heartbeats.
        let silent = *network.borrow() == Network::Silent;
        if silent {
            hold(network, (client, server)).await;
            return;
        }
    } else if *network.borrow() == Network::Silent {
        hold(network, client).await;
        return;
    }
    reset(client);
}

/// Keeps connections open and carries nothing, until the network is cut.
async fn hold<C>(mut network: watch::Receiver<Network>, connections: C) {
    let _cut = network.wait_for(|state| *state == Network::Cut).await;
    drop(connections);
}

/// Closes a connection with a TCP reset, as after a crash.
pub(crate) fn reset(connection: TcpStream) {
    // If the option cannot be set, the connection closes normally.
    connection.set_zero_linger().unwrap_or_default();
    drop(connection);
}

/// A runtime with one thread, which is enough for a relay.
pub(crate) fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("threads can be started")
}
