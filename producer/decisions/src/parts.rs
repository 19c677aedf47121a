//! The parts of decisions, `OUT/decisions/<writer>/<number>.jsonl`: their names, and their writer.
//!
//! A part is written once and never changed, and each writer has a folder of its own. So any number of
//! programs may decide at the same time, in a folder and in a bucket, and nothing is lost. Upstream:
//! rules, imports, and people's clicks. Downstream: [`merge`](super::merge).

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use camshaft_common::layout::DECISIONS;
use camshaft_common::store::{Folder, JSON_LINES, StoreError};
use uuid::Uuid;

use crate::decision::Decision;

/// Parts are read whole, several at a time. Most have some lines.
const PART_LINES: usize = 20_000;
const PART_BYTES: usize = 8 << 20;
const NUMBER_DIGITS: usize = 8;
const SUFFIX: &str = ".jsonl";

/// Writes parts of decisions. It can be shared: each call writes parts of its own.
#[derive(Debug)]
pub struct DecisionWriter {
    out: Folder,
    writer: Uuid,
    /// The number of the last part.
    last: AtomicU64,
}

impl DecisionWriter {
    /// A new writer of decisions about the run in `out`. Nothing is written yet.
    #[must_use]
    pub fn new(out: Folder) -> Self {
        Self { out, writer: Uuid::now_v7(), last: AtomicU64::new(0) }
    }

    /// Writes decisions as the next part: as several if there are very many, and none if there are no
    /// decisions. When it returns, they are there to stay.
    ///
    /// # Errors
    /// If OUT can't be written. Then some of the decisions may have been written: to write them again
    /// does no harm.
    pub async fn write(&self, decisions: &[Decision]) -> Result<(), StoreError> {
        let mut part = String::new();
        let mut lines = 0;
        for decision in decisions {
            part.push_str(&decision.to_line());
            part.push('\n');
            lines += 1;
            if lines >= PART_LINES || part.len() >= PART_BYTES {
                self.put(std::mem::take(&mut part)).await?;
                lines = 0;
            }
        }
        if lines > 0 {
            self.put(part).await?;
        }
        Ok(())
    }

    async fn put(&self, part: String) -> Result<(), StoreError> {
        // Also if it fails, the number is used up: the part may have been written all the same, and a
        // later one is not to overwrite it.
        let number = self.last.fetch_add(1, Relaxed) + 1;
        let path = format!("{DECISIONS}/{}/{number:0NUMBER_DIGITS$}{SUFFIX}", self.writer);
        self.out.put(&path, part, JSON_LINES).await
    }
}

/// A part by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct PartName {
    /// A UUID v7, so that a later writer is greater.
    pub(crate) writer: Uuid,
    /// Counted from 1.
    pub(crate) number: u64,
}

impl PartName {
    /// The part at a path below `OUT/decisions/`; `None` if it is another file.
    pub(crate) fn parse(path: &str) -> Option<Self> {
        let (folder, name) = path.split_once('/')?;
        let writer: Uuid = folder.parse().ok()?;
        let digits = name.strip_suffix(SUFFIX)?;
        let is_number =
            digits.len() >= NUMBER_DIGITS && digits.bytes().all(|byte| byte.is_ascii_digit());
        let number = digits.parse().ok().filter(|_| is_number)?;
        (writer.to_string() == folder).then_some(Self { writer, number })
    }
}

#[cfg(test)]
mod tests {
    use camshaft_common::store::StoreOptions;
    use futures::TryStreamExt;

    use super::*;

    #[test]
    fn only_parts_are_parts() {
        let writer = "01890a5d-ac96-774b-bcce-b302099a8057";
        let part = PartName::parse(&format!("{writer}/00000012.jsonl")).unwrap();
        assert_eq!((part.writer.to_string().as_str(), part.number), (writer, 12));
        for path in [
            "sample.json".to_owned(),
            format!("{writer}/12.jsonl"),
            format!("{writer}/+0000012.jsonl"),
            format!("{writer}/00000012.json"),
            format!("{writer}/x/00000012.jsonl"),
            format!("{}/00000012.jsonl", writer.to_uppercase()),
            "me/00000012.jsonl".to_owned(),
        ] {
            assert_eq!(PartName::parse(&path), None, "{path}");
        }
    }

    #[tokio::test]
    async fn writers_have_folders_and_parts_have_numbers() {
        let directory = tempfile::tempdir().unwrap();
        let location = directory.path().to_str().unwrap().parse().unwrap();
        let out = Folder::open(&location, &StoreOptions::default()).unwrap();
        let decision = Decision::parse(
            r#"{"schema":1,"key":"a","decision":"keep","by":"","at":"2026-01-01T00:00:00.000Z"}"#,
        )
        .unwrap();
        let writers = [DecisionWriter::new(out.clone()), DecisionWriter::new(out.clone())];
        for writer in &writers {
            writer.write(&[]).await.unwrap();
            writer.write(&[decision.clone(), decision.clone()]).await.unwrap();
            writer.write(std::slice::from_ref(&decision)).await.unwrap();
        }
        let listed: Vec<_> = out.list(DECISIONS).try_collect().await.unwrap();
        let mut parts: Vec<_> =
            listed.iter().map(|part| PartName::parse(&part.path).unwrap()).collect();
        parts.sort_unstable();
        let numbers: Vec<_> = parts.iter().map(|part| part.number).collect();
        assert_eq!(numbers, [1, 2, 1, 2]);
        assert!(parts[0].writer < parts[2].writer);
        let lines =
            |path: &str| std::fs::read_to_string(directory.path().join(DECISIONS).join(path));
        let first = format!("{}/00000001.jsonl", writers[0].writer);
        assert_eq!(lines(&first).unwrap().lines().count(), 2);
    }
}
