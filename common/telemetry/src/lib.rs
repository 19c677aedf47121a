//! Logging: `tracing` to standard error, for people or as JSON lines; and traces, where the
//! environment asks for them.
//!
//! Standard output stays free for what was asked for. The two don't mix: log lines show no span of
//! a trace, and which spans a trace has does not depend on what is logged.

use std::io::IsTerminal;

use clap::ValueEnum;
use tracing::{Level, Metadata, Subscriber, warn};
use tracing_subscriber::filter::{FilterExt, filter_fn};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry};

mod exporter;
mod trace_context;
mod traces;

pub use trace_context::{TRACEPARENT, TRACESTATE, TraceContext, link};
pub use traces::{Service, TARGET as TRACES};

use traces::Traces;

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For a person.
    #[default]
    Human,
    /// One JSON object a line.
    Json,
}

/// Why logging can't start.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter can't be read.
    #[error("log filter {filter:?} is not valid ({source}); use a level, or target=level,…")]
    Filter {
        /// The filter.
        filter: String,
        /// Why.
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
}

/// Lasts as long as the program: what is dropped with it sends the last spans, within seconds.
#[must_use = "traces end when it is dropped"]
#[derive(Debug)]
pub struct Telemetry {
    _traces: Option<Traces>,
}

/// Starts logging for the whole program, to `writer`, and traces in the name of `service`.
///
/// # Errors
/// Where the filter can't be read.
pub fn start<W>(
    service: Service,
    format: LogFormat,
    filter: &str,
    writer: W,
) -> Result<Telemetry, TelemetryError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let filter = EnvFilter::try_new(filter)
        .map_err(|source| TelemetryError::Filter { filter: filter.to_owned(), source })?;
    let (traces, refused) = match Traces::start(service) {
        Ok(traces) => (traces, None),
        Err(reason) => (None, Some(reason)),
    };
    let layers = [Some(logs(format, filter, writer)), traces.as_ref().map(|on| on.layer().boxed())];
    let layers: Vec<_> = layers.into_iter().flatten().collect();
    // A second start (tests in one process) keeps the first.
    let _already_started = Registry::default().with(layers).try_init();
    // Nobody's images are to wait for that.
    if let Some(reason) = refused {
        warn!("traces are off: {reason}");
    }
    Ok(Telemetry { _traces: traces })
}

fn logs<W, S>(
    format: LogFormat,
    filter: EnvFilter,
    writer: W,
) -> Box<dyn Layer<S> + Send + Sync + 'static>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
    S: Subscriber + for<'s> LookupSpan<'s>,
{
    let filter = filter.and(filter_fn(shows_no_login)).and(filter_fn(is_a_log));
    let lines = tracing_subscriber::fmt::layer().with_writer(writer);
    match format {
        LogFormat::Human => {
            let lines = lines.with_target(false).with_ansi(std::io::stderr().is_terminal());
            lines.with_filter(filter).boxed()
        }
        LogFormat::Json => {
            let lines = lines.json().flatten_event(true).with_span_list(false);
            lines.with_filter(filter).boxed()
        }
    }
}

/// Neither a span of a trace nor what the libraries behind them say.
fn is_a_log(event: &Metadata<'_>) -> bool {
    event.target() != TRACES && exporter::speaks_for_itself(event)
}

/// Whatever the filter says: lapin traces every frame it sends, the password among them.
fn shows_no_login(event: &Metadata<'_>) -> bool {
    *event.level() != Level::TRACE || !event.target().starts_with("lapin")
}
