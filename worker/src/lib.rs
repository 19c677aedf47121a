//! Camshaft's worker: takes jobs from a queue, predicts and explains their images, and
//! writes the results to a store.
//!
//! Start reading at [`pipeline`]. Everything about pixels and networks is in pure
//! functions beside it: [`decoding`], [`measures`], [`input`], [`cam`], [`colormap`],
//! [`overlay`], [`embedding`], and the [`model`]. The `camshaft-worker` program is [`service`] with a command line;
//! `camshaft audit` uses the same [`engine`] with a queue of its own, and `camshaft train`
//! [`training`].

pub mod arguments;
mod cores;
pub mod engine;
pub mod health;
pub mod metrics;
pub mod pipeline;
pub mod service;
mod signals;
mod waiting;
