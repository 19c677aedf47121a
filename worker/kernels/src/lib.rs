//! Residual networks on the CPU, for inference: convolutions that keep activations in a
//! blocked layout from the first layer to the last, with bias, residual and ReLU in the same
//! pass. Plain slices go in and come out; tensors, files and classes are not known here.
//!
//! Start reading at [`Backbone`]; [`Kernel`] says which instructions it can use.

#![cfg_attr(
    not(target_arch = "x86_64"),
    allow(dead_code, unused_imports, reason = "no kernel for other architectures yet")
)]

mod aligned;
mod backbone;
mod detect;
mod layout;
mod profile;
mod team;
mod weights;

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod arena;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod avx512_bf16;
#[cfg(target_arch = "x86_64")]
mod bf16;
#[cfg(target_arch = "x86_64")]
mod convolution;
#[cfg(target_arch = "x86_64")]
mod forward;
#[cfg(target_arch = "x86_64")]
mod peak;
#[cfg(target_arch = "x86_64")]
mod pixels;
#[cfg(target_arch = "x86_64")]
mod stem;
#[cfg(target_arch = "x86_64")]
mod winograd;

#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

pub use backbone::{
    Backbone, BlockWeights, NetworkWeights, Outputs, SMALLEST_SIDE, STAGES, StageOutput,
};
pub use detect::{Kernel, UnknownKernel};
pub use profile::StepTime;
pub use weights::{ConvolutionWeights, Unsupported};
