//! `camshaft serve`: the report's page on this machine, with pictures from OUT and SOURCE, and decisions
//! that are written to OUT.
//!
//! Owns the listening, its start and its end. `access` decides who may ask, `site` what is answered,
//! `board` keeps what everybody decides, and `similar` tells which images are alike. Nobody but this machine is listened to, and every answer needs
//! the token in the address that is printed.

mod access;
mod answers;
mod board;
mod similar;
mod site;

use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use camshaft_common::location::Location;
use camshaft_common::run::{ReadRunError, RunRecord};
use camshaft_common::store::{Folder, StoreError, StoreOptions};
use camshaft_decisions::{MergeError, MergedDecisions};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing::debug;

use self::access::Access;
use self::board::DecisionBoard;
use self::site::{PAGE, Site};
use crate::advice;
use crate::terminal::output::{format_count, print_line};

/// The wait after a connection could not be accepted, for instance because no file is left to open.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);
/// How long a browser may take to send the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// What `camshaft serve` is to do.
#[derive(Debug)]
pub(crate) struct ServeConfig {
    /// The run.
    pub(crate) out: Location,
    /// The port; 0 for a free one, none for OUT's own.
    pub(crate) port: Option<u16>,
    /// Open the page in a browser.
    pub(crate) open: bool,
}

/// Why the report can't be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// OUT can't be read or written.
    #[error("{}", advice::describe_store_error(.0))]
    Out(#[from] StoreError),
    /// OUT holds no run.
    #[error("{}", advice::describe_run_record_error(.0))]
    Run(#[from] ReadRunError),
    /// There is no page.
    #[error("{0} has no report; build it with: camshaft report {0}")]
    NoReport(String),
    /// The decisions so far can't be read.
    #[error("{}", advice::describe_merge_error(.0))]
    Decisions(#[from] MergeError),
    /// Nothing can listen on the port.
    #[error(
        "cannot listen on port {port} of this machine: {source}; choose another --port, or none"
    )]
    Port {
        /// The port.
        port: u16,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// The system delivers no signals.
    #[error("cannot wait for signals: {0}")]
    Signals(#[source] std::io::Error),
}

/// Serves until Ctrl-C or SIGTERM, then writes the table of all decisions.
///
/// # Errors
/// If OUT holds no run or no report, can't be read, or nothing can listen on the port.
pub(crate) async fn serve(config: ServeConfig, stores: StoreOptions) -> Result<(), ServeError> {
    let ServeConfig { out: location, port, open } = config;
    let out = Folder::open(&location, &stores)?;
    let run = RunRecord::read_existing(&out).await?;
    if !out.exists(PAGE).await? {
        return Err(ServeError::NoReport(location.to_string()));
    }
    let board = DecisionBoard::open(out.clone()).await?;
    let cannot_listen = |source| ServeError::Port { port: port.unwrap_or_default(), source };
    let listener = listen(port, &location).await.map_err(cannot_listen)?;
    let address = listener.local_addr().map_err(cannot_listen)?;
    let access = Access::new(address.port());
    let url = access.url();
    print_line(&format!("The report is at {url}"));
    print_line(&format!("Decisions are written to {location}/decisions; end with Ctrl-C"));
    if open {
        open_in_browser(&url);
    }
    let site = Arc::new(Site::new(out.clone(), &run, &stores, access, board));
    let mut interrupt = signal(SignalKind::interrupt()).map_err(ServeError::Signals)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(ServeError::Signals)?;
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => drop(tokio::spawn(answer(stream, Arc::clone(&site)))),
                Err(error) => {
                    debug!(%error, "a connection was not accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
        }
    }
    let decided = MergedDecisions::read(&out).await?;
    if !decided.is_empty() {
        let decided = decided.write_table(&out).await?;
        let images = format_count(decided.len() as u64, "image");
        print_line(&format!("{images} decided; what to do with them: camshaft apply {location}"));
    }
    Ok(())
}

/// Listens on a port of this machine: without a wish on the port of this OUT, if it is free.
async fn listen(wish: Option<u16>, out: &Location) -> std::io::Result<TcpListener> {
    let bind = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
    match wish {
        Some(port) => bind(port).await,
        None => match bind(own_port(out)).await {
            Ok(listener) => Ok(listener),
            Err(_) => bind(0).await,
        },
    }
}

/// The port of an OUT. Browsers keep what they could not send by the page's address, port included. Above
/// those that systems give to other connections.
fn own_port(out: &Location) -> u16 {
    const FIRST: u16 = 61_001;
    const PORTS: u16 = u16::MAX - FIRST;
    let place = out.to_string();
    let number =
        place.bytes().fold(0_u16, |number, byte| number.wrapping_mul(31).wrapping_add(byte.into()));
    FIRST + number % PORTS
}

async fn answer(stream: tokio::net::TcpStream, site: Arc<Site>) {
    let service = service_fn(|request| {
        let site = Arc::clone(&site);
        async move { Ok::<_, std::convert::Infallible>(site.answer(request).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        debug!(%error, "a browser's connection broke");
    }
}

/// Asks the system for a browser. Without one, the address that was printed will do.
fn open_in_browser(url: &str) {
    let opener = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
    let quiet = |command: &mut Command| {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()
    };
    if let Err(error) = quiet(Command::new(opener).arg(url)) {
        debug!(%error, "no browser was opened");
    }
}
