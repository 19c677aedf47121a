//! Traces: sends spans of [`TARGET`] to an OpenTelemetry collector, if the standard's variables
//! name one. Otherwise traces are off, and a span costs only the check of a flag.
//!
//! Owns the `OTEL_…` variables that turn traces on; the SDK reads most others. Recording a span
//! never blocks: a thread sends the queued spans, and spans that don't fit into the queue are
//! dropped. Downstream: [`exporter`](super::exporter).

use std::collections::HashMap;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::resource::{EnvResourceDetector, TelemetryResourceDetector};
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use percent_encoding::percent_decode_str;
use tracing::level_filters::LevelFilter;
use tracing::{Subscriber, debug};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::registry::LookupSpan;
use url::Url;

use super::exporter::QuietExporter;
use camshaft_common::tls;

/// The target of all spans of traces. Log lines don't show these spans, and only they are sent.
pub const TARGET: &str = "camshaft::traces";

/// How long sending the last spans may take. The SDK's retries end within this time if the
/// collector refuses connections.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(3);

/// A program's name and version in its spans.
#[derive(Clone, Copy, Debug)]
pub struct Service {
    /// `service.name`, unless the environment sets another one.
    pub name: &'static str,
    /// `service.version`.
    pub version: &'static str,
}

/// Sends spans until it is dropped. Then it sends the last ones, within seconds.
#[derive(Debug)]
pub(super) struct Traces {
    provider: SdkTracerProvider,
}

impl Traces {
    /// Starts traces if the environment asks for them.
    ///
    /// # Errors
    /// If the environment asks for something that is not supported. Traces are then off.
    pub(super) fn start(service: Service) -> Result<Option<Self>, String> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let Some(destination) = destination(variable)? else { return Ok(None) };
        let (url, credentials) = without_credentials(&destination)?;
        tls::install_crypto_provider();
        let otlp = SpanExporter::builder()
            .with_http()
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(url.as_str())
            .with_headers(credentials)
            .build();
        let otlp = otlp.map_err(|error| error.to_string())?;
        let provider = SdkTracerProvider::builder()
            .with_resource(resource(service, variable("OTEL_SERVICE_NAME")))
            .with_batch_exporter(QuietExporter::new(otlp, url))
            .build();
        Ok(Some(Self { provider }))
    }

    /// The layer that records spans of [`TARGET`]. The log filter does not affect it.
    pub(super) fn layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'s> LookupSpan<'s>,
    {
        let tracer: SdkTracer = self.provider.tracer("camshaft");
        tracing_opentelemetry::layer()
            .with_tracer(tracer)
            // The code that makes a span names its parent.
            .with_context_activation(false)
            // Lines of code and threads are of no use to somebody who looks for an image.
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_tracked_inactivity(false)
            .with_filter(Targets::new().with_target(TARGET, LevelFilter::INFO))
    }
}

impl Drop for Traces {
    fn drop(&mut self) {
        if let Err(error) = self.provider.shutdown_with_timeout(FLUSH_TIMEOUT) {
            debug!(%error, "the last spans may not have been sent");
        }
    }
}

/// The collector's URL; `None` if the environment does not ask for traces.
fn destination(variable: impl Fn(&str) -> Option<String>) -> Result<Option<String>, String> {
    if variable("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
        return Ok(None);
    }
    let own = variable("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT");
    let shared = variable("OTEL_EXPORTER_OTLP_ENDPOINT");
    match variable("OTEL_TRACES_EXPORTER").as_deref() {
        Some("otlp") => {}
        Some("none") => return Ok(None),
        None if own.is_some() || shared.is_some() => {}
        None => return Ok(None),
        Some(other) => {
            return Err(format!("OTEL_TRACES_EXPORTER={other} is not supported; use otlp or none"));
        }
    }
    let protocol = ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"];
    let protocol = protocol.into_iter().find_map(|name| Some((name, variable(name)?)));
    if let Some((name, value)) = protocol.filter(|(_, value)| value != "http/protobuf") {
        return Err(format!(
            "{name}={value} is not supported; use http/protobuf, most often at port 4318"
        ));
    }
    let below = |base: String| format!("{}/v1/traces", base.trim_end_matches('/'));
    Ok(Some(own.or(shared.map(below)).unwrap_or_else(|| below("http://localhost:4318".to_owned()))))
}

