//! Files of other programs that people label images in: Label Studio, CVAT, COCO, and CSV for spreadsheets.
//!
//! Writes images with what is known of them, and reads what people made of it. Knows these formats and
//! nothing else: no store, no run, no decision. `docs/decisions.md` says what maps to what. Upstream:
//! `camshaft export`, and the other programs. Downstream: the other programs, and `camshaft decide`, which
//! turns [`Answer`]s into decisions.
//!
//! | module | what it holds |
//! |---|---|
//! | `image` | an image as it is exported, and what all images of a file have in common |
//! | `address` | where another program finds an image |
//! | `answer` | what a file says about an image |
//! | `recognise` | which format a file has, by its content |
//! | `label_studio`, `cvat`, `coco`, `sheet` | one format each: its writer and its reader |
//! | `export_writer` | the writer of any format |
//! | `byte_order_mark`, `xml_text`, `line_numbers` | what formats need |

mod address;
mod answer;
mod byte_order_mark;
mod coco;
mod cvat;
mod error;
mod export_writer;
mod image;
mod label_studio;
mod line_numbers;
mod recognise;
mod sheet;
mod xml_text;

use std::io::BufRead;

pub use address::AddressRoot;
pub use answer::{Answer, DROP, Verdict};
pub use error::{ReadError, WriteError};
pub use export_writer::{ExportFormat, ExportWriter};
pub use image::{ExportFinding, ExportHead, ExportImage};
pub use recognise::{FileFormat, recognise};

/// Reads a file of this format, and calls `visit` with what it says about each image. Images that it says
/// nothing about are left out.
///
/// # Errors
/// If the file is broken. `visit` may have been called before.
pub fn read(
    format: ExportFormat,
    reader: impl BufRead,
    visit: &mut dyn FnMut(Answer),
) -> Result<(), ReadError> {
    match format {
        ExportFormat::LabelStudio => label_studio::read(reader, visit),
        ExportFormat::Cvat => cvat::read(reader, visit),
        ExportFormat::Coco => coco::read(reader, visit),
        ExportFormat::Csv => sheet::read(reader, visit),
    }
}

#[cfg(test)]
mod tests;
