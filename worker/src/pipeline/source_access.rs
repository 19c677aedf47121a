//! Whether this worker can read a SOURCE at all, or only one of its images not.
//!
//! A store says "forbidden" of one image as of all, if the worker's rights don't reach there, and a
//! folder in which nothing is mounted has none of its images. As failures, such answers would replace
//! the results of a whole run. So an answer counts as the image's own fault only if something proves
//! that others can be read:
//!
//! - Of a missing image: something lies in SOURCE.
//! - Of a forbidden image: another one could be read. After 16 forbidden ones in a row that one is read
//!   again, since rights can be lost. A worker that has read none yet tries a few images that a
//!   listing finds.
//!
//! The questions are asked once each: an outage makes the image come again. What becomes of an image is
//! decided in [`disposition`](super::disposition). Upstream: [`retrying_folder`](super::retrying_folder),
//! which reads images.

use std::collections::BTreeSet;
use std::time::Duration;

use camshaft_common::key::ImageKey;
use camshaft_common::store::{Folder, StoreError, StoreErrorKind};
use parking_lot::Mutex;
use tokio::time::Instant;

/// This many forbidden images in a row are perhaps all.
const MANY: usize = 16;
/// The same image is forbidden again, and none was read for this long: then all are forbidden. There
/// may be fewer than [`MANY`].
const LONG: Duration = Duration::from_secs(5);
/// Images that are tried, of those that a listing finds.
const TRIED: usize = 8;
/// How long to wait before images are tried again.
const TRY_AGAIN: Duration = Duration::from_secs(10);
/// How long something that was found in a bucket proves that there is something.
const FOUND_FOR: Duration = Duration::from_secs(60);

