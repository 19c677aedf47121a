//! Sends spans to the collector, and logs failures sparingly: one line when spans begin to be lost,
//! and one when they get through again. The number of lost batches does not matter.
//!
//! Does not record spans. Upstream: [`traces`](super::traces).

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SpanData, SpanExporter};
use tracing::{Metadata, warn};
use url::Url;

/// Wraps the SDK's exporter, which would log an error for every failed batch.
#[derive(Debug)]
pub(super) struct QuietExporter {
    otlp: opentelemetry_otlp::SpanExporter,
    /// The collector's URL, without secrets.
    destination: Url,
    /// Spans lost since a batch last got through.
    lost: AtomicU64,
}

impl QuietExporter {
    pub(super) fn new(otlp: opentelemetry_otlp::SpanExporter, mut destination: Url) -> Self {
        // Some collectors take a key in the query.
        destination.set_query(None);
        Self { otlp, destination, lost: AtomicU64::new(0) }
    }
}

impl SpanExporter for QuietExporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len() as u64;
        let sent = self.otlp.export(batch).await;
        match &sent {
            Ok(()) => {
                let lost = self.lost.swap(0, Relaxed);
                if lost > 0 {
                    warn!(destination = %self.destination, lost, "spans get through again");
                }
            }
            Err(error) => {
                if self.lost.fetch_add(spans, Relaxed) == 0 {
                    warn!(
                        destination = %self.destination,
                        %error,
                        "spans don't get through and are dropped; is a collector there that takes \
                         OTLP over HTTP?"
                    );
                }
            }
        }
        sent
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        let lost = self.lost.load(Relaxed);
        if lost > 0 {
            warn!(destination = %self.destination, lost, "spans were lost");
        }
        self.otlp.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.otlp.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.otlp.set_resource(resource);
    }
}

/// True if a log line is to be shown. Of the OpenTelemetry libraries' lines, only those about
/// dropped spans are: spans were recorded faster than they could be sent. [`QuietExporter`] logs
/// failed batches.
pub(super) fn is_shown(event: &Metadata<'_>) -> bool {
    const SHOWN: [&str; 2] =
        ["BatchSpanProcessor.SpanDroppingStarted", "BatchSpanProcessor.SpansDropped"];
    !event.target().starts_with("opentelemetry") || SHOWN.contains(&event.name())
}
