//! The `camshaft` program as a library: finds images and enqueues them, audits them in one process,
//! trains models, builds reports, exports images to other programs, decides about findings and applies
//! decisions, and tells how far a run has come.
//!
//! `cli` is the command line. Each command is a file of its own, with a folder of that name for
//! its parts; `images`, `run_images`, `broker` and `terminal` are what commands share. Only `run`, [`Cli`]
//! and [`CommandError`] are for the program; `list_lines` is public for a fuzz target.

mod advice;
mod apply;
#[cfg(feature = "embedded")]
mod audit;
mod broker;
#[cfg(feature = "embedded")]
mod calibrate;
mod calibration;
mod cancel;
mod cli;
mod decide;
mod enqueue;
mod error;
mod export;
mod images;
mod int8_wish;
#[cfg(feature = "embedded")]
mod interrupt;
mod label_map;
mod manual;
mod redrive;
mod report;
mod run_images;
mod runs;
mod serve;
mod status;
mod terminal;
#[cfg(feature = "embedded")]
mod train;

pub use cli::Cli;
pub use error::CommandError;
pub use images::list_lines;
pub use terminal::progress::LogWriter;

use camshaft_common::store::StoreOptions;
use cli::Command;

/// Does what the command line asks for.
///
/// # Errors
/// If it can't be done. The error's text says what to do about it, and
/// [`CommandError::exit_status`] tells a script what kind of error it is.
pub async fn run(cli: Cli, stores: StoreOptions) -> Result<(), CommandError> {
    match cli.command {
        #[cfg(feature = "embedded")]
        Command::Audit(args) => audit::audit(args.resolve()?, stores).await?,
        #[cfg(feature = "embedded")]
        Command::Calibrate(args) => calibrate::calibrate(args.resolve()?, stores).await?,
        #[cfg(feature = "embedded")]
        Command::Train(args) => train::train(args.resolve()?, stores).await?,
        Command::Enqueue(args) => enqueue::enqueue(args.resolve()?, stores).await?,
        Command::Report(args) => report::report(args.resolve()?, stores).await?,
        Command::Serve(args) => serve::serve(args.resolve(), stores).await?,
        Command::Decide(args) => decide::decide(args.resolve()?, stores).await?,
        Command::Export(args) => export::export(args.resolve(), stores).await?,
        Command::Apply(args) => apply::apply(args.resolve()?, stores).await?,
        Command::Status(args) => status::status(args.resolve(), stores).await?,
        Command::Cancel(args) => cancel::cancel(args.resolve(), stores).await?,
        Command::Runs(args) => runs::runs(args.resolve(), stores).await?,
        Command::Redrive(args) => redrive::redrive(args.resolve()).await?,
        Command::Completions(args) => manual::print_completions(args.shell),
        Command::Man(args) => manual::write_pages(&args.folder)?,
    }
    Ok(())
}
