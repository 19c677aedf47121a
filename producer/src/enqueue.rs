//! `camshaft enqueue`: publishes a persistent job for each image to the broker.
//!
//! This file is the command. [`plan`] decides which images get a job, and writes `run.json`;
//! [`outlet`] sends the jobs; [`resumption`] goes on with an enqueue that was killed; [`generation`]
//! says since when results count, and writes the manifest; [`generation_watch`] notices that the run was
//! cancelled; [`inheritance`] takes options that were not given from OUT; [`prune`] removes results of
//! images that have gone.

pub(crate) mod counters;
mod differences;
mod generation;
pub(crate) mod generation_watch;
pub(crate) mod inheritance;
pub(crate) mod outlet;
pub(crate) mod plan;
pub(crate) mod prune;
pub(crate) mod request;
pub(crate) mod resumption;
pub(crate) mod run_record;
pub(crate) mod traces;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use camshaft_common::key::ImageKey;
use camshaft_common::location::Location;
use camshaft_common::model::{
    ClassesReference, ModelFilesError, ModelIdentity, ModelReference, ModelRequest, StoredModel,
    TrainedLayers,
};
use camshaft_common::run::{Generation, RunId};
use camshaft_common::store::StoreOptions;
#[cfg(feature = "embedded")]
use camshaft_model::{ExplainError, ModelConfig, ModelError, ModelFiles};
use camshaft_queue::{JobQueue, QueueError, RabbitMqQueue, is_remote};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::advice;
use crate::broker::{self, BrokerConfig};
use crate::calibration;
use crate::images::selection::Selection;
use crate::images::source_config::SourceConfig;
use crate::images::source_error::SourceError;
use crate::int8_wish::Int8Wish;
#[cfg(not(feature = "embedded"))]
use crate::label_map::LabelMapSource;
use crate::label_map::{LabelMap, LabelMapError};
use crate::terminal::output::{format_count, print_line};
use crate::terminal::progress::{Progress, ProgressCounts};
use counters::EnqueueCounters;
use plan::{EnqueuePlan, EnqueuePlanError};
use request::{DeadImage, EnqueueRequest, JobsQueue, RunConfig};

/// What `camshaft enqueue` is to do.
#[derive(Clone, Debug)]
pub(crate) struct EnqueueConfig {
    /// The images, the model, and where results go.
    pub(crate) run: RunConfig,
    /// Which images get a job.
    pub(crate) selection: Selection,
    /// The broker.
    pub(crate) broker: BrokerConfig,
}

/// Why images can't be enqueued.
#[derive(Debug, thiserror::Error)]
pub enum EnqueueError {
    /// The model's files can't be read.
    #[error("{}", advice::describe_model_files_error(.0))]
    Model(#[from] ModelFilesError),
    /// SOURCE can't be used.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The label map can't be used.
    #[error(transparent)]
    LabelMap(#[from] LabelMapError),
    /// No worker could run the model.
    #[cfg(feature = "embedded")]
    #[error("{}", advice::describe_model_error(.0))]
    Unusable(#[from] ModelError),
    /// The model has no such layer or class, or the maps cost too much.
    #[cfg(feature = "embedded")]
    #[error("{}", advice::describe_explain_error(.0))]
    Explain(#[from] ExplainError),
    /// There is a label map, and this program knows no models.
    #[cfg(not(feature = "embedded"))]
    #[error(
        "this camshaft was built without models, so it can't look up the classes of --label-map; use \
         one that was built with the feature embedded"
    )]
    NoModels,
    /// `--precision int8` without a calibration.
    #[error(
        "int8 needs a calibration, and there is none in {out} or beside the model; make it with \
         camshaft calibrate {model} {images} --out {out}"
    )]
    NoCalibration {
        /// The model.
        model: String,
        /// SOURCE.
        images: String,
        /// OUT.
        out: String,
    },
    /// The broker can't be used.
    #[error("{}", advice::describe_queue_error(.0))]
    Queue(#[from] QueueError),
    /// The run can't start or go on.
    #[error(transparent)]
    Plan(#[from] EnqueuePlanError),
    /// `--only missing` while the queue has messages: the image of each seems missing.
    #[error(
        "{waiting} messages wait in the queue, and an image that seems missing may be among them; \
         use --only missing when the queue is empty (camshaft status tells)"
    )]
    QueueNotEmpty {
        /// Messages in the queue.
        waiting: u64,
    },
}

