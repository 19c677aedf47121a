//! SOURCE, opened: a stream of its images.
//!
//! Owns listing a folder or a prefix of a bucket in the order of its keys, which of its files are
//! images, and reading a list. Does not decide which images get a job: that is
//! [`selection`](crate::images::selection).

use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use camshaft_common::image_files::ImageFiles;
use camshaft_common::key::ImageKey;
use camshaft_common::location::Location;
use camshaft_common::printable::printable;
use camshaft_common::run::RunRecord;
use camshaft_common::skipped::SkipReason;
use camshaft_common::store::{
    Folder, ListedImage, SkippedEntry, SourceEntry, StoreError, StoreOptions,
};
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};

use crate::images::existing_results::ExistingResults;
use crate::images::found_image::FoundImage;
use crate::images::list_columns::ListColumns;
use crate::images::list_file::ListFile;
use crate::images::listed_objects;
use crate::images::run_folders::RunFolders;
use crate::images::skipped_log::SkippedLog;
use crate::images::source_config::{LabelRule, SourceArgument, SourceConfig};
use crate::images::source_error::SourceError;

/// SOURCE, opened: where its images are, and which files count as its images.
#[derive(Debug)]
pub(crate) struct Source {
    folder: Folder,
    keys: Keys,
    labels: LabelRule,
}

#[derive(Debug)]
enum Keys {
    /// Those of the files that count as images; if it is `None`, of all files.
    Of(Option<ImageFiles>),
    One(ImageKey),
    Listed(Box<ListFile>),
}

impl Source {
    /// Opens SOURCE and makes sure that it is there. `files` says which files are images; lists and
    /// single images are taken as they are.
    ///
    /// # Errors
    /// If it is not there, if it is `out` itself, or if it is a single image and `files` has globs.
    pub(crate) fn open(
        config: SourceConfig,
        files: Option<ImageFiles>,
        labels: LabelRule,
        out: &Location,
        stores: &StoreOptions,
    ) -> Result<Self, SourceError> {
        let (location, keys) = match config {
            SourceConfig::List { path, base, columns } => {
                let list = ListFile::new(path, &base, columns);
                (base, Keys::Listed(Box::new(list)))
            }
            SourceConfig::Place(place) => match single_file(&place)? {
                Some(_) if files.as_ref().is_some_and(|files| *files != ImageFiles::default()) => {
                    return Err(SourceError::GlobsForOneImage(place.to_string()));
                }
                Some(one) => one,
                None => (place, Keys::Of(files)),
            },
        };
        let is_base = matches!(keys, Keys::Listed(_));
        if location.local_path().is_some_and(|path| !path.exists()) {
            let missing = if is_base { SourceError::BaseMissing } else { SourceError::Missing };
            return Err(missing(location.to_string()));
        }
        if location.local_path().is_some_and(|path| !path.is_dir()) {
            return Err(match is_base {
                true => SourceError::BaseIsNoFolder(location.to_string()),
                false => SourceError::NotAFolder(location.to_string()),
            });
        }
        // Links may make one place look like two.
        if out.resolved().below(&location.resolved()).is_some_and(|path| path.is_empty()) {
            return Err(if is_base { SourceError::OutIsBase } else { SourceError::OutIsSource });
        }
        let folder = Folder::open(&location, stores)?;
        Ok(Self { folder, keys, labels })
    }

    /// Opens the SOURCE that `run.json` names, for its keys only: images get no labels.
    ///
    /// # Errors
    /// If `run.json` names nothing that can be a SOURCE, and as [`Self::open`].
    pub(crate) fn open_recorded(
        record: &RunRecord,
        out: &Location,
        stores: &StoreOptions,
    ) -> Result<Self, SourceError> {
        let argument: SourceArgument = record.source.parse()?;
        let config = SourceConfig::new(argument, record.base.clone())?;
        let config = config.with_columns(ListColumns::of_run(record))?;
        Self::open(config, record.image_files.clone(), LabelRule::None, out, stores)
    }

    /// Which files of SOURCE are images; `None` if all that it names are.
    #[must_use]
    pub(crate) fn image_files(&self) -> Option<&ImageFiles> {
        match &self.keys {
            Keys::Of(files) => files.as_ref(),
            Keys::One(_) | Keys::Listed(_) => None,
        }
    }

    /// Where labels come from.
    #[must_use]
    pub(crate) fn labels(&self) -> LabelRule {
        self.labels
    }

    /// The folder or prefix that keys are below.
    #[must_use]
    pub(crate) fn location(&self) -> &Location {
        self.folder.location()
    }

    /// True if SOURCE is a list on standard input, which can be read once.
    #[cfg(feature = "embedded")]
    pub(crate) fn is_standard_input(&self) -> bool {
        matches!(&self.keys, Keys::Listed(list) if list.is_standard_input())
    }

