//! What every stage shares: options, opened stores, model files, counts.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use camshaft_common::location::Location;
use camshaft_common::store::{Folder, StoreError, StoreOptions};
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

use super::batch_size::BatchSize;
use super::budget::Budget;
use super::model_files::ModelShelf;
use super::outage::{Patience, SteadyFolder};
use super::places::Places;
use super::tally::Tally;
use super::trouble::Trouble;
use crate::metrics::Metrics;
use crate::waiting;
use camshaft_decoding::ImageLimits;

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
    /// Bytes of files read and not yet decoded, in all stages together.
    pub file_bytes: u64,
    /// Bytes of decoded pixels and encoded overlays, in all stages together.
    pub pixel_bytes: u64,
    /// How long the decoding of one image may take.
    pub decode_time: Duration,
    /// Limits on one image.
    pub image: ImageLimits,
}

impl Limits {
    /// Deliveries to hold unsettled: what the stages and the channels behind them hold,
    /// with one batch in the model, one ready and one filling. Fewer would starve a stage;
    /// more would only keep messages from other workers.
    #[must_use]
    pub fn prefetch(&self) -> u16 {
        // One more that is worked on alone doesn't count here: it has a prefetch of its own.
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

/// Places kept open. A run has two; messages could name any number.
const KEPT_FOLDERS: usize = 64;

/// An image's leave to be in work, until it is dropped.
#[derive(Debug)]
pub enum Pass {
    /// Beside others.
    Shared(OwnedRwLockReadGuard<()>),
    /// With nothing beside it.
    Alone(OwnedRwLockWriteGuard<()>),
}

impl Pass {
    /// Whether no other image is in work.
    #[must_use]
    pub fn is_alone(&self) -> bool {
        matches!(self, Self::Alone(_))
    }
}

/// What every stage shares.
#[derive(Debug)]
pub struct Context {
    /// How much is done at once.
    pub limits: Limits,
    /// Images the model takes at once now, of at most [`Limits::batch`].
    pub batch: Arc<BatchSize>,
    /// This worker's name in results.
    pub worker: String,
    /// Which models this worker may use, and their files.
    pub models: ModelShelf,
    /// Which places jobs may name.
    pub places: Places,
    /// What has happened so far.
    pub tally: Arc<Tally>,
    /// How it happened.
    pub metrics: Metrics,
    /// What no waiting mends.
    pub trouble: Arc<Trouble>,
    /// Memory for files read and not yet decoded.
    pub files: Budget,
    /// Memory for pixels and overlays.
    pub pixels: Budget,
    store_options: StoreOptions,
    patience: Patience,
    folders: Mutex<HashMap<Location, SteadyFolder>>,
    /// Held for reading by images side by side, for writing by one that is to be alone.
    passes: Arc<RwLock<()>>,
}

impl Context {
    /// Nothing opened, nothing counted yet.
    #[must_use]
    pub fn new(
        (limits, batch): (Limits, BatchSize),
        worker: String,
        models: ModelShelf,
        store_options: StoreOptions,
        patience: Patience,
        trouble: Trouble,
    ) -> Self {
        Self {
            limits,
            batch: Arc::new(batch),
            worker,
            models,
            places: Places::default(),
            tally: Arc::default(),
            metrics: Metrics::default(),
            trouble: Arc::new(trouble),
            files: Budget::new(limits.file_bytes),
            pixels: Budget::new(limits.pixel_bytes),
            store_options,
            patience,
            folders: Mutex::default(),
            passes: Arc::default(),
        }
    }

    /// The store behind a place, opened once.
    ///
    /// # Errors
    /// Where the store's configuration is incomplete.
    pub fn folder(&self, location: &Location) -> Result<SteadyFolder, StoreError> {
        // A panic while holding it leaves at worst an entry out.
        let mut folders = self.folders.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(folder) = folders.get(location) {
            return Ok(folder.clone());
        }
        let folder = Folder::open(location, &self.store_options)?;
        let folder = SteadyFolder::new(folder, self.patience);
        // Who has one goes on using it.
        if folders.len() >= KEPT_FOLDERS {
            folders.clear();
        }
        folders.insert(location.clone(), folder.clone());
        Ok(folder)
    }

    /// Why stores that are waited for don't answer.
    #[must_use]
    pub fn outages(&self) -> Vec<String> {
        let folders = self.folders.lock().unwrap_or_else(PoisonError::into_inner);
        folders.values().filter_map(|folder| folder.outage().reason()).collect()
    }

    /// Waits until an image may be in work: alone, or beside others.
    pub async fn pass(&self, alone: bool) -> Pass {
        let passes = Arc::clone(&self.passes);
        if alone {
            Pass::Alone(waiting::for_turn(passes.write_owned()).await)
        } else {
            Pass::Shared(waiting::for_turn(passes.read_owned()).await)
        }
    }
}