/// Publishes the jobs of a run.
///
/// # Errors
/// If SOURCE, OUT, the model or the broker can't be used.
pub(crate) async fn enqueue(
    config: EnqueueConfig,
    stores: StoreOptions,
) -> Result<(), EnqueueError> {
    let EnqueueConfig { run, selection, broker } = config;
    // At once: a store that is out of reach is asked for a minute.
    let asked = local_places(&run);
    if is_remote(&broker.url) {
        warn_of_local_places(&asked);
    }
    let mut run = inheritance::inherit(run, &stores).await?;
    calibration::relocate(&mut run, &stores).await;
    if is_remote(&broker.url) {
        let inherited = local_places(&run).into_iter().filter(|name| !asked.contains(name));
        warn_of_local_places(&inherited.collect::<Vec<_>>());
    }
    let IdentifiedModel { mut model, trained_layers, label_map } =
        identify_model(&run, &stores).await?;
    if let (None, Int8Wish::Yes(min)) = (&run.model.options.calibration, run.int8_wish) {
        let of_results = inheritance::record_of_results(&run.out, &stores).await;
        let of_results = of_results.map_err(ModelFilesError::from)?;
        if !calibration::goes_on_without(&mut run, of_results.as_ref()) {
            let found = calibration::find(&model, &run.out, &stores).await;
            let found = found.map_err(ModelFilesError::from)?.ok_or_else(|| {
                let [model, out] = [run.model.reference.to_string(), run.out.to_string()];
                EnqueueError::NoCalibration { model, images: run.source.argument(), out }
            })?;
            let taken = calibration::take(&mut run, &found, min, &stores).await;
            if let Some(reference) = taken.map_err(ModelFilesError::from)? {
                model = model.with_calibration(reference);
            }
        }
    }
    let request = |run: RunConfig, source, dead, queue_name| EnqueueRequest {
        run,
        source,
        model,
        trained_layers,
        label_map,
        selection,
        dead,
        can_redo_all: true,
        queue: JobsQueue::Named(queue_name),
    };
    let queue_name = broker.queue_name();
    if run.dry_run {
        broker::check(&broker)?;
        let source = run.open_source(&stores)?;
        let dead = match selection {
            Selection::Missing => images_of_dead_letters_if_any(broker, &run.out).await?,
            Selection::New | Selection::All | Selection::Failed => Vec::new(),
        };
        let plan = EnqueuePlan::new(request(run, source, dead, queue_name), &stores).await?;
        return Ok(plan.dry_run("enqueue", false).await?);
    }
    let queue = broker::connect(broker).await?;
    let source = run.open_source(&stores)?;
    let dead = match selection {
        Selection::Missing => images_of_dead_letters(&queue, &run.out).await?,
        Selection::New | Selection::All | Selection::Failed => Vec::new(),
    };
    let mut plan = EnqueuePlan::new(request(run, source, dead, queue_name), &stores).await?;
    let (run, counters) = (plan.run(), plan.counters());
    let images = plan.find_images().await?;
    let outlet = plan.open_outlet(&queue).await?;
    plan.begin().await?;

    let watched = Arc::clone(&counters);
    let note = plan.enqueued_run().to_note();
    let publishing = plan.publish(images, outlet, CancellationToken::new());
    // Beside the jobs: a broker that takes no messages for now makes both wait.
    let noting = async { Ok::<_, EnqueuePlanError>(queue.note_run(note).await) };
    let both = async { tokio::try_join!(publishing, noting) };
    let progress = Progress::start("enqueued");
    let done = progress.follow(both, move || progress_counts(&watched)).await;
    queue.close().await;
    let (pruning, noted) = done?;
    // Told at the end: a user who may not publish at all gets an error instead.
    if let Err(error) = noted {
        warn!(%error, "camshaft runs will not list this run, since no note of it can be left");
    }
    print_summary(&counters, selection, run);
    if let Some(pruning) = pruning {
        let removed = pruning.remove().await.map_err(EnqueuePlanError::from)?;
        print_line(&format!("Removed {removed}"));
    }
    Ok(())
}

/// The names of places on this machine's disks.
fn local_places(run: &RunConfig) -> Vec<&'static str> {
    let source = match &run.source {
        SourceConfig::Place(place) => place,
        SourceConfig::List { base, .. } => base,
    };
    let model = match &run.model.reference {
        ModelReference::Folder(place) => Some(place),
        ModelReference::Bundled | ModelReference::Hub(_) => None,
    };
    let classes = match &run.model.options.classes {
        Some(ClassesReference::File(place)) => Some(place),
        _ => None,
    };
    let places =
        [("SOURCE", Some(source)), ("OUT", Some(&run.out)), ("model", model), ("classes", classes)];
    let local = places
        .into_iter()
        .filter(|(_, place)| place.is_some_and(|place| place.local_path().is_some()));
    local.map(|(name, _)| name).collect()
}

/// Warns of places on this machine's disks. Workers that find nothing there fail each image.
fn warn_of_local_places(places: &[&str]) {
    if !places.is_empty() {
        warn!(
            local = places.join(", "),
            "these are on disks of this machine, and the broker is on another: every worker must see \
             the same paths"
        );
    }
}

