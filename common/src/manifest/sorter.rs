//! Sorts entries by key in bounded memory: chunks of them are sorted and written to a temporary file,
//! and merged at the end (external merge sort).

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::{mem, vec};

use super::ManifestEntry;

/// Entries that are held before they are written to the file.
const HELD_ENTRIES: usize = 50_000;
/// The same in bytes of their texts: keys may be long.
const HELD_BYTES: usize = 16 << 20;
/// What is held of each sorted chunk while they are merged. Ten million entries are 200 chunks.
const READ_BYTES: usize = 16 * 1024;

/// Takes entries in any order. A key that comes twice counts as it comes last.
#[derive(Debug)]
pub(super) struct EntrySorter {
    most_held: usize,
    held: Vec<ManifestEntry>,
    held_bytes: usize,
    /// The file, once there is one.
    file: Option<Arc<File>>,
    /// The places of sorted chunks in the file, one behind the other.
    chunks: Vec<Range<u64>>,
}

impl Default for EntrySorter {
    fn default() -> Self {
        Self::holding(HELD_ENTRIES)
    }
}

impl EntrySorter {
    /// Holds at most `most_held` entries.
    pub(super) fn holding(most_held: usize) -> Self {
        Self { most_held, held: Vec::new(), held_bytes: 0, file: None, chunks: Vec::new() }
    }

    /// Takes an entry.
    ///
    /// # Errors
    /// If the temporary file can't be written.
    pub(super) fn push(&mut self, entry: ManifestEntry) -> io::Result<()> {
        self.held_bytes += entry.text_bytes();
        self.held.push(entry);
        if self.held.len() >= self.most_held || self.held_bytes >= HELD_BYTES {
            self.write_chunk()?;
        }
        Ok(())
    }

    /// Writes what is held. Blocks little: it stays in the disk's cache at first.
    fn write_chunk(&mut self) -> io::Result<()> {
        let file = match &self.file {
            Some(file) => Arc::clone(file),
            None => Arc::new(tempfile::tempfile()?),
        };
        let mut text = Vec::with_capacity(self.held_bytes * 2);
        sorted(mem::take(&mut self.held)).iter().for_each(|entry| entry.write(&mut text));
        self.held_bytes = 0;
        let start = self.chunks.last().map_or(0, |chunk| chunk.end);
        file.write_all_at(&text, start)?;
        self.chunks.push(start..start + text.len() as u64);
        self.file = Some(file);
        Ok(())
    }

    /// The entries in the order of their keys, each key once.
    ///
    /// # Errors
    /// If the temporary file can't be read.
    pub(super) fn into_sorted(self) -> io::Result<SortedEntries> {
        let mut runs = Vec::with_capacity(self.chunks.len() + 1);
        if let Some(file) = self.file {
            for chunk in self.chunks {
                let lines = FileRange { file: Arc::clone(&file), range: chunk };
                runs.push(Run::Written(BufReader::with_capacity(READ_BYTES, lines)));
            }
        }
        runs.push(Run::Held(sorted(self.held).into_iter()));
        let mut merged =
            SortedEntries { next: BinaryHeap::with_capacity(runs.len()), runs, line: Vec::new() };
        for run in 0..merged.runs.len() {
            merged.take_from(run)?;
        }
        Ok(merged)
    }
}

/// The entries in the order of their keys. Of those with the same key, the last one.
fn sorted(mut entries: Vec<ManifestEntry>) -> Vec<ManifestEntry> {
    entries.sort_by(|a, b| a.key.cmp(&b.key));
    entries.dedup_by(|later, kept| {
        let is_same = later.key == kept.key;
        if is_same {
            mem::swap(later, kept);
        }
        is_same
    });
    entries
}

/// Sorted entries that are merged with others.
#[derive(Debug)]
enum Run {
    Written(BufReader<FileRange>),
    Held(vec::IntoIter<ManifestEntry>),
}

/// A part of a file. Others read other parts of it at the same time.
#[derive(Debug)]
struct FileRange {
    file: Arc<File>,
    range: Range<u64>,
}

impl Read for FileRange {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.range.end - self.range.start).unwrap_or(usize::MAX);
        let length = buffer.len().min(left);
        let read = self.file.read_at(&mut buffer[..length], self.range.start)?;
        self.range.start += read as u64;
        Ok(read)
    }
}

/// The first entry of a run. The greatest in a heap is that with the least key; of several with the
/// same key, that of the earliest run.
#[derive(Debug)]
struct FirstOfRun {
    entry: ManifestEntry,
    run: usize,
}

impl Ord for FirstOfRun {
    fn cmp(&self, other: &Self) -> Ordering {
        other.entry.key.cmp(&self.entry.key).then(other.run.cmp(&self.run))
    }
}

impl PartialOrd for FirstOfRun {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for FirstOfRun {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for FirstOfRun {}

/// The entries in the order of their keys, each key once.
#[derive(Debug)]
pub(super) struct SortedEntries {
    /// In the order in which they were filled.
    runs: Vec<Run>,
    next: BinaryHeap<FirstOfRun>,
    line: Vec<u8>,
}

impl SortedEntries {
    fn take_from(&mut self, run: usize) -> io::Result<()> {
        let entry = match &mut self.runs[run] {
            Run::Written(lines) => ManifestEntry::read(lines, &mut self.line)?,
            Run::Held(entries) => entries.next(),
        };
        if let Some(entry) = entry {
            self.next.push(FirstOfRun { entry, run });
        }
        Ok(())
    }

    fn pop(&mut self) -> io::Result<Option<ManifestEntry>> {
        let Some(FirstOfRun { entry, run }) = self.next.pop() else { return Ok(None) };
        self.take_from(run)?;
        Ok(Some(entry))
    }

    /// The next entry; `None` at the end.
    ///
    /// # Errors
    /// If the temporary file can't be read.
    pub(super) fn next(&mut self) -> io::Result<Option<ManifestEntry>> {
        let Some(mut entry) = self.pop()? else { return Ok(None) };
        // Later runs come behind earlier ones.
        while self.next.peek().is_some_and(|next| next.entry.key == entry.key) {
            match self.pop()? {
                Some(later) => entry = later,
                None => break,
            }
        }
        Ok(Some(entry))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::ImageKey;

    fn entry(key: &str, label: &str) -> ManifestEntry {
        let (key, label) = (ImageKey::parse(key).unwrap(), Some(label.to_owned()));
        ManifestEntry { key, etag: None, size: Some(1), absent: false, label, since: None }
    }

    #[test]
    fn entries_come_sorted_and_the_last_of_a_key_counts_however_many_are_held() {
        let keys = ["m/2", "a", "é", "m", "m/1", "z", "a.b", "a/b", "m/2", "b", "a", "m/2", "c"];
        let mut expected: Vec<_> = keys.to_vec();
        expected.sort_unstable();
        expected.dedup();
        for most_held in [1, 2, 3, 5, 100] {
            let mut sorter = EntrySorter::holding(most_held);
            for (at, key) in keys.iter().enumerate() {
                sorter.push(entry(key, &at.to_string())).unwrap();
            }
            let mut sorted = sorter.into_sorted().unwrap();
            let mut found = Vec::new();
            while let Some(entry) = sorted.next().unwrap() {
                let last = keys.iter().rposition(|key| *key == entry.key.as_str()).unwrap();
                assert_eq!(entry.label, Some(last.to_string()), "{most_held}: {}", entry.key);
                found.push(entry.key.to_string());
            }
            assert_eq!(found, expected, "{most_held}");
        }
    }
}
