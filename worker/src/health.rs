//! Tells over HTTP whether a worker can work, and what it does.
//!
//! `GET /livez` (or `/healthz`) answers as long as the process runs. `GET /readyz` answers 200 if
//! the worker can work; else 503, with the reasons in JSON. `GET /metrics` is for Prometheus.
//!
//! Owns what counts as ready. Problems are found by the queue and the engine, and metrics are
//! written by [`crate::metrics`]. Nothing secret is shown: errors have no secrets.

use std::convert::Infallible;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use camshaft_common::store::JSON;
use camshaft_queue::RabbitMqQueue;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
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

/// How long a client may take to send a request and read the answer. After that its connection is
/// closed.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// The wait after a connection could not be accepted, for instance because no file is left to open.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

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
    /// Why it takes no jobs for now.
    paused: Option<String>,
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

    /// Notes why the worker takes no jobs for now; `None` if it does.
    pub fn set_paused(&self, reason: Option<String>) {
        self.0.lock().paused = reason;
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
        let health = self.clone();
        tokio::spawn(async move { health.accept(listener).await });
        Ok(())
    }

    async fn accept(self, listener: TcpListener) {
        let mut server = http1::Builder::new();
        // Probes and Prometheus ask once in some seconds: no connection is kept for the next.
        server.timer(TokioTimer::new()).header_read_timeout(REQUEST_TIMEOUT).keep_alive(false);
        loop {
            let connection = match listener.accept().await {
                Ok((connection, _address)) => TokioIo::new(connection),
                Err(error) => {
                    tracing::warn!(%error, "a health check could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let health = self.clone();
            let answer = service_fn(move |request| {
                let answer = health.answer(&request);
                async move { Ok::<_, Infallible>(answer) }
            });
            let serving = server.serve_connection(connection, answer);
            tokio::spawn(async move {
                match tokio::time::timeout(REQUEST_TIMEOUT, serving).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => tracing::debug!(%error, "a health check's connection broke"),
                    Err(_elapsed) => {
                        tracing::debug!("a health check's client sends or reads nothing")
                    }
                }
            });
        }
    }

    fn answer<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return response(StatusCode::METHOD_NOT_ALLOWED, PLAIN_TEXT, "");
        }
        match request.uri().path() {
            "/livez" | "/healthz" => response(StatusCode::OK, PLAIN_TEXT, "ok"),
            "/readyz" => {
                let readiness = self.readiness();
                let status =
                    if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
                let json = serde_json::to_string(&readiness);
                response(status, JSON, json.expect("readiness has only texts and numbers"))
            }
            "/metrics" => response(StatusCode::OK, metrics::CONTENT_TYPE, self.metrics()),
            _ => response(StatusCode::NOT_FOUND, PLAIN_TEXT, ""),
        }
    }

    fn metrics(&self) -> String {
        let ready = self.readiness().ready;
        let engine = self.0.lock().engine.clone();
        let snapshot = engine.as_ref().map(|engine| (engine.metrics(), engine.snapshot()));
        let shown = snapshot.as_ref().map(|(metrics, snapshot)| (*metrics, snapshot));
        metrics::exposition(shown, ready)
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
        problems.extend(known.paused.clone());
        if known.stopping {
            problems.push("stopping: it takes no further images".to_owned());
        }
        let mut counts = OutcomeCounts::default();
        if let Some(engine) = &known.engine {
            let snapshot = engine.snapshot();
            problems.extend(snapshot.outages);
            // Lost decoders are a lasting error, too, when one more is lost.
            let lost = snapshot.lost_decoders;
            problems.extend(snapshot.lasting_error.filter(|error| lost.as_ref() != Some(error)));
            problems.extend(lost);
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

const PLAIN_TEXT: &str = "text/plain; charset=utf-8";

fn response(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
