//! The trace an image belongs to, as it travels in its message's headers.
//! <https://www.w3.org/TR/trace-context/>
//!
//! Owns the two headers' texts and their way into a span and out of one. Every image has an
//! id, whether or not anybody records its trace: log lines carry it.

use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use opentelemetry::trace::TraceContextExt;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// The header with version, trace, span and flags.
pub const TRACEPARENT: &str = "traceparent";
/// The header with what else tracing systems want to know.
pub const TRACESTATE: &str = "tracestate";

/// A span as another program can refer to it. Not checked: it may come from a stranger.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TraceContext {
    traceparent: String,
    tracestate: Option<String>,
}

impl TraceContext {
    /// From the headers' texts.
    #[must_use]
    pub fn new(traceparent: String, tracestate: Option<String>) -> Self {
        Self { traceparent, tracestate }
    }

    /// A trace of its own that nobody records, so its sampled flag is off: who follows it would
    /// look for a beginning that was never kept.
    #[must_use]
    pub fn unrecorded() -> Self {
        // Zero is not a valid id.
        let trace = rand::random::<u128>().max(1);
        let span = rand::random::<u64>().max(1);
        Self::new(format!("00-{trace:032x}-{span:016x}-00"), None)
    }

    /// What follows `span` is to be handed. Where traces are off: [`unrecorded`](Self::unrecorded).
    #[must_use]
    pub fn of(span: &Span) -> Self {
        if span.is_disabled() {
            return Self::unrecorded();
        }
        let mut this = Self::default();
        TraceContextPropagator::new().inject_context(&span.context(), &mut this);
        if this.traceparent.is_empty() { Self::unrecorded() } else { this }
    }

    /// Makes `span`, which nothing has looked at yet, a child of the one this stands for. Leaves it
    /// alone where this is not of the standard's form.
    pub fn adopt(&self, span: &Span) {
        if span.is_disabled() {
            return;
        }
        let parent = TraceContextPropagator::new().extract(self);
        if parent.span().span_context().is_valid() {
            // It fails where the span has a parent already, which it then keeps.
            span.set_parent(parent).unwrap_or_default();
        }
    }

    /// The header `traceparent`.
    #[must_use]
    pub fn traceparent(&self) -> &str {
        &self.traceparent
    }

    /// The header `tracestate`, where there is one.
    #[must_use]
    pub fn tracestate(&self) -> Option<&str> {
        self.tracestate.as_deref()
    }

    /// The trace's id, where this has the standard's form.
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
            // The propagator sets it always.
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

/// Names `other` on `span` as one that it comes from without being its child.
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
