//! Reads the parts of decisions in OUT, each once.
//!
//! Parts never change, so what was read need not be read again: a program that follows OUT lists it, and
//! reads what is new. Upstream: [`parts`](super::parts). Downstream: [`merge`](super::merge), and
//! `camshaft serve`.

use std::collections::HashSet;

use camshaft_common::layout::DECISIONS;
use camshaft_common::store::{Folder, StoreError};
use futures::stream::{self, StreamExt, TryStreamExt};
use uuid::Uuid;

use crate::decision::Decision;
use crate::error::MergeError;
use crate::lines::read_lines;
use crate::parts::PartName;

/// Parts that are read at a time. A click may be a part of its own.
const PARTS_AT_ONCE: usize = 16;
/// The largest part that is read. Those that are written are much smaller.
const MAX_PART_BYTES: u64 = 256 << 20;

/// Where a decision stands: it tells which of two with the same time is the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) writer: Uuid,
    pub(crate) number: u64,
    pub(crate) line: u64,
}

/// Reads parts, and knows which ones it has read.
#[derive(Debug)]
pub struct DecisionReader {
    out: Folder,
    read: HashSet<PartName>,
}

impl DecisionReader {
    /// A reader of the decisions about the run in `out`, which has read none.
    #[must_use]
    pub fn new(out: Folder) -> Self {
        Self { out, read: HashSet::new() }
    }

    /// Reads the parts that were not there before. Their decisions are in the order in which they count.
    ///
    /// # Errors
    /// If OUT can't be read, or a line of a part is no decision. That part's decisions, and those of parts
    /// that were not read yet, come the next time.
    pub async fn read_new(&mut self) -> Result<Vec<Decision>, MergeError> {
        let mut decisions = Vec::new();
        self.visit_new(|place, decision| decisions.push((place, decision))).await?;
        decisions.sort_by_key(|(place, decision)| (decision.at, *place));
        Ok(decisions.into_iter().map(|(_, decision)| decision).collect())
    }

    pub(crate) async fn visit_new(
        &mut self,
        mut visit: impl FnMut(Place, Decision),
    ) -> Result<(), MergeError> {
        let mut parts = Vec::new();
        let mut listed = self.out.list(DECISIONS);
        while let Some(object) = listed.try_next().await? {
            let name = PartName::parse(&object.path).filter(|name| !self.read.contains(name));
            parts.extend(name.map(|name| (name, format!("{DECISIONS}/{}", object.path))));
        }
        let out = &self.out;
        let mut contents = stream::iter(parts)
            .map(|(name, path)| async move {
                let content = out.get(&path, MAX_PART_BYTES).await?;
                Ok::<_, StoreError>((name, path, content.bytes))
            })
            .buffer_unordered(PARTS_AT_ONCE);
        let mut read = Vec::new();
        while let Some((name, path, bytes)) = contents.try_next().await? {
            let path = format!("{}/{path}", out.location());
            let PartName { writer, number } = name;
            read_lines(&path, &*bytes, |line, decision| {
                visit(Place { writer, number, line }, decision);
            })?;
            read.push(name);
        }
        drop(contents);
        self.read.extend(read);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use camshaft_common::store::StoreOptions;

    use super::*;
    use crate::parts::DecisionWriter;

    fn decision(key: &str, at: &str) -> Decision {
        let line = format!(r#"{{"schema":1,"key":"{key}","decision":"keep","by":"","at":"{at}"}}"#);
        Decision::parse(&line).unwrap()
    }

    #[tokio::test]
    async fn each_part_is_read_once_and_decisions_are_in_the_order_of_time() {
        let directory = tempfile::tempdir().unwrap();
        let location = directory.path().to_str().unwrap().parse().unwrap();
        let out = Folder::open(&location, &StoreOptions::default()).unwrap();
        let mut reader = DecisionReader::new(out.clone());
        assert!(reader.read_new().await.unwrap().is_empty());
        let late = decision("late", "2026-01-02T00:00:00Z");
        let early = decision("early", "2026-01-01T00:00:00Z");
        DecisionWriter::new(out.clone()).write(&[late]).await.unwrap();
        let other = DecisionWriter::new(out);
        other.write(&[early]).await.unwrap();
        let keys = |decisions: Vec<Decision>| -> Vec<String> {
            decisions.iter().map(|decision| decision.key.as_str().to_owned()).collect()
        };
        assert_eq!(keys(reader.read_new().await.unwrap()), ["early", "late"]);
        other.write(&[decision("new", "2026-01-01T00:00:00Z")]).await.unwrap();
        assert_eq!(keys(reader.read_new().await.unwrap()), ["new"]);
        assert!(reader.read_new().await.unwrap().is_empty());
    }
}
