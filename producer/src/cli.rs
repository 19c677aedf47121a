//! The command line of `camshaft`: what clap parses, and what a command gets of it.
//!
//! Each `…Args` becomes the `…Config` of its command by `resolve`, which fills in defaults and
//! refuses arguments that don't go together. No command sees clap's types.

#[cfg(feature = "embedded")]
mod calibrate;
mod decisions;
mod examples;
mod export;
mod image_files;
mod label_audit;
mod prune;
mod report;
mod serve;
#[cfg(test)]
mod tests;
#[cfg(feature = "embedded")]
mod train;

use std::path::PathBuf;
use std::time::Duration;

use camshaft_arguments::given::GivenOptions;
use camshaft_arguments::{
    BrokerArgs, ExplainArgs, LogArgs, ModelArgs, QueueArgs, RunQueueArgs, TlsArgs,
};
use camshaft_common::explain::{ExplainOptions, Target};
use camshaft_common::location::Location;
use camshaft_common::model::ModelReference;
use camshaft_common::run::RunId;
use camshaft_common::secret::Secret;
#[cfg(feature = "embedded")]
use camshaft_model::Precision;
use clap::builder::BoolishValueParser;
use clap::{Args, Parser, Subcommand, ValueEnum};
#[cfg(feature = "embedded")]
use tokio_util::sync::CancellationToken;

use self::image_files::ImageFileArgs;
#[cfg(feature = "embedded")]
use crate::audit::{self, AuditConfig};
use crate::broker::BrokerConfig;
use crate::cancel::CancelConfig;
use crate::enqueue::EnqueueConfig;
use crate::enqueue::request::RunConfig;
use crate::images::list_lines::ListColumns;
use crate::images::selection::Selection;
use crate::images::source_config::{LabelRule, SourceArgument, SourceConfig, SourceConfigError};
use crate::int8_wish::{Int8Wish, MinAgreement};
use crate::label_map::LabelMapSource;
use crate::redrive::RedriveConfig;
use crate::runs::RunsConfig;
use crate::status::{StatusConfig, WatchMode};

/// Bulk Grad-CAM audits of image data sets: what a classifier predicts, and where it looked
#[derive(Parser, Debug)]
#[command(name = "camshaft", version, after_help = examples::CAMSHAFT)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
    /// What is logged and how.
    #[command(flatten)]
    pub log: LogArgs,
}

/// What `camshaft` does.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Do a whole audit in this process: find images, predict, explain, write results.
    /// Run again, it does only what is missing
    #[cfg(feature = "embedded")]
    #[command(after_help = examples::AUDIT)]
    Audit(Box<AuditArgs>),
    /// Train a model on a folder of class folders: a new head, or all layers. Run again, it
    /// goes on after the last complete epoch
    #[cfg(feature = "embedded")]
    #[command(after_help = examples::TRAIN)]
    Train(Box<train::TrainArgs>),
    /// Make the scales for --precision int8 from a sample of images, and say how well 8 bits agree with
    /// f32 on others
    #[cfg(feature = "embedded")]
    #[command(after_help = examples::CALIBRATE)]
    Calibrate(Box<calibrate::CalibrateArgs>),
    /// Publish a job for each image to a broker, for workers to process
    #[command(after_help = examples::ENQUEUE)]
    Enqueue(Box<EnqueueArgs>),
    /// Build OUT/report from what is in OUT: a page, tables, and findings to act on
    #[command(after_help = examples::REPORT)]
    Report(report::ReportArgs),
    /// Show the report on this machine, and write what is decided there to OUT. For private buckets, too
    #[command(after_help = examples::SERVE)]
    Serve(serve::ServeArgs),
    /// Decide by rules about the findings of a report which images to drop, to keep or to relabel, or
    /// take over what people have decided on its page
    #[command(after_help = examples::DECIDE)]
    Decide(decisions::DecideArgs),
    /// Write images with their findings for Label Studio, CVAT, COCO's programs or a spreadsheet. decide
    /// --import takes back what people make of them
    #[command(after_help = examples::EXPORT)]
    Export(export::ExportArgs),
    /// Write the data set that the decisions leave: a list, or a folder of class folders. SOURCE stays
    /// as it is
    #[command(after_help = examples::APPLY)]
    Apply(decisions::ApplyArgs),
    /// Show how far a run has come
    #[command(after_help = examples::STATUS)]
    Status(StatusArgs),
    /// Stop a run: workers settle its jobs without work. Results stay, and a later enqueue or audit
    /// goes on with it
    #[command(after_help = examples::CANCEL)]
    Cancel(CancelArgs),
    /// List the runs whose jobs wait on a broker
    #[command(after_help = examples::RUNS)]
    Runs(RunsArgs),
    /// Move dead letters back to the job queue
    #[command(after_help = examples::REDRIVE)]
    Redrive(RedriveArgs),
    /// Print a script that completes commands and options in a shell
    #[command(after_help = examples::COMPLETIONS)]
    Completions(CompletionsArgs),
    /// Write the manual pages of both programs
    #[command(hide = true)]
    Man(ManArgs),
}

