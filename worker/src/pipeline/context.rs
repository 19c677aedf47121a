//! What every stage shares: options, opened stores, model files, counts.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use camshaft_common::location::Location;
use camshaft_common::store::{Folder, StoreError, StoreOptions};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::model_files::ModelShelf;
use super::places::Places;
use super::tally::Tally;
use crate::decoding::ImageLimits;

/// How much each stage does at once, and so what the pipeline holds.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Images read from the store at once.
    pub fetches: usize,
    /// Images decoded at once, and images rendered at once.
    pub cores: usize,
    /// Images in a batch, at most.
    pub batch: usize,
    /// How long a batch's first image waits for company.
    pub batch_wait: Duration,
    /// Images written to the store at once.
    pub stores: usize,
    /// Bytes of decoded pixels held in all stages together.
    pub pixel_bytes: usize,
    /// Limits on one image.
    pub image: ImageLimits,
}

impl Limits {
    /// Deliveries to hold unsettled: what the stages and the channels behind them hold,
    /// with one batch in the model, one ready and one filling. Fewer would starve a stage;
    /// more would only keep messages from other workers.
    #[must_use]
    pub fn prefetch(&self) -> u16 {
        let held = 2 // admit and its channel
            + 2 * self.fetches
            + 2 * self.cores
            + 3 * self.batch
            + 2 * self.cores
            + 2 * self.stores
            + self.stores; // settle
        u16::try_from(held).unwrap_or(u16::MAX)
    }
}

/// What every stage shares.
#[derive(Debug)]
pub struct Context {
    /// How much is done at once.
    pub limits: Limits,
    /// This worker's name in results.
    pub worker: String,
    /// Which models this worker may use, and their files.
    pub models: ModelShelf,
    /// Which places jobs may name.
    pub places: Places,
    /// What has happened so far.
    pub tally: Arc<Tally>,
    store_options: StoreOptions,
    folders: Mutex<HashMap<Location, Folder>>,
    pixels: Arc<Semaphore>,
}

/// The budget is counted in KiB: a semaphore holds fewer permits than a large budget has
/// bytes.
const BUDGET_UNIT_BYTES: usize = 1024;

impl Context {
    /// Nothing opened, nothing counted yet.
    #[must_use]
    pub fn new(
        limits: Limits,
        worker: String,
        models: ModelShelf,
        store_options: StoreOptions,
    ) -> Self {
        let budget = (limits.pixel_bytes / BUDGET_UNIT_BYTES).max(1);
        Self {
            limits,
            worker,
            models,
            places: Places::default(),
            tally: Arc::default(),
            store_options,
            folders: Mutex::default(),
            pixels: Arc::new(Semaphore::new(budget)),
        }
    }

    /// The store behind a place, opened once.
    ///
    /// # Errors
    /// Where the store's configuration is incomplete.
    pub fn folder(&self, location: &Location) -> Result<Folder, StoreError> {
        // A panic while holding it leaves at worst an entry out.
        let mut folders = self.folders.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(folder) = folders.get(location) {
            return Ok(folder.clone());
        }
        let folder = Folder::open(location, &self.store_options)?;
        folders.insert(location.clone(), folder.clone());
        Ok(folder)
    }

    /// Waits until decoding an image of so many bytes keeps within the budget. An image
    /// larger than the whole budget gets all of it, and so is decoded alone.
    pub async fn reserve_pixels(&self, bytes: u64) -> OwnedSemaphorePermit {
        let budget = (self.limits.pixel_bytes / BUDGET_UNIT_BYTES).max(1);
        let wanted = usize::try_from(bytes).unwrap_or(usize::MAX) / BUDGET_UNIT_BYTES + 1;
        let permits = u32::try_from(wanted.min(budget)).unwrap_or(u32::MAX);
        Arc::clone(&self.pixels)
            .acquire_many_owned(permits)
            .await
            .expect("the semaphore is never closed")
    }
}
