//! Command line arguments that both programs share. Each is also an environment variable
//! `CAMSHAFT_…`.
//!
//! Does not define the options of one program alone. Upstream: both programs' `Args`. Downstream:
//! the types of the crates that the options configure.

pub mod advice;
pub mod given;
pub mod help;
pub mod runtime;
pub mod size;

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::builder::BoolishValueParser;

use camshaft_common::explain::{
    Choices, Colormap, ExplainOptions, FusedLayers, Method, OverlayFormat, OverlayOpacity,
    OverlaySize, Target,
};
use camshaft_common::model::{ClassesReference, ModelOptions, ModelReference, ModelRequest};
use camshaft_common::secret::Secret;
use camshaft_queue::{RetryDelays, TlsFiles};
use camshaft_telemetry::LogFormat;

/// How images are explained.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Explanation")]
pub struct ExplainArgs {
    /// One or several methods to compute maps: grad-cam, hires-cam, grad-cam++, xgrad-cam,
    /// layer-cam, eigen-cam, eigen-grad-cam, score-cam, ablation-cam
    #[arg(long, env = "CAMSHAFT_METHOD", default_value = "grad-cam", value_name = "METHOD,…")]
    pub method: Choices<Method>,
    /// One or several target layers, whose output a map weighs: a stage (layer4), a block
    /// (layer4.2), a convolution (layer4.2.conv3), or several layers fused into one map
    /// (layer3+layer4)
    #[arg(long, env = "CAMSHAFT_LAYER", default_value = "layer4", value_name = "LAYER,…")]
    pub layer: Choices<FusedLayers>,
    /// Classes to explain: top1 or top-N (the most probable classes, and the image's label if it is
    /// another class), label (the label first, then top1; an image without a label fails) or
    /// class:NAME
    #[arg(long, env = "CAMSHAFT_TARGET", default_value = "top1")]
    pub target: Target,
    /// Colours of the heat map: jet, turbo, viridis, inferno or magma
    #[arg(long, env = "CAMSHAFT_COLORMAP", default_value = "jet")]
    pub colormap: Colormap,
    /// Opacity of the heat map over the image, 0 to 1
    #[arg(long, env = "CAMSHAFT_ALPHA", default_value = "0.4", value_parser = unit_interval)]
    pub alpha: f32,
    /// Format of overlays: jpeg, png, webp or none
    #[arg(long, env = "CAMSHAFT_OVERLAY", default_value = "jpeg")]
    pub overlay: OverlayFormat,
    /// Where the heat map of overlays is opaque: constant (everywhere) or heat (as opaque as it is
    /// hot, at most --alpha, so that what is cold stays the photograph)
    #[arg(long, env = "CAMSHAFT_OVERLAY_STYLE", default_value = "constant", value_name = "STYLE")]
    pub overlay_style: OverlayOpacity,
    /// Longest side of overlays in pixels, or full; smaller images keep their own size. JPEGs are
    /// decoded no larger than that and the network need, so full takes more time and memory
    #[arg(long, env = "CAMSHAFT_OVERLAY_SIZE", default_value = "2048", value_name = "N|full")]
    pub overlay_size: OverlaySize,
    /// Record each image's whole embedding (2048 numbers for a ResNet-50, 5.5 KB an image), not
    /// only its sketch; --embeddings=false ends that
    #[arg(
        long,
        env = "CAMSHAFT_EMBEDDINGS",
        value_name = "BOOL",
        value_parser = BoolishValueParser::new(),
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        default_value = "false",
        hide_default_value = true
    )]
    pub embeddings: bool,
}

impl From<ExplainArgs> for ExplainOptions {
    fn from(args: ExplainArgs) -> Self {
        let ExplainArgs {
            method,
            layer,
            target,
            colormap,
            alpha,
            overlay,
            overlay_style,
            overlay_size,
            embeddings,
        } = args;
        Self {
            method,
            layer,
            target,
            colormap,
            alpha,
            overlay,
            overlay_style,
            overlay_size,
            embeddings,
        }
    }
}

/// The model to use.
#[derive(Args, Clone, Debug)]
pub struct ModelArgs {
    /// The classifier: cats-vs-dogs, the model inside the program (the default); a folder or store
    /// URL with a ResNet's weights (safetensors or PyTorch) and config.json; the file of weights
    /// itself; or hf:OWNER/NAME or hf:OWNER/NAME@REVISION on the Hugging Face Hub. See
    /// docs/models.md
    #[arg(long, env = "CAMSHAFT_MODEL")]
    pub model: Option<ModelReference>,
    #[command(flatten)]
    /// What its files don't say.
    pub options: ModelOptionArgs,
}

/// What a model's files don't say.
#[derive(Args, Clone, Debug)]
pub struct ModelOptionArgs {
    /// With --model, the names of its classes, if no config.json has them or others are wanted: a
    /// file or URL with one name a line, or JSON (a list, or an object of names by id); or
    /// imagenet-1k
    #[arg(long, env = "CAMSHAFT_CLASSES", value_name = "FILE", requires = "model")]
    pub classes: Option<ClassesReference>,
    /// With --model, ignore the tensors whose names match, such as 'projector.*': they don't belong
    /// to the classifier. May be given several times
    #[arg(
        long,
        env = "CAMSHAFT_IGNORE_TENSORS",
        value_name = "GLOB",
        value_delimiter = ',',
        requires = "model"
    )]
    pub ignore_tensors: Vec<String>,
    /// With --model, which of several weights in its file to take: the key of a state_dict, such as
    /// state_dict_ema, or the first part of tensors' names, such as encoder_q
    #[arg(long, env = "CAMSHAFT_WEIGHTS_KEY", value_name = "KEY", requires = "model")]
    pub weights_key: Option<String>,
}

