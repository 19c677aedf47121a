//! `camshaft`: the command line around [`camshaft_producer`].

use std::process::ExitCode;

use camshaft_arguments::advice::with_option;
use camshaft_common::printable::printable_lines;
use camshaft_common::secret::without_secrets;
use camshaft_common::store::StoreOptions;
use camshaft_producer::{Cli, LogWriter};
use camshaft_telemetry::{self as telemetry, Service};

/// A person reads the results on standard output: the log has only what goes wrong. lapin logs the
/// errors that it returns, and those are told once already.
const DEFAULT_LOG: &str = "warn,lapin=off";

const SERVICE: Service = Service { name: "camshaft", version: env!("CARGO_PKG_VERSION") };

const FAILURE: u8 = 1;
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let cli: Cli = camshaft_arguments::help::parse();
    let filter = cli.log.log.as_deref().unwrap_or(DEFAULT_LOG);
    let _telemetry = match telemetry::start(SERVICE, cli.log.log_format, filter, LogWriter) {
        Ok(telemetry) => telemetry,
        Err(error) => return complain(&with_option(&error, Some("--log")), USAGE),
    };
    // Stores have variables of their own, which clap doesn't read.
    let stores = match StoreOptions::from_environment() {
        Ok(stores) => stores,
        Err(error) => return complain(&error.to_string(), FAILURE),
    };
    let runtime = match camshaft_arguments::runtime::start() {
        Ok(runtime) => runtime,
        Err(error) => return complain(&format!("cannot start threads: {error}"), FAILURE),
    };
    match runtime.block_on(camshaft_producer::run(cli, stores)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(&error.to_string(), error.exit_status()),
    }
}

#[expect(clippy::print_stderr, reason = "the one place that tells the caller why it ended")]
fn complain(message: &str, status: u8) -> ExitCode {
    eprintln!("camshaft: {}", printable_lines(&without_secrets(message)));
    ExitCode::from(status)
}
