//! Second stage: reads the image from SOURCE, unless its prediction in OUT can be kept or a later enqueue
//! has superseded the job.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use camshaft_model::ModelFiles;
use camshaft_vision::input::InputRule;

use super::admitted::{Admitted, AdmittedImage};
use super::exit::{Exit, ExitCause};
use super::memory_budget::{ImageMemoryPermit, MemoryBudget};
use super::model_files::ModelUnavailable;
use super::model_files_cache::ModelFilesCache;
use super::reporting::Reporting;
use super::stages::Stage;
use super::stored_prediction::StoredPrediction;
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
    /// A prediction in OUT that is kept if the file has the same digest.
    pub stored: Option<Box<StoredPrediction>>,
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
            Ok((file, model, stored)) => Ok(Fetched { admitted, file, model, stored }),
            Err(cause) => Err(Exit::of_image(admitted, cause)),
        }
    }
}

impl FetchStage {
    async fn read(
        &self,
        image: &mut AdmittedImage,
    ) -> Result<(FetchedFile, Arc<ModelFiles>, Option<Box<StoredPrediction>>), ExitCause> {
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
        let stored = match image.may_be_done() {
            true => self.find_stored(image, &model).await?,
            false => None,
        };
        let key = &image.job.key;
        let fetched = source.get_image(key, self.max_image_bytes, &self.file_budget).await;
        let (object, memory) = fetched?;
        image.timings.fetch = started.elapsed().as_secs_f64() * 1000.0;
        image.record.etag = object.etag;
        image.record.bytes = Some(object.bytes.len() as u64);
        self.reporting.metrics.count_read(object.bytes.len());
        traces::note_bytes(object.bytes.len());
        Ok((FetchedFile { bytes: object.bytes, memory }, model, stored))
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

    /// Looks for a prediction in OUT that makes this try needless, and leaves with it. Returns one that
    /// does so if the image's file has the same digest, which is known when it is read.
    async fn find_stored(
        &self,
        image: &AdmittedImage,
        model: &ModelFiles,
    ) -> Result<Option<Box<StoredPrediction>>, ExitCause> {
        let job = &image.job;
        let out = self.stores.folder(&job.out).map_err(ExitCause::Out)?;
        let stored = StoredPrediction::read(job, &out, &self.file_budget).await;
        let Some(stored) = stored.map_err(ExitCause::Out)? else { return Ok(None) };
        if stored.is_of_later_than(job) {
            return Err(ExitCause::AlreadyDone);
        }
        let Some(kept) = stored.for_job(job, model) else { return Ok(None) };
        let source = self.stores.folder(&job.source).map_err(ExitCause::Source)?;
        let now = source.head_image(&job.key).await?;
        if kept.is_of(&now, &job.source) {
            return Err(ExitCause::Kept(Box::new(kept)));
        }
        Ok(kept.may_be_of(&now).then(|| Box::new(kept)))
    }
}