impl ModelArgs {
    /// The model that was asked for, if one was.
    #[must_use]
    pub fn resolve(self) -> Option<ModelRequest> {
        let options = self.options.resolve();
        self.model.map(|reference| ModelRequest { reference, options })
    }
}

impl ModelOptionArgs {
    /// As options of a model.
    #[must_use]
    pub fn resolve(self) -> ModelOptions {
        let Self { classes, mut ignore_tensors, weights_key } = self;
        // Their order means nothing, and the model's identity must not depend on it.
        ignore_tensors.retain(|pattern| !pattern.is_empty());
        ignore_tensors.sort();
        ignore_tensors.dedup();
        // A command finds the calibration that --precision int8 asks for.
        let calibration = None;
        ModelOptions { classes, ignore_tensors, weights_key, calibration }
    }
}

/// How to reach the broker.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Broker")]
pub struct BrokerArgs {
    /// URL of RabbitMQ: amqp://USER:PASSWORD@HOST:PORT/VHOST, or amqps://…
    #[arg(long, env = "CAMSHAFT_BROKER", hide_env_values = true, value_name = "URL")]
    pub broker: Secret,
    #[command(flatten)]
    /// Certificates for amqps://.
    pub tls: TlsArgs,
    #[command(flatten)]
    /// Names and delays of the queues.
    pub queue: QueueArgs,
}

/// Certificates for amqps://: the authorities to trust, and our own certificate.
#[derive(Args, Clone, Debug)]
pub struct TlsArgs {
    /// With amqps://, a PEM file of the authorities to trust for the broker's certificate, instead
    /// of the system's
    #[arg(long, env = "CAMSHAFT_BROKER_CA", value_name = "FILE")]
    pub broker_ca: Option<PathBuf>,
    /// With amqps://, a PEM file of a client certificate, for a broker that asks for one
    #[arg(long, env = "CAMSHAFT_BROKER_CERT", value_name = "FILE", requires = "broker_key")]
    pub broker_cert: Option<PathBuf>,
    /// The PEM file of the client certificate's private key, not encrypted
    #[arg(long, env = "CAMSHAFT_BROKER_KEY", value_name = "FILE", requires = "broker_cert")]
    pub broker_key: Option<PathBuf>,
}

impl From<TlsArgs> for TlsFiles {
    fn from(args: TlsArgs) -> Self {
        let TlsArgs { broker_ca: ca, broker_cert: certificate, broker_key: key } = args;
        Self { ca, certificate, key }
    }
}

/// Names of the queues, and delays of retries.
#[derive(Args, Clone, Debug)]
pub struct QueueArgs {
    /// First part of the queues' names
    #[arg(long, env = "CAMSHAFT_QUEUE", default_value = "camshaft", value_name = "NAME", value_parser = queue_name)]
    pub queue: String,
    /// Seconds to wait after each failed try of a job. With n delays there are n + 1 tries
    #[arg(long, env = "CAMSHAFT_RETRY_DELAYS", default_value = "2,10,60,300", value_name = "SECONDS,…", value_parser = retry_delays)]
    pub retry_delays: RetryDelays,
}

/// As [`QueueArgs`], for a command about one run, which knows its queues' names.
#[derive(Args, Clone, Debug)]
pub struct RunQueueArgs {
    /// First part of the queues' names, if it is not the one that the run was enqueued with
    #[arg(long, env = "CAMSHAFT_QUEUE", value_name = "NAME", value_parser = queue_name)]
    pub queue: Option<String>,
    /// Seconds to wait after each failed try of a job. With n delays there are n + 1 tries
    #[arg(long, env = "CAMSHAFT_RETRY_DELAYS", default_value = "2,10,60,300", value_name = "SECONDS,…", value_parser = retry_delays)]
    pub retry_delays: RetryDelays,
}

/// What to log, and in which format.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Logs")]
pub struct LogArgs {
    /// Format of log lines on standard error
    #[arg(long, env = "CAMSHAFT_LOG_FORMAT", value_enum, default_value_t, global = true)]
    pub log_format: LogFormat,
    /// What to log: error, warn, info, debug or trace, or target=level,…
    #[arg(long, env = "CAMSHAFT_LOG", value_name = "FILTER", global = true)]
    pub log: Option<String>,
}

fn unit_interval(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(value) if (0.0..=1.0).contains(&value) => Ok(value),
        _ => Err("use a number from 0 to 1".to_owned()),
    }
}

fn queue_name(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if text.is_empty() || text.len() > 100 || !text.chars().all(fits) {
        return Err("use up to 100 letters, digits, '-', '_' and '.'".to_owned());
    }
    Ok(text.to_owned())
}

fn retry_delays(text: &str) -> Result<RetryDelays, String> {
    let seconds = text.split(',').filter(|part| !part.is_empty());
    let delays: Result<Vec<_>, _> =
        seconds.map(|part| part.trim().parse().map(Duration::from_secs)).collect();
    match delays {
        Ok(delays) if delays.iter().all(|delay| !delay.is_zero()) => Ok(RetryDelays::new(delays)),
        _ => Err("use whole seconds above 0, separated by commas, such as 2,10,60".to_owned()),
    }
}
