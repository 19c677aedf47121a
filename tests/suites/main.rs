//! All suites: they run the built programs against a real broker and real stores, and compare the
//! libraries with reference numbers. They are one binary, so that they share the services.
#![expect(clippy::unwrap_used, reason = "a test that can't go on has to fail")]

mod access;
mod accuracy;
mod audit;
mod audit_ends;
mod checkpoints;
mod cleaning;
mod command_line;
mod decisions;
mod distributed;
mod exchange;
mod faults;
mod generations;
mod golden;
mod hostile;
mod int8;
mod labels;
mod large_photos;
mod lists;
mod messy_folders;
mod monitoring;
mod pictures;
mod queue;
mod report;
mod runs;
mod scale;
mod security;
mod serve;
mod shortcuts;
mod store;
mod tls;
mod tracing;
mod training;
mod trust;
