//! Second stage: reads the image from SOURCE, unless an earlier try has stored its prediction or a later
//! enqueue has superseded the job.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use camshaft_common::layout::Layout;
use camshaft_common::prediction::{MAX_RECORD_BYTES, PredictionRecord};
use camshaft_common::store::{JSON, StoreErrorKind};
use camshaft_model::ModelFiles;
use camshaft_vision::input::InputRule;

use super::admitted::{Admitted, AdmittedImage};
use super::exit::{Exit, ExitCause};
use super::memory_budget::{ImageMemoryPermit, MemoryBudget};
use super::model_files::ModelUnavailable;
use super::model_files_cache::ModelFilesCache;
use super::reporting::Reporting;
use super::stages::Stage;
use super::stores::Stores;
use super::superseded::SupersededJobs;
use super::traces::{self, HasSpans, ImageSpans};

/// An image whose file was read.
#[derive(Debug)]
pub struct Fetched {
    /// The image and its delivery.
    pub admitted: Admitted,
    /// What was read for it.
    pub file: FetchedFile,
    /// The model that its job asks for.
    pub model: Arc<ModelFiles>,
}

/// An image's file.
#[derive(Debug)]
pub struct FetchedFile {
    /// Its content.
    pub bytes: Bytes,
    /// The right to hold it in memory.
    pub memory: ImageMemoryPermit,
}

impl HasSpans for Fetched {
    fn spans(&self) -> Option<&ImageSpans> {
        self.admitted.spans()
    }
}

/// Reads images.
#[derive(Debug)]
pub struct FetchStage {
    /// Opens SOURCE and OUT.
    pub stores: Arc<Stores>,
    /// Tells jobs that no longer count.
    pub superseded: Arc<SupersededJobs>,
    /// The models that this worker may use.
    pub models: Arc<ModelFilesCache>,
    /// Memory for files that are not decoded yet.
    pub file_budget: Arc<MemoryBudget>,
    /// The largest file that is read.
    pub max_image_bytes: u64,
    /// The most memory that a network may take for one image; none on a GPU, which has its own.
    pub max_activation_bytes: Option<u64>,
    /// Counts bytes.
    pub reporting: Arc<Reporting>,
}

impl Stage for FetchStage {
    const NAME: &'static str = "fetch";
    type Input = Admitted;
    type Output = Fetched;

    async fn process(&self, mut admitted: Admitted) -> Result<Fetched, Exit> {
        if admitted.image.held.has_to_go_back() {
            return Err(Exit::of_image(admitted, ExitCause::NoTime));
        }
        match self.read(&mut admitted.image).await {
            Ok((file, model)) => Ok(Fetched { admitted, file, model }),
            Err(cause) => Err(Exit::of_image(admitted, cause)),
        }
    }
}

impl FetchStage {
    async fn read(
        &self,
        image: &mut AdmittedImage,
    ) -> Result<(FetchedFile, Arc<ModelFiles>), ExitCause> {
        if self.superseded.has(&image.job).await {
            return Err(ExitCause::Superseded);
        }
        let source = self.stores.folder(&image.job.source).map_err(ExitCause::Unopened)?;
        // It is needed at the end. That its settings are wrong is told before there is work.
        drop(self.stores.folder(&image.job.out).map_err(ExitCause::Unopened)?);
        let model = self.models.files_for(&image.job.model).await.map_err(ExitCause::Model)?;
        // Models and options can ask for more than any image is worth. That is told before it is read.
        self.check_input(&model).map_err(ExitCause::Model)?;
        model.check(&image.job.explain)?;
        let started = Instant::now();
        if image.may_be_done() && self.is_done(image).await? {
            return Err(ExitCause::AlreadyDone);
        }
        let key = &image.job.key;
        let fetched = source.get_image(key, self.max_image_bytes, &self.file_budget).await;
        let (object, memory) = fetched?;
        image.timings.fetch = started.elapsed().as_secs_f64() * 1000.0;
        image.record.etag = object.etag;
        image.record.bytes = Some(object.bytes.len() as u64);
        self.reporting.metrics.count_read(object.bytes.len());
        traces::note_bytes(object.bytes.len());
        Ok((FetchedFile { bytes: object.bytes, memory }, model))
    }

    /// Checks that the network has the memory for one image.
    fn check_input(&self, model: &ModelFiles) -> Result<(), Arc<ModelUnavailable>> {
        let (config, bytes) = (model.config(), model.config().activation_bytes());
        match self.max_activation_bytes {
            Some(max_bytes) if bytes > max_bytes => {
                let InputRule { height, width, .. } = config.input;
                Err(Arc::new(ModelUnavailable::LargeInput { width, height, bytes, max_bytes }))
            }
            _ => Ok(()),
        }
    }

    /// True if an earlier try, or the job of another enqueue of this run, has stored a prediction for
    /// the image as it is now. The options of a run never change: other options make another run. So it
    /// is enough to compare the run, the model, the image's label and its entity tag.
    async fn is_done(&self, image: &AdmittedImage) -> Result<bool, ExitCause> {
        let job = &image.job;
        let out = self.stores.folder(&job.out).map_err(ExitCause::Out)?;
        let layout = Layout::of(&job.out);
        let path = layout.prediction(&job.key);
        let stored = match out.get(&path, MAX_RECORD_BYTES, &self.file_budget).await {
            Ok((stored, _memory)) => stored,
            // One in an archive is made again.
            Err(error)
                if matches!(
                    error.kind(),
                    StoreErrorKind::NotFound | StoreErrorKind::ArchivedOrEncrypted
                ) =>
            {
                return Ok(false);
            }
            Err(error) => return Err(ExitCause::Out(error)),
        };
        let Ok(mut record) = serde_json::from_slice::<PredictionRecord>(&stored.bytes) else {
            return Ok(false);
        };
        if record.run != job.run {
            return Ok(false);
        }
        // What a later enqueue wanted counts more than this job.
        if record.generation > job.generation {
            return Ok(true);
        }
        let is_of_job = record.model.digest == job.model.digest
            && record.image.label == image.record.label
            // An older result is to be replaced though it is of the same image.
            && !(job.replaces && record.generation < job.generation);
        if !is_of_job {
            return Ok(false);
        }
        let source = self.stores.folder(&job.source).map_err(ExitCause::Source)?;
        let now = source.head_image(&job.key).await?;
        if now.etag != record.image.etag {
            return Ok(false);
        }
        if record.generation < job.generation {
            // A result counts if it is newer than the enqueue that asks for it.
            record.generation = job.generation;
            let json = serde_json::to_vec(&record).expect("a record has only strings and numbers");
            out.put(&path, json, JSON).await.map_err(ExitCause::Out)?;
        }
        // The earlier try may have ended after it wrote the prediction and before it removed an
        // old failure.
        out.delete(&layout.failure(&job.key)).await.map_err(ExitCause::Out)?;
        Ok(true)
    }
}
