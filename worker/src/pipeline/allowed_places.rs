//! Which places jobs may name: `--allow`.
//!
//! Anyone who may publish messages decides their content. A worker with `--allow` reads, writes and
//! loads models only in the allowed places, whatever a message says. This module reads nothing but
//! symbolic links on this machine.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use camshaft_common::job::Job;
use camshaft_common::key::ImageKey;
use camshaft_common::layout::{self, Layout};
use camshaft_common::location::{Location, LocationError};
use camshaft_common::model::{ClassesReference, HubModel, ModelReference, folder_of_weights};

/// The word that allows every model on the hub.
const ANY_HUB_MODEL: &str = "hf:*";

/// One item of `--allow`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllowedPlace {
    /// A folder and everything below it.
    Folder(Location),
    /// A model on the hub, at every revision.
    HubModel(HubModel),
    /// Every model on the hub.
    AnyHubModel,
}

/// An item of `--allow` can't be read.
#[derive(Debug, thiserror::Error)]
pub enum ParseAllowedPlaceError {
    /// The text is neither a path nor a URL.
    #[error(transparent)]
    Folder(#[from] LocationError),
    /// The text starts with `hf:` and names no model.
    #[error(
        "{0:?} is no model on the hub; write hf:OWNER/NAME, which allows every revision, or hf:*"
    )]
    HubModel(String),
}

impl FromStr for AllowedPlace {
    type Err = ParseAllowedPlaceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == ANY_HUB_MODEL {
            return Ok(Self::AnyHubModel);
        }
        if !text.starts_with("hf:") {
            return Ok(Self::Folder(text.parse()?));
        }
        match text.parse() {
            Ok(ModelReference::Hub(model)) if !text.contains('@') => Ok(Self::HubModel(model)),
            _ => Err(ParseAllowedPlaceError::HubModel(text.to_owned())),
        }
    }
}

/// What a job uses a place for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlaceRole {
    /// Images are read from it.
    Source,
    /// Results are written to it.
    Out,
    /// The model is read from it.
    Model,
}

impl fmt::Display for PlaceRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Source => "SOURCE",
            Self::Out => "OUT",
            Self::Model => "model",
        })
    }
}

