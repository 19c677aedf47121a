//! `report/unusable.jsonl.gz`: the results that the last report could not use, because they are damaged
//! or are not what the run asks for.
//!
//! A listing tells of a result only that it is there. A report reads all results and checks them, so it
//! notes here which ones do not count. Then `status` counts their images as to do, and the next
//! `enqueue` or `audit` does them again. A result that was written again since counts. The note is of
//! one manifest of one run: after the next `enqueue` or `audit` it says nothing.
//!
//! Upstream: `report`. Downstream: `status`, `enqueue`, `audit`.

use std::collections::HashSet;
use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, BufRead, BufReader, Cursor, Read, Write};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::entity_tag;
use crate::key::ImageKey;
use crate::layout::UNUSABLE_FILE;
use crate::manifest::can_do_without;
use crate::results::ResultFile;
use crate::run::{Generation, RunId, RunRecord};
use crate::store::{Folder, StoreError, StoreErrorKind};

/// The largest file that is read. A million results take some 30 MB.
const MAX_FILE_BYTES: u64 = 256 << 20;
/// The longest line: the longest path and key, of which JSON may write one byte as six.
const MAX_LINE_BYTES: u64 = 64 * 1024;

/// A result that does not count.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnusableResult {
    /// Its path below OUT.
    pub path: String,
    /// Its image, if that is known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub key: Option<ImageKey>,
    /// Why it does not count, in one word.
    pub reason: String,
    /// The file's entity tag, if the store has them.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub etag: Option<String>,
    /// When the file was last written.
    pub written: DateTime<Utc>,
}

/// The first line: what the results were compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Header {
    run: RunId,
    manifest: Option<Generation>,
}

impl Header {
    fn of(record: &RunRecord) -> Self {
        Self { run: record.run, manifest: record.manifest }
    }
}

/// Writes the note.
#[derive(Debug)]
pub struct UnusableResultsWriter {
    compressed: GzEncoder<File>,
    line: Vec<u8>,
    is_empty: bool,
}

impl UnusableResultsWriter {
    /// Writes to an empty file, about results of the run.
    ///
    /// # Errors
    /// If the file can't be written.
    pub fn new(file: File, record: &RunRecord) -> io::Result<Self> {
        let compressed = GzEncoder::new(file, Compression::fast());
        let mut writer = Self { compressed, line: Vec::new(), is_empty: true };
        writer.write(&Header::of(record))?;
        Ok(writer)
    }

    /// Adds a result.
    ///
    /// # Errors
    /// If the file can't be written.
    pub fn push(&mut self, result: &UnusableResult) -> io::Result<()> {
        self.is_empty = false;
        self.write(result)
    }

    fn write(&mut self, line: &impl Serialize) -> io::Result<()> {
        self.line.clear();
        serde_json::to_writer(&mut self.line, line)?;
        self.line.push(b'\n');
        self.compressed.write_all(&self.line)
    }

    /// Writes the rest. Returns the file; `None` if there was no result.
    ///
    /// # Errors
    /// If the file can't be written.
    pub fn finish(self) -> io::Result<Option<File>> {
        let file = self.compressed.finish()?;
        Ok((!self.is_empty).then_some(file))
    }
}

/// The results that do not count. Each takes 17 to 35 bytes here.
#[derive(Debug, Default)]
pub struct UnusableResults {
    hashes: HashSet<[u64; 2]>,
    hashers: [RandomState; 2],
    /// True if entity tags are those of this machine's files.
    has_local_etags: bool,
}

impl UnusableResults {
    /// Reads the note of the last report; it is empty if there is none, or if it is about other images
    /// than `record` names.
    ///
    /// # Errors
    /// If OUT can't be read at the moment.
    pub async fn read(out: &Folder, record: Option<&RunRecord>) -> Result<Self, StoreError> {
        let Some(header) = record.map(Header::of) else { return Ok(Self::default()) };
        let content = match out.get(UNUSABLE_FILE, MAX_FILE_BYTES).await {
            Ok(content) => content.bytes,
            Err(error) if error.kind() == StoreErrorKind::NotFound => return Ok(Self::default()),
            Err(error) if can_do_without(&error) => {
                warn!(%error, "results that the last report found to be damaged or outdated count as done");
                return Ok(Self::default());
            }
            Err(error) => return Err(error),
        };
        let has_local_etags = out.location().local_path().is_some();
        let reading = tokio::task::spawn_blocking(move || {
            let empty = Self { has_local_etags, ..Self::default() };
            empty.read_lines(header, content)
        });
        match reading.await.unwrap_or_else(|panic| Err(io::Error::other(panic))) {
            Ok(results) => Ok(results),
            Err(error) => {
                warn!(
                    %error,
                    file = UNUSABLE_FILE,
                    "what the last report said of results can't be read; build the report again"
                );
                Ok(Self::default())
            }
        }
    }

