//! A clean data set as a folder of class folders: `PLACE/[SPLIT/]LABEL/NAME`, with `metadata.jsonl` in it.
//!
//! Images are copied, linked or moved; they are not decoded. Upstream: [`plan`](super::plan), and SOURCE.
//! Downstream: trainings, of `camshaft train` and of others.

use std::collections::HashSet;
use std::fs;
use std::io::{BufWriter, ErrorKind, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use camshaft_common::key::ImageKey;
use camshaft_common::location::Location;
use camshaft_common::store::{Folder, JSON_LINES, StoreError, StoreErrorKind, StoreOptions};
use futures::stream::{self, StreamExt, TryStreamExt};
use serde::Serialize;
use tokio::task::spawn_blocking;

use super::moved_image::{MovedImage, move_file};
use super::plan::{Plan, PlannedImage};
use super::{ApplyError, FileLink};
use crate::terminal::output::{format_count, print_line};
use crate::terminal::progress::{Progress, ProgressCounts};

/// The file that names each image's label, as the Hugging Face Hub's image folders have it.
pub(super) const METADATA: &str = "metadata.jsonl";
/// Images that are on their way at a time.
const AT_ONCE: usize = 16;

/// A folder to write, and where each image goes in it.
pub(super) struct Target {
    source: Folder,
    folder: Folder,
    /// Both as paths, if both are on this machine.
    paths: Option<[PathBuf; 2]>,
    link: FileLink,
    images: Vec<PlacedImage>,
    /// Images with a number behind their name, since another has it.
    renamed: u64,
}

/// An image with its place.
#[derive(Clone, Debug)]
struct PlacedImage {
    image: PlannedImage,
    /// Its key below the folder.
    to: ImageKey,
}

/// What became of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Placed {
    There,
    /// SOURCE does not have it.
    Missing,
}

impl Target {
    /// Makes sure that the folder is empty and that the images can go there.
    pub(super) async fn open(
        to: &Location,
        source: &Location,
        out: &Location,
        plan: &Plan,
        link: FileLink,
        stores: &StoreOptions,
    ) -> Result<Self, ApplyError> {
        for (what, place) in [("SOURCE", source), ("OUT", out)] {
            if to.resolved().below(&place.resolved()).is_some() {
                let (to, place) = (to.to_string(), place.to_string());
                return Err(ApplyError::Inside { to, what, place });
            }
        }
        let (images, renamed) = place_images(plan.left())?;
        let paths = source.local_path().zip(to.local_path()).map(|(from, to)| [from, to]);
        match link {
            FileLink::Hard if paths.is_none() => return Err(ApplyError::LinkNeedsDisk("hard")),
            FileLink::Move if paths.is_none() => return Err(ApplyError::LinkNeedsDisk("move")),
            FileLink::Copy | FileLink::Hard | FileLink::Move => {}
        }
        let folder = Folder::open(to, stores)?;
        if folder.may_have_anything().await? {
            return Err(ApplyError::NotEmpty(to.clone()));
        }
        let source = Folder::open(source, stores)?;
        Ok(Self { source, folder, paths, link, images, renamed })
    }

    /// Says which images could not keep their names.
    pub(super) fn describe_names(&self) -> Option<String> {
        (self.renamed > 0).then(|| {
            format!(
                "{} with a number behind the name, since the class folder has another of that name",
                format_count(self.renamed, "image")
            )
        })
    }

    /// Where each image is moved to.
    pub(super) fn moves(&self) -> Vec<MovedImage> {
        let moved = |placed: &PlacedImage| MovedImage {
            key: placed.image.key.clone(),
            to: placed.to.clone(),
        };
        self.images.iter().map(moved).collect()
    }

    /// Writes the folder. Returns the keys of images that SOURCE does not have.
    pub(super) async fn write(self) -> Result<HashSet<ImageKey>, ApplyError> {
        let (done, missing) = (AtomicU64::new(0), AtomicU64::new(0));
        let (done, missing) = (&done, &missing);
        let this = &self;
        let placing = stream::iter(0..self.images.len())
            .map(|at| async move {
                let placed = this.place(&this.images[at]).await?;
                done.fetch_add(1, Relaxed);
                missing.fetch_add(u64::from(placed == Placed::Missing), Relaxed);
                Ok::<_, ApplyError>((at, placed))
            })
            .buffer_unordered(AT_ONCE)
            .try_filter_map(
                |(at, placed)| async move { Ok((placed == Placed::Missing).then_some(at)) },
            )
            .try_collect::<HashSet<usize>>();
        let total = Some(self.images.len() as u64);
        let counts =
            || ProgressCounts { done: done.load(Relaxed), total, failed: missing.load(Relaxed) };
        let verb = match self.link {
            FileLink::Copy => "copied",
            FileLink::Hard => "linked",
            FileLink::Move => "moved",
        };
        let missing = Progress::start(verb).follow(placing, counts).await?;
        self.write_metadata(&missing).await?;
        if let Some(first) = missing.iter().min() {
            print_line(&format!(
                "{} not there, since SOURCE does not have them: {} is the first",
                format_count(missing.len() as u64, "image"),
                self.images[*first].image.key
            ));
        }
        Ok(missing.into_iter().map(|at| self.images[at].image.key.clone()).collect())
    }

