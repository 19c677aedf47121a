//! Class activation maps: pure functions from activations and gradients to heat maps, and the
//! numbers that describe a map. One file per method, each with its paper.
//!
//! Knows no network: functions are handed activations, gradients, and closures that run a network
//! or the rest of one. Knows no images and no files. Upstream: `explain`.
//! Downstream: overlays and results.
//!
//! Methods that weight by gradients start from [`Gradients`]. If a global average and a linear
//! layer follow the target layer, `grad-cam`, `hires-cam` and `xgrad-cam` give the same map but
//! for its scale.

pub mod ablation_cam;
pub mod eigen_cam;
pub mod eigen_grad_cam;
pub mod grad_cam;
pub mod grad_cam_plus_plus;
mod gradients;
pub mod hires_cam;
pub mod layer_cam;
pub mod score_cam;
pub mod statistics;
mod target;
mod weighted_maps;
pub mod xgrad_cam;

pub use gradients::Gradients;
pub use statistics::MapStatistics;
pub use target::CamTarget;
pub(crate) use target::{class_indices, image_indices};
