//! `camshaft`: finds images and enqueues them, audits them by itself, and tells how far a
//! run has come. The command line is in [`cli`]; one module a command.

use std::process::ExitCode;

use camshaft_common::store::StoreOptions;
use camshaft_common::telemetry;
use clap::Parser;

#[cfg(feature = "embedded")]
mod audit;
mod cli;
mod enqueue;
mod list_file;
mod output;
mod plan;
mod progress;
mod redrive;
mod request;
mod selection;
mod source;
mod status;

use cli::{Cli, Command};

/// A person reads results from the summary; only trouble is logged. lapin logs what it also
/// returns, and we tell.
const DEFAULT_LOG: &str = "warn,lapin=off";

/// How a command that did not fail ended.
#[derive(Debug, PartialEq)]
pub(crate) enum Ended {
    /// All is well.
    Done,
    /// Done, but more images failed than allowed.
    TooManyFailures {
        /// Images that failed.
        failed: u64,
        /// Images in all.
        found: u64,
        /// The share allowed.
        max_failure_rate: f64,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = cli.log.log.as_deref().unwrap_or(DEFAULT_LOG);
    if let Err(error) = telemetry::start(cli.log.log_format, filter, progress::LogWriter) {
        return complain(&error.to_string(), 2);
    }
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return complain(&format!("cannot start threads: {error}"), 1),
    };
    match runtime.block_on(run(cli.command)) {
        Ok(Ended::Done) => ExitCode::SUCCESS,
        Ok(Ended::TooManyFailures { failed, found, max_failure_rate }) => complain(
            &format!(
                "{failed} of {found} images failed, more than --max-failure-rate {max_failure_rate} allows; \
                 the reasons are in OUT/failures"
            ),
            3,
        ),
        Err(error) => {
            let status = if is_wrong_usage(&error) { 2 } else { 1 };
            complain(&error.to_string(), status)
        }
    }
}

async fn run(command: Command) -> anyhow::Result<Ended> {
    // The stores' own variables are the one part of the environment clap doesn't read.
    let stores = StoreOptions::from_environment();
    match command {
        #[cfg(feature = "embedded")]
        Command::Audit(args) => return audit::audit(*args, stores).await,
        Command::Enqueue(args) => enqueue::enqueue(*args, stores).await?,
        Command::Status(args) => status::status(args, stores).await?,
        Command::Redrive(args) => redrive::redrive(args).await?,
    }
    Ok(Ended::Done)
}

/// Arguments that are each right but don't go together.
fn is_wrong_usage(error: &anyhow::Error) -> bool {
    use source::SourceError;
    matches!(
        error.downcast_ref(),
        Some(SourceError::BaseMissing | SourceError::BaseWithoutList(_) | SourceError::OutIsSource)
    )
}

#[expect(clippy::print_stderr, reason = "the one place that tells the caller why it ended")]
fn complain(message: &str, status: u8) -> ExitCode {
    eprintln!("camshaft: {message}");
    ExitCode::from(status)
}
