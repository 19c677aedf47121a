//! Residual networks on the CPU, for inference. The crate computes everything but the head:
//! plain slices go in, as scaled values or bytes, and come out. It does not know tensors, files or
//! classes.
//!
//! Activations stay in one blocked layout from the first convolution to the last, and a
//! convolution adds bias and residual and applies the ReLU before it stores a pixel.
//!
//! Start reading at [`Backbone`]; [`Kernel`] lists the instruction sets. From the top down:
//!
//! - `backbone`: divides a batch among threads
//! - `forward`: the order of the convolutions; `buffers`: what they read and write
//! - `convolution`, `stem`, `pooling`: single steps of a pass
//! - `winograd`, above `dispatch`, which calls the kernels: `amx`, `avx512_bf16`, `avx512`,
//!   `avx2_neon`, and in 8 bits also `avx512_vnni` and `int8_lanes`
//! - `epilogue`: the end of each convolution, shared by all kernels; in 8 bits `requantise`
//! - `statistics` of a sample's activations, and `quantisation`, which makes scales of them
//! - `call`, `weights`, `layout`: what a kernel is told
//!
//! Words used throughout: a *plane* is 32 channels of activations, a *panel* the weights of 32
//! outputs, a *tap* one position of a filter, a *segment* the neighbouring pixels that a kernel
//! computes together.

#![cfg_attr(
    not(target_arch = "x86_64"),
    allow(dead_code, unused_imports, reason = "other architectures have fewer kernels, or none")
)]

mod aligned;
mod avx2_neon;
mod backbone;
mod bf16;
mod buffers;
mod call;
mod convolution;
mod dispatch;
mod epilogue;
mod forward;
mod input;
mod int8_lanes;
mod kernel;
mod layout;
mod network;
mod network_weights;
mod peak;
mod pooling;
mod profile;
mod quantisation;
mod requantise;
mod statistics;
mod stem;
mod team;
mod vector;
mod weights;
mod winograd;
mod winograd_transform;

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod avx512_bf16;
#[cfg(target_arch = "x86_64")]
mod avx512_vnni;
#[cfg(target_arch = "x86_64")]
mod cpu;

#[cfg(test)]
mod tests;

pub use backbone::{Backbone, BackboneOutputs, StageOutput};
pub use input::{BatchInput, BatchShape, PixelValues, SMALLEST_SIDE};
pub use kernel::{Kernel, UnknownKernel};
pub use network_weights::{BlockWeights, NetworkWeights, STAGES};
pub use network_weights::{ConvolutionWeights, UnsupportedNetwork};
pub use profile::StepTime;
pub use quantisation::InputScale;
pub use statistics::{ActivationStatistics, PointStatistics, RangeRule};
