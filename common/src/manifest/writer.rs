//! Writes a manifest while its images are listed.
//!
//! Most come in the order of their keys: a part is put when it is full. From the first that comes out
//! of order on, entries are sorted first, those in earlier parts too. So only a list in another order
//! needs a temporary file.

use std::cmp::Ordering;
use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use futures::TryStreamExt;

use super::reader::read_parts;
use super::sorter::EntrySorter;
use super::{ManifestEntry, ManifestError, folder, part_name};
use crate::run::Generation;
use crate::store::{Folder, StoreError};

/// Lines of a part: it has about three megabytes.
pub(super) const PART_LINES: usize = 100_000;
/// The same in bytes of text before it is compressed: keys may be long.
const PART_BYTES: usize = 64 << 20;
/// Text that is compressed together.
const TEXT_BYTES: usize = 64 * 1024;

const GZIP: &str = "application/gzip";

/// Writes the manifest of a generation.
#[derive(Debug)]
pub struct ManifestWriter {
    parts: PartWriter,
    /// The last entry that came in order. The next may have the same key.
    last: Option<ManifestEntry>,
    /// Holds the entries once one came out of order.
    sorter: Option<EntrySorter>,
}

impl ManifestWriter {
    /// A manifest without an entry.
    #[must_use]
    pub fn new(out: Folder, generation: Generation) -> Self {
        Self { parts: PartWriter::new(out, generation, PART_LINES), last: None, sorter: None }
    }

    /// Adds an entry. A key that comes twice counts as it comes last.
    ///
    /// # Errors
    /// If OUT or a temporary file can't be written.
    pub async fn push(&mut self, entry: ManifestEntry) -> Result<(), ManifestError> {
        if let Some(sorter) = &mut self.sorter {
            return sorter.push(entry).map_err(ManifestError::Temporary);
        }
        let last = self.last.take();
        match last.as_ref().map_or(Ordering::Less, |last| last.key.cmp(&entry.key)) {
            Ordering::Less => {
                if let Some(last) = last {
                    self.parts.push(&last).await?;
                }
                self.last = Some(entry);
            }
            Ordering::Equal => self.last = Some(entry),
            Ordering::Greater => {
                let mut sorter = self.sort_written().await?;
                for entry in last.into_iter().chain([entry]) {
                    sorter.push(entry).map_err(ManifestError::Temporary)?;
                }
                self.sorter = Some(sorter);
            }
        }
        Ok(())
    }

    /// Reads the entries that are in parts already.
    async fn sort_written(&mut self) -> Result<EntrySorter, ManifestError> {
        self.parts.put().await?;
        let PartWriter { out, generation, number, .. } = &self.parts;
        let mut sorter = EntrySorter::default();
        let mut written = read_parts(out, *generation, *number);
        while let Some(entry) = written.try_next().await? {
            sorter.push(entry).map_err(ManifestError::Temporary)?;
        }
        self.parts.begin_anew();
        Ok(sorter)
    }

    /// Writes the rest. Returns the number of entries.
    ///
    /// # Errors
    /// As [`Self::push`].
    pub async fn finish(self) -> Result<u64, ManifestError> {
        let Self { mut parts, last, sorter } = self;
        if let Some(sorter) = sorter {
            // Blocks little: the file was just written and is in the disk's cache.
            let mut sorted = sorter.into_sorted().map_err(ManifestError::Temporary)?;
            while let Some(entry) = sorted.next().map_err(ManifestError::Temporary)? {
                parts.push(&entry).await?;
            }
        }
        if let Some(last) = last {
            parts.push(&last).await?;
        }
        parts.put().await?;
        parts.remove_later().await?;
        Ok(parts.entries)
    }
}

/// Writes entries to parts, one after the other.
#[derive(Debug)]
struct PartWriter {
    out: Folder,
    generation: Generation,
    most_lines: usize,
    /// The number of the part that is being filled.
    number: usize,
    /// The part, but for `text`.
    compressed: GzEncoder<Vec<u8>>,
    /// Lines that are not compressed yet.
    text: Vec<u8>,
    /// Lines of the part.
    lines: usize,
    /// Bytes of these lines.
    bytes: usize,
    /// Lines of all parts.
    entries: u64,
}

impl PartWriter {
    fn new(out: Folder, generation: Generation, most_lines: usize) -> Self {
        let (compressed, text) = (no_part(), Vec::with_capacity(TEXT_BYTES));
        let (number, lines, bytes, entries) = (0, 0, 0, 0);
        Self { out, generation, most_lines, number, compressed, text, lines, bytes, entries }
    }

    /// The first part comes next. The parts that are there are overwritten.
    fn begin_anew(&mut self) {
        (self.number, self.entries) = (0, 0);
    }

    async fn push(&mut self, entry: &ManifestEntry) -> Result<(), StoreError> {
        let before = self.text.len();
        entry.write(&mut self.text);
        self.bytes += self.text.len() - before;
        self.lines += 1;
        self.entries += 1;
        if self.text.len() >= TEXT_BYTES {
            self.compress();
        }
        if self.lines >= self.most_lines || self.bytes >= PART_BYTES {
            self.put().await?;
        }
        Ok(())
    }

    fn compress(&mut self) {
        self.compressed.write_all(&self.text).expect("memory takes any number of bytes");
        self.text.clear();
    }

    /// Puts the part into OUT, if it has lines.
    async fn put(&mut self) -> Result<(), StoreError> {
        if self.lines == 0 {
            return Ok(());
        }
        self.compress();
        let part = std::mem::replace(&mut self.compressed, no_part());
        let part = part.finish().expect("memory takes any number of bytes");
        let path = format!("{}/{}", folder(self.generation), part_name(self.number));
        self.out.put(&path, part, GZIP).await?;
        self.number += 1;
        (self.lines, self.bytes) = (0, 0);
        Ok(())
    }

    /// Removes parts that an earlier process wrote, and that this one has not overwritten.
    async fn remove_later(&self) -> Result<(), StoreError> {
        let folder = folder(self.generation);
        let written: Vec<_> = (0..self.number).map(part_name).collect();
        let objects: Vec<_> = self.out.list(&folder).try_collect().await?;
        let is_later = |path: &String| path.starts_with("part-") && !written.contains(path);
        for path in objects.into_iter().map(|object| object.path).filter(is_later) {
            self.out.delete(&format!("{folder}/{path}")).await?;
        }
        Ok(())
    }
}

fn no_part() -> GzEncoder<Vec<u8>> {
    // Twice as fast as the usual level, for a tenth more bytes.
    GzEncoder::new(Vec::new(), Compression::fast())
}

#[cfg(test)]
impl ManifestWriter {
    /// With smaller parts, so that a few entries have several.
    pub(super) fn with_part_lines(out: Folder, generation: Generation, most_lines: usize) -> Self {
        Self { parts: PartWriter::new(out, generation, most_lines), last: None, sorter: None }
    }
}
