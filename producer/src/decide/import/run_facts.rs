//! What a run says about its images: their labels, and what was found of them.
//!
//! Upstream: the run's manifest and its report. Downstream: [`answers`](super::answers) and
//! [`lines`](super::lines).

use std::collections::{HashMap, HashSet};

use camshaft_common::key::ImageKey;
use camshaft_common::run::RunRecord;
use camshaft_common::store::Folder;
use camshaft_decisions::{Findings, FindingsError};

use crate::decide::DecideError;
use crate::run_images;

/// What a run says about its images.
pub(super) struct RunFacts {
    pub(super) given: HashMap<ImageKey, Option<String>>,
    pub(super) labels: HashSet<String>,
    /// The kinds of findings about an image.
    pub(super) kinds: HashMap<ImageKey, Vec<String>>,
}

impl RunFacts {
    /// Reads them. Only other programs' files, which don't name them, need the kinds of findings.
    pub(super) async fn read(
        out: &Folder,
        run: &RunRecord,
        with_kinds: bool,
    ) -> Result<Self, DecideError> {
        let mut facts = Self::of(
            run_images::read(out, run).await?.into_iter().map(|image| (image.key, image.label)),
        );
        if !with_kinds {
            return Ok(facts);
        }
        // A run without a report has no findings, and can be decided about all the same.
        match Findings::read(out, false).await {
            Ok(findings) => {
                let images = findings.images().iter();
                facts.kinds = images.map(|image| (image.key().clone(), image.kinds())).collect();
            }
            Err(FindingsError::NoReport(_) | FindingsError::OldReport { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(facts)
    }

    pub(super) fn of(images: impl Iterator<Item = (ImageKey, Option<String>)>) -> Self {
        let given: HashMap<_, _> = images.collect();
        let labels = given.values().flatten().cloned().collect();
        Self { given, labels, kinds: HashMap::new() }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Three cats.
    pub(in super::super) fn facts() -> RunFacts {
        RunFacts::of(
            ["cat/a.jpg", "cat/b.jpg", "cat/c.jpg"]
                .into_iter()
                .map(|key| (ImageKey::parse(key).unwrap(), Some("cat".to_owned()))),
        )
    }
}
