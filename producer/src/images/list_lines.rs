//! The lines of a list: one key each, or CSV with a header that has `key` and perhaps `label`.
//!
//! Reads text only and no files, so that a fuzz target can call it.

use camshaft_common::key::{ImageKey, ImageKeyError};

/// The longest line, with its end. A key has less than 1 KiB, and the label has to fit into a
/// job's message, where JSON may write one byte as six.
pub const MAX_LINE_BYTES: usize = 8 * 1024;

/// An image as a line names it.
#[derive(Debug, PartialEq, Eq)]
pub struct ListedImage {
    /// Its key.
    pub key: ImageKey,
    /// Its given class.
    pub label: Option<String>,
}

/// Why a line names no image.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// Its key is longer than that of any image.
    #[error(transparent)]
    Key(#[from] ImageKeyError),
    /// It is not CSV.
    #[error(transparent)]
    Csv(#[from] csv::Error),
    /// It has more than [`MAX_LINE_BYTES`].
    #[error("it has more than {MAX_LINE_BYTES} bytes; write one key a line")]
    TooLong,
}

/// Reads a list, line by line from the first.
#[derive(Debug, Default)]
pub struct ListLines {
    started: bool,
    /// The columns of key and label in a CSV; `None` if each line is a key.
    columns: Option<(usize, Option<usize>)>,
}

impl ListLines {
    /// Reads the next line, with or without its end. Returns `None` for a blank line and for the
    /// header.
    ///
    /// # Errors
    /// If the line names no image. Reading can't go on after it.
    pub fn read(&mut self, line: &str) -> Result<Option<ListedImage>, LineError> {
        if line.len() > MAX_LINE_BYTES {
            return Err(LineError::TooLong);
        }
        let is_first = !std::mem::replace(&mut self.started, true);
        let text = line.trim_end_matches(['\n', '\r']);
        let text = if is_first { text.trim_start_matches('\u{feff}') } else { text };
        if text.trim().is_empty() || (is_first && self.read_header(text)) {
            return Ok(None);
        }
        let (key, label) = self.fields(text)?;
        Ok(Some(ListedImage { key: ImageKey::from_list(&key)?, label }))
    }

    /// True if the line is a CSV header with a column `key`.
    fn read_header(&mut self, text: &str) -> bool {
        let Ok(names) = record(text) else { return false };
        let column = |wanted: &str| names.iter().position(|name| name.trim() == wanted);
        self.columns = column("key").map(|key| (key, column("label")));
        self.columns.is_some()
    }

    fn fields(&self, text: &str) -> Result<(String, Option<String>), csv::Error> {
        let Some((key, label)) = self.columns else {
            return Ok((text.to_owned(), None));
        };
        let fields = record(text)?;
        let field = |column: usize| fields.get(column).map(str::to_owned);
        let label = label.and_then(field).filter(|label| !label.is_empty());
        // A missing key becomes an empty one: no image has it, so it fails alone.
        Ok((field(key).unwrap_or_default(), label))
    }
}

fn record(line: &str) -> Result<csv::StringRecord, csv::Error> {
    // Setting up a CSV reader takes ten times as long as splitting most lines.
    if !line.contains(['"', '\r', '\n']) {
        return Ok(line.split(',').collect());
    }
    let mut record = csv::StringRecord::new();
    let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(line.as_bytes());
    reader.read_record(&mut record)?;
    Ok(record)
}
