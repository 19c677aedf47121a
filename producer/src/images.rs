//! The images of a run: which ones SOURCE names, and which of them have a result in OUT.
//!
//! Upstream: a folder, a bucket or a list of keys. Downstream: [`enqueue`](crate::enqueue), which
//! makes a job of each image, and [`status`](crate::status).

pub(crate) mod existing_results;
pub(crate) mod found_image;
pub(crate) mod list_columns;
pub(crate) mod list_fields;
pub(crate) mod list_file;
pub(crate) mod list_format;
mod list_key;
pub mod list_lines;
mod list_repetitions;
mod listed_objects;
pub(crate) mod previous_image;
pub(crate) mod run_folders;
pub(crate) mod selection;
pub(crate) mod skipped_log;
pub(crate) mod source;
pub(crate) mod source_config;
pub(crate) mod source_error;
