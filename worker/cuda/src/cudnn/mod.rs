//! Convolutions by cuDNN's graph API: what a convolution is, which of cuDNN's engines computes it
//! fastest on this device, and running it.
//!
//! Knows addresses on the device, but owns no memory there, and knows no network. From the bottom
//! up:
//!
//! - `library`: whether cuDNN is there, its handle, and its errors
//! - `descriptor`: cuDNN's descriptors as values that are owned and freed
//! - `convolution_graph`: a convolution, with or without what follows it, as a graph of operations
//! - `plan`: the engines for a graph, and a plan that runs one of them
//! - `plan_cache`: which engines were fastest, kept on disk
//! - `search`: tries engines for a convolution, and times them
//! - `planner`: keeps the plans that were chosen
//!
//! Upstream: the driver's streams. Downstream: the forward and the backward pass.

mod convolution_graph;
mod descriptor;
mod library;
mod plan;
mod plan_cache;
mod planner;
mod search;

pub(crate) use convolution_graph::{ConvolutionKind, ConvolutionProblem, ConvolutionShape};
pub(crate) use library::Cudnn;
pub(crate) use plan::{BoundConvolution, ConvolutionOperands, ConvolutionPlan};
pub(crate) use plan_cache::DeviceIdentity;
pub(crate) use planner::Planner;
