//! What the suites and benches share: real services that end with the test process, the built
//! programs as a user runs them, and images to run them on.

pub mod broker;
pub mod collector;
pub mod health;
pub mod hostile;
pub mod images;
pub mod jobs;
pub mod leash;
pub mod metrics;
pub mod planted;
pub mod programs;
pub mod relay;
pub mod repository;
pub mod results;
pub mod s3;
pub mod s3_relay;
pub mod small_run;
pub mod tls;
pub mod wait;
