//! The trace of an image, as the headers of its message carry it:
//! <https://www.w3.org/TR/trace-context/>.
//!
//! Owns the texts of the two headers, and converts them from and to spans. Does not send spans.
//! Every image has a trace id, even if its trace is not recorded: log lines show it.

use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use opentelemetry::trace::TraceContextExt;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// The header with version, trace, span and flags.
pub const TRACEPARENT: &str = "traceparent";
/// The header with further data of tracing systems.
pub const TRACESTATE: &str = "tracestate";

/// A reference to a span of another program. Its form is not checked: messages may have any header.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TraceContext {
    traceparent: String,
    tracestate: Option<String>,
}

impl TraceContext {
    /// Takes the headers' texts.
    #[must_use]
    pub fn new(traceparent: String, tracestate: Option<String>) -> Self {
        Self { traceparent, tracestate }
    }

    /// A new trace that is not recorded. Its sampled flag is off, so that programs that get it
    /// don't record a part of a trace without its beginning.
    #[must_use]
    pub fn unrecorded() -> Self {
        // Zero is not a valid id.
        let trace = rand::random::<u128>().max(1);
        let span = rand::random::<u64>().max(1);
        Self::new(format!("00-{trace:032x}-{span:016x}-00"), None)
    }

    /// The context to send to programs that continue after `span`. If traces are off, it is
    /// [`unrecorded`](Self::unrecorded).
    #[must_use]
    pub fn of(span: &Span) -> Self {
        if span.is_disabled() {
            return Self::unrecorded();
        }
        let mut this = Self::default();
        TraceContextPropagator::new().inject_context(&span.context(), &mut this);
        if this.traceparent.is_empty() { Self::unrecorded() } else { this }
    }

    /// Makes `span` a child of the span that this refers to. Call it before `span` is used. Does
    /// nothing if this does not have the standard's form.
    pub fn adopt(&self, span: &Span) {
        if span.is_disabled() {
            return;
        }
        let parent = TraceContextPropagator::new().extract(self);
        if parent.span().span_context().is_valid() {
            // Fails if the span has a parent already; the span then keeps it.
            span.set_parent(parent).unwrap_or_default();
        }
    }

    /// The header `traceparent`.
    #[must_use]
    pub fn traceparent(&self) -> &str {
        &self.traceparent
    }

    /// The header `tracestate`, if there is one.
    #[must_use]
    pub fn tracestate(&self) -> Option<&str> {
        self.tracestate.as_deref()
    }

    /// The trace's id, if this has the standard's form.
    #[must_use]
    pub fn trace_id(&self) -> Option<&str> {
        let mut parts = self.traceparent.split('-');
        let (_version, trace) = (parts.next()?, parts.next()?);
        (trace.len() == 32 && trace.bytes().all(|b| b.is_ascii_hexdigit())).then_some(trace)
    }
}

impl Injector for TraceContext {
    fn set(&mut self, key: &str, value: String) {
        match key {
            TRACEPARENT => self.traceparent = value,
            // The propagator sets it always, even to nothing.
            TRACESTATE => self.tracestate = Some(value).filter(|state| !state.is_empty()),
            _ => {}
        }
    }
}

impl Extractor for TraceContext {
    fn get(&self, key: &str) -> Option<&str> {
        match key {
            TRACEPARENT => Some(&self.traceparent),
            TRACESTATE => self.tracestate(),
            _ => None,
        }
    }

    fn keys(&self) -> Vec<&str> {
        vec![TRACEPARENT, TRACESTATE]
    }
}

/// Links `span` to `other`: it results from `other`, but is not its child.
pub fn link(span: &Span, other: &Span) {
    if !span.is_disabled() && !other.is_disabled() {
        span.add_link(other.context().span().span_context().clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unrecorded_trace_has_an_id_and_says_that_nobody_keeps_it() {
        let trace = TraceContext::of(&Span::none());
        assert_eq!(trace.traceparent().len(), 55);
        assert!(trace.traceparent().ends_with("-00"), "{trace:?}");
        assert_eq!(trace.trace_id().unwrap().len(), 32);
        assert_ne!(trace, TraceContext::unrecorded());
        assert_eq!(TraceContext::new("junk".to_owned(), None).trace_id(), None);
    }
}
