//! A pass as a CUDA graph: all of its launches are one call, which takes the host a few
//! microseconds.
//!
//! Owns the capture, and that a pass which can't be captured runs without. When a pass is captured
//! is its [slot](crate::slots)'s to decide. Upstream: [`pass`](crate::pass).

use std::sync::Arc;

use cudarc::driver::sys::{CUgraphInstantiate_flags, CUstreamCaptureMode};
use cudarc::driver::{CudaGraph, CudaStream, DriverError};

use crate::error::CudaError;

/// The graph of a pass at certain addresses.
pub(crate) enum PassGraph {
    NotYet,
    Captured(CapturedPass),
    /// The capture failed, and would again.
    Impossible,
}

/// A captured pass.
pub(crate) struct CapturedPass(CudaGraph);

// SAFETY: the driver allows a graph on any thread, but on one at a time. A slot neither shares nor
// clones it.
unsafe impl Send for CapturedPass {}

impl PassGraph {
    /// Captures what `enqueue` enqueues on `stream`, instead of running it. The stream is as before
    /// afterwards, whatever happens.
    pub(crate) fn capture(
        stream: &Arc<CudaStream>,
        enqueue: impl Fn() -> Result<(), CudaError>,
    ) -> Self {
        let failed = |error: DriverError| CudaError::of_driver(error, "the capture of a pass");
        let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        let captured = stream.begin_capture(mode).map_err(failed).and_then(|()| {
            let enqueued = enqueue();
            // Also after an error: it ends the capture, and drops what was captured.
            let graph = stream.end_capture(CUgraphInstantiate_flags(0)).map_err(failed);
            enqueued.and(graph)
        });
        match captured {
            Ok(Some(graph)) => Self::Captured(CapturedPass(graph)),
            Ok(None) => {
                tracing::debug!("the capture of a pass is empty; it runs without a graph");
                Self::Impossible
            }
            Err(error) => {
                tracing::debug!(%error, "a pass runs without a graph");
                Self::Impossible
            }
        }
    }

    /// Enqueues the graph on the stream that it was captured on. False if there is none.
    ///
    /// # Errors
    /// If the device fails.
    pub(crate) fn launch(&self) -> Result<bool, CudaError> {
        let Self::Captured(CapturedPass(graph)) = self else { return Ok(false) };
        graph.launch().map_err(|error| CudaError::of_driver(error, "a pass"))?;
        Ok(true)
    }
}
