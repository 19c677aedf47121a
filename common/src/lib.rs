//! What Camshaft's producer and worker must agree on.
//!
//! Owns the words both sides use: image keys, labels, jobs, run records, results and where they
//! lie in the store; the job queue; access to object stores; logging. Knows nothing of
//! models and pixels. Upstream: nothing. Downstream: `camshaft-producer`, `camshaft-worker`.
#![warn(missing_docs)]

pub mod backoff;
pub mod camera;
pub mod decoded_scale;
pub mod entity_tag;
pub mod explain;
mod finite;
pub mod image_files;
pub mod job;
pub mod key;
pub mod key_hash;
pub mod label;
pub mod layout;
pub mod location;
pub mod manifest;
pub mod measure;
pub mod model;
pub mod prediction;
pub mod printable;
pub mod results;
pub mod run;
pub mod secret;
pub mod shortcuts;
pub mod skipped;
pub mod split_names;
pub mod store;
pub mod tls;
pub mod transparency;
pub mod trust;
pub mod unusable_results;
