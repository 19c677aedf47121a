//! Looks at the objects of a list's images that have a result. A list names no more than keys: whether an
//! image was replaced or has gone since its result was made, only its object tells.
//!
//! Owns the requests, and when to give up. What follows from an object's entity tag, size and time is
//! decided in [`selection`](crate::images::selection), as for images that a store has listed. A user
//! without rights or network to `--base` can enqueue a list all the same: then one warning says what is
//! not noticed.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Once};
use std::time::Duration;

use camshaft_common::store::{Folder, StoreError, StoreErrorKind};
use futures::stream::{BoxStream, StreamExt};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::images::existing_results::ExistingResults;
use crate::images::found_image::FoundImage;
use crate::images::source_error::SourceError;

/// Objects that are looked at at a time.
const AT_ONCE: usize = 64;
/// How long an answer may take. The store's client repeats requests for half a minute.
const PATIENCE: Duration = Duration::from_secs(10);
/// If this many images are forbidden and none is not, all of them are.
const MOST_FORBIDDEN: usize = 16;

/// The images in the same order, with what is known of the objects of those that have a result.
pub(super) fn look_at_those_done(
    images: BoxStream<'static, Result<FoundImage, SourceError>>,
    base: Folder,
    results: Arc<ExistingResults>,
) -> BoxStream<'static, Result<FoundImage, SourceError>> {
    let objects = Arc::new(ListedObjects::below(base));
    images
        .map(move |image| {
            let is_done = |image: &FoundImage| results.get(&image.key).is_some();
            let looked_at = image.as_ref().is_ok_and(is_done).then(|| Arc::clone(&objects));
            async move {
                match (looked_at, image) {
                    (Some(objects), Ok(image)) => Ok(objects.look_at(image).await),
                    (_, image) => image,
                }
            }
        })
        .buffered(AT_ONCE)
        .boxed()
}

/// The objects below `--base`.
#[derive(Debug)]
struct ListedObjects {
    base: Folder,
    /// True once an object was seen.
    has_seen: AtomicBool,
    /// True once anything was found below a bucket's `--base`.
    is_there: AtomicBool,
    forbidden: AtomicUsize,
    /// Cancelled when no further object is looked at.
    given_up: CancellationToken,
    warned: Once,
}

impl ListedObjects {
    fn below(base: Folder) -> Self {
        Self {
            base,
            has_seen: AtomicBool::new(false),
            is_there: AtomicBool::new(false),
            forbidden: AtomicUsize::new(0),
            given_up: CancellationToken::new(),
            warned: Once::new(),
        }
    }

    /// The image with what is known of its object. The image as it is, if nobody can tell.
    async fn look_at(&self, image: FoundImage) -> FoundImage {
        let answered = tokio::select! {
            biased;
            () = self.given_up.cancelled() => None,
            answered = timeout(PATIENCE, self.base.head_image(&image.key)) => Some(answered),
        };
        match answered {
            None => image,
            Some(Ok(Ok(object))) => {
                self.has_seen.store(true, Relaxed);
                image.with_object(object)
            }
            Some(Ok(Err(error))) => {
                if self.says_that_it_is_absent(&error).await {
                    image.without_object()
                } else {
                    image
                }
            }
            Some(Err(_elapsed)) => {
                let place = self.base.location();
                self.give_up(&format!("{place} doesn't answer within {} s", PATIENCE.as_secs()));
                image
            }
        }
    }

    /// True if an error says that an object is not there. Gives up if further objects would meet the
    /// same error.
    async fn says_that_it_is_absent(&self, error: &StoreError) -> bool {
        match error.kind() {
            StoreErrorKind::NotFound => return self.base_is_there().await,
            StoreErrorKind::AccessDenied => {
                let forbidden = self.forbidden.fetch_add(1, Relaxed) + 1;
                if forbidden >= MOST_FORBIDDEN && !self.has_seen.load(Relaxed) {
                    self.give_up(error);
                }
            }
            StoreErrorKind::ArchivedOrEncrypted
            | StoreErrorKind::TooLarge
            | StoreErrorKind::Unusable => {}
            StoreErrorKind::NoBucket
            | StoreErrorKind::BadCredentials
            | StoreErrorKind::BadSettings
            | StoreErrorKind::NoSpace
            | StoreErrorKind::Transient => self.give_up(error),
        }
        false
    }

