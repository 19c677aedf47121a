//! Residual networks on the CPU, for inference: convolutions that keep activations in a
//! blocked layout from the first layer to the last, with bias, residual and ReLU in the same
//! pass. Plain slices go in and come out; tensors, files and classes are not known here.
//!
//! Start reading at [`Backbone`]; [`Kernel`] says which instructions it can use. Beside them
//! there is [`YcbcrBlend`], which draws overlays.

#![cfg_attr(
    not(target_arch = "x86_64"),
    allow(dead_code, unused_imports, reason = "other architectures have fewer kernels, or none")
)]

mod aligned;
mod arena;
mod backbone;
mod blend;
mod convolution;
mod detect;
mod forward;
mod layout;
mod narrow;
mod peak;
mod pixels;
mod profile;
mod stem;
mod team;
mod vector;
mod weights;
mod winograd;

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod avx512_bf16;
#[cfg(target_arch = "x86_64")]
mod bf16;

#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

pub use backbone::{
    Backbone, BlockWeights, NetworkWeights, Outputs, SMALLEST_SIDE, STAGES, StageOutput,
};
pub use blend::YcbcrBlend;
pub use detect::{Kernel, UnknownKernel};
pub use profile::StepTime;
pub use weights::{ConvolutionWeights, Unsupported};
