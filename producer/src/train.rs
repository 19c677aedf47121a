//! `camshaft train`: trains a model, and writes it with a checkpoint after every epoch.
//!
//! Wiring only: [`camshaft_training`] trains, and [`files`] writes. A training that was stopped or
//! killed goes on from its checkpoint when the same command is run again.

mod describe;
pub(crate) mod files;
pub(crate) mod learning_curve;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use camshaft_common::location::LocationError;
use camshaft_common::model::{ClassesReference, ModelReference, ModelRequest};
use camshaft_common::store::StoreOptions;
use camshaft_model::Architecture;
use camshaft_training::{
    Checkpoint, Dataset, DatasetError, DatasetOptions, EpochRecord, Init, ListedExample, Options,
    Settings, SplitRule, Trainer, TrainingError, Watch,
};
use camshaft_worker::pipeline::model_files::{self, ModelUnavailable};
use tokio::task::{JoinError, spawn_blocking};
use tokio_util::sync::CancellationToken;

use crate::advice;
use crate::images::list_columns::ListColumns;
use crate::images::list_file::{ListFile, ListFileError};
use crate::images::list_lines::ListedImage;
use crate::interrupt::cancel_on_signal;
use crate::terminal::output::{format_count, format_elapsed, print_line};
use crate::terminal::progress::{Progress, ProgressCounts};
use files::{TrainingFileError, TrainingFiles, WriteRecordError};

/// What `camshaft train` is to do.
#[derive(Clone, Debug)]
pub(crate) struct TrainConfig {
    /// The images.
    pub(crate) dataset: DatasetConfig,
    /// The folder the model goes to.
    pub(crate) out: PathBuf,
    /// Where to start.
    pub(crate) init: InitConfig,
    /// How often to train on every image.
    pub(crate) epochs: u32,
    /// The share of images to validate on, if no folder says which.
    pub(crate) validation_share: Option<f64>,
    /// How to train.
    pub(crate) options: Options,
}

/// The images of a training.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum DatasetConfig {
    /// A folder of class folders.
    Folder(PathBuf),
    /// A list.
    List {
        /// The file; `-` is standard input.
        path: String,
        /// The folder that its keys are below.
        base: PathBuf,
        /// Which of its columns are keys and labels.
        columns: ListColumns,
    },
}

/// The model that a training starts with.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum InitConfig {
    /// A network with random weights.
    Random(Architecture),
    /// Another model, with its own architecture.
    Model(ModelReference),
}

