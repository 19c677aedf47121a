//! `camshaft`: the command line around [`camshaft_producer`].

use std::process::ExitCode;

use camshaft_producer::cli::Cli;
use camshaft_producer::exit_status;
use camshaft_producer::terminal::progress::LogWriter;
use camshaft_telemetry::{self as telemetry, Service};
use clap::Parser;

/// A person reads results from the summary; only trouble is logged. lapin and hf_hub log what
/// they also return, and we tell.
const DEFAULT_LOG: &str = "warn,lapin=off,hf_hub=off";

const SERVICE: Service = Service { name: "camshaft", version: env!("CARGO_PKG_VERSION") };

fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = cli.log.log.as_deref().unwrap_or(DEFAULT_LOG);
    let format = cli.log.log_format;
    let _telemetry = match telemetry::start(SERVICE, format, filter, LogWriter) {
        Ok(telemetry) => telemetry,
        Err(error) => return complain(&error.to_string(), 2),
    };
    let runtime = match camshaft_arguments::runtime::start() {
        Ok(runtime) => runtime,
        Err(error) => return complain(&format!("cannot start threads: {error}"), 1),
    };
    match runtime.block_on(camshaft_producer::run(cli.command)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(&error.to_string(), exit_status(&error)),
    }
}

#[expect(clippy::print_stderr, reason = "the one place that tells the caller why it ended")]
fn complain(message: &str, status: u8) -> ExitCode {
    eprintln!("camshaft: {message}");
    ExitCode::from(status)
}
