//! `camshaft-worker`: the command line around [`camshaft_worker::service`].

use std::process::ExitCode;
use std::time::Duration;

use camshaft_arguments::advice::with_option;
use camshaft_common::printable::printable_lines;
use camshaft_common::secret::without_secrets;
use camshaft_common::store::StoreOptions;
use camshaft_telemetry::Service;
use camshaft_worker::arguments::ServiceArgs;
use camshaft_worker::service::ServiceError;
use camshaft_worker::{health, service};
use tracing::{error, info};

/// What an operator wants to know of a worker, without a line for each image. lapin is off because it
/// logs errors that it also returns, and this program logs those.
const DEFAULT_LOG: &str = "info,lapin=off,object_store=warn";

const SERVICE: Service = Service { name: "camshaft-worker", version: env!("CARGO_PKG_VERSION") };

/// Wrong usage, as clap's.
const USAGE: u8 = 2;

/// Tasks that still run at the end work on images that were handed back. Nobody needs them.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let args: ServiceArgs = camshaft_arguments::help::parse();
    if let Some(address) = args.worker_to_check() {
        return match health::check(address) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => print_error(&error.to_string(), ExitCode::FAILURE),
        };
    }
    let filter = args.log().log.as_deref().unwrap_or(DEFAULT_LOG);
    let format = args.log().log_format;
    let _telemetry = match camshaft_telemetry::start(SERVICE, format, filter, std::io::stderr) {
        Ok(telemetry) => telemetry,
        Err(error) => {
            return print_error(&with_option(&error, Some("--log")), ExitCode::from(USAGE));
        }
    };
    let runtime = match camshaft_arguments::runtime::start() {
        Ok(runtime) => runtime,
        Err(error) => {
            error!("cannot start threads: {error}");
            return ExitCode::FAILURE;
        }
    };
    // clap reads all of the environment but the stores' own variables.
    let stores = match StoreOptions::from_environment() {
        Ok(stores) => stores,
        Err(error) => {
            error!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let served = runtime.block_on(service::serve(args.resolve(), stores));
    runtime.shutdown_timeout(SHUTDOWN_TIMEOUT);
    match served {
        Ok(counts) => {
            info!(
                predicted = counts.predicted,
                already_done = counts.already_done,
                relabelled = counts.relabelled,
                renewed = counts.renewed,
                superseded = counts.superseded,
                failed = counts.failed_in_all(),
                retried = counts.retried,
                refused = counts.refused,
                dead = counts.dead,
                "ended"
            );
            ExitCode::SUCCESS
        }
        Err(error) => {
            error!("{error}");
            match error {
                ServiceError::Queue(error) if error.is_wrong_usage() => ExitCode::from(USAGE),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

#[expect(clippy::print_stderr, reason = "there is no log yet")]
fn print_error(error: &str, status: ExitCode) -> ExitCode {
    eprintln!("camshaft-worker: {}", printable_lines(&without_secrets(error)));
    status
}
