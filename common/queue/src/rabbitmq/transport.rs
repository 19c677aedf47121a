//! The byte stream below AMQP: TCP, or TLS over it; and Tokio as lapin's runtime.
//!
//! lapin can do both itself. But its TLS brings a reader of PKCS#12 files as large as lapin, and
//! its Tokio a second DNS client and a second runtime into `Cargo.lock`; nothing here uses them.
//! Upstream: [`connection`](super::connection) opens a stream. Downstream: lapin reads and writes
//! it, by the traits of `async_rs`.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::panic::resume_unwind;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use async_rs::Runtime;
use async_rs::traits::{Executor, Reactor, RuntimeKit};
use async_rs::util::{Task, TaskImpl};
use async_trait::async_trait;
use futures::{Stream, stream};
use lapin::tcp::AsyncTcpStream;
use lapin::uri::AMQPUri;
use lapin::{Connection, ConnectionProperties};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::runtime::{Handle, is_rt_shutdown_err};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt};

/// A connection to a broker, for those who test the queue from outside.
///
/// # Errors
/// If the URL can't be read, the broker can't be reached, or it refuses.
#[doc(hidden)]
pub async fn open_connection(
    url: &str,
    properties: ConnectionProperties,
) -> Result<Connection, lapin::Error> {
    open(url.parse().map_err(io::Error::other)?, None, properties).await
}

/// Connects and logs in, by TLS if there is a connector for it.
pub(super) async fn open(
    uri: AMQPUri,
    tls: Option<TlsConnector>,
    properties: ConnectionProperties,
) -> Result<Connection, lapin::Error> {
    let runtime = Runtime::new(TokioKit(Handle::current()));
    let stream = async move |uri: AMQPUri, _| {
        Ok(AsyncTcpStream::Plain(connect(&uri, tls.as_ref()).await?.compat()))
    };
    Connection::connector(uri, runtime, stream, properties).await
}

/// TCP, or TLS over it.
pub(super) enum Transport {
    Plain(TcpStream),
    Encrypted(Box<TlsStream<TcpStream>>),
}

/// Connects to a URL's host, by TLS if there is a connector for it.
pub(super) async fn connect(uri: &AMQPUri, tls: Option<&TlsConnector>) -> io::Result<Transport> {
    let host = uri.authority.host.as_str();
    let stream = TcpStream::connect((host, uri.authority.port)).await?;
    stream.set_nodelay(true)?;
    let Some(tls) = tls else { return Ok(Transport::Plain(stream)) };
    let name = ServerName::try_from(host.to_owned())
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    Ok(Transport::Encrypted(Box::new(tls.connect(name, stream).await?)))
}

impl AsyncRead for Transport {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        quiet_at_shutdown(match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Encrypted(stream) => Pin::new(stream).poll_read(context, buffer),
        })
    }
}

impl AsyncWrite for Transport {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        quiet_at_shutdown(match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Encrypted(stream) => Pin::new(stream).poll_write(context, bytes),
        })
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        quiet_at_shutdown(match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Encrypted(stream) => Pin::new(stream).poll_flush(context),
        })
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        quiet_at_shutdown(match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Encrypted(stream) => Pin::new(stream).poll_shutdown(context),
        })
    }
}

/// When the program ends, its runtime fails every stream. lapin's own thread would log that as
/// the broker's error, so it is left to wait for the program's end.
fn quiet_at_shutdown<T>(poll: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
    match poll {
        Poll::Ready(Err(error)) if is_rt_shutdown_err(&error) => Poll::Pending,
        poll => poll,
    }
}

/// A Tokio runtime in the form that lapin takes.
#[derive(Clone, Debug)]
struct TokioKit(Handle);

impl RuntimeKit for TokioKit {}

impl Executor for TokioKit {
    type Task<T: Send + 'static> = TokioTask<T>;

    fn block_on<T, F: Future<Output = T>>(&self, future: F) -> T {
        self.0.block_on(future)
    }

    fn spawn<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
        &self,
        future: F,
    ) -> Task<Self::Task<T>> {
        TokioTask(self.0.spawn(future)).into()
    }

    fn spawn_blocking<T: Send + 'static, F: FnOnce() -> T + Send + 'static>(
        &self,
        work: F,
    ) -> Task<Self::Task<T>> {
        TokioTask(self.0.spawn_blocking(work)).into()
    }
}

impl Reactor for TokioKit {
    type TcpStream = Compat<Transport>;
    type Sleep = tokio::time::Sleep;

    fn register<H: io::Read + io::Write + AsFd + AsRawFd + Send + 'static>(
        &self,
        _socket: H,
    ) -> io::Result<impl futures::AsyncRead + futures::AsyncWrite + Send + Unpin + 'static> {
        // lapin asks for streams by address alone.
        Err::<Compat<Transport>, _>(io::ErrorKind::Unsupported.into())
    }

    fn sleep(&self, time: Duration) -> Self::Sleep {
        let _inside = self.0.enter();
        tokio::time::sleep(time)
    }

    fn interval(&self, time: Duration) -> impl Stream<Item = Instant> + Send + 'static {
        let _inside = self.0.enter();
        stream::unfold(tokio::time::interval(time), async |mut interval| {
            let tick = interval.tick().await;
            Some((tick.into_std(), interval))
        })
    }

    #[expect(clippy::manual_async_fn, reason = "an async fn would borrow self")]
    fn tcp_connect_addr(
        &self,
        address: SocketAddr,
    ) -> impl Future<Output = io::Result<Self::TcpStream>> + Send + 'static {
        async move {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            Ok(Transport::Plain(stream).compat())
        }
    }
}

/// A task of [`TokioKit`]. It goes on when this is dropped.
struct TokioTask<T>(JoinHandle<T>);

impl<T> Future for TokioTask<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        match ready!(Pin::new(&mut self.0).poll(context)) {
            Ok(output) => Poll::Ready(output),
            Err(error) if error.is_panic() => resume_unwind(error.into_panic()),
            // It was cancelled, or its runtime has ended: there is nothing to return.
            Err(_) => Poll::Pending,
        }
    }
}

#[async_trait]
impl<T: Send + 'static> TaskImpl for TokioTask<T> {
    async fn cancel(&mut self) -> Option<T> {
        self.0.abort();
        (&mut self.0).await.ok()
    }
}