/// A job names a place that this worker may not use.
#[derive(Debug, thiserror::Error)]
pub enum PlaceRefused {
    /// The place is not below any allowed one.
    #[error(
        "the job's {role} {place} is not below any place this worker was given with --allow; allow it, or start workers that do"
    )]
    Outside {
        /// What the job uses it for.
        role: PlaceRole,
        /// The place.
        place: String,
    },
    /// A symbolic link leads out of the allowed places.
    #[error(
        "the job's {role} has {path}, which leads to {target}, and that is not below any place this worker was given with --allow"
    )]
    Link {
        /// What the job uses it for.
        role: PlaceRole,
        /// The path of the link.
        path: PathBuf,
        /// The path that the link leads to.
        target: PathBuf,
    },
    /// A path's links can't be followed.
    #[error(
        "cannot tell where {path} leads, the job's {role}, and this worker was started with --allow: {source}"
    )]
    Unknown {
        /// What the job uses it for.
        role: PlaceRole,
        /// The path.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

/// The places that a worker may use.
#[derive(Clone, Debug, Default)]
pub struct AllowedPlaces {
    /// If it is empty, every place is allowed.
    allowed: Vec<AllowedPlace>,
    any_model: bool,
}

impl AllowedPlaces {
    /// Allows these places and everything below them. An empty list allows every place.
    #[must_use]
    pub fn only(allowed: Vec<AllowedPlace>) -> Self {
        Self { allowed, any_model: false }
    }

    /// True if jobs may name any place.
    #[must_use]
    pub fn allows_every_place(&self) -> bool {
        self.allowed.is_empty()
    }

    /// Does not check the models that jobs name. For a worker that has a model of its own and
    /// reads no other.
    #[must_use]
    pub fn with_any_model(self) -> Self {
        Self { any_model: true, ..self }
    }

    /// Checks a job on a thread that may block, and returns it if it is allowed.
    ///
    /// # Errors
    /// If the job names a place that is not allowed.
    pub async fn admit(self: &Arc<Self>, job: Job) -> Result<Job, PlaceRefused> {
        if self.allowed.is_empty() {
            return Ok(job);
        }
        let places = Arc::clone(self);
        let checking = tokio::task::spawn_blocking(move || places.check(&job).map(|()| job));
        checking.await.expect("checking never panics")
    }

    /// Checks every place that a job names. Follows symbolic links, so it may block.
    ///
    /// # Errors
    /// If a place is not allowed.
    pub fn check(&self, job: &Job) -> Result<(), PlaceRefused> {
        if self.allowed.is_empty() {
            return Ok(());
        }
        self.check_place(PlaceRole::Source, &job.source)?;
        self.check_place(PlaceRole::Out, &job.out)?;
        match &job.model.reference {
            _ if self.any_model => {}
            ModelReference::Bundled => {}
            ModelReference::Hub(model) => self.check_hub(model)?,
            ModelReference::Folder(place) => {
                self.check_place(PlaceRole::Model, place)?;
                // The config.json beside a file of weights is read too.
                if let Some((folder, _)) = folder_of_weights(place) {
                    self.check_place(PlaceRole::Model, &folder)?;
                }
            }
        }
        if let Some(ClassesReference::File(names)) = self.classes(job) {
            self.check_place(PlaceRole::Model, names)?;
        }
        if let Some(calibration) = self.calibration(job) {
            self.check_place(PlaceRole::Model, calibration)?;
        }
        self.check_links(job)
    }

    fn check_place(&self, role: PlaceRole, place: &Location) -> Result<(), PlaceRefused> {
        if self.folders().any(|allowed| place.below(allowed).is_some()) {
            return Ok(());
        }
        Err(PlaceRefused::Outside { role, place: place.to_string() })
    }

    fn check_hub(&self, model: &HubModel) -> Result<(), PlaceRefused> {
        let same = |ours: &HubModel| (ours.owner(), ours.name()) == (model.owner(), model.name());
        let allowed = self.allowed.iter().any(|allowed| match allowed {
            AllowedPlace::AnyHubModel => true,
            AllowedPlace::HubModel(ours) => same(ours),
            AllowedPlace::Folder(_) => false,
        });
        if allowed {
            return Ok(());
        }
        Err(PlaceRefused::Outside { role: PlaceRole::Model, place: model.to_string() })
    }

    /// Checks where the links lead in every path of this machine that the job's work uses.
    fn check_links(&self, job: &Job) -> Result<(), PlaceRefused> {
        // A key that can be no file's is never read.
        if let (Some(source), Some(image)) = (job.source.local_path(), job.key.local_path()) {
            self.check_link(PlaceRole::Source, &source.join(image))?;
        }
        if let Some(out) = job.out.local_path() {
            for result in results(Layout::of(&job.out), &job.key) {
                self.check_link(PlaceRole::Out, &out.join(result))?;
            }
        }
        if let Some(ClassesReference::File(names)) = self.classes(job)
            && let Some(names) = names.local_path()
        {
            self.check_link(PlaceRole::Model, &names)?;
        }
        if let Some(calibration) = self.calibration(job).and_then(Location::local_path) {
            self.check_link(PlaceRole::Model, &calibration)?;
        }
        let ModelReference::Folder(model) = &job.model.reference else { return Ok(()) };
        let folder = folder_of_weights(model).map_or_else(|| model.clone(), |(folder, _)| folder);
        let Some(folder) = folder.local_path().filter(|_| !self.any_model) else { return Ok(()) };
        self.check_link(PlaceRole::Model, &folder)?;
        // A folder that can't be listed has no model that could be read.
        let entries = std::fs::read_dir(&folder).into_iter().flatten().flatten();
        for entry in entries {
            self.check_link(PlaceRole::Model, &entry.path())?;
        }
        Ok(())
    }

    /// Where the job's class names are read from, if anywhere.
    fn classes<'a>(&self, job: &'a Job) -> Option<&'a ClassesReference> {
        job.model.options.classes.as_ref().filter(|_| !self.any_model)
    }

    /// Where the job's calibration is read from, if anywhere.
    fn calibration<'a>(&self, job: &'a Job) -> Option<&'a Location> {
        let calibration = job.model.options.calibration.as_ref().filter(|_| !self.any_model);
        calibration.map(|calibration| &calibration.place)
    }

    fn check_link(&self, role: PlaceRole, path: &Path) -> Result<(), PlaceRefused> {
        let unknown = |source| PlaceRefused::Unknown { role, path: path.to_owned(), source };
        let target = real(path).map_err(unknown)?;
        for place in self.folders().filter_map(Location::local_path) {
            // The allowed place itself may be a link, or may not exist yet.
            if target.starts_with(real(&place).map_err(unknown)?) {
                return Ok(());
            }
        }
        Err(PlaceRefused::Link { role, path: path.to_owned(), target })
    }

    fn folders(&self) -> impl Iterator<Item = &Location> {
        self.allowed.iter().filter_map(|allowed| match allowed {
            AllowedPlace::Folder(place) => Some(place),
            AllowedPlace::HubModel(_) | AllowedPlace::AnyHubModel => None,
        })
    }
}

/// The paths below OUT that are written for an image. Of overlays only the folders, because their
/// names depend on what is explained. A name that is too long with its ending lies in none.
fn results(layout: Layout, key: &ImageKey) -> [String; 4] {
    let overlays = Path::new(layout::OVERLAYS).join(key.as_str());
    let overlays = overlays.parent().unwrap_or(&overlays).to_string_lossy().into_owned();
    let shortened = layout::OVERLAYS.to_owned();
    [layout.prediction(key), layout.failure(key), overlays, shortened]
}

/// Resolves the links in as much of a path as exists.
fn real(path: &Path) -> io::Result<PathBuf> {
    for ancestor in path.ancestors() {
        // `symlink_metadata` finds the link itself. A link whose target does not exist yet must
        // not count as a name that is free.
        if std::fs::symlink_metadata(ancestor).is_ok() {
            let rest = path.strip_prefix(ancestor).expect("it is an ancestor");
            return Ok(ancestor.canonicalize()?.join(rest));
        }
    }
    Err(io::ErrorKind::NotFound.into())
}

#[cfg(test)]
mod tests;
