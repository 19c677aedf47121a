//! `run.json`: what a run is about, for status, report and the next start.

use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::explain::ExplainOptions;
use crate::location::Location;
use crate::model::ModelIdentity;

/// The version of the files written under OUT.
pub const SCHEMA: u32 = 1;

/// Identifies a run: a UUID v7, so runs sort by their start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RunId(Uuid);

impl RunId {
    /// A new id, from the clock and chance.
    #[must_use]
    pub fn generate() -> Self {
        Self(Uuid::now_v7())
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::str::FromStr for RunId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// `OUT/run.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The run's id; kept when the run is started again.
    pub run: RunId,
    /// SOURCE as given, resolved to a URL where it is a place.
    pub source: String,
    /// What the keys of a list are below.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub base: Option<Location>,
    /// Only so many of SOURCE's first images.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub limit: Option<u64>,
    /// The model all results come from.
    pub model: ModelIdentity,
    /// The options all results come from.
    pub explain: ExplainOptions,
    /// Number of images in SOURCE, once they have been listed to the end.
    pub images: Option<u64>,
    /// When the run was first started.
    pub created_at: DateTime<Utc>,
    /// When it was last started, or finished listing.
    pub updated_at: DateTime<Utc>,
    /// The version of Camshaft that wrote this.
    pub camshaft: String,
}