    fn read_lines(mut self, header: Header, content: Bytes) -> io::Result<Self> {
        let mut lines = BufReader::new(GzDecoder::new(Cursor::new(content)));
        let mut line = Vec::new();
        let mut next = |line: &mut Vec<u8>| {
            line.clear();
            Read::take(&mut lines, MAX_LINE_BYTES).read_until(b'\n', line)
        };
        next(&mut line)?;
        if serde_json::from_slice::<Header>(&line)? != header {
            return Ok(self);
        }
        while next(&mut line)? > 0 {
            let result: UnusableResult = serde_json::from_slice(&line)?;
            let hash = self.hash(&result.path, result.etag.as_deref(), result.written);
            self.hashes.insert(hash);
        }
        Ok(self)
    }

    /// True if this result does not count. False if it was written again since.
    #[must_use]
    pub fn contains(&self, file: &ResultFile) -> bool {
        if self.hashes.is_empty() {
            return false;
        }
        let ResultFile { path, etag, last_modified, .. } = file;
        self.hashes.contains(&self.hash(path, etag.as_deref(), *last_modified))
    }

    fn hash(&self, path: &str, etag: Option<&str>, written: DateTime<Utc>) -> [u64; 2] {
        let etag = etag.map(|etag| entity_tag::comparable(etag, self.has_local_etags));
        self.hashers.each_ref().map(|hasher| hasher.hash_one((path, etag, written)))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, SeekFrom};

    use futures::TryStreamExt;

    use super::*;
    use crate::explain::ExplainOptions;
    use crate::layout::{Layout, PREDICTIONS};
    use crate::model::ModelIdentity;
    use crate::results;
    use crate::run::SCHEMA;
    use crate::store::{JSON, StoreOptions};

    fn record() -> RunRecord {
        let json = serde_json::json!({
            "schema": SCHEMA, "run": RunId::generate(), "source": "file:///images",
            "model": ModelIdentity::bundled(), "explain": ExplainOptions::default(),
            "images": null, "created_at": Utc::now(), "updated_at": Utc::now(), "camshaft": "",
        });
        serde_json::from_value(json).unwrap()
    }

    async fn list(out: &Folder) -> Vec<ResultFile> {
        results::list(out, PREDICTIONS).try_collect().await.unwrap()
    }

    async fn write(out: &Folder, record: &RunRecord, files: &[ResultFile]) {
        let mut writer = UnusableResultsWriter::new(tempfile::tempfile().unwrap(), record).unwrap();
        for ResultFile { key, path, last_modified, etag } in files {
            let (path, etag, written) = (path.clone(), etag.clone(), *last_modified);
            let (key, reason) = (Some(key.clone()), "content".to_owned());
            writer.push(&UnusableResult { path, key, reason, etag, written }).unwrap();
        }
        match writer.finish().unwrap() {
            Some(mut file) => {
                file.seek(SeekFrom::Start(0)).unwrap();
                out.put_file(UNUSABLE_FILE, file, "application/gzip").await.unwrap();
            }
            None => out.delete(UNUSABLE_FILE).await.unwrap(),
        }
    }

    #[tokio::test]
    async fn a_noted_result_counts_again_once_it_is_written_anew_or_the_run_goes_on() {
        let directory = tempfile::tempdir().unwrap();
        let location = directory.path().to_str().unwrap().parse().unwrap();
        let out = Folder::open(&location, &StoreOptions::default()).unwrap();
        let layout = Layout::of(&location);
        let [a, b] =
            ["a.jpg", "b.jpg"].map(|key| layout.prediction(&ImageKey::parse(key).unwrap()));
        for path in [&a, &b] {
            out.put(path, "{}", JSON).await.unwrap();
        }
        let (record, files) = (record(), list(&out).await);
        let unusable = |files: Vec<ResultFile>, record: RunRecord| {
            let out = out.clone();
            async move {
                let noted = UnusableResults::read(&out, Some(&record)).await.unwrap();
                files.iter().map(|file| noted.contains(file)).collect::<Vec<_>>()
            }
        };
        assert_eq!(unusable(files.clone(), record.clone()).await, [false, false]);
        write(&out, &record, &files[1..]).await;
        assert_eq!(unusable(files.clone(), record.clone()).await, [false, true]);
        out.put(&b, "{\"new\":1}", JSON).await.unwrap();
        assert_eq!(unusable(list(&out).await, record.clone()).await, [false, false]);
        // After another enqueue, the note is about other images.
        let later = RunRecord { manifest: Some(Generation::after(None)), ..record.clone() };
        assert_eq!(unusable(files.clone(), later).await, [false, false]);
        let other = RunRecord { run: RunId::generate(), ..record.clone() };
        assert_eq!(unusable(files.clone(), other).await, [false, false]);
        // A note that is damaged says nothing.
        out.put(UNUSABLE_FILE, "junk", JSON).await.unwrap();
        assert_eq!(unusable(files.clone(), record.clone()).await, [false, false]);
        write(&out, &record, &[]).await;
        assert!(!out.exists(UNUSABLE_FILE).await.unwrap());
    }
}
