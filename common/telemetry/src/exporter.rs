//! Sends spans to the collector and speaks of it with measure: a line when they stop getting
//! through and one when they do again, however many batches are lost in between.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SpanData, SpanExporter};
use tracing::{Metadata, warn};
use url::Url;

/// The SDK's exporter, whose every failed batch would be an error in the log.
#[derive(Debug)]
pub(super) struct Exporter {
    otlp: opentelemetry_otlp::SpanExporter,
    /// Where it sends, as it may be shown.
    destination: Url,
    /// Spans lost since the last that got through.
    lost: AtomicU64,
}

impl Exporter {
    pub(super) fn new(otlp: opentelemetry_otlp::SpanExporter, mut destination: Url) -> Self {
        // A key, with some.
        destination.set_query(None);
        Self { otlp, destination, lost: AtomicU64::new(0) }
    }
}

impl SpanExporter for Exporter {
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

/// Whether a log line of the OpenTelemetry libraries says what nobody else does: that spans came
/// faster than they could be sent. Failed batches are told here.
pub(super) fn speaks_for_itself(event: &Metadata<'_>) -> bool {
    const TOLD: [&str; 2] =
        ["BatchSpanProcessor.SpanDroppingStarted", "BatchSpanProcessor.SpansDropped"];
    !event.target().starts_with("opentelemetry") || TOLD.contains(&event.name())
}