/// Why a training doesn't start, or is not a success.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The initial model's files can't be used.
    #[error(transparent)]
    Init(#[from] ModelUnavailable),
    /// The images can't be used.
    #[error("{}", advice::describe_dataset_error(.0))]
    Dataset(#[from] DatasetError),
    /// The list of images can't be read.
    #[error(transparent)]
    List(#[from] ListFileError),
    /// The folder that a list's keys are below is no place.
    #[error(transparent)]
    Base(#[from] LocationError),
    /// The training can't start, go on or end.
    #[error("{}", advice::describe_training_error(.0))]
    Training(#[from] TrainingError),
    /// A file can't be read or written.
    #[error(transparent)]
    File(#[from] TrainingFileError),
    /// The record or its picture can't be written.
    #[error(transparent)]
    Record(#[from] WriteRecordError),
    /// The folder has a model that no training with a checkpoint made.
    #[error("{path} has a model but no checkpoint to go on from; choose another --out")]
    OtherModel {
        /// The folder.
        path: PathBuf,
    },
    /// Signals can't be received.
    #[error("cannot listen for signals: {0}")]
    Signals(#[source] std::io::Error),
    /// A bug.
    #[error("the training ended by a panic, which is a bug; run the same command again to go on")]
    Panicked(#[source] JoinError),
    /// The user stopped it.
    #[error(
        "stopped after {}; run the same command again to go on",
        format_count(u64::from(*epochs), "epoch")
    )]
    Stopped {
        /// How many epochs are done.
        epochs: u32,
    },
}

/// Trains a model.
///
/// # Errors
/// If the data set or the initial model can't be used, or if files can't be written.
pub(crate) async fn train(config: TrainConfig, stores: StoreOptions) -> Result<(), TrainError> {
    let started = Instant::now();
    let init = read_init(&config.init, &stores).await?;
    let files = TrainingFiles::new(config.out);
    let checkpoint = read_checkpoint(&files)?;
    let options = DatasetOptions {
        share: config.validation_share,
        out: Some(files.folder().to_owned()),
        split: checkpoint
            .as_ref()
            .map_or(SplitRule::Stratified, |checkpoint| checkpoint.settings().dataset.split),
    };
    let place = config.dataset;
    let dataset = spawn_blocking(move || find_images(place, &options)).await;
    let dataset = dataset.map_err(TrainError::Panicked)??;
    let mut settings = Settings::new(&init, &config.options, &dataset)?;
    if let Some(checkpoint) = &checkpoint {
        settings = settings.as_begun(&init, checkpoint.settings())?;
        settings.check_same(checkpoint.settings())?;
    }
    let done = checkpoint.as_ref().map_or(0, epochs_done);
    if let Some(checkpoint) = &checkpoint
        && done >= config.epochs
    {
        // The process may have been killed between the checkpoint and these files.
        let (skipped, kept) = (checkpoint.skipped_images(), checkpoint.kept_epoch());
        files.write_record(&settings, skipped, kept, checkpoint.history())?;
        print_line(&format!("Trained for {} already", format_count(u64::from(done), "epoch")));
        print_summary(checkpoint.history(), kept, &files);
        return Ok(());
    }
    describe::dataset(&dataset).iter().for_each(|line| print_line(line));
    if done > 0 {
        print_line(&format!("Going on after epoch {done}"));
    }
    let stop = CancellationToken::new();
    cancel_on_signal(stop.clone()).map_err(TrainError::Signals)?;
    let training = Training { settings, files, stop };
    let mut trainer = training.prepare(init, dataset, checkpoint).await?;
    if trainer.skipped_images() > 0 {
        let images = format_count(trainer.skipped_images(), "image");
        print_line(&format!("Left out {images} that can't be read"));
    }
    for epoch in done + 1..=config.epochs {
        trainer = training.train_epoch(trainer, epoch).await?;
        let last = trainer.history().last().expect("an epoch was trained");
        print_line(&describe::epoch(last, config.epochs));
    }
    let epochs = format_count(u64::from(config.epochs - done), "epoch");
    let duration = format_elapsed(started.elapsed().as_secs_f64());
    print_line(&format!("Trained {epochs} in {duration}"));
    print_summary(trainer.history(), trainer.kept_epoch(), &training.files);
    Ok(())
}

/// The images of a folder or of a list.
fn find_images(place: DatasetConfig, options: &DatasetOptions) -> Result<Dataset, TrainError> {
    let (path, base, columns) = match place {
        DatasetConfig::Folder(root) => return Ok(Dataset::find(&root, options)?),
        DatasetConfig::List { path, base, columns } => (path, base, columns),
    };
    let location = base.to_string_lossy().parse()?;
    let listed = ListFile::new(path, &location, columns).read_whole()?;
    let examples = listed.into_iter().map(|image| {
        let ListedImage { key, label, split, line } = image;
        ListedExample { key, label, split, line }
    });
    Ok(Dataset::of_list(&base, &examples.collect::<Vec<_>>(), options)?)
}

/// What does not change from epoch to epoch.
struct Training {
    settings: Settings,
    files: TrainingFiles,
    stop: CancellationToken,
}

impl Training {
    async fn prepare(
        &self,
        init: Init,
        dataset: Dataset,
        checkpoint: Option<Checkpoint>,
    ) -> Result<Trainer, TrainError> {
        let settings = self.settings.clone();
        let done = checkpoint.as_ref().map_or(0, epochs_done);
        let prepare = move |watch: &Watch| {
            Trainer::prepare(settings, &init, &dataset, checkpoint.as_ref(), watch)
        };
        self.run_watched("prepared", done, prepare).await
    }

    /// Trains an epoch and writes its files.
    async fn train_epoch(&self, mut trainer: Trainer, epoch: u32) -> Result<Trainer, TrainError> {
        let train = |watch: &Watch| {
            trainer.train_epoch(watch)?;
            Ok(trainer)
        };
        let trainer = self.run_watched("trained", epoch - 1, train).await?;
        let (files, settings) = (self.files.clone(), self.settings.clone());
        let written = spawn_blocking(move || {
            // First: a model beside a record, but without a checkpoint, is from this training,
            // which was killed here. A model alone is not.
            let (skipped, kept) = (trainer.skipped_images(), trainer.kept_epoch());
            files.write_record(&settings, skipped, kept, trainer.history())?;
            if trainer.is_best() {
                files.write_model(&settings, &trainer.model()?)?;
            }
            // Last: if the process is killed before, the epoch is trained again from the
            // checkpoint of the one before.
            files.write_checkpoint(&trainer.checkpoint()?.encode()?)?;
            Ok(trainer)
        });
        written.await.map_err(TrainError::Panicked)?
    }

    /// Runs `work` on a thread of its own, with a progress bar. `epochs` are done already.
    async fn run_watched<T: Send + 'static>(
        &self,
        verb: &'static str,
        epochs: u32,
        work: impl FnOnce(&Watch) -> Result<T, TrainingError> + Send + 'static,
    ) -> Result<T, TrainError> {
        let watch = Arc::new(Watch::new(self.stop.clone()));
        let shared = Arc::clone(&watch);
        let counts = move || ProgressCounts {
            done: watch.done.load(Relaxed),
            // Not known before the work begins.
            total: Some(watch.total.load(Relaxed)).filter(|total| *total > 0),
            failed: 0,
        };
        let work = spawn_blocking(move || work(&shared));
        let done = Progress::start(verb).follow(work, counts).await;
        match done.map_err(TrainError::Panicked)? {
            Err(TrainingError::Stopped) => Err(TrainError::Stopped { epochs }),
            other => Ok(other?),
        }
    }
}

async fn read_init(init: &InitConfig, stores: &StoreOptions) -> Result<Init, ModelUnavailable> {
    match init {
        InitConfig::Random(architecture) => Ok(Init::Random(*architecture)),
        InitConfig::Model(reference) => {
            let mut request = ModelRequest::from(reference.clone());
            // Weights alone name no classes. None are needed: a new head replaces them.
            if matches!(reference, ModelReference::Folder(_)) {
                request.options.classes = Some(ClassesReference::ImageNet1k);
            }
            Ok(Init::Model(Box::new(model_files::read(&request, stores).await?)))
        }
    }
}

/// The checkpoint to go on from, if there is one.
///
/// # Errors
/// If the folder's checkpoint can't be read, or the folder holds another model.
fn read_checkpoint(files: &TrainingFiles) -> Result<Option<Checkpoint>, TrainError> {
    let Some(bytes) = files.read_checkpoint()? else {
        // A training that was killed at the end of its first epoch left a record with its model.
        if files.has_model() && !files.has_record() {
            return Err(TrainError::OtherModel { path: files.folder().to_owned() });
        }
        return Ok(None);
    };
    Ok(Some(Checkpoint::decode(&bytes)?))
}

fn epochs_done(checkpoint: &Checkpoint) -> u32 {
    checkpoint.history().last().map_or(0, |last| last.epoch)
}

fn print_summary(history: &[EpochRecord], kept_epoch: Option<u32>, files: &TrainingFiles) {
    if let Some(kept) = history.iter().find(|epoch| Some(epoch.epoch) == kept_epoch) {
        print_line(&describe::kept_epoch(kept));
    }
    let folder = files.folder().display();
    print_line(&format!("The model is in {folder}; use it with --model {folder}"));
}
