//! `camshaft-worker`: the command line around [`camshaft_worker::service`].

use std::process::ExitCode;
use std::time::Duration;

use camshaft_common::store::StoreOptions;
use camshaft_common::telemetry::{self, Service};
use camshaft_worker::health;
use camshaft_worker::service::{self, Args};
use clap::Parser;
use tracing::{error, info};

/// What an operator wants to see of a worker, without a line for each image. lapin logs
/// what it also returns, and we tell.
const DEFAULT_LOG: &str = "info,lapin=off,object_store=warn";

const SERVICE: Service = Service { name: "camshaft-worker", version: env!("CARGO_PKG_VERSION") };

/// What still runs at the end is done with: it belongs to images that were handed back.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(address) = args.worker_to_ask() {
        return match health::ask(address) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => say(&error, ExitCode::FAILURE),
        };
    }
    let filter = args.log().log.as_deref().unwrap_or(DEFAULT_LOG);
    let format = args.log().log_format;
    let _telemetry = match telemetry::start(SERVICE, format, filter, std::io::stderr) {
        Ok(telemetry) => telemetry,
        Err(error) => return say(&error, ExitCode::from(2)),
    };
    let runtime = match camshaft_common::runtime::start() {
        Ok(runtime) => runtime,
        Err(error) => {
            error!("cannot start threads: {error}");
            return ExitCode::FAILURE;
        }
    };
    // The stores' own variables are the one part of the environment clap doesn't read.
    let stores = match StoreOptions::from_environment() {
        Ok(stores) => stores,
        Err(error) => {
            error!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let served = runtime.block_on(service::serve(args, stores));
    runtime.shutdown_timeout(SHUTDOWN_TIMEOUT);
    match served {
        Ok(counts) => {
            info!(
                predicted = counts.predicted,
                already_done = counts.already_done,
                failed = counts.failed_in_all(),
                retried = counts.retried,
                dead = counts.dead,
                "ended"
            );
            ExitCode::SUCCESS
        }
        Err(error) => {
            error!("{error}");
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stderr, reason = "there is no log yet")]
fn say(error: &dyn std::error::Error, status: ExitCode) -> ExitCode {
    eprintln!("camshaft-worker: {error}");
    status
}
