//! The `camshaft` program as a library: finds images and enqueues them, audits them by itself, and
//! tells how far a run has come. The command line is in [`cli`]; one module a command.

use camshaft_common::store::StoreOptions;

#[cfg(feature = "embedded")]
mod audit;
pub mod cli;
mod enqueue;
pub mod images;
mod redrive;
mod report;
mod request;
mod status;
pub mod terminal;
#[cfg(feature = "embedded")]
mod train;

use cli::Command;

/// Does what the command line asks for.
///
/// # Errors
/// If it cannot be done; the message says what to do about it. [`exit_status`] tells the kinds of
/// errors apart.
pub async fn run(command: Command) -> anyhow::Result<()> {
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
#[must_use]
pub fn exit_status(error: &anyhow::Error) -> u8 {
    use images::source::SourceError;
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
