//! Camshaft's worker: takes jobs from a queue, predicts and explains their images, and
//! writes the results to a store.
//!
//! Start reading at [`pipeline`]. Everything about pixels and networks is in pure
//! functions beside it: [`decoding`], [`measures`], [`input`], [`cam`], [`colormap`],
//! [`overlay`], [`embedding`], and the [`model`]. The `camshaft-worker` program is [`service`] with a command line;
//! `camshaft audit` uses the same [`engine`] with a queue of its own, and `camshaft train`
//! [`training`].

pub mod arguments;
pub mod cam;
pub mod colormap;
mod cores;
pub mod decoding;
pub mod embedding;
pub mod engine;
pub mod health;
pub mod input;
pub mod measures;
pub mod metrics;
pub mod model;
pub mod overlay;
pub mod pipeline;
#[cfg(target_os = "linux")]
mod process_metrics;
pub mod service;
mod signals;
pub mod training;
pub mod trust;
mod waiting;