/// Which images, and where results go.
#[derive(Args, Debug)]
pub(crate) struct RunArgs {
    /// Which options are given.
    #[command(flatten)]
    pub(crate) given: GivenOptions,
    /// Images: a folder, an image, a file://, s3://, gs:// or az:// URL, or list:PATH with
    /// one key a line, CSV with a header such as key,label, or JSON Lines (list:- reads standard
    /// input)
    #[arg(value_name = "SOURCE")]
    pub(crate) source: SourceArgument,
    /// Where results go: a folder or URL as for SOURCE
    #[arg(long, env = "CAMSHAFT_OUT", value_name = "OUT")]
    pub(crate) out: Location,
    /// With list:PATH, the folder or URL that its keys are below
    #[arg(long, env = "CAMSHAFT_BASE", value_name = "URL")]
    pub(crate) base: Option<Location>,
    /// Which files are images.
    #[command(flatten)]
    pub(crate) files: ImageFileArgs,
    /// Print everything in SOURCE that is left out, with the reason
    #[arg(long, env = "CAMSHAFT_LIST_SKIPPED", value_parser = BoolishValueParser::new())]
    pub(crate) list_skipped: bool,
    /// Where an image's label comes from, unless a list names it
    #[arg(long, env = "CAMSHAFT_LABELS", value_enum, default_value_t)]
    pub(crate) labels: LabelRule,
    /// Which of the model's classes labels mean: CSV with the columns label and class, or a JSON
    /// object; a class is a name or an index. none: no map, also if the results in OUT have one
    #[arg(long, env = "CAMSHAFT_LABEL_MAP", value_name = "FILE")]
    pub(crate) label_map: Option<PathBuf>,
    /// With list:PATH, the column of keys: its name, or its number from 1. Otherwise a column with a
    /// usual name, such as key, path or filename
    #[arg(long, env = "CAMSHAFT_KEY_COLUMN", value_name = "COLUMN")]
    pub(crate) key_column: Option<String>,
    /// With list:PATH, the column of labels. Otherwise a column with a usual name, such as label or
    /// class
    #[arg(long, env = "CAMSHAFT_LABEL_COLUMN", value_name = "COLUMN")]
    pub(crate) label_column: Option<String>,
    /// Take only the first N images of SOURCE
    #[arg(long, env = "CAMSHAFT_LIMIT", value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) limit: Option<u64>,
    /// What goes from OUT.
    #[command(flatten)]
    pub(crate) prune: prune::PruneArgs,
    /// The model.
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// With --precision int8, how well it has to agree with f32 on a sample: the share of images with
    /// the same top class, and the median cosine similarity of maps. If it does not, the run is
    /// computed as by --precision auto, and says so
    #[arg(long, env = "CAMSHAFT_MIN_AGREEMENT", value_name = "SHARE[,COSINE]", default_value_t)]
    pub(crate) min_agreement: MinAgreement,
    /// How to explain.
    #[command(flatten)]
    pub(crate) explain: ExplainArgs,
}

