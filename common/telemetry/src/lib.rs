//! Logs to standard error, for people or as JSON lines, and sends traces if the environment asks
//! for them.
//!
//! Standard output is for a program's results. Logs and traces are independent: log lines show no
//! spans, and the log filter does not affect traces. Does not define metrics. Upstream: both
//! programs' `main`. Downstream: standard error, an OpenTelemetry collector.

use std::io::IsTerminal;

use clap::ValueEnum;
use tracing::{Level, Metadata, Subscriber, warn};
use tracing_subscriber::filter::{FilterExt, LevelFilter, filter_fn};
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

/// Logging can't start.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter can't be read.
    #[error("log filter {filter:?} is not valid ({source}); use a level, or target=level,…")]
    Filter {
        /// The filter.
        filter: String,
        /// The cause.
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    /// The filter has a word that is no level.
    #[error(
        "log filter {filter:?} is not valid: {word:?} is no level; use error, warn, info, debug, \
         trace or off, or target=level,…"
    )]
    Level {
        /// The filter.
        filter: String,
        /// The word.
        word: String,
    },
}

/// Keep it as long as the program runs. When it is dropped, the last spans are sent, within
/// seconds.
#[must_use = "traces end when it is dropped"]
#[derive(Debug)]
pub struct Telemetry {
    _traces: Option<Traces>,
}

/// Starts logging for the whole program, to `writer`, and traces in the name of `service`.
///
/// # Errors
/// If the filter can't be read.
pub fn start<W>(
    service: Service,
    format: LogFormat,
    filter: &str,
    writer: W,
) -> Result<Telemetry, TelemetryError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let filter = parse_filter(filter)?;
    let (traces, refused) = match Traces::start(service) {
        Ok(traces) => (traces, None),
        Err(reason) => (None, Some(reason)),
    };
    let layers =
        [Some(log_layer(format, filter, writer)), traces.as_ref().map(|on| on.layer().boxed())];
    let layers: Vec<_> = layers.into_iter().flatten().collect();
    // A second start, as by tests in one process, keeps the first subscriber.
    let _already_started = Registry::default().with(layers).try_init();
    // Not an error: images are processed without traces.
    if let Some(reason) = refused {
        warn!("traces are off: {reason}");
    }
    Ok(Telemetry { _traces: traces })
}

/// Reads a filter. A word alone must be a level: the library would take `loud` for the name of a
/// target whose every event is logged, so that a mistyped level logs nothing else.
fn parse_filter(text: &str) -> Result<EnvFilter, TelemetryError> {
    // The fields of a span may have commas: the library reads those.
    if !text.contains('[') {
        for directive in text.split(',').map(str::trim) {
            let level = directive.rsplit_once('=').map_or(directive, |(_target, level)| level);
            let is_missing = level.is_empty() && !directive.is_empty();
            if is_missing || level.parse::<LevelFilter>().is_err() {
                let (filter, word) = (text.to_owned(), directive.to_owned());
                return Err(TelemetryError::Level { filter, word });
            }
        }
    }
    EnvFilter::try_new(text)
        .map_err(|source| TelemetryError::Filter { filter: text.to_owned(), source })
}

/// The layer that writes log lines.
fn log_layer<W, S>(
    format: LogFormat,
    filter: EnvFilter,
    writer: W,
) -> Box<dyn Layer<S> + Send + Sync + 'static>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
    S: Subscriber + for<'s> LookupSpan<'s>,
{
    let filter = filter.and(filter_fn(has_no_password)).and(filter_fn(is_log));
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

/// True if an event is a log line: not a span of a trace, nor a message of the tracing libraries.
fn is_log(event: &Metadata<'_>) -> bool {
    event.target() != TRACES && exporter::is_shown(event)
}

/// False for lapin's trace events, with any filter: lapin traces every frame that it sends, and one
/// contains the password.
fn has_no_password(event: &Metadata<'_>) -> bool {
    *event.level() != Level::TRACE || !event.target().starts_with("lapin")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_level_is_refused() {
        for filter in ["loud", "warn,loud", "camshaft=loud", "verbose", "lapin=", "warning", "-1"] {
            let error = parse_filter(filter).unwrap_err().to_string();
            assert!(error.contains("use error, warn, info"), "{error}");
        }
        for filter in ["", "warn", "INFO", "off", "warn,lapin=off", "info,object_store=debug", "2"]
        {
            parse_filter(filter).unwrap();
        }
        parse_filter("warn,camshaft[job{key=a}]=debug").unwrap();
    }
}
