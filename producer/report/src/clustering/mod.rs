//! Spectral clustering of vectors: [`spectral`] is what others call, over the eigenvectors of
//! [`laplacian`] and the partition of [`k_means`].
//!
//! Knows nothing of maps or images.

mod k_means;
mod laplacian;
pub(crate) mod spectral;