/// `camshaft audit`.
#[cfg(feature = "embedded")]
#[derive(Args, Debug)]
pub(crate) struct AuditArgs {
    /// Which images, and where results go.
    #[command(flatten)]
    pub(crate) run: RunArgs,
    /// Exit with status 3 if a larger share of the images failed, 0 to 1
    #[arg(long, env = "CAMSHAFT_MAX_FAILURE_RATE", value_name = "R", default_value = "0.05", value_parser = failure_rate)]
    pub(crate) max_failure_rate: f64,
    /// When all is done, measure on N images whether the maps can be trusted, and write
    /// OUT/trust.json. Takes about 130 passes of the network for each image
    #[arg(long, env = "CAMSHAFT_TRUST_SAMPLE", value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) trust_sample: Option<u16>,
    /// When all is done, paste the place that the model looks at in each suspected shortcut into N
    /// images of other classes, count how many change class, and write OUT/shortcuts.json. Takes
    /// about 4 passes of the network for each image and shortcut
    #[arg(long, env = "CAMSHAFT_PROVE_SHORTCUTS", value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) prove_shortcuts: Option<u16>,
    /// Only add to the results in OUT what older versions did not measure of an image, and its camera:
    /// reads the images of SOURCE, runs no network, changes nothing else
    #[arg(long, env = "CAMSHAFT_REMEASURE", value_parser = BoolishValueParser::new(),
          conflicts_with_all = ["trust_sample", "prove_shortcuts", "prune", "dry_run", "limit", "include", "exclude"])]
    pub(crate) remeasure: bool,
    /// Do not build OUT/report; `camshaft report` builds it later
    #[arg(long, env = "CAMSHAFT_NO_REPORT", value_parser = BoolishValueParser::new(), conflicts_with = "fail_on")]
    pub(crate) no_report: bool,
    /// Conditions on the report.
    #[command(flatten)]
    pub(crate) fail_on: report::FailOnArgs,
    /// How the report judges labels.
    #[command(flatten)]
    pub(crate) label_audit: label_audit::LabelAuditArgs,
    /// Where the model runs.
    #[command(flatten)]
    pub(crate) engine: camshaft_worker::arguments::EngineArgs,
}

/// What jobs say of the number format that they are computed in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum JobPrecision {
    /// Nothing: each worker decides.
    #[default]
    Auto,
    /// 8 bits.
    Int8,
    /// Each worker decides. Here since a variable may say it for audits, too.
    #[value(hide = true, alias = "tf32", alias = "bf16", alias = "f16")]
    F32,
}

/// `camshaft enqueue`.
#[derive(Args, Debug)]
pub(crate) struct EnqueueArgs {
    /// Which images, and where results go.
    #[command(flatten)]
    pub(crate) run: RunArgs,
    /// Which images get a job
    #[arg(long, env = "CAMSHAFT_ONLY", value_enum, default_value_t)]
    pub(crate) only: Selection,
    /// int8: jobs that every worker computes in 8 bits, with the calibration that camshaft calibrate
    /// has made. Otherwise each worker decides, by its own --precision
    #[arg(long, env = "CAMSHAFT_PRECISION", value_enum, default_value_t)]
    pub(crate) precision: JobPrecision,
    /// The broker.
    #[command(flatten)]
    pub(crate) broker: BrokerArgs,
}

