//! Whether a worker can work and what it does, told over HTTP to whoever runs it.
//!
//! `GET /livez` (or `/healthz`) answers as long as the process does. `GET /readyz` answers 200, or 503 while
//! something keeps it from working, and says what in JSON. `GET /metrics` is for Prometheus. Owns
//! what counts as ready; what is wrong is known to the queue, the stores and the pipeline, what
//! there is to measure to [`crate::metrics`]. No secret is shown: errors have none.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use camshaft_queue::RabbitMqQueue;
use serde::Serialize;
use tokio::net::TcpListener;

use crate::metrics::{self, Metrics};
use crate::pipeline::context::Context;

/// The address can't be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} for health checks: {source}; choose another --health")]
pub struct HealthError {
    address: SocketAddr,
    source: std::io::Error,
}

/// A worker that lives answers in an instant.
const ASK_TIMEOUT: Duration = Duration::from_secs(3);

/// No worker says that it lives.
#[derive(Debug, thiserror::Error)]
#[error("no worker answers at {address}: {reason}; is it running, and with this --health?")]
pub struct NotAlive {
    address: SocketAddr,
    reason: String,
}

/// Asks the worker at an address whether it lives, for an image's health check, which has nothing
/// else to ask with.
///
/// # Errors
/// Where it doesn't say so.
pub fn ask(address: SocketAddr) -> Result<(), NotAlive> {
    let mut reached = address;
    if address.ip().is_unspecified() {
        let here =
            if address.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
        reached.set_ip(here);
    }
    let answer = || {
        let mut worker = TcpStream::connect_timeout(&reached, ASK_TIMEOUT)?;
        worker.set_read_timeout(Some(ASK_TIMEOUT))?;
        worker.write_all(b"GET /livez HTTP/1.0\r\n\r\n")?;
        let mut status = [0; 12];
        worker.read_exact(&mut status)?;
        Ok::<_, std::io::Error>(String::from_utf8_lossy(&status).into_owned())
    };
    let reason = match answer() {
        Ok(status) if status.ends_with(" 200") => return Ok(()),
        Ok(status) => format!("it says {status:?}"),
        Err(error) => error.to_string(),
    };
    Err(NotAlive { address, reason })
}

/// What a worker has to say, filled in as it starts.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<Mutex<Parts>>);

#[derive(Debug, Default)]
struct Parts {
    context: Option<Arc<Context>>,
    queue: Option<RabbitMqQueue>,
    stopping: bool,
}

/// `GET /readyz`.
#[derive(Debug, Serialize)]
struct Report {
    ready: bool,
    /// What keeps it from working, for people.
    problems: Vec<String>,
    predicted: u64,
    failed: u64,
    in_flight: u64,
}

impl Health {
    /// The engine is ready.
    pub fn set_context(&self, context: Arc<Context>) {
        self.parts(|parts| parts.context = Some(context));
    }

    /// The broker was reached.
    pub fn set_queue(&self, queue: RabbitMqQueue) {
        self.parts(|parts| parts.queue = Some(queue));
    }

    /// It takes no further images.
    pub fn set_stopping(&self) {
        self.parts(|parts| parts.stopping = true);
    }

    /// Starts answering at `address`, for as long as the process runs.
    ///
    /// # Errors
    /// Where the address can't be listened on.
    pub async fn serve(&self, address: SocketAddr) -> Result<(), HealthError> {
        let failed = |source| HealthError { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let routes = Router::new()
            .route("/livez", get(async || "ok"))
            .route("/healthz", get(async || "ok"))
            .route("/readyz", get(ready))
            .route("/metrics", get(metrics))
            .with_state(self.clone());
        tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, routes).await {
                tracing::warn!(%error, "health checks are no longer answered");
            }
        });
        Ok(())
    }

    fn parts<T>(&self, change: impl FnOnce(&mut Parts) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn report(&self) -> Report {
        self.parts(|parts| {
            let mut problems = Vec::new();
            match (&parts.context, &parts.queue) {
                (None, _) => problems.push("starting: the model is not loaded yet".to_owned()),
                (Some(_), None) => {
                    problems.push("starting: the broker was not reached yet".to_owned());
                }
                (Some(_), Some(queue)) => problems.extend(queue.problem()),
            }
            if parts.stopping {
                problems.push("stopping: it takes no further images".to_owned());
            }
            let mut counts = Default::default();
            if let Some(context) = &parts.context {
                problems.extend(context.outages());
                problems.extend(context.trouble.recent());
                counts = context.tally.counts();
            }
            Report {
                ready: problems.is_empty(),
                problems,
                predicted: counts.predicted,
                failed: counts.failed_in_all(),
                in_flight: counts.in_flight(),
            }
        })
    }
}

async fn ready(State(health): State<Health>) -> (StatusCode, Json<Report>) {
    let report = health.report();
    let status = if report.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(report))
}

async fn metrics(State(health): State<Health>) -> impl IntoResponse {
    let ready = health.report().ready;
    let context = health.parts(|parts| parts.context.clone());
    let text = Metrics::exposition(context.as_deref(), ready);
    ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], text)
}
