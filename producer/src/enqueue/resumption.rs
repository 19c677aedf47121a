//! Continuing an enqueue that was killed: which images have a job in the queue already.
//!
//! Images come in the same order each time, and the broker keeps a bookmark of the last job: see
//! [`Sequence`](camshaft_queue::Sequence). A bookmark's note says what the enqueue was about, so
//! that an enqueue of other images doesn't continue from it.

use camshaft_common::image_files::ImageFiles;
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
struct BookmarkNote {
    /// When the enqueue was first started, in milliseconds since 1970.
    since: i64,
    /// The image's place in SOURCE, from 1.
    at: u64,
    only: Selection,
    labels: LabelRule,
    /// Which files are images. An older version took every file and left out others that can be
    /// images now, so it passed other images.
    #[serde(default)]
    files: Option<ImageFiles>,
    #[serde(default)]
    version: u32,
}

/// Makes the notes of one enqueue, which differ only in the image's place.
#[derive(Clone, Debug)]
pub(crate) struct NoteTemplate {
    /// When the enqueue was first started.
    since: DateTime<Utc>,
    only: Selection,
    labels: LabelRule,
    files: Option<ImageFiles>,
}

/// The version of the notes: 1 if every name can be a key.
const NOTE_VERSION: u32 = 1;

impl NoteTemplate {
    /// For an enqueue that starts now.
    #[must_use]
    pub(crate) fn new(only: Selection, labels: LabelRule, files: Option<ImageFiles>) -> Self {
        Self { since: Utc::now(), only, labels, files }
    }

    /// The note of the image at a place in SOURCE, from 1.
    #[must_use]
    pub(crate) fn note(&self, at: u64) -> String {
        let Self { since, only, labels, ref files } = *self;
        let (since, files, version) = (since.timestamp_millis(), files.clone(), NOTE_VERSION);
        let note = BookmarkNote { since, at, only, labels, files, version };
        serde_json::to_string(&note).expect("a note has only words and numbers")
    }
}

/// An enqueue that an earlier process did not finish.
#[derive(Debug)]
pub(crate) struct InterruptedEnqueue {
    last: LastImage,
    unconfirmed: usize,
    since: DateTime<Utc>,
}

/// The last image that an interrupted enqueue published.
#[derive(Debug)]
enum LastImage {
    /// In a folder or store, where images come in the order of their keys.
    Key(ImageKey),
    /// In a list: its place, from 1.
    Place(u64),
}

impl InterruptedEnqueue {
    /// What a bookmark says whose job is of the image `key`, if it is of the same enqueue: `notes` are
    /// then as they were when that was started. `None` if it is of another.
    pub(crate) async fn read(
        bookmark: &Bookmark,
        key: ImageKey,
        source: &Source,
        notes: &mut NoteTemplate,
    ) -> Option<Self> {
        let note: BookmarkNote = serde_json::from_str(&bookmark.note).ok()?;
        let since = DateTime::from_timestamp_millis(note.since)?;
        let is_same =
            (note.only, note.labels, &note.files) == (notes.only, notes.labels, &notes.files);
        if !is_same || (note.version != NOTE_VERSION && !source.is_list()) {
            return None;
        }
        let last = if !source.is_list() {
            LastImage::Key(key)
        } else if source.lists_at(note.at, &key).await {
            LastImage::Place(note.at)
        } else {
            return None;
        };
        notes.since = since;
        Some(Self { last, unconfirmed: bookmark.unconfirmed, since })
    }

    /// Whether the interrupted enqueue has come to the image at a place in SOURCE, from 1.
    #[must_use]
    pub(crate) fn covers(&self, image: &FoundImage, at: u64) -> bool {
        match &self.last {
            LastImage::Key(last) => image.key <= *last,
            LastImage::Place(last) => at <= *last,
        }
    }

    /// The number of images, the last that it published, whose jobs may not be in the queue. They
    /// get a job again.
    #[must_use]
    pub(crate) fn unconfirmed(&self) -> usize {
        self.unconfirmed
    }

    /// Whether an image that it covers was written since it was started, or is new since then.
    #[must_use]
    pub(crate) fn is_changed(&self, image: &FoundImage) -> bool {
        image.last_modified.is_some_and(|modified| modified > self.since)
    }
}
