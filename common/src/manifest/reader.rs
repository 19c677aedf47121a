//! Reads a manifest as a stream: a part at a time, and of its entries some thousands.

use std::collections::VecDeque;
use std::io::{self, BufReader, Cursor};

use bytes::Bytes;
use flate2::read::GzDecoder;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};

use super::{ManifestEntry, ManifestError, folder, part_name};
use crate::run::Generation;
use crate::store::Folder;

/// Entries that are read together.
const CHUNK_ENTRIES: usize = 4096;
/// The largest part that is read. Most have three megabytes.
const MAX_PART_BYTES: u64 = 256 << 20;

/// The entries of a manifest, in the order of their keys. `images` is the number of them that
/// `run.json` tells, if it does.
///
/// # Errors
/// An item is an error if a part can't be read or is not what was written. It is the last one.
pub fn read(
    out: &Folder,
    generation: Generation,
    images: Option<u64>,
) -> BoxStream<'static, Result<ManifestEntry, ManifestError>> {
    let out = out.clone();
    let begin = async move {
        let parts = part_names(&out, generation).await?;
        let folder = folder(generation);
        Ok::<_, ManifestError>(Reading { out, folder, parts, open: None, found: 0, images })
    };
    stream::once(begin).map_ok(Reading::into_entries).try_flatten().boxed()
}

/// The entries of the first `parts` parts, whatever else lies there.
pub(super) fn read_parts(
    out: &Folder,
    generation: Generation,
    parts: usize,
) -> BoxStream<'static, Result<ManifestEntry, ManifestError>> {
    let (out, folder) = (out.clone(), folder(generation));
    let parts = (0..parts).map(part_name).collect();
    Reading { out, folder, parts, open: None, found: 0, images: None }.into_entries()
}

/// The names of a manifest's parts: numbered from zero, with no gap.
async fn part_names(
    out: &Folder,
    generation: Generation,
) -> Result<VecDeque<String>, ManifestError> {
    let folder = folder(generation);
    let objects = out.list(&folder).map_ok(|object| object.path);
    let is_part = |path: &String| futures::future::ready(path.starts_with("part-"));
    let mut names: Vec<String> = objects.try_filter(is_part).try_collect().await?;
    names.sort();
    let expected = || (0..names.len().max(1)).map(part_name);
    if let Some(missing) = expected().find(|name| !names.contains(name)) {
        let (path, source) = (format!("{folder}/{missing}"), io::ErrorKind::NotFound.into());
        return Err(ManifestError::Damaged { path, source });
    }
    Ok(names.into())
}

/// A manifest that is being read.
struct Reading {
    out: Folder,
    folder: String,
    /// The parts that are left.
    parts: VecDeque<String>,
    open: Option<OpenPart>,
    found: u64,
    images: Option<u64>,
}

/// A part that is being read.
struct OpenPart {
    path: String,
    lines: BufReader<GzDecoder<Cursor<Bytes>>>,
}

impl Reading {
    fn into_entries(self) -> BoxStream<'static, Result<ManifestEntry, ManifestError>> {
        let chunks = stream::try_unfold(self, |mut reading| async move {
            let chunk = reading.next_chunk().await?;
            Ok::<_, ManifestError>(chunk.map(|chunk| (chunk, reading)))
        });
        chunks.map_ok(|chunk| stream::iter(chunk.into_iter().map(Ok))).try_flatten().boxed()
    }

    /// Some entries; `None` after the last.
    async fn next_chunk(&mut self) -> Result<Option<Vec<ManifestEntry>>, ManifestError> {
        loop {
            let part = match self.open.take() {
                Some(part) => part,
                None => match self.parts.pop_front() {
                    Some(name) => self.open(&name).await?,
                    None => return self.end(),
                },
            };
            let path = part.path.clone();
            let reading = tokio::task::spawn_blocking(move || part.read_chunk());
            let read = reading.await.map_err(|_panic| ManifestError::Panicked(path))?;
            let (rest, chunk) = read?;
            self.open = rest;
            if !chunk.is_empty() {
                self.found += chunk.len() as u64;
                return Ok(Some(chunk));
            }
        }
    }

    async fn open(&self, name: &str) -> Result<OpenPart, ManifestError> {
        let path = format!("{}/{name}", self.folder);
        let content = self.out.get(&path, MAX_PART_BYTES).await?.bytes;
        Ok(OpenPart { path, lines: BufReader::new(GzDecoder::new(Cursor::new(content))) })
    }

    fn end(&self) -> Result<Option<Vec<ManifestEntry>>, ManifestError> {
        match self.images {
            Some(expected) if expected != self.found => Err(ManifestError::Incomplete {
                path: self.folder.clone(),
                found: self.found,
                expected,
            }),
            _ => Ok(None),
        }
    }
}

impl OpenPart {
    /// Reads some entries. Returns the part as well, if it may have more.
    fn read_chunk(mut self) -> Result<(Option<Self>, Vec<ManifestEntry>), ManifestError> {
        let (mut chunk, mut line) = (Vec::new(), Vec::new());
        while chunk.len() < CHUNK_ENTRIES {
            match ManifestEntry::read(&mut self.lines, &mut line) {
                Ok(Some(entry)) => chunk.push(entry),
                Ok(None) => return Ok((None, chunk)),
                Err(source) => return Err(ManifestError::Damaged { path: self.path, source }),
            }
        }
        Ok((Some(self), chunk))
    }
}
