//! A ready model with everything its pipeline needs, for whichever queue feeds it.

use std::sync::Arc;

use camshaft_common::store::StoreOptions;
use camshaft_queue::Deliveries;

use crate::arguments::EngineArgs;
use crate::pipeline::context::Context;
use crate::pipeline::explain::ModelThread;
use crate::pipeline::model_files::{ModelShelf, ModelUnavailable};
use crate::pipeline::outage::Patience;
use crate::pipeline::places::Places;
use crate::pipeline::tally::Tally;
use crate::pipeline::trouble::Trouble;
use crate::pipeline::{self, PipelineError};
use camshaft_model::{ModelError, ModelFiles};

/// Why an engine can't start.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The model's files can't be had.
    #[error(transparent)]
    Files(#[from] ModelUnavailable),
    /// The device or the model can't be used.
    #[error(transparent)]
    Model(#[from] ModelError),
}

/// Whose engine it is, and what it may do.
#[derive(Debug)]
pub struct Terms {
    /// Only the first model is used: jobs for others are put back.
    pub pinned: bool,
    /// The name in results.
    pub worker: String,
    /// How long stores that don't answer are waited for.
    pub patience: Patience,
    /// What to do about errors that no waiting mends.
    pub trouble: Trouble,
    /// Which places jobs may name.
    pub places: Places,
}

/// A device with a model on it, not yet running.
#[derive(Debug)]
pub struct Engine {
    context: Arc<Context>,
    model: ModelThread,
}

impl Engine {
    /// Opens the device and builds a model. With `pinned`, jobs for other models are put
    /// back; without, each job's own model is loaded when it first comes. Jobs that name
    /// other than `places` are dead-lettered.
    ///
    /// # Errors
    /// Where the device or the model can't be used.
    pub fn start(
        args: &EngineArgs,
        first: Option<Arc<ModelFiles>>,
        stores: StoreOptions,
        terms: Terms,
    ) -> Result<Self, EngineError> {
        let Terms { pinned, worker, patience, trouble, places } = terms;
        let device = args.device.open().map_err(ModelError::from)?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let batch = args.batch_size(&device);
        let thread = ModelThread::new(device, args.precision, args.kernel, first.as_deref())?;
        let mut context = Context::new(
            (args.limits(cores, batch.most()), batch),
            worker,
            ModelShelf::new(first, pinned, stores.clone()),
            stores,
            patience,
            trouble,
        );
        context.places = if pinned { places.with_any_model() } else { places };
        Ok(Self { context: Arc::new(context), model: thread })
    }

    /// Deliveries the pipeline holds at once.
    #[must_use]
    pub fn prefetch(&self) -> u16 {
        self.context.limits.prefetch()
    }

    /// Counts that change while it runs.
    #[must_use]
    pub fn tally(&self) -> Arc<Tally> {
        Arc::clone(&self.context.tally)
    }

    /// What keeps images from getting done, while it runs.
    #[must_use]
    pub fn context(&self) -> Arc<Context> {
        Arc::clone(&self.context)
    }

    /// Works until the deliveries end and all taken are settled.
    ///
    /// # Errors
    /// Where a stage panicked.
    pub async fn run(self, deliveries: Deliveries) -> Result<(), PipelineError> {
        pipeline::run(deliveries, self.context, self.model).await
    }
}