    async fn place(&self, placed: &PlacedImage) -> Result<Placed, ApplyError> {
        let key = &placed.image.key;
        if let Some([source, folder]) = &self.paths {
            // No file can have such a name.
            let Some((from, to)) = key.local_path().zip(placed.to.local_path()) else {
                return Ok(Placed::Missing);
            };
            let (from, to, link) = (source.join(from), folder.join(to), self.link);
            let placing = spawn_blocking(move || place_file(&from, &to, link));
            return placing.await.map_err(|_| ApplyError::Panicked)?;
        }
        let content = match self.source.get_image(key, u64::MAX).await {
            Ok(content) => content.bytes,
            Err(error) if is_missing(&error) => return Ok(Placed::Missing),
            Err(error) => return Err(error.into()),
        };
        match (self.folder.location().local_path(), placed.to.local_path()) {
            (Some(folder), Some(to)) => {
                let to = folder.join(to);
                let from = key.to_string();
                let writing = spawn_blocking(move || {
                    let written = in_folder(&to).and_then(|()| fs::write(&to, content));
                    written.map_err(|source| failed("copy", from, &to, source))
                });
                writing.await.map_err(|_| ApplyError::Panicked)??;
            }
            (Some(_), None) => return Ok(Placed::Missing),
            (None, _) => {
                let name = String::from_utf8_lossy(&placed.to.name()).into_owned();
                self.folder.put(&name, content, media_type(&name)).await?;
            }
        }
        Ok(Placed::There)
    }

    async fn write_metadata(&self, missing: &HashSet<usize>) -> Result<(), ApplyError> {
        let mut file = tempfile::tempfile().map_err(ApplyError::Temporary)?;
        let there = self.images.iter().enumerate().filter(|(at, _)| !missing.contains(at));
        // Blocks little: a temporary file is written to the disk's cache.
        write_lines(there.map(|(_, image)| image), &mut BufWriter::new(&mut file))
            .map_err(ApplyError::Temporary)?;
        file.seek(SeekFrom::Start(0)).map_err(ApplyError::Temporary)?;
        Ok(self.folder.put_file(METADATA, file, JSON_LINES).await?)
    }
}

/// A line of `metadata.jsonl`.
#[derive(Serialize)]
struct MetadataLine<'a> {
    file_name: &'a str,
    label: Option<&'a str>,
    /// The image in SOURCE.
    key: &'a ImageKey,
    /// The label before it was relabelled.
    former_label: Option<&'a str>,
}

fn write_lines<'a>(
    images: impl Iterator<Item = &'a PlacedImage>,
    file: &mut impl Write,
) -> std::io::Result<()> {
    for PlacedImage { image, to } in images {
        let name = to.name();
        let line = MetadataLine {
            file_name: &String::from_utf8_lossy(&name),
            label: image.label.as_deref(),
            key: &image.key,
            former_label: image.former_label.as_deref(),
        };
        serde_json::to_writer(&mut *file, &line)?;
        file.write_all(b"\n")?;
    }
    file.flush()
}

/// The place of each image, and how many have a number behind their name.
fn place_images(images: &[PlannedImage]) -> Result<(Vec<PlacedImage>, u64), ApplyError> {
    let unlabelled = images.iter().filter(|image| image.label.is_none());
    if let Some(first) = unlabelled.clone().next() {
        let (key, images) = (first.key.clone(), unlabelled.count() as u64);
        return Err(ApplyError::NoLabel { key, images });
    }
    let mut taken = HashSet::with_capacity(images.len());
    let (mut placed, mut renamed) = (Vec::with_capacity(images.len()), 0);
    for image in images {
        let label = image.label.as_deref().unwrap_or_default();
        let name = image.key.as_str().rsplit('/').next().unwrap_or_default();
        let split = image.split().map_or_else(String::new, |split| format!("{split}/"));
        let no_folder =
            || ApplyError::LabelIsNoFolder { label: label.to_owned(), key: image.key.clone() };
        if label.contains('/') || label.starts_with('.') {
            return Err(no_folder());
        }
        let place = |name: &str| ImageKey::parse(format!("{split}{label}/{name}"));
        let mut to = place(name).map_err(|_| no_folder())?;
        let mut number = 2;
        while !taken.insert(to.clone()) {
            renamed += u64::from(number == 2);
            to = place(&numbered(name, number)).map_err(|_| no_folder())?;
            number += 1;
        }
        placed.push(PlacedImage { image: image.clone(), to });
    }
    Ok((placed, renamed))
}

