//! Networks: what they are built of, and each family of them.
//!
//! Owns layers and forward passes, gradients included. Weights come from
//! [`checkpoint`](crate::checkpoint); what the classes are called, and how maps are made, is not
//! known here. A family of networks has a folder of its own: so far [`resnet`].

mod bias_residual_relu;
pub mod convolution;
mod convolution_shape;
#[cfg(feature = "cuda")]
mod cuda_engine;
pub mod head;
pub(crate) mod inference;
mod kernel_engine;
pub(crate) mod layer_point;
pub mod patches;
pub mod pooling;
pub mod resnet;
mod unfolded_convolution;

pub use convolution_shape::{ConvShape, NamedConvolution};
