//! What the user asks of a run, before OUT is opened.

use std::collections::HashSet;

use camshaft_common::explain::ExplainOptions;
use camshaft_common::key::ImageKey;
use camshaft_common::location::Location;
use camshaft_common::model::{ModelIdentity, ModelRequest};

use crate::images::selection::Selection;
use crate::images::source::Source;
use crate::images::source_config::{LabelRule, SourceConfig};

/// The options that `audit` and `enqueue` have in common, validated. Nothing is opened yet.
#[derive(Clone, Debug)]
pub(crate) struct RunConfig {
    /// SOURCE.
    pub(crate) source: SourceConfig,
    /// Where labels come from.
    pub(crate) labels: LabelRule,
    /// Take only the first `limit` images of SOURCE.
    pub(crate) limit: Option<u64>,
    /// OUT.
    pub(crate) out: Location,
    /// The model.
    pub(crate) model: ModelRequest,
    /// How to explain.
    pub(crate) explain: ExplainOptions,
}

/// A run's options with SOURCE opened and the model identified.
#[derive(Debug)]
pub(crate) struct EnqueueRequest {
    /// The options.
    pub(crate) run: RunConfig,
    /// SOURCE, opened.
    pub(crate) source: Source,
    /// The model by the digests of its files.
    pub(crate) model: ModelIdentity,
    /// Which images get a job.
    pub(crate) selection: Selection,
    /// Images whose job is a dead letter. Only [`Selection::Missing`] needs them.
    pub(crate) dead_images: HashSet<ImageKey>,
    /// True if the command has `--only all`, which an error may then recommend.
    pub(crate) can_redo_all: bool,
}
