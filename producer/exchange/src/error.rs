//! Why a file can't be written or read.

use std::io;

/// A file can't be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The file, or the temporary one beside it, can't be written.
    #[error("cannot write the export: {0}; is TMPDIR full?")]
    Io(#[from] io::Error),
    /// A text has a character that XML can't have.
    #[error("{0:?} has a character that XML can't hold; choose --as csv")]
    NotInXml(String),
}

impl From<serde_json::Error> for WriteError {
    fn from(error: serde_json::Error) -> Self {
        Self::Io(error.into())
    }
}

impl From<csv::Error> for WriteError {
    fn from(error: csv::Error) -> Self {
        Self::Io(error.into())
    }
}

/// A file can't be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The system can't read it.
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
    /// It is another encoding's text.
    #[error("it is UTF-16; save it as UTF-8, in Excel as CSV UTF-8")]
    Utf16,
    /// It is a table with other columns.
    #[error(
        "it looks like a table, and its first line does not name the columns that are read: {0}"
    )]
    OtherTable(&'static str),
    /// It is of no format that can be read.
    #[error(
        "it is nothing that can be read: give decisions, a line of JSON for each; Label Studio's JSON, JSON-MIN or CSV; \
         CVAT for images 1.1 (XML); COCO's JSON; or CSV with the columns {0}"
    )]
    Unknown(&'static str),
    /// The JSON is broken, or it is another program's. The text of the error names line and column.
    #[error("it is no {format} file: {source}")]
    Json {
        /// What it should be.
        format: &'static str,
        /// Why it is not.
        #[source]
        source: serde_json::Error,
    },
    /// The XML is broken.
    #[error("byte {byte}: it is no XML of CVAT: {reason}")]
    Xml {
        /// How far it could be read.
        byte: u64,
        /// Why it is not.
        reason: String,
    },
    /// The CSV is broken. The text of the error names the line.
    #[error("it is no CSV: {0}")]
    Csv(#[from] csv::Error),
    /// One of its items can't be taken.
    #[error("{item}: {reason}")]
    Item {
        /// Which one, such as `task 3` or `line 7`.
        item: String,
        /// Why, and what to do.
        reason: String,
    },
}

impl ReadError {
    /// An item that can't be taken.
    pub(crate) fn item(item: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Item { item: item.into(), reason: reason.into() }
    }
}
