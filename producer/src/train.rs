//! `camshaft train`: wires the worker's training to files, a progress bar and lines for
//! people. After every epoch the folder holds a model that can be used, and a checkpoint to
//! go on from.

pub(crate) mod files;
pub(crate) mod learning_curve;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use camshaft_common::store::StoreOptions;
use camshaft_model::Architecture;
use camshaft_training::{
    Checkpoint, Dataset, EpochRecord, Init, Options, Settings, Trainer, TrainingError, Watch, best,
};
use camshaft_worker::engine::EngineError;
use camshaft_worker::pipeline::model_files;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use crate::audit::stop_on_interrupt;
use crate::cli::train::{FlipChoice, InitChoice, TrainArgs};
use crate::terminal::output::{count, duration, say};
use crate::terminal::progress::Progress;
use crate::train::files::TrainFiles;

/// Why a training doesn't start, or is not a success.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TrainError {
    /// The initial model has an architecture of its own.
    #[error("--architecture goes with --init random; another model's own can't be changed")]
    ArchitectureOfModel,
    /// The folder has a model that no training with a checkpoint made.
    #[error("{path} has a model but no checkpoint to go on from; choose another --out")]
    OtherModel {
        /// The folder.
        path: PathBuf,
    },
    /// The user stopped it.
    #[error("stopped after {}; run the same command again to go on", count(u64::from(*epochs), "epoch"))]
    Stopped {
        /// How many are done.
        epochs: u32,
    },
}

/// Trains a model.
///
/// # Errors
/// Where arguments don't go together, the data set or the initial model can't be used, or
/// files can't be written.
pub(crate) async fn train(args: TrainArgs, stores: StoreOptions) -> anyhow::Result<()> {
    let started = Instant::now();
    let init = read_init(&args, &stores).await?;
    let (root, share) = (args.dataset.clone(), args.val_share);
    let dataset = spawn_blocking(move || Dataset::find(&root, share)).await??;
    let settings = Settings::new(&init, &options(&args), &dataset)?;
    let files = TrainFiles::new(args.out.clone());
    let checkpoint = read_checkpoint(&files, &settings)?;
    let done = checkpoint.as_ref().map_or(0, epochs_done);
    if let Some(checkpoint) = &checkpoint
        && done >= args.epochs
    {
        // A crash may have come between the checkpoint and these.
        files.write_record(&settings, checkpoint.skipped_images(), checkpoint.history())?;
        say(&format!("Trained for {} already", count(u64::from(done), "epoch")));
        summarise(checkpoint.history(), &files);
        return Ok(());
    }
    describe(&settings, done);
    let stop = CancellationToken::new();
    stop_on_interrupt(stop.clone())?;
    let training = Training { settings, files, stop };
    let mut trainer = training.prepare(init, dataset, checkpoint).await?;
    if trainer.skipped_images() > 0 {
        let images = count(trainer.skipped_images(), "image");
        say(&format!("Left out {images} that can't be read"));
    }
    for epoch in done + 1..=args.epochs {
        trainer = training.epoch(trainer, epoch).await?;
        let last = trainer.history().last().expect("an epoch was trained");
        say(&epoch_line(last, args.epochs));
    }
    let epochs = count(u64::from(args.epochs - done), "epoch");
    say(&format!("Trained {epochs} in {}", duration(started.elapsed().as_secs_f64())));
    summarise(trainer.history(), &training.files);
    Ok(())
}

/// What does not change from epoch to epoch.
struct Training {
    settings: Settings,
    files: TrainFiles,
    stop: CancellationToken,
}

impl Training {
    async fn prepare(
        &self,
        init: Init,
        dataset: Dataset,
        checkpoint: Option<Checkpoint>,
    ) -> anyhow::Result<Trainer> {
        let settings = self.settings.clone();
        let done = checkpoint.as_ref().map_or(0, epochs_done);
        let prepare = move |watch: &Watch| {
            Trainer::prepare(settings, &init, &dataset, checkpoint.as_ref(), watch)
        };
        self.watch("prepared", done, prepare).await
    }