fn progress_counts(counters: &EnqueueCounters) -> ProgressCounts {
    let passed = counters.skipped.load(Relaxed) + counters.enqueued_before.load(Relaxed);
    ProgressCounts {
        done: counters.published.load(Relaxed) + passed,
        total: counters.listed.load(Relaxed).then(|| counters.found.load(Relaxed)),
        failed: 0,
    }
}

fn print_summary(counters: &EnqueueCounters, selection: Selection, run: RunId) {
    let before = match counters.enqueued_before.load(Relaxed) {
        0 => String::new(),
        before => format!(", {before} were enqueued before"),
    };
    print_line(&format!(
        "Enqueued {} of {} ({} {}{before}), run {run}",
        counters.published.load(Relaxed),
        format_count(counters.found.load(Relaxed), "image"),
        counters.skipped.load(Relaxed),
        selection.of_others(),
    ));
    counters.left_out.to_lines().iter().for_each(|line| print_line(line));
}

/// The images of dead letters, which are not missing. Needs an empty queue: the image of a message
/// that waits there would seem missing.
async fn images_of_dead_letters(
    queue: &RabbitMqQueue,
    out: &Location,
) -> Result<Vec<DeadImage>, EnqueueError> {
    let depth = queue.depth().await?;
    if !depth.is_idle() {
        return Err(EnqueueError::QueueNotEmpty { waiting: depth.ready + depth.retrying });
    }
    /// The fields of a job that tell which image of which run it is about.
    #[derive(serde::Deserialize)]
    struct JobTarget {
        key: ImageKey,
        out: Location,
        generation: Option<Generation>,
    }
    let letters = queue.dead_letters().await?;
    let targets = letters.iter().filter_map(|letter| serde_json::from_slice(&letter.body).ok());
    let of_out = targets.filter(|job: &JobTarget| job.out == *out);
    Ok(of_out.map(|JobTarget { key, generation, .. }| DeadImage { key, generation }).collect())
}

/// As [`images_of_dead_letters`], and creates no queues. There are no dead letters if there are none.
async fn images_of_dead_letters_if_any(
    broker: BrokerConfig,
    out: &Location,
) -> Result<Vec<DeadImage>, EnqueueError> {
    let queue = match broker::connect_to_existing(broker).await {
        Ok(queue) => queue,
        Err(QueueError::NoQueue { .. }) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let images = images_of_dead_letters(&queue, out).await;
    queue.close().await;
    images
}

/// A model that workers can run.
struct IdentifiedModel {
    /// Its name, place and digests.
    model: ModelIdentity,
    trained_layers: Option<TrainedLayers>,
    /// What the label map says of its classes.
    label_map: LabelMap,
}

/// Names a model by the digests of its files, and looks up the classes of the label map among its
/// own. Refuses what no worker could do.
async fn identify_model(
    run: &RunConfig,
    stores: &StoreOptions,
) -> Result<IdentifiedModel, EnqueueError> {
    let ModelRequest { reference, options } = &run.model;
    let stored = match reference {
        ModelReference::Bundled if options.is_default() => None,
        ModelReference::Bundled if options.only_calibration().is_some() => None,
        ModelReference::Bundled => return Err(ModelFilesError::OptionsOfBundled.into()),
        ModelReference::Folder(place) => {
            Some(StoredModel::from_place(place, options, stores).await?)
        }
        ModelReference::Hub(model) => Some(StoredModel::from_hub(model, options, stores).await?),
    };
    let identity = stored.as_ref().map(|stored| stored.identity.clone());
    let config = stored.as_ref().and_then(|stored| stored.config.as_deref());
    let trained_layers = config.and_then(TrainedLayers::of_config);
    let label_map = check_model(run, stored)?;
    let model = identity.unwrap_or_else(|| match options.only_calibration() {
        Some(calibration) => ModelIdentity::bundled().with_calibration(calibration.clone()),
        None => ModelIdentity::bundled(),
    });
    Ok(IdentifiedModel { model, trained_layers, label_map })
}

/// Checks, without loading the model, that it can be run and has what is to be explained. Reads the
/// label map for it. It is the bundled one if it is not stored elsewhere.
#[cfg(feature = "embedded")]
fn check_model(run: &RunConfig, stored: Option<StoredModel>) -> Result<LabelMap, EnqueueError> {
    let config = match stored {
        Some(stored) => ModelFiles::from_stored(stored)?.config().clone(),
        None => ModelConfig::bundled(),
    };
    config.check_explanation(&run.explain)?;
    Ok(LabelMap::read(&run.label_map, &config.label_matcher())?)
}

/// A program without models leaves the check to the workers.
#[cfg(not(feature = "embedded"))]
fn check_model(run: &RunConfig, _stored: Option<StoredModel>) -> Result<LabelMap, EnqueueError> {
    match &run.label_map {
        LabelMapSource::File(_) => Err(EnqueueError::NoModels),
        LabelMapSource::Recorded(words) => Ok(LabelMap::from_words(words.clone())),
        LabelMapSource::Absent => Ok(LabelMap::default()),
    }
}
