//! Tells over HTTP whether a worker can work, and what it does.
//!
//! `GET /livez` (or `/healthz`) answers as long as the process runs. `GET /readyz` answers 200 if
//! the worker can work; else 503, with the reasons in JSON. `GET /metrics` is for Prometheus.
//!
//! Owns what counts as ready. Problems are found by the queue and the engine, and metrics are
//! written by [`crate::metrics`]. Nothing secret is shown: errors have no secrets.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use camshaft_queue::RabbitMqQueue;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::net::TcpListener;

use crate::metrics;
use crate::monitor::EngineMonitor;
use crate::pipeline::outcome_counters::OutcomeCounts;

/// Nothing can listen on the address.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} for health checks: {source}; choose another --health")]
pub struct HealthError {
    address: SocketAddr,
    source: std::io::Error,
}

/// How long a worker that runs may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

/// No worker says that it is alive.
#[derive(Debug, thiserror::Error)]
#[error("no worker answers at {address}: {reason}; is it running, and with this --health?")]
pub struct NotAliveError {
    address: SocketAddr,
    reason: String,
}

/// Asks the worker at an address whether it is alive. For the health check of a container, which
/// has no other HTTP client.
///
/// # Errors
/// If the worker does not answer that it is.
pub fn check(address: SocketAddr) -> Result<(), NotAliveError> {
    let mut reached = address;
    if address.ip().is_unspecified() {
        let here =
            if address.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
        reached.set_ip(here);
    }
    let answer = || {
        let mut worker = TcpStream::connect_timeout(&reached, ANSWER_TIMEOUT)?;
        worker.set_read_timeout(Some(ANSWER_TIMEOUT))?;
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
    Err(NotAliveError { address, reason })
}

/// What is known about a worker's health. It learns more as the worker starts.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    engine: Option<EngineMonitor>,
    queue: Option<RabbitMqQueue>,
    stopping: bool,
}

/// The answer to `GET /readyz`.
#[derive(Debug, Serialize)]
struct Readiness {
    ready: bool,
    /// Why the worker can't work, in words.
    problems: Vec<String>,
    predicted: u64,
    failed: u64,
    in_flight: u64,
}

impl Health {
    /// Notes that the engine is ready.
    pub fn set_engine(&self, engine: EngineMonitor) {
        self.0.lock().engine = Some(engine);
    }

    /// Notes that the broker was reached.
    pub fn set_queue(&self, queue: RabbitMqQueue) {
        self.0.lock().queue = Some(queue);
    }

    /// Notes that the worker takes no further images.
    pub fn set_stopping(&self) {
        self.0.lock().stopping = true;
    }

    /// Starts to answer at `address`, for as long as the process runs.
    ///
    /// # Errors
    /// If nothing can listen on the address.
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

    fn readiness(&self) -> Readiness {
        let known = self.0.lock();
        let mut problems = Vec::new();
        match (&known.engine, &known.queue) {
            (None, _) => problems.push("starting: the model is not loaded yet".to_owned()),
            (Some(_), None) => {
                problems.push("starting: the broker was not reached yet".to_owned());
            }
            (Some(_), Some(queue)) => problems.extend(queue.problem()),
        }
        if known.stopping {
            problems.push("stopping: it takes no further images".to_owned());
        }
        let mut counts = OutcomeCounts::default();
        if let Some(engine) = &known.engine {
            let snapshot = engine.snapshot();
            problems.extend(snapshot.outages);
            problems.extend(snapshot.lasting_error);
            counts = snapshot.counts;
        }
        Readiness {
            ready: problems.is_empty(),
            problems,
            predicted: counts.predicted,
            failed: counts.failed_in_all(),
            in_flight: counts.in_flight(),
        }
    }
}

async fn ready(State(health): State<Health>) -> (StatusCode, Json<Readiness>) {
    let readiness = health.readiness();
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(readiness))
}

async fn metrics(State(health): State<Health>) -> impl IntoResponse {
    let ready = health.readiness().ready;
    let engine = health.0.lock().engine.clone();
    let snapshot = engine.as_ref().map(|engine| (engine.metrics(), engine.snapshot()));
    let shown = snapshot.as_ref().map(|(metrics, snapshot)| (*metrics, snapshot));
    let text = metrics::exposition(shown, ready);
    ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], text)
}
