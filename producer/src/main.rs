//! `camshaft`: finds images and enqueues them, audits them by itself, and tells how far a
//! run has come. The command line is in [`cli`]; one module a command.

use std::process::ExitCode;

use camshaft_common::store::StoreOptions;
use camshaft_common::telemetry::{self, Service};
use clap::Parser;

#[cfg(feature = "embedded")]
mod audit;
mod cli;
mod enqueue;
#[cfg(feature = "embedded")]
mod learning_curve;
mod list_file;
mod outlet;
mod output;
mod plan;
mod progress;
mod reconciliation;
mod redrive;
mod report;
mod request;
mod resumption;
mod selection;
mod source;
mod status;
mod traces;
#[cfg(feature = "embedded")]
mod train;
#[cfg(feature = "embedded")]
mod train_arguments;
#[cfg(feature = "embedded")]
mod train_files;
#[cfg(feature = "embedded")]
mod trust;

use cli::{Cli, Command};

/// A person reads results from the summary; only trouble is logged. lapin logs what it also
/// returns, and we tell.
const DEFAULT_LOG: &str = "warn,lapin=off";

const SERVICE: Service = Service { name: "camshaft", version: env!("CARGO_PKG_VERSION") };

fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = cli.log.log.as_deref().unwrap_or(DEFAULT_LOG);
    let format = cli.log.log_format;
    let _telemetry = match telemetry::start(SERVICE, format, filter, progress::LogWriter) {
        Ok(telemetry) => telemetry,
        Err(error) => return complain(&error.to_string(), 2),
    };
    let runtime = match camshaft_common::runtime::start() {
        Ok(runtime) => runtime,
        Err(error) => return complain(&format!("cannot start threads: {error}"), 1),
    };
    match runtime.block_on(run(cli.command)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(&error.to_string(), status(&error)),
    }
}

async fn run(command: Command) -> anyhow::Result<()> {
    // The stores' own variables are the one part of the environment clap doesn't read.
    let stores = StoreOptions::from_environment()?;
    match command {
        #[cfg(feature = "embedded")]
        Command::Audit(args) => audit::audit(*args, stores).await,
        #[cfg(feature = "embedded")]
        Command::Train(args) => train::train(*args, stores).await,
        Command::Enqueue(args) => enqueue::enqueue(*args, stores).await,
        Command::Report(args) => report::report(args, stores).await,
        Command::Status(args) => status::status(args, stores).await,
        Command::Redrive(args) => redrive::redrive(args).await,
    }
}

/// The exit status that tells what kind of error it was.
fn status(error: &anyhow::Error) -> u8 {
    use source::SourceError;
    #[cfg(feature = "embedded")]
    if let Some(audit::AuditError::TooManyFailures { .. }) = error.downcast_ref() {
        return 3;
    }
    #[cfg(feature = "embedded")]
    if let Some(train::TrainError::ArchitectureOfModel) = error.downcast_ref() {
        return 2;
    }
    if error.is::<report::GateClosed>() {
        return 4;
    }
    match error.downcast_ref() {
        // Arguments that are each right but don't go together.
        Some(
            SourceError::BaseMissing | SourceError::BaseWithoutList(_) | SourceError::OutIsSource,
        ) => 2,
        _ => 1,
    }
}

#[expect(clippy::print_stderr, reason = "the one place that tells the caller why it ended")]
fn complain(message: &str, status: u8) -> ExitCode {
    eprintln!("camshaft: {message}");
    ExitCode::from(status)
}
