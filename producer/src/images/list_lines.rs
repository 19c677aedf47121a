//! Lines of a list file: one key each, or CSV with a header that has `key` and perhaps `label`.
//!
//! Text only, no files: so that it can be fuzzed by itself.

use camshaft_common::key::{ImageKey, ImageKeyError};

/// Of one line with its end. A key has less than a kilobyte, and a label has to fit a message,
/// where JSON may write one byte as six.
pub const MAX_LINE_BYTES: usize = 8 * 1024;

/// An image as a line names it.
#[derive(Debug, PartialEq, Eq)]
pub struct Listed {
    /// Which image.
    pub key: ImageKey,
    /// Its given class.
    pub label: Option<String>,
}

/// Why a line names no image.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// It has no key, or a bad one.
    #[error(transparent)]
    Key(#[from] ImageKeyError),
    /// It is no CSV.
    #[error(transparent)]
    Csv(#[from] csv::Error),
    /// More than [`MAX_LINE_BYTES`].
    #[error("it has more than {MAX_LINE_BYTES} bytes; write one key a line")]
    TooLong,
}

/// Reads a list's lines from the first to the last.
#[derive(Debug, Default)]
pub struct ListLines {
    started: bool,
    /// Which columns hold key and label; none where the list is plain lines.
    columns: Option<(usize, Option<usize>)>,
}

impl ListLines {
    /// Takes the next line, with or without its end: an image, or nothing where the line is
    /// blank or the header.
    pub fn read(&mut self, line: &str) -> Result<Option<Listed>, LineError> {
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
        Ok(Some(Listed { key: ImageKey::parse(key)?, label }))
    }

    /// Takes the first line where it is a CSV header with a `key` column.
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
        // A missing key is an empty one, and so refused with its line number.
        Ok((field(key).unwrap_or_default(), label))
    }
}

fn record(line: &str) -> Result<csv::StringRecord, csv::Error> {
    // A reader's tables take ten times as long to set up as most lines to split.
    if !line.contains(['"', '\r', '\n']) {
        return Ok(line.split(',').collect());
    }
    let mut record = csv::StringRecord::new();
    let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(line.as_bytes());
    reader.read_record(&mut record)?;
    Ok(record)
}