/// Moves user and password from a URL to a header: log lines of the HTTP client show URLs.
fn without_credentials(url: &str) -> Result<(Url, HashMap<String, String>), String> {
    // The error does not quote the URL: it may contain a password.
    let url = Url::parse(url).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
    let mut url = url.ok_or("the collector's address is not an http:// or https:// URL")?;
    let mut headers = HashMap::new();
    if !url.username().is_empty() || url.password().is_some() {
        let plain = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let (user, password) = (plain(url.username()), url.password().map(plain));
        let both = BASE64_STANDARD.encode(format!("{user}:{}", password.unwrap_or_default()));
        headers.insert("authorization".to_owned(), format!("Basic {both}"));
    }
    // These can't fail: an http:// URL always has a place for user and password.
    url.set_username("").unwrap_or_default();
    url.set_password(None).unwrap_or_default();
    Ok((url, headers))
}

/// Describes the sending program. The environment's values replace ours.
fn resource(service: Service, name: Option<String>) -> Resource {
    let resource = Resource::builder_empty()
        .with_service_name(service.name)
        .with_attribute(KeyValue::new("service.version", service.version))
        .with_detector(Box::new(TelemetryResourceDetector))
        .with_detector(Box::new(EnvResourceDetector::new()));
    match name {
        Some(name) => resource.with_service_name(name),
        None => resource,
    }
    .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(variables: &[(&str, &str)]) -> Result<Option<String>, String> {
        destination(|name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn nothing_is_sent_unless_the_environment_says_so() {
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318/");
        assert_eq!(asked(&[]), Ok(None));
        assert_eq!(asked(&[("OTEL_SERVICE_NAME", "x")]), Ok(None));
        assert_eq!(asked(&[endpoint, ("OTEL_SDK_DISABLED", "True")]), Ok(None));
        assert_eq!(asked(&[endpoint, ("OTEL_TRACES_EXPORTER", "none")]), Ok(None));
        assert_eq!(asked(&[endpoint]), Ok(Some("http://collector:4318/v1/traces".to_owned())));
        let own = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://traces/here");
        assert_eq!(asked(&[endpoint, own]), Ok(Some("http://traces/here".to_owned())));
        let here = asked(&[("OTEL_TRACES_EXPORTER", "otlp")]);
        assert_eq!(here, Ok(Some("http://localhost:4318/v1/traces".to_owned())));
    }

    #[test]
    fn a_password_leaves_the_url_and_stays_in_force() {
        let (url, headers) = without_credentials("https://me:a%40b@host/v1/traces").unwrap();
        assert_eq!(url.as_str(), "https://host/v1/traces");
        assert_eq!(headers["authorization"], "Basic bWU6YUBi");
        assert!(without_credentials("http://host/v1/traces").unwrap().1.is_empty());
        for wrong in ["hunter2", "ftp://me:hunter2@host"] {
            assert!(!without_credentials(wrong).unwrap_err().contains("hunter2"));
        }
    }

    #[test]
    fn what_is_not_supported_is_named() {
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4317");
        for (name, value) in [
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json"),
            ("OTEL_TRACES_EXPORTER", "zipkin"),
        ] {
            let error = asked(&[endpoint, (name, value)]).unwrap_err();
            assert!(error.starts_with(&format!("{name}={value} ")), "{error}");
        }
        // The signal's own variable goes before the shared one.
        let own = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/protobuf");
        assert!(asked(&[endpoint, own, ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]).is_ok());
    }
}
