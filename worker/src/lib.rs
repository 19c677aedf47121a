//! Camshaft's worker: takes jobs from a queue, predicts and explains their images, and writes
//! the results to a store.
//!
//! Start reading at [`pipeline`]. The [`engine`] assembles it from a [`config`]. The
//! `camshaft-worker` program is [`service`] with a command line; `camshaft audit` uses the same
//! engine with a queue in its own process. Pixels and networks are in the crates below this one:
//! `camshaft-decoding`, `camshaft-vision` and `camshaft-model`.

pub mod advice;
pub mod arguments;
pub mod config;
mod cores;
mod cpu_metrics;
pub mod engine;
pub mod health;
pub mod metrics;
pub mod monitor;
mod pauses;
pub mod pipeline;
#[cfg(target_os = "linux")]
mod process_metrics;
pub mod service;
pub mod signals;
pub mod snapshot;
mod thread_times;
mod waiting;