/// Why an image was not read.
#[derive(Debug, thiserror::Error)]
pub enum UnreadImage {
    /// Because of this image, or of a request for it.
    #[error(transparent)]
    Image(#[from] StoreError),
    /// Because of SOURCE as a whole.
    #[error(transparent)]
    Source(#[from] SourceProblem),
}

/// Why no image of a SOURCE can be read.
#[derive(Debug, thiserror::Error)]
pub enum SourceProblem {
    /// An image is forbidden, and this worker has read no other one yet.
    #[error("{0}; no other image of SOURCE has been read yet")]
    PerhapsForbidden(StoreError),
    /// The image was not there when it was read, and is now: perhaps SOURCE was mounted meanwhile.
    #[error("{0}; now it is")]
    CameBack(StoreError),
    /// All images are forbidden.
    #[error("SOURCE may not be read {whose}: {error}")]
    Forbidden {
        /// Whose rights don't reach there.
        whose: &'static str,
        /// The store's answer for one of them.
        error: StoreError,
    },
    /// There is no image.
    #[error("there is nothing in SOURCE {0}; is it mounted, and is the path or prefix right?")]
    Empty(String),
}

/// What this worker knows of a SOURCE.
#[derive(Debug, Default)]
pub struct SourceAccess {
    readings: Mutex<Readings>,
    /// When something was last found there. Locked while somebody looks.
    found: tokio::sync::Mutex<Option<Instant>>,
    /// When images of a listing were last tried. Locked while somebody tries.
    tried: tokio::sync::Mutex<Option<Instant>>,
}

/// The last image that could be read, and those that were forbidden since.
#[derive(Debug, Default)]
struct Readings {
    readable: Option<ImageKey>,
    /// Up to [`MANY`].
    forbidden: BTreeSet<ImageKey>,
    /// When the first of them was.
    since: Option<Instant>,
}

/// What a forbidden image tells.
#[derive(Debug, PartialEq, Eq)]
enum Suspicion {
    /// It alone is forbidden.
    None,
    /// Others may be, too, if this one is by now.
    Ask(ImageKey),
    /// All may be.
    All {
        /// There were many, or one for long.
        is_certain: bool,
    },
}

impl Readings {
    fn note_forbidden(&mut self, key: &ImageKey) -> Suspicion {
        let is_new = self.forbidden.len() < MANY && self.forbidden.insert(key.clone());
        let since = *self.since.get_or_insert_with(Instant::now);
        let are_many = self.forbidden.len() >= MANY;
        match &self.readable {
            Some(_) if !are_many => Suspicion::None,
            Some(readable) => Suspicion::Ask(readable.clone()),
            None => Suspicion::All { is_certain: are_many || (!is_new && since.elapsed() >= LONG) },
        }
    }
}

impl SourceAccess {
    /// Notes that the store has given an image. That it tells of one is not enough: the key that it is
    /// encrypted with may be refused.
    pub(super) fn note_readable(&self, key: &ImageKey) {
        let readable = Some(key.clone());
        *self.readings.lock() = Readings { readable, ..Readings::default() };
    }

    /// Tells whether an error is about one image or about SOURCE as a whole.
    pub(super) async fn judge(
        &self,
        folder: &Folder,
        key: &ImageKey,
        error: StoreError,
    ) -> UnreadImage {
        match error.kind() {
            StoreErrorKind::NotFound => self.judge_missing(folder, key, error).await,
            StoreErrorKind::AccessDenied => self.judge_forbidden(folder, key, error).await,
            StoreErrorKind::TooLarge => {
                self.note_readable(key);
                error.into()
            }
            StoreErrorKind::NoBucket
            | StoreErrorKind::BadCredentials
            | StoreErrorKind::BadSettings
            | StoreErrorKind::ArchivedOrEncrypted
            | StoreErrorKind::Unusable
            | StoreErrorKind::NoSpace
            | StoreErrorKind::Transient => error.into(),
        }
    }

    async fn judge_missing(
        &self,
        folder: &Folder,
        key: &ImageKey,
        error: StoreError,
    ) -> UnreadImage {
        let asked = Instant::now();
        let is_local = folder.location().local_path().is_some();
        let mut found = self.found.lock().await;
        // A file system can be unmounted at any time, and is asked for nothing. Those who wait here
        // share an answer.
        let is_proven = if is_local {
            found.is_some_and(|found| found >= asked)
        } else {
            self.readings.lock().readable.is_some()
                || found.is_some_and(|found| found.elapsed() < FOUND_FOR)
        };
        if is_proven && !is_local {
            return error.into();
        }
        if !is_proven {
            let began = Instant::now();
            match folder.may_have_anything().await {
                Ok(true) => *found = Some(began),
                Ok(false) => return SourceProblem::Empty(folder.location().to_string()).into(),
                Err(other) => return other.into(),
            }
        }
        drop(found);
        // What was found may have come after the image was asked for, and the image with it.
        match check_readable(folder, key).await {
            Ok(()) => SourceProblem::CameBack(error).into(),
            Err(other) if other.kind() == StoreErrorKind::Transient => other.into(),
            Err(_) => error.into(),
        }
    }

    async fn judge_forbidden(
        &self,
        folder: &Folder,
        key: &ImageKey,
        error: StoreError,
    ) -> UnreadImage {
        let mut suspicion = self.note_forbidden(key);
        if let Suspicion::Ask(readable) = suspicion {
            match check_readable(folder, &readable).await {
                Ok(()) => {
                    self.note_readable(&readable);
                    return error.into();
                }
                Err(other)
                    if matches!(
                        other.kind(),
                        StoreErrorKind::AccessDenied | StoreErrorKind::NotFound
                    ) =>
                {
                    self.readings.lock().readable = None;
                    suspicion = self.note_forbidden(key);
                }
                Err(other) => return other.into(),
            }
        }
        let Suspicion::All { is_certain } = suspicion else { return error.into() };
        if self.finds_readable(folder).await {
            return error.into();
        }
        if is_certain {
            let is_local = folder.location().local_path().is_some();
            let whose = if is_local { "by this user" } else { "with these credentials" };
            SourceProblem::Forbidden { whose, error }.into()
        } else {
            SourceProblem::PerhapsForbidden(error).into()
        }
    }

    fn note_forbidden(&self, key: &ImageKey) -> Suspicion {
        self.readings.lock().note_forbidden(key)
    }

    /// True if an image could be read by now, or one of those that a listing finds can be.
    async fn finds_readable(&self, folder: &Folder) -> bool {
        let mut tried = self.tried.lock().await;
        if self.readings.lock().readable.is_some() {
            return true;
        }
        if tried.is_some_and(|tried| tried.elapsed() < TRY_AGAIN) {
            return false;
        }
        let readable = first_readable(folder).await;
        *tried = Some(Instant::now());
        if let Some(key) = &readable {
            self.note_readable(key);
        }
        readable.is_some()
    }
}

/// Asks for an image, without reading its content.
async fn check_readable(folder: &Folder, key: &ImageKey) -> Result<(), StoreError> {
    folder.open_image(key, u64::MAX).await.map(drop)
}

/// The first image that can be read, of some that a listing finds.
async fn first_readable(folder: &Folder) -> Option<ImageKey> {
    for key in folder.sample_images(TRIED).await.unwrap_or_default() {
        if check_readable(folder, &key).await.is_ok() {
            return Some(key);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use camshaft_common::store::StoreOptions;

    use super::*;

    fn key(number: usize) -> ImageKey {
        ImageKey::parse(format!("{number}.jpg")).unwrap()
    }

    fn all(is_certain: bool) -> Suspicion {
        Suspicion::All { is_certain }
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_that_has_read_nothing_is_certain_after_many_images_or_some_time() {
        let mut readings = Readings::default();
        for number in 0..MANY - 1 {
            assert_eq!(readings.note_forbidden(&key(number)), all(false), "{number}");
        }
        assert_eq!(readings.note_forbidden(&key(0)), all(false), "the same again");
        assert_eq!(readings.note_forbidden(&key(MANY)), all(true));

        let mut few = Readings::default();
        assert_eq!(few.note_forbidden(&key(0)), all(false));
        tokio::time::advance(LONG).await;
        assert_eq!(few.note_forbidden(&key(1)), all(false), "others may still come");
        assert_eq!(few.note_forbidden(&key(0)), all(true));
    }

    #[test]
    fn a_worker_that_has_read_an_image_asks_for_it_after_many_others() {
        let access = SourceAccess::default();
        access.note_readable(&key(100));
        for _ in 0..2 {
            for number in 0..MANY - 1 {
                assert_eq!(access.note_forbidden(&key(number)), Suspicion::None, "{number}");
            }
            let ask = Suspicion::Ask(key(100));
            assert_eq!(access.note_forbidden(&key(MANY)), ask);
            assert_eq!(access.note_forbidden(&key(MANY + 1)), ask);
            // It can be read.
            access.note_readable(&key(100));
        }
        for number in 0..MANY {
            access.note_forbidden(&key(number));
        }
        access.readings.lock().readable = None;
        assert_eq!(access.note_forbidden(&key(0)), all(true), "its rights were lost");
    }

    fn open(place: &Path) -> Folder {
        let location = place.to_str().unwrap().parse().unwrap();
        Folder::open(&location, &StoreOptions::default()).unwrap()
    }

    async fn read(
        access: &SourceAccess,
        folder: &Folder,
        key: &ImageKey,
    ) -> Result<(), UnreadImage> {
        match check_readable(folder, key).await {
            Ok(()) => {
                access.note_readable(key);
                Ok(())
            }
            Err(error) => Err(access.judge(folder, key, error).await),
        }
    }

    #[tokio::test]
    async fn a_missing_image_of_a_folder_in_which_nothing_is_mounted_is_not_its_own_fault() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("images");
        let (access, folder) = (SourceAccess::default(), open(&place));
        for _ in 0..2 {
            let unread = read(&access, &folder, &key(1)).await.unwrap_err();
            let UnreadImage::Source(SourceProblem::Empty(named)) = unread else {
                panic!("{unread}");
            };
            assert!(named.contains("images"), "{named}");
            fs::create_dir_all(&place).unwrap();
        }
        fs::write(place.join("2.jpg"), "x").unwrap();
        read(&access, &folder, &key(2)).await.unwrap();
        let unread = read(&access, &folder, &key(1)).await.unwrap_err();
        assert!(matches!(unread, UnreadImage::Image(_)), "{unread}");
    }

    #[tokio::test]
    async fn a_folder_is_looked_at_again_for_each_missing_image() {
        let directory = tempfile::tempdir().unwrap();
        let image = directory.path().join("2.jpg");
        fs::write(&image, "x").unwrap();
        let (access, folder) = (SourceAccess::default(), open(directory.path()));
        let missing = async || read(&access, &folder, &key(1)).await.unwrap_err();
        read(&access, &folder, &key(2)).await.unwrap();
        assert!(matches!(missing().await, UnreadImage::Image(_)));
        fs::remove_file(image).unwrap();
        assert!(matches!(missing().await, UnreadImage::Source(SourceProblem::Empty(_))));
    }

    #[tokio::test]
    async fn an_image_that_is_there_again_is_read_again() {
        let directory = tempfile::tempdir().unwrap();
        let (access, folder) = (SourceAccess::default(), open(directory.path()));
        let error = check_readable(&folder, &key(1)).await.unwrap_err();
        // As if it was mounted before anybody looks.
        fs::write(directory.path().join("1.jpg"), "x").unwrap();
        let unread = access.judge(&folder, &key(1), error).await;
        assert!(matches!(unread, UnreadImage::Source(SourceProblem::CameBack(_))), "{unread}");
    }
}
