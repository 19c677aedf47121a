//! What the user asks of a run, before OUT is opened.

use camshaft_arguments::given::GivenOptions;
use camshaft_common::explain::ExplainOptions;
use camshaft_common::image_files::ImageFiles;
use camshaft_common::key::ImageKey;
use camshaft_common::location::Location;
use camshaft_common::model::{Int8Outcome, ModelIdentity, ModelRequest, TrainedLayers};
use camshaft_common::run::Generation;
use camshaft_common::store::StoreOptions;

use crate::enqueue::prune::PruneLimit;
use crate::images::selection::Selection;
use crate::images::source::Source;
use crate::images::source_config::{LabelRule, SourceConfig};
use crate::images::source_error::SourceError;
use crate::int8_wish::Int8Wish;
use crate::label_map::{LabelMap, LabelMapSource};

/// The options that `audit` and `enqueue` have in common, validated. Nothing is opened yet.
#[derive(Clone, Debug)]
pub(crate) struct RunConfig {
    /// The options that the user gave. The others have their defaults, or what
    /// [`inheritance`](super::inheritance) finds in OUT.
    pub(crate) given: GivenOptions,
    /// SOURCE.
    pub(crate) source: SourceConfig,
    /// Which files of SOURCE are images.
    pub(crate) image_files: ImageFiles,
    /// Whether to print what is left out.
    pub(crate) list_skipped: bool,
    /// Where labels come from.
    pub(crate) labels: LabelRule,
    /// What says which classes labels mean.
    pub(crate) label_map: LabelMapSource,
    /// Take only the first `limit` images of SOURCE.
    pub(crate) limit: Option<u64>,
    /// OUT.
    pub(crate) out: Location,
    /// The model.
    pub(crate) model: ModelRequest,
    /// Whether it is to be computed in 8 bits.
    pub(crate) int8_wish: Int8Wish,
    /// How far 8 bits are from f32, once that is known.
    pub(crate) int8: Option<Int8Outcome>,
    /// How to explain.
    pub(crate) explain: ExplainOptions,
    /// Whether to remove results of images that have gone.
    pub(crate) prune: Option<PruneLimit>,
    /// True to tell what would be done, and do nothing.
    pub(crate) dry_run: bool,
}

impl RunConfig {
    /// Opens SOURCE.
    ///
    /// # Errors
    /// As [`Source::open`].
    pub(crate) fn open_source(&self, stores: &StoreOptions) -> Result<Source, SourceError> {
        let files = Some(self.image_files.clone());
        Source::open(self.source.clone(), files, self.labels, &self.out, stores)
    }
}

/// An image whose job is a dead letter.
#[derive(Clone, Debug)]
pub(crate) struct DeadImage {
    /// The image.
    pub(crate) key: ImageKey,
    /// The job's generation. If a later one has superseded it, the image may be missing.
    pub(crate) generation: Option<Generation>,
}

/// Where the jobs of an enqueue wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum JobsQueue {
    /// In this process.
    #[cfg_attr(not(feature = "embedded"), expect(dead_code, reason = "only audit does that"))]
    InProcess,
    /// On a broker, in the queues of this name.
    Named(String),
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
    /// Which of its layers were trained, if its configuration says so.
    pub(crate) trained_layers: Option<TrainedLayers>,
    /// What the label map says.
    pub(crate) label_map: LabelMap,
    /// Which images get a job.
    pub(crate) selection: Selection,
    /// The dead letters of OUT. Only [`Selection::Missing`] needs them.
    pub(crate) dead: Vec<DeadImage>,
    /// True if the command has `--only all`, which an error may then recommend.
    pub(crate) can_redo_all: bool,
    /// Where the jobs wait.
    pub(crate) queue: JobsQueue,
}
