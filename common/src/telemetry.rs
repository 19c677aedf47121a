//! Logging: `tracing` to standard error, for people or as JSON lines, and trace context.
//!
//! Standard output stays free for what was asked for.

use std::io::IsTerminal;

use clap::ValueEnum;
use tracing::{Level, Metadata};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

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

/// Starts logging for the whole program, to `writer`.
///
/// # Errors
/// Where the filter can't be read.
pub fn start<W>(format: LogFormat, filter: &str, writer: W) -> Result<(), TelemetryError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let filter = EnvFilter::try_new(filter)
        .map_err(|source| TelemetryError::Filter { filter: filter.to_owned(), source })?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    // A second start (tests in one process) keeps the first.
    let _already_started = match format {
        LogFormat::Human => {
            let builder = builder.with_target(false).with_ansi(std::io::stderr().is_terminal());
            builder.finish().with(filter_fn(shows_no_login)).try_init()
        }
        LogFormat::Json => {
            let builder = builder.json().flatten_event(true).with_span_list(false);
            builder.finish().with(filter_fn(shows_no_login)).try_init()
        }
    };
    Ok(())
}

/// Whatever the filter says: lapin traces every frame it sends, the password among them.
fn shows_no_login(event: &Metadata<'_>) -> bool {
    *event.level() != Level::TRACE || !event.target().starts_with("lapin")
}

/// A fresh W3C `traceparent`: version 00, random trace and span, sampled.
/// <https://www.w3.org/TR/trace-context/#traceparent-header>
#[must_use]
pub fn new_traceparent() -> String {
    // Zero is not a valid id.
    let trace = rand::random::<u128>().max(1);
    let span = rand::random::<u64>().max(1);
    format!("00-{trace:032x}-{span:016x}-01")
}

/// The trace id in a `traceparent`, if it has the standard's form.
#[must_use]
pub fn trace_id(traceparent: &str) -> Option<&str> {
    let mut parts = traceparent.split('-');
    let (_version, trace) = (parts.next()?, parts.next()?);
    (trace.len() == 32 && trace.bytes().all(|b| b.is_ascii_hexdigit())).then_some(trace)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traceparents_have_the_standards_form() {
        let traceparent = new_traceparent();
        assert_eq!(traceparent.len(), 55);
        assert_eq!(trace_id(&traceparent).unwrap().len(), 32);
        assert_ne!(traceparent, new_traceparent());
        assert_eq!(trace_id("junk"), None);
    }
}
