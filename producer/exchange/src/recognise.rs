//! Which format a file has, by its content: names are what people make of them.

use crate::byte_order_mark::BOM;
use crate::error::ReadError;
use crate::export_writer::ExportFormat;
use crate::sheet::{self, READ_COLUMNS, Start};

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileFormat {
    /// Decisions, one a line. Also a file without any: its reader says what is wrong with it.
    Decisions,
    /// A format of another program.
    Exchanged(ExportFormat),
}

/// Tells the format of a file by its first bytes. The more there are, the better; 4,096 will do.
///
/// # Errors
/// If the file is of no format that can be read.
pub fn recognise(head: &[u8]) -> Result<FileFormat, ReadError> {
    if head.starts_with(b"\xff\xfe") || head.starts_with(b"\xfe\xff") {
        return Err(ReadError::Utf16);
    }
    let head = head.strip_prefix(BOM).unwrap_or(head);
    let start = head.iter().position(|byte| !byte.is_ascii_whitespace()).unwrap_or(head.len());
    let head = &head[start..];
    match head.first() {
        Some(b'<') => Ok(FileFormat::Exchanged(ExportFormat::Cvat)),
        Some(b'[') => Ok(FileFormat::Exchanged(ExportFormat::LabelStudio)),
        Some(b'{') => Ok(object(&head[1..])),
        Some(b'P') if head.starts_with(b"PK\x03\x04") => Err(ReadError::item(
            "it is a ZIP archive",
            "take the file of annotations out of it (unzip), and import that",
        )),
        None => Ok(FileFormat::Decisions),
        Some(_) => match sheet::start(head) {
            Start::Header => Ok(FileFormat::Exchanged(ExportFormat::Csv)),
            Start::OtherTable => Err(ReadError::OtherTable(READ_COLUMNS)),
            Start::NoTable => Err(ReadError::Unknown(READ_COLUMNS)),
        },
    }
}

/// COCO begins with other names than a decision.
fn object(after_brace: &[u8]) -> FileFormat {
    const COCO: [&[u8]; 6] =
        [b"images", b"annotations", b"categories", b"info", b"licenses", b"type"];
    let mut names = after_brace.split(|byte| *byte == b'"').skip(1);
    match names.next() {
        Some(name) if COCO.contains(&name) => FileFormat::Exchanged(ExportFormat::Coco),
        _ => FileFormat::Decisions,
    }
}
