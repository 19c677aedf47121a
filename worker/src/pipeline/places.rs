//! Which places jobs may name: `--allow`.
//!
//! Messages come from whoever may publish. A worker that was told its places reads, writes
//! and loads models nowhere else, whatever a message says. Pure but for following symbolic
//! links on this machine.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use camshaft_common::job::Job;
use camshaft_common::key::ImageKey;
use camshaft_common::layout;
use camshaft_common::location::{Location, LocationError};
use camshaft_common::model::{HubModel, ModelReference};

use super::context::Context;

/// What stands for every model on the hub.
const ANY_HUB_MODEL: &str = "hf:*";

/// One item of `--allow`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Allowed {
    /// A place and all below it.
    Place(Location),
    /// A model on the hub, at every revision.
    Hub(HubModel),
    /// Every model on the hub.
    AnyHub,
}

/// An item of `--allow` can't be read.
#[derive(Debug, thiserror::Error)]
pub enum AllowedError {
    /// No place.
    #[error(transparent)]
    Place(#[from] LocationError),
    /// No model on the hub.
    #[error(
        "{0:?} is no model on the hub; write hf:OWNER/NAME, which allows every revision, or hf:*"
    )]
    Hub(String),
}

impl FromStr for Allowed {
    type Err = AllowedError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == ANY_HUB_MODEL {
            return Ok(Self::AnyHub);
        }
        if !text.starts_with("hf:") {
            return Ok(Self::Place(text.parse()?));
        }
        match text.parse() {
            Ok(ModelReference::Hub(model)) if !text.contains('@') => Ok(Self::Hub(model)),
            _ => Err(AllowedError::Hub(text.to_owned())),
        }
    }
}

/// What a place is to a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Where images are read.
    Source,
    /// Where results are written.
    Out,
    /// Where the model is read.
    Model,
}

impl fmt::Display for Role {
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
pub enum Refused {
    /// It is none of the allowed ones, nor below one.
    #[error(
        "the job's {role} {place} is not below any place this worker was given with --allow; start workers that allow it and redrive"
    )]
    Outside {
        /// What for.
        role: Role,
        /// The place.
        place: String,
    },
    /// A symbolic link leads out.
    #[error(
        "the job's {role} has {path}, which leads to {target}, and that is not below any place this worker was given with --allow"
    )]
    Link {
        /// What for.
        role: Role,
        /// As the job names it.
        path: PathBuf,
        /// Where it leads.
        target: PathBuf,
    },
    /// Where a path leads can't be told.
    #[error(
        "cannot tell where {path} leads, the job's {role}, and this worker was started with --allow: {source}"
    )]
    Unknown {
        /// What for.
        role: Role,
        /// The path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The places a worker may use.
#[derive(Clone, Debug, Default)]
pub struct Places {
    /// Without any, all are allowed.
    allowed: Vec<Allowed>,
    any_model: bool,
}

impl Places {
    /// Only these and what is below them. None at all means every place.
    #[must_use]
    pub fn only(allowed: Vec<Allowed>) -> Self {
        Self { allowed, any_model: false }
    }

    /// For a worker with a model of its own, which reads no other, whatever a job says.
    #[must_use]
    pub fn with_any_model(self) -> Self {
        Self { any_model: true, ..self }
    }

    /// Whether a job may have what it names. Looks at symbolic links, so it may block.
    ///
    /// # Errors
    /// Where it may not.
    pub fn check(&self, job: &Job) -> Result<(), Refused> {
        if self.allowed.is_empty() {
            return Ok(());
        }
        self.check_place(Role::Source, &job.source)?;
        self.check_place(Role::Out, &job.out)?;
        match &job.model.reference {
            _ if self.any_model => {}
            ModelReference::Bundled => {}
            ModelReference::Hub(model) => self.check_hub(model)?,
            ModelReference::Folder(place) => self.check_place(Role::Model, place)?,
        }
        self.check_links(job)
    }

    fn check_place(&self, role: Role, place: &Location) -> Result<(), Refused> {
        if self.places().any(|allowed| place.below(allowed).is_some()) {
            return Ok(());
        }
        Err(Refused::Outside { role, place: place.to_string() })
    }

    fn check_hub(&self, model: &HubModel) -> Result<(), Refused> {
        let same = |ours: &HubModel| (ours.owner(), ours.name()) == (model.owner(), model.name());
        let allowed = self.allowed.iter().any(|allowed| match allowed {
            Allowed::AnyHub => true,
            Allowed::Hub(ours) => same(ours),
            Allowed::Place(_) => false,
        });
        if allowed {
            return Ok(());
        }
        Err(Refused::Outside { role: Role::Model, place: model.to_string() })
    }

    /// Follows every path on this machine that the job's work will use.
    fn check_links(&self, job: &Job) -> Result<(), Refused> {
        if let Some(source) = job.source.local_path() {
            self.check_link(Role::Source, &source.join(job.key.as_str()))?;
        }
        if let Some(out) = job.out.local_path() {
            for result in results(&job.key) {
                self.check_link(Role::Out, &out.join(result))?;
            }
        }
        let ModelReference::Folder(model) = &job.model.reference else { return Ok(()) };
        let Some(folder) = model.local_path().filter(|_| !self.any_model) else { return Ok(()) };
        self.check_link(Role::Model, &folder)?;
        // A folder that can't be listed has no model either.
        let entries = std::fs::read_dir(&folder).into_iter().flatten().flatten();
        for entry in entries {
            self.check_link(Role::Model, &entry.path())?;
        }
        Ok(())
    }

    fn check_link(&self, role: Role, path: &Path) -> Result<(), Refused> {
        let unknown = |source| Refused::Unknown { role, path: path.to_owned(), source };
        let target = real(path).map_err(unknown)?;
        for place in self.places().filter_map(Location::local_path) {
            // The place itself may be a link, or not be there yet.
            if target.starts_with(real(&place).map_err(unknown)?) {
                return Ok(());
            }
        }
        Err(Refused::Link { role, path: path.to_owned(), target })
    }

    fn places(&self) -> impl Iterator<Item = &Location> {
        self.allowed.iter().filter_map(|allowed| match allowed {
            Allowed::Place(place) => Some(place),
            Allowed::Hub(_) | Allowed::AnyHub => None,
        })
    }
}

/// Everything that is written for an image, below OUT, overlays by their folder: their names
/// depend on what is explained.
fn results(key: &ImageKey) -> [String; 3] {
    let overlays = Path::new(layout::OVERLAYS).join(key.as_str());
    let overlays = overlays.parent().unwrap_or(&overlays).to_string_lossy().into_owned();
    [layout::prediction(key), layout::failure(key), overlays]
}

/// Where a path leads, links resolved in as much of it as exists.
fn real(path: &Path) -> io::Result<PathBuf> {
    for ancestor in path.ancestors() {
        // Of a link itself: one that leads nowhere yet must not pass for a plain new name.
        if std::fs::symlink_metadata(ancestor).is_ok() {
            let rest = path.strip_prefix(ancestor).expect("it is an ancestor");
            return Ok(ancestor.canonicalize()?.join(rest));
        }
    }
    Err(io::ErrorKind::NotFound.into())
}

/// Lets a job through, or says why not.
///
/// # Errors
/// Where it names what this worker may not use.
pub async fn admit(context: &Arc<Context>, job: Job) -> Result<Job, Refused> {
    if context.places.allowed.is_empty() {
        return Ok(job);
    }
    let context = Arc::clone(context);
    let checking = tokio::task::spawn_blocking(move || context.places.check(&job).map(|()| job));
    checking.await.expect("checking never panics")
}

#[cfg(test)]
mod tests;