/// `camshaft status`.
#[derive(Args, Debug)]
pub(crate) struct StatusArgs {
    /// Where the results go
    #[arg(value_name = "OUT")]
    pub(crate) out: Location,
    /// RabbitMQ, to count the messages and dead letters there: amqp://USER:PASSWORD@HOST:PORT/VHOST
    #[arg(long, env = "CAMSHAFT_BROKER", hide_env_values = true, value_name = "URL")]
    pub(crate) broker: Option<Secret>,
    /// Certificates for amqps://.
    #[command(flatten)]
    pub(crate) tls: TlsArgs,
    /// The queues' names.
    #[command(flatten)]
    pub(crate) queue: RunQueueArgs,
    /// Follow until every image is done, or the run is cancelled
    #[arg(long)]
    pub(crate) watch: bool,
    /// With --watch, end also if the queue has been empty this long and no result has come. That
    /// happens if some images are dead letters
    #[arg(long, value_name = "SECONDS", requires_all = ["watch", "broker"])]
    pub(crate) exit_when_idle: Option<u64>,
    /// Print one JSON object (with --watch, one a line)
    #[arg(long)]
    pub(crate) json: bool,
}

/// `camshaft cancel`.
#[derive(Args, Debug)]
pub(crate) struct CancelArgs {
    /// Where the run's results go
    #[arg(value_name = "OUT")]
    pub(crate) out: Location,
}

/// `camshaft runs`.
#[derive(Args, Debug)]
pub(crate) struct RunsArgs {
    /// The broker.
    #[command(flatten)]
    pub(crate) broker: BrokerArgs,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// `camshaft redrive`.
#[derive(Args, Debug)]
pub(crate) struct RedriveArgs {
    /// Move only the dead letters of this run
    #[arg(long, value_name = "ID")]
    pub(crate) run: Option<RunId>,
    /// The broker.
    #[command(flatten)]
    pub(crate) broker: BrokerArgs,
}

/// `camshaft completions`.
#[derive(Args, Debug)]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

/// `camshaft man`.
#[derive(Args, Debug)]
pub(crate) struct ManArgs {
    /// Where the pages go: a local folder
    #[arg(value_name = "FOLDER")]
    pub(crate) folder: PathBuf,
}

/// Arguments that are each right but don't go together.
#[derive(Debug, thiserror::Error)]
pub enum UsageError {
    /// SOURCE and `--base`.
    #[error(transparent)]
    Source(#[from] SourceConfigError),
    /// `--architecture` for a model that has one of its own.
    #[cfg(feature = "embedded")]
    #[error("--architecture goes with --init random; another model's own can't be changed")]
    ArchitectureOfModel,
    /// A condition on a comparison, without a comparison.
    #[error("--fail-on {condition} compares two runs; {advice}")]
    NothingToCompare {
        /// The condition.
        condition: String,
        /// What to do.
        advice: &'static str,
    },
    /// A run compared with itself.
    #[error("--against is OUT itself, {0}; give the other run")]
    AgainstItself(Location),
    /// A label map without labels.
    #[error("--label-map goes with labels, and --labels is none; leave one of them out")]
    LabelMapWithoutLabels,
    /// `camshaft decide` without a rule, a file or a sample.
    #[error(
        "there is nothing to decide: give --drop, --keep or --relabel with a rule, --import, or --sample"
    )]
    NothingToDecide,
    /// `camshaft apply` without OUT or `--to`.
    #[error("give OUT and --to PLACE, or --undo FILE")]
    NothingToApply,
    /// `--link` for a list.
    #[error("--link goes with --as folder; a list has no files")]
    LinkWithList,
    /// `--link move` without `--yes`.
    #[error(
        "--link move takes the images away from SOURCE; add --yes to do so, or --dry-run to see what it does"
    )]
    MoveWithoutYes,
    /// Every image would fail.
    #[error(
        "--target label explains the class of each image's label, and --labels none reads none"
    )]
    TargetWithoutLabels,
}