    /// True if images come in the order of a list, which may be any order and may name a key
    /// twice. Otherwise they come in the order of their keys.
    #[must_use]
    pub(crate) fn is_list(&self) -> bool {
        matches!(self.keys, Keys::Listed(_))
    }

    /// True if SOURCE is a list in a file and has `key` at `position`, counted from 1. The list
    /// then counts as the one that an earlier process read. Standard input can't be read twice.
    pub(crate) async fn lists_at(&self, position: u64, key: &ImageKey) -> bool {
        let Keys::Listed(list) = &self.keys else { return false };
        let Ok(images_before) = usize::try_from(position.saturating_sub(1)) else { return false };
        if !Path::new(list.path()).is_file() {
            return false;
        }
        let mut images = list.read().skip(images_before);
        // An error is reported later, when `images` reads the same list.
        matches!(images.try_next().await, Ok(Some(image)) if image.key == *key)
    }

    /// Every image, as it is found. What is no image is noted in `skipped`: hidden files, results of
    /// runs, and whatever does not count as an image by its name. A file that counts as one and can't
    /// be read becomes a failure, and is not silently missing from the audit.
    pub(crate) fn images(
        &self,
        skipped: &Arc<SkippedLog>,
    ) -> BoxStream<'static, Result<FoundImage, SourceError>> {
        let labels = self.labels;
        let found = match &self.keys {
            Keys::Of(files) => self.list(files.clone(), Arc::clone(skipped)),
            Keys::One(key) => {
                let (folder, key) = (self.folder.clone(), key.clone());
                let image = async move {
                    let head = folder.head_image(&key).await?;
                    let image = ListedImage {
                        key,
                        etag: head.etag,
                        size_bytes: head.size_bytes,
                        last_modified: head.last_modified,
                    };
                    Ok(FoundImage::from(image))
                };
                stream::once(image).boxed()
            }
            Keys::Listed(list) => list.read().map_err(Into::into).boxed(),
        };
        found.map_ok(move |image| image.with_label(labels)).boxed()
    }

    /// The same images. A list names no more than keys, so the objects of its images that have a result
    /// are looked at.
    pub(crate) fn look_at_those_done(
        &self,
        images: BoxStream<'static, Result<FoundImage, SourceError>>,
        results: &Arc<ExistingResults>,
    ) -> BoxStream<'static, Result<FoundImage, SourceError>> {
        if !self.is_list() || results.is_empty() {
            return images;
        }
        listed_objects::look_at_those_done(images, self.folder.clone(), Arc::clone(results))
    }

    fn list(
        &self,
        files: Option<ImageFiles>,
        skipped: Arc<SkippedLog>,
    ) -> BoxStream<'static, Result<FoundImage, SourceError>> {
        let sieve = Arc::new(Sieve { files, runs: RunFolders::new(self.folder.clone()), skipped });
        self.folder
            .list_images()
            .map_err(SourceError::from)
            .try_filter_map(move |entry| {
                let sieve = Arc::clone(&sieve);
                async move {
                    match entry {
                        SourceEntry::Image(listed) => Ok(sieve.image(listed).await?),
                        SourceEntry::Skipped(entry) => {
                            sieve.skipped.note(&entry);
                            Ok(None)
                        }
                    }
                }
            })
            .boxed()
    }
}

/// Tells the images among the files of SOURCE.
struct Sieve {
    files: Option<ImageFiles>,
    runs: RunFolders,
    skipped: Arc<SkippedLog>,
}

impl Sieve {
    async fn image(&self, listed: ListedImage) -> Result<Option<FoundImage>, StoreError> {
        let key = &listed.key;
        let reason = if key.is_hidden() {
            SkipReason::Hidden
        } else if self.runs.is_result(key).await? {
            SkipReason::Result
        } else if let Some(why) = self.files.as_ref().and_then(|files| files.why_not(key)) {
            self.skipped.note_not_selected(key.as_str(), &why);
            return Ok(None);
        } else {
            return Ok(Some(listed.into()));
        };
        let name = printable(key.as_str()).into_owned();
        self.skipped.note(&SkippedEntry { name, reason, detail: None });
        Ok(None)
    }
}

