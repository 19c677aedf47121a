//! What everybody decides: the decisions in OUT, in the order in which they were seen here.
//!
//! A page asks for what is new since the lines it has, so each line is sent to it once. Others may write
//! to the same OUT, from other machines too: their parts are found by listing it now and then.

use std::time::{Duration, Instant};

use camshaft_common::store::{Folder, StoreError};
use camshaft_decisions::{Decision, DecisionReader, DecisionWriter, MergeError};

/// Pages ask every few seconds, each of them. OUT is listed no more often than this.
const LISTED_EVERY: Duration = Duration::from_secs(2);

/// The lines of all decisions.
#[derive(Debug)]
pub(super) struct DecisionBoard {
    reader: DecisionReader,
    writer: DecisionWriter,
    lines: Vec<String>,
    /// When OUT was listed last; none if it must be listed at the next question.
    listed: Option<Instant>,
}

impl DecisionBoard {
    /// Reads what is decided so far.
    ///
    /// # Errors
    /// If OUT can't be read, or a line of a part is no decision.
    pub(super) async fn open(out: Folder) -> Result<Self, MergeError> {
        let mut board = Self {
            reader: DecisionReader::new(out.clone()),
            writer: DecisionWriter::new(out),
            lines: Vec::new(),
            listed: None,
        };
        board.read().await?;
        Ok(board)
    }

    async fn read(&mut self) -> Result<(), MergeError> {
        let new = self.reader.read_new().await?;
        self.listed = Some(Instant::now());
        self.lines.extend(new.iter().map(Decision::to_line));
        Ok(())
    }

    /// The lines after the first `known`, and how many there are then.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub(super) async fn since(&mut self, known: usize) -> Result<(String, usize), MergeError> {
        if self.listed.is_none_or(|listed| listed.elapsed() >= LISTED_EVERY) {
            self.read().await?;
        }
        let mut text = String::new();
        for line in self.lines.iter().skip(known) {
            text.push_str(line);
            text.push('\n');
        }
        Ok((text, self.lines.len()))
    }

    /// Writes decisions to OUT. When it returns, they are there to stay.
    ///
    /// # Errors
    /// If OUT can't be written.
    pub(super) async fn write(&mut self, decisions: &[Decision]) -> Result<(), StoreError> {
        self.writer.write(decisions).await?;
        // They are seen at the next listing, and until then by whoever sent them.
        self.listed = None;
        Ok(())
    }
}