impl RunArgs {
    /// `int8` tells whether 8 bits were asked for, if a precision was.
    fn resolve(self, int8: Option<bool>) -> Result<RunConfig, UsageError> {
        let int8_wish = match int8 {
            None => Int8Wish::Unsaid,
            Some(true) => Int8Wish::Yes(self.min_agreement),
            Some(false) => Int8Wish::No,
        };
        let columns = ListColumns { key: self.key_column, label: self.label_column };
        let source = SourceConfig::new(self.source, self.base)?.with_columns(columns)?;
        let image_files = self.files.resolve(&source)?;
        let label_map = LabelMapSource::of_argument(self.label_map);
        if label_map != LabelMapSource::Absent && self.labels == LabelRule::None {
            return Err(UsageError::LabelMapWithoutLabels);
        }
        if self.explain.target == Target::Label && self.labels == LabelRule::None {
            return Err(UsageError::TargetWithoutLabels);
        }
        Ok(RunConfig {
            given: self.given,
            source,
            image_files,
            list_skipped: self.list_skipped,
            labels: self.labels,
            label_map,
            limit: self.limit,
            out: self.out,
            model: self.model.resolve().unwrap_or_else(|| ModelReference::Bundled.into()),
            int8_wish,
            int8: None,
            explain: ExplainOptions::from(self.explain),
            prune: self.prune.prune,
            dry_run: self.prune.dry_run,
        })
    }
}

#[cfg(feature = "embedded")]
impl AuditArgs {
    pub(crate) fn resolve(self) -> Result<AuditConfig, UsageError> {
        let advice = "use it with camshaft report and --against";
        self.fail_on.check(false, advice)?;
        let stop = CancellationToken::new();
        let int8 = match self.engine.precision {
            Precision::Auto => None,
            precision => Some(precision == Precision::Int8),
        };
        Ok(AuditConfig {
            run: self.run.resolve(int8)?,
            max_failure_rate: self.max_failure_rate,
            trust_sample: self.trust_sample,
            prove_shortcuts: self.prove_shortcuts,
            remeasure: self.remeasure,
            report: !self.no_report,
            fail_on: self.fail_on.fail_on,
            labels: self.label_audit.resolve(),
            engine: self.engine.resolve(audit::engine_settings(stop.clone())),
            stop,
        })
    }
}

impl EnqueueArgs {
    pub(crate) fn resolve(self) -> Result<EnqueueConfig, UsageError> {
        let broker = broker_config(self.broker);
        let int8 = match self.precision {
            JobPrecision::Auto => None,
            JobPrecision::Int8 => Some(true),
            JobPrecision::F32 => Some(false),
        };
        Ok(EnqueueConfig { run: self.run.resolve(int8)?, selection: self.only, broker })
    }
}

impl StatusArgs {
    pub(crate) fn resolve(self) -> StatusConfig {
        let Self { out, broker, tls, queue, watch, exit_when_idle, json } = self;
        let RunQueueArgs { queue, retry_delays } = queue;
        let broker = broker.map(|url| BrokerConfig { url, tls: tls.into(), queue, retry_delays });
        let max_idle = exit_when_idle.map(Duration::from_secs);
        let watch = if watch { WatchMode::UntilDone { max_idle } } else { WatchMode::Once };
        StatusConfig { out, broker, watch, json }
    }
}

impl CancelArgs {
    pub(crate) fn resolve(self) -> CancelConfig {
        CancelConfig { out: self.out }
    }
}

impl RunsArgs {
    pub(crate) fn resolve(self) -> RunsConfig {
        RunsConfig { broker: broker_config(self.broker), json: self.json }
    }
}

impl RedriveArgs {
    pub(crate) fn resolve(self) -> RedriveConfig {
        let broker = broker_config(self.broker);
        RedriveConfig { run: self.run, broker }
    }
}

fn broker_config(args: BrokerArgs) -> BrokerConfig {
    let BrokerArgs { broker: url, tls, queue: QueueArgs { queue, retry_delays } } = args;
    BrokerConfig { url, tls: tls.into(), queue: Some(queue), retry_delays }
}

#[cfg(feature = "embedded")]
fn failure_rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if (0.0..=1.0).contains(&value) => Ok(value),
        _ => Err("use a number from 0 to 1".to_owned()),
    }
}