    /// Trains an epoch and writes what came of it.
    async fn epoch(&self, mut trainer: Trainer, epoch: u32) -> anyhow::Result<Trainer> {
        let watch = |watch: &Watch| {
            trainer.train_epoch(watch)?;
            Ok(trainer)
        };
        let trainer = self.watch("trained", epoch - 1, watch).await?;
        let (files, settings) = (self.files.clone(), self.settings.clone());
        spawn_blocking(move || {
            // First: it tells the model of a training that was killed here from another's.
            files.write_record(&settings, trainer.skipped_images(), trainer.history())?;
            if trainer.is_best() {
                files.write_model(&settings, &trainer.model()?)?;
            }
            // Last: whatever comes before is made again from the checkpoint before.
            files.write_checkpoint(&trainer.checkpoint()?.encode()?)?;
            Ok(trainer)
        })
        .await?
    }

    /// Runs `work` on a thread of its own, with a progress bar; `epochs` are done before.
    async fn watch<T: Send + 'static>(
        &self,
        verb: &'static str,
        epochs: u32,
        work: impl FnOnce(&Watch) -> Result<T, TrainingError> + Send + 'static,
    ) -> anyhow::Result<T> {
        let watch = Arc::new(Watch::new(self.stop.clone()));
        let shared = Arc::clone(&watch);
        let read = move || (watch.done.load(Relaxed), Some(watch.total.load(Relaxed)), 0);
        let work = spawn_blocking(move || work(&shared));
        match Progress::start(verb).follow(work, read).await? {
            Err(TrainingError::Stopped) => Err(TrainError::Stopped { epochs }.into()),
            other => Ok(other?),
        }
    }
}

async fn read_init(args: &TrainArgs, stores: &StoreOptions) -> anyhow::Result<Init> {
    match (&args.init, args.architecture) {
        (InitChoice::Random, architecture) => {
            Ok(Init::Random(architecture.unwrap_or(Architecture::ResNet50)))
        }
        (InitChoice::Model(_), Some(_)) => Err(TrainError::ArchitectureOfModel.into()),
        (InitChoice::Model(reference), None) => {
            let files = model_files::read(reference, stores).await.map_err(EngineError::from)?;
            Ok(Init::Model(Box::new(files)))
        }
    }
}

fn options(args: &TrainArgs) -> Options {
    Options {
        layers: args.layers.into(),
        head: args.head.into(),
        image_size: args.image_size.map(usize::from),
        flip: args.flip == FlipChoice::Horizontal,
        batch: usize::from(args.batch),
        learning_rate: args.learning_rate,
        seed: args.seed,
    }
}

/// The checkpoint to go on from, if there is one; another training's is an error.
fn read_checkpoint(files: &TrainFiles, settings: &Settings) -> anyhow::Result<Option<Checkpoint>> {
    let Some(bytes) = files.read_checkpoint()? else {
        // A training killed at the end of its first epoch leaves a record beside it.
        if files.has_model() && !files.has_record() {
            return Err(TrainError::OtherModel { path: files.folder().to_owned() }.into());
        }
        return Ok(None);
    };
    let checkpoint = Checkpoint::decode(&bytes)?;
    match settings.difference(checkpoint.settings()) {
        Some(difference) => Err(TrainingError::OtherTraining(difference).into()),
        None => Ok(Some(checkpoint)),
    }
}

fn epochs_done(checkpoint: &Checkpoint) -> u32 {
    checkpoint.history().last().map_or(0, |last| last.epoch)
}

fn describe(settings: &Settings, done: u32) {
    let classes = &settings.model.classes;
    let images = |number: usize| count(number as u64, "image");
    say(&format!(
        "{} classes, {} to train on, {} to validate on",
        classes.len(),
        images(settings.dataset.training_images),
        images(settings.dataset.validation_images),
    ));
    if done > 0 {
        say(&format!("Going on after epoch {done}"));
    }
}

fn epoch_line(record: &EpochRecord, epochs: u32) -> String {
    let EpochRecord { epoch, training_loss, validation_loss, seconds, .. } = record;
    format!(
        "Epoch {epoch}/{epochs}: training loss {training_loss:.4}, accuracy {:.1} %; validation \
         loss {validation_loss:.4}, accuracy {:.1} %; {seconds:.1} s",
        100.0 * record.training_accuracy,
        100.0 * record.validation_accuracy,
    )
}

fn summarise(history: &[EpochRecord], files: &TrainFiles) {
    if let Some(best) = best(history) {
        let accuracy = 100.0 * best.validation_accuracy;
        say(&format!("Best validation accuracy {accuracy:.1} % in epoch {}", best.epoch));
    }
    let folder = files.folder().display();
    say(&format!("The model is in {folder}; use it with --model {folder}"));
}