    /// True if anything lies below `--base`. Gives up if not: perhaps nothing is mounted there. A bucket
    /// is asked until it has shown something, a folder each time.
    async fn base_is_there(&self) -> bool {
        let is_local = self.base.location().local_path().is_some();
        if !is_local && (self.has_seen.load(Relaxed) || self.is_there.load(Relaxed)) {
            return true;
        }
        match self.base.may_have_anything().await {
            Ok(true) => {
                self.is_there.store(true, Relaxed);
                return true;
            }
            Ok(false) => {
                let place = self.base.location();
                self.give_up(&format!("there is nothing in --base {place}; is it mounted?"));
            }
            Err(error) => self.give_up(&error),
        }
        false
    }

    fn give_up(&self, reason: &dyn fmt::Display) {
        self.given_up.cancel();
        self.warned.call_once(|| {
            warn!(
                %reason,
                "the list's images can't be looked at: those that were replaced or have gone are not \
                 noticed, and keep their results"
            );
        });
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use camshaft_common::key::ImageKey;
    use camshaft_common::store::StoreOptions;
    use chrono::Utc;
    use futures::TryStreamExt;
    use futures::stream;

    use super::*;
    use crate::images::existing_results::ResultKind;

    fn listed(key: String) -> FoundImage {
        FoundImage {
            key: ImageKey::parse(key).unwrap(),
            etag: None,
            size_bytes: None,
            last_modified: None,
            is_absent: false,
            label: None,
        }
    }

    /// Looks at the first images of a list. Every second one has a result.
    async fn look_at(base: &Path, images: usize) -> Vec<FoundImage> {
        let base = base.to_str().unwrap().parse().unwrap();
        let base = Folder::open(&base, &StoreOptions::default()).unwrap();
        let mut results = ExistingResults::default();
        let names: Vec<_> = (0..images).map(|number| format!("{number}.jpg")).collect();
        for name in names.iter().step_by(2) {
            let key = ImageKey::parse(name.as_str()).unwrap();
            results.insert(&key, ResultKind::Prediction, Utc::now());
        }
        let found = names.into_iter().map(|name| Ok(listed(name)));
        let found = look_at_those_done(stream::iter(found).boxed(), base, Arc::new(results));
        found.try_collect().await.unwrap()
    }

    #[tokio::test]
    async fn only_images_with_a_result_are_looked_at_and_their_order_stays() {
        let directory = tempfile::tempdir().unwrap();
        for number in (0..300).filter(|number| number % 4 != 2) {
            fs::write(directory.path().join(format!("{number}.jpg")), "x").unwrap();
        }
        for (number, image) in look_at(directory.path(), 300).await.into_iter().enumerate() {
            assert_eq!(image.key.as_str(), format!("{number}.jpg"));
            let seen = (image.etag.is_some(), image.size_bytes, image.is_absent);
            let expected = match number % 4 {
                0 => (true, Some(1), false),
                2 => (false, None, true),
                _ => (false, None, false),
            };
            assert_eq!(seen, expected, "{number}");
        }
    }

    #[tokio::test]
    async fn nothing_has_gone_from_a_folder_in_which_nothing_is_mounted() {
        let directory = tempfile::tempdir().unwrap();
        for place in [directory.path().to_owned(), directory.path().join("nothing")] {
            let images = look_at(&place, 100).await;
            assert!(images.iter().all(|image| !image.is_absent), "{images:?}");
        }
    }
}