/// `audit photo.jpg`: one file is a source of one image.
fn single_file(place: &Location) -> Result<Option<(Location, Keys)>, SourceError> {
    let Some(path) = place.local_path().filter(|path| path.is_file()) else {
        return Ok(None);
    };
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Ok(None);
    };
    let missing = || SourceError::Missing(place.to_string());
    let folder = folder.to_str().and_then(|text| text.parse().ok()).ok_or_else(missing)?;
    let key = ImageKey::from_name(name.as_bytes())?;
    Ok(Some((folder, Keys::One(key))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(place: &Path, out: &Path, files: Option<ImageFiles>) -> Result<Source, SourceError> {
        let [place, out] = [place, out].map(|path| path.to_str().unwrap().parse().unwrap());
        let config = SourceConfig::Place(place);
        Source::open(config, files, LabelRule::Folder, &out, &StoreOptions::default())
    }

    fn found(place: &Path, files: Option<ImageFiles>) -> (Vec<(String, Option<String>)>, String) {
        let source = open(place, Path::new("/elsewhere"), files).unwrap();
        let skipped = Arc::new(SkippedLog::default());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let images = runtime.block_on(source.images(&skipped).try_collect::<Vec<_>>()).unwrap();
        let keys = images.into_iter().map(|image| (image.key.to_string(), image.label)).collect();
        (keys, skipped.counts().to_string())
    }

    fn write(folder: &Path, names: &[&str]) {
        for name in names {
            let path = folder.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "x").unwrap();
        }
    }

    #[test]
    fn what_is_wrong_with_a_base_is_not_blamed_on_source() {
        let open = |base: &str, out: &str| {
            let base = base.parse().unwrap();
            let config = SourceConfig::List {
                path: "keys.csv".to_owned(),
                base,
                columns: ListColumns::default(),
            };
            let out = out.parse().unwrap();
            let stores = StoreOptions::default();
            let opened = Source::open(config, None, LabelRule::None, &out, &stores);
            opened.unwrap_err().to_string()
        };
        let missing = open("/nonexistent", "/out");
        assert_eq!(missing, "--base /nonexistent doesn't exist; is the path right?");
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().to_str().unwrap();
        assert!(open(place, place).starts_with("OUT is --base itself"));
    }

    #[test]
    fn folders_are_labels_and_what_is_no_image_is_counted() {
        let directory = tempfile::tempdir().unwrap();
        let names = ["cat/a.jpg", ".DS_Store", "cat/.b.jpg.swp", "c.png", "cat/a.txt", "Thumbs.db"];
        write(directory.path(), &names);
        let images = vec![("c.png".into(), None), ("cat/a.jpg".into(), Some("cat".into()))];
        let left_out = "4 not images (1 db, 1 txt, 2 hidden files)".to_owned();
        let by_name = Some(ImageFiles::default());
        assert_eq!(found(directory.path(), by_name.clone()), (images, left_out));
        // A single file is an image because the user says so.
        for name in ["cat/a.jpg", "Thumbs.db"] {
            let path = directory.path().join(name);
            let key = path.file_name().unwrap().to_str().unwrap().to_owned();
            assert_eq!(found(&path, by_name.clone()).0, [(key, None)]);
        }
        // As in a run of an older version.
        assert_eq!(found(directory.path(), None).0.len(), 4);
    }

    #[test]
    fn results_of_any_run_are_no_images() {
        let directory = tempfile::tempdir().unwrap();
        let run = r#"{"schema":1,"run":"01890a5d-ac96-774b-bcce-b302099a8057","source":"file:///x",
            "camshaft":"0.1.0"}"#;
        write(
            directory.path(),
            &["a.jpg", "run1/overlays/a.jpg", "run1/report/b.jpg", "report/c.jpg"],
        );
        std::fs::write(directory.path().join("run1/run.json"), run).unwrap();
        let (keys, left_out) = found(directory.path(), Some(ImageFiles::default()));
        let keys: Vec<_> = keys.into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["a.jpg", "report/c.jpg"]);
        assert_eq!(left_out, "3 results of runs");
    }

    #[test]
    fn out_may_not_be_source_nor_a_link_to_it() {
        let directory = tempfile::tempdir().unwrap();
        let (place, link) = (directory.path().join("images"), directory.path().join("link"));
        std::fs::create_dir(&place).unwrap();
        std::os::unix::fs::symlink("images", &link).unwrap();
        for (source, out) in [(&place, &place), (&place, &link), (&link, &place)] {
            assert!(matches!(open(source, out, None), Err(SourceError::OutIsSource)));
        }
        assert!(open(&link, &place.join("out"), None).is_ok());
    }

    #[test]
    fn globs_choose_nothing_of_a_single_image() {
        let directory = tempfile::tempdir().unwrap();
        write(directory.path(), &["a.jpg"]);
        let files = ImageFiles { include: vec!["*.jpg".parse().unwrap()], exclude: Vec::new() };
        let opened = open(&directory.path().join("a.jpg"), Path::new("/elsewhere"), Some(files));
        assert!(matches!(opened, Err(SourceError::GlobsForOneImage(_))));
    }
}