/// A name with a number before its extension: `a-2.jpg`.
fn numbered(name: &str, number: u32) -> String {
    match name.rsplit_once('.') {
        Some((stem, extension)) if !stem.is_empty() => format!("{stem}-{number}.{extension}"),
        _ => format!("{name}-{number}"),
    }
}

fn place_file(from: &Path, to: &Path, link: FileLink) -> Result<Placed, ApplyError> {
    // A link to a file is followed, but not moved.
    let real = match from.canonicalize() {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(Placed::Missing);
        }
        real => real.map_err(|source| failed("read", shown(from), to, source))?,
    };
    let copy = || in_folder(to).and_then(|()| fs::copy(&real, to)).map(|_bytes| ());
    match link {
        FileLink::Copy => copy().map_err(|source| failed("copy", shown(from), to, source))?,
        FileLink::Hard => {
            let linked = in_folder(to).and_then(|()| fs::hard_link(&real, to));
            linked.map_err(|source| failed("link", shown(from), to, source))?;
        }
        FileLink::Move => move_file(from, to)?,
    }
    Ok(Placed::There)
}

fn in_folder(path: &Path) -> std::io::Result<()> {
    path.parent().map_or(Ok(()), fs::create_dir_all)
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

fn failed(action: &'static str, from: String, to: &Path, source: std::io::Error) -> ApplyError {
    let advice = match action {
        "link" => "; use --link copy",
        _ => "",
    };
    ApplyError::Place { action, from, to: shown(to), source, advice }
}

fn is_missing(error: &StoreError) -> bool {
    matches!(error.kind(), StoreErrorKind::NotFound | StoreErrorKind::Unusable)
}

/// What a store tells browsers that an image is.
fn media_type(name: &str) -> &'static str {
    let extension = name.rsplit('.').next().unwrap_or_default().to_ascii_lowercase();
    match extension.as_str() {
        "jpg" | "jpeg" | "jpe" | "jfif" => "image/jpeg",
        "png" => "image/png",
        "webp" => "image/webp",
        "gif" => "image/gif",
        "bmp" => "image/bmp",
        "tif" | "tiff" => "image/tiff",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(key: &str, label: &str) -> PlannedImage {
        let label = Some(label.to_owned()).filter(|label| !label.is_empty());
        PlannedImage { key: ImageKey::parse(key).unwrap(), label, former_label: None }
    }

    #[test]
    fn images_lie_in_their_class_and_equal_names_get_numbers() {
        let images = [
            image("a/cat/x.jpg", "cat"),
            image("b/cat/x.jpg", "cat"),
            image("c/cat/x-2.jpg", "cat"),
            image("d/x", "cat"),
            image("e/x", "cat"),
            image("train/dog/x.jpg", "cat"),
            image("dog/%=caf%E9.jpg", "dog"),
        ];
        let (placed, renamed) = place_images(&images).unwrap();
        let places: Vec<_> = placed.iter().map(|image| image.to.as_str()).collect();
        let expected = [
            "cat/x.jpg",
            "cat/x-2.jpg",
            "cat/x-2-2.jpg",
            "cat/x",
            "cat/x-2",
            "train/cat/x.jpg",
            "dog/%=caf%E9.jpg",
        ];
        assert_eq!((places, renamed), (expected.to_vec(), 3));
        let mut text = Vec::new();
        write_lines(placed[5..6].iter(), &mut text).unwrap();
        assert_eq!(
            String::from_utf8(text).unwrap(),
            "{\"file_name\":\"train/cat/x.jpg\",\"label\":\"cat\",\"key\":\"train/dog/x.jpg\",\"former_label\":null}\n"
        );
    }

    #[test]
    fn labels_that_are_no_folders_are_refused() {
        for label in ["a/b", "..", ".hidden", "two\nlines", "%=x"] {
            let error = place_images(&[image("a.jpg", label)]).err().unwrap().to_string();
            assert!(error.contains("class folder"), "{label}: {error}");
        }
        let error = place_images(&[image("a.jpg", ""), image("b.jpg", "")]).err().unwrap();
        let error = error.to_string();
        assert!(error.contains("a.jpg has no label") && error.contains("1 more"), "{error}");
    }
}
