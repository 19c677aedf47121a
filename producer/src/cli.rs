//! The command line of `camshaft`.

#[cfg(feature = "embedded")]
pub mod train;

use camshaft_arguments::{BrokerArgs, ExplainArgs, LogArgs, ModelArgs, QueueArgs, TlsArgs};
use camshaft_common::location::Location;
use camshaft_common::run::RunId;
use camshaft_common::secret::Secret;
use camshaft_report::Condition;
use clap::builder::BoolishValueParser;
use clap::{Args, Parser, Subcommand};

use crate::images::selection::Only;
use crate::images::source::{LabelRule, SourceArgument};

/// Bulk Grad-CAM audits of image data sets: what a classifier predicts, and where it looked
#[derive(Parser, Debug)]
#[command(name = "camshaft", version)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// What is logged and how.
    #[command(flatten)]
    pub log: LogArgs,
}

/// What `camshaft` does.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Do a whole audit in this process: find images, predict, explain, write results.
    /// Run again, it does only what is missing
    #[cfg(feature = "embedded")]
    Audit(Box<AuditArgs>),
    /// Train a model on a folder of class folders: a new head, or all layers. Run again, it
    /// goes on after the last whole epoch
    #[cfg(feature = "embedded")]
    Train(Box<crate::cli::train::TrainArgs>),
    /// Publish a job for each image to a broker, for workers to do
    Enqueue(Box<EnqueueArgs>),
    /// Build OUT/report from what is in OUT: a page, tables, and findings to act on
    Report(ReportArgs),
    /// Show how far a run has come
    Status(StatusArgs),
    /// Move dead letters back to the job queue
    Redrive(RedriveArgs),
}

/// Which images, and where results go.
#[derive(Args, Debug)]
pub struct RunArgs {
    /// Images: a folder, an image, a file://, s3://, gs:// or az:// URL, or list:PATH with
    /// one key a line or CSV with header key,label (list:- reads standard input)
    #[arg(value_name = "SOURCE")]
    pub source: SourceArgument,
    /// Where results go: a folder or URL as for SOURCE
    #[arg(long, env = "CAMSHAFT_OUT", value_name = "OUT")]
    pub out: Location,
    /// With list:PATH, the folder or URL that its keys are below
    #[arg(long, env = "CAMSHAFT_BASE", value_name = "URL")]
    pub base: Option<Location>,
    /// Where an image's given class comes from, unless a list names it
    #[arg(long, env = "CAMSHAFT_LABELS", value_enum, default_value_t)]
    pub labels: LabelRule,
    /// Take only the first N images of SOURCE
    #[arg(long, env = "CAMSHAFT_LIMIT", value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub limit: Option<u64>,
    /// The model.
    #[command(flatten)]
    pub model: ModelArgs,
    /// How to explain.
    #[command(flatten)]
    pub explain: ExplainArgs,
}

/// `camshaft audit`.
#[cfg(feature = "embedded")]
#[derive(Args, Debug)]
pub struct AuditArgs {
    /// Which images, and where results go.
    #[command(flatten)]
    pub run: RunArgs,
    /// Exit with status 3 where a larger share of the images failed, 0 to 1
    #[arg(long, env = "CAMSHAFT_MAX_FAILURE_RATE", value_name = "R", default_value = "0.05", value_parser = failure_rate)]
    pub max_failure_rate: f64,
    /// When all is done, measure on N images whether the maps can be trusted, into
    /// OUT/trust.json: takes some 130 passes of the network an image
    #[arg(long, env = "CAMSHAFT_TRUST_SAMPLE", value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub trust_sample: Option<u16>,
    /// Leave OUT/report for `camshaft report` to build
    #[arg(long, env = "CAMSHAFT_NO_REPORT", value_parser = BoolishValueParser::new(), conflicts_with = "fail_on")]
    pub no_report: bool,
    /// What makes the exit status 4.
    #[command(flatten)]
    pub gate: GateArgs,
    /// Where the model runs.
    #[command(flatten)]
    pub engine: camshaft_worker::arguments::EngineArgs,
}

