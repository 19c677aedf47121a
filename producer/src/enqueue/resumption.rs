//! Going on with an enqueue that was killed: which images its jobs are in the queue of already.
//!
//! Images come in the same order each time, and the broker keeps the last job's bookmark: see
//! [`Sequence`](camshaft_queue::Sequence). A bookmark's note says what the enqueue was
//! about, so that another one, of other images, doesn't go on with it.

use camshaft_common::job::Job;
use camshaft_common::key::ImageKey;
use camshaft_queue::Bookmark;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::images::found_image::FoundImage;
use crate::images::selection::Selection;
use crate::images::source::Source;
use crate::images::source_config::LabelRule;

/// What a bookmark says beside its job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    /// When the enqueue was first started, in milliseconds since 1970.
    since: i64,
    /// The image's place in SOURCE, from 1.
    at: u64,
    only: Selection,
    labels: LabelRule,
}

/// What goes into the notes of an enqueue.
#[derive(Clone, Debug)]
pub(crate) struct Terms {
    since: DateTime<Utc>,
    only: Selection,
    labels: LabelRule,
}

impl Terms {
    /// Those of an enqueue that starts now.
    #[must_use]
    pub(crate) fn new(only: Selection, labels: LabelRule) -> Self {
        Self { since: Utc::now(), only, labels }
    }

    /// The note of the image at a place in SOURCE, from 1.
    #[must_use]
    pub(crate) fn note(&self, at: u64) -> String {
        let Self { since, only, labels } = *self;
        let note = Note { since: since.timestamp_millis(), at, only, labels };
        serde_json::to_string(&note).expect("a note has only words and numbers")
    }
}

/// The images that an earlier process enqueued.
#[derive(Debug)]
pub(crate) struct Before {
    end: End,
    unsure: usize,
    since: DateTime<Utc>,
}

#[derive(Debug)]
enum End {
    Key(ImageKey),
    Position(u64),
}

impl Before {
    /// What a bookmark says, where it is of the same enqueue; `terms` are then as they were when
    /// that was started.
    pub(crate) async fn read(
        bookmark: &Bookmark,
        source: &Source,
        terms: &mut Terms,
    ) -> Option<Self> {
        let note: Note = serde_json::from_str(&bookmark.note).ok()?;
        let key = Job::parse(&bookmark.body).ok()?.key;
        let since = DateTime::from_timestamp_millis(note.since)?;
        if (note.only, note.labels) != (terms.only, terms.labels) {
            return None;
        }
        let end = if !source.is_list() {
            End::Key(key)
        } else if source.lists_at(note.at, &key).await {
            End::Position(note.at)
        } else {
            return None;
        };
        terms.since = since;
        Some(Self { end, unsure: bookmark.unsure, since })
    }

    /// Whether the image at a place in SOURCE, from 1, was come by.
    #[must_use]
    pub(crate) fn covers(&self, image: &FoundImage, at: u64) -> bool {
        match &self.end {
            End::Key(last) => image.key <= *last,
            End::Position(last) => at <= *last,
        }
    }

    /// Of how many of the last of those it is not known whether their jobs arrived.
    #[must_use]
    pub(crate) fn unsure(&self) -> usize {
        self.unsure
    }

    /// Whether an image may be another than the one that was come by, or none was there yet.
    #[must_use]
    pub(crate) fn is_changed(&self, image: &FoundImage) -> bool {
        image.last_modified.is_some_and(|modified| modified > self.since)
    }
}
