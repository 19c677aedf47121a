//! The folders that jobs name, opened once and shared by all stages.

use std::collections::HashMap;

use camshaft_common::location::Location;
use camshaft_common::store::{Folder, StoreError, StoreOptions};
use parking_lot::Mutex;

use super::outage::OutagePolicy;
use super::retrying_folder::RetryingFolder;

/// Folders kept open. A run has two, but messages could name any number.
const MAX_OPEN_FOLDERS: usize = 64;

/// Opens folders in stores, and knows which stores are out.
#[derive(Debug)]
pub struct Stores {
    options: StoreOptions,
    policy: OutagePolicy,
    open: Mutex<HashMap<Location, RetryingFolder>>,
}

impl Stores {
    /// Nothing is open yet.
    #[must_use]
    pub fn new(options: StoreOptions, policy: OutagePolicy) -> Self {
        Self { options, policy, open: Mutex::default() }
    }

    /// The folder at `location`, opened when it is first asked for.
    ///
    /// # Errors
    /// If the store's configuration is incomplete.
    pub fn folder(&self, location: &Location) -> Result<RetryingFolder, StoreError> {
        let mut open = self.open.lock();
        if let Some(folder) = open.get(location) {
            return Ok(folder.clone());
        }
        let folder = Folder::open(location, &self.options)?;
        let folder = RetryingFolder::new(folder, self.policy);
        // Stages that still use a closed folder have a handle of their own.
        if open.len() >= MAX_OPEN_FOLDERS {
            open.clear();
        }
        open.insert(location.clone(), folder.clone());
        Ok(folder)
    }

    /// True if the store of the folder at `location` is out now.
    #[must_use]
    pub fn is_out(&self, location: &Location) -> bool {
        self.folder(location).is_ok_and(|folder| folder.outage().reason().is_some())
    }

    /// The reason of every outage, one for each folder that is waited for.
    #[must_use]
    pub fn outages(&self) -> Vec<String> {
        self.open.lock().values().filter_map(|folder| folder.outage().reason()).collect()
    }
}