/// `camshaft enqueue`.
#[derive(Args, Debug)]
pub struct EnqueueArgs {
    /// Which images, and where results go.
    #[command(flatten)]
    pub run: RunArgs,
    /// Which images get a job: those without a result, all, those that failed, or those that were
    /// lost
    #[arg(long, env = "CAMSHAFT_ONLY", value_enum, default_value_t)]
    pub only: Only,
    /// The broker.
    #[command(flatten)]
    pub broker: BrokerArgs,
}

/// `camshaft report`.
#[derive(Args, Debug)]
pub struct ReportArgs {
    /// Where the results lie, and the report goes: a folder or URL
    #[arg(value_name = "OUT")]
    pub out: Location,
    /// Another run, of another model or another version of the data, to compare this one with
    #[arg(long, env = "CAMSHAFT_AGAINST", value_name = "OUT")]
    pub against: Option<Location>,
    /// Write predictions.csv as well
    #[arg(long, env = "CAMSHAFT_CSV", value_parser = BoolishValueParser::new())]
    pub csv: bool,
    /// Put embeddings into predictions.parquet; the audit has to have recorded them
    #[arg(long, env = "CAMSHAFT_EMBEDDINGS", value_parser = BoolishValueParser::new())]
    pub embeddings: bool,
    /// Make thumbnails for the N most urgent findings
    #[arg(long, env = "CAMSHAFT_THUMBNAILS", value_name = "N", default_value = "1000")]
    pub thumbnails: usize,
    /// Print the overview as one JSON object
    #[arg(long)]
    pub json: bool,
    /// What makes the exit status 4.
    #[command(flatten)]
    pub gate: GateArgs,
}

/// Conditions on a report.
#[derive(Args, Clone, Debug)]
pub struct GateArgs {
    /// Exit with status 4 where one of these holds, such as label-errors>10 or accuracy<0.9.
    /// Names: images, predicted, failed, failure-rate, accuracy, ece, findings, label-errors,
    /// estimated-label-errors, duplicates, leaks, conflicts, image-problems, outliers, attention,
    /// shortcuts, unreadable, and with --against changed, fixed, broken
    #[arg(long, env = "CAMSHAFT_FAIL_ON", value_name = "CONDITION,…", value_delimiter = ',')]
    pub fail_on: Vec<Condition>,
}

/// `camshaft status`.
#[derive(Args, Debug)]
pub struct StatusArgs {
    /// Where the results go
    #[arg(value_name = "OUT")]
    pub out: Location,
    /// RabbitMQ, to count what is queued and dead: amqp://USER:PASSWORD@HOST:PORT/VHOST
    #[arg(long, env = "CAMSHAFT_BROKER", hide_env_values = true, value_name = "URL")]
    pub broker: Option<Secret>,
    /// Certificates for amqps://.
    #[command(flatten)]
    pub tls: TlsArgs,
    /// The queues' names.
    #[command(flatten)]
    pub queue: QueueArgs,
    /// Follow until every image is done
    #[arg(long)]
    pub watch: bool,
    /// With --watch, end also once the queue has been empty that long and no result has come, as
    /// where some images are dead letters
    #[arg(long, value_name = "SECONDS", requires_all = ["watch", "broker"])]
    pub exit_when_idle: Option<u64>,
    /// Print one JSON object (with --watch, one a line)
    #[arg(long)]
    pub json: bool,
}

/// `camshaft redrive`.
#[derive(Args, Debug)]
pub struct RedriveArgs {
    /// Only those of one run
    #[arg(long, value_name = "ID")]
    pub run: Option<RunId>,
    /// The broker.
    #[command(flatten)]
    pub broker: BrokerArgs,
}

#[cfg(feature = "embedded")]
fn failure_rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if (0.0..=1.0).contains(&value) => Ok(value),
        _ => Err("use a number from 0 to 1".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn help_shows_no_password_from_the_environment() {
        let mut command = Cli::command();
        let enqueue = command.find_subcommand_mut("enqueue").unwrap();
        let broker = enqueue.get_arguments().find(|a| a.get_id() == "broker").unwrap();
        assert!(broker.is_hide_env_values_set());
    }
}
