//! The writer of any format.

use std::io::Write;

use crate::coco::CocoWriter;
use crate::cvat::{self, CvatWriter};
use crate::error::WriteError;
use crate::image::{ExportHead, ExportImage};
use crate::label_studio::{self, LabelStudioWriter};
use crate::sheet::SheetWriter;

/// A format of another program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExportFormat {
    /// Label Studio's JSON: tasks with predictions.
    LabelStudio,
    /// CVAT's XML, "CVAT for images 1.1": images with tags.
    Cvat,
    /// COCO's JSON: images with whole-image annotations.
    Coco,
    /// CSV for a spreadsheet.
    Csv,
}

impl ExportFormat {
    /// Its name: who decided, if the file does not tell.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::LabelStudio => "label-studio",
            Self::Cvat => "cvat",
            Self::Coco => "coco",
            Self::Csv => "csv",
        }
    }

    /// Whether the format has only images whose width and height are known.
    #[must_use]
    pub fn needs_sizes(self) -> bool {
        matches!(self, Self::Cvat | Self::Coco)
    }

    /// What ends the name of the file that goes beside an export, if there is one: how the other program is
    /// to ask.
    #[must_use]
    pub fn companion_suffix(self) -> Option<&'static str> {
        match self {
            Self::LabelStudio => Some(".config.xml"),
            Self::Cvat => Some(".labels.json"),
            Self::Coco | Self::Csv => None,
        }
    }

    /// That file.
    ///
    /// # Errors
    /// If a label can't be in it.
    pub fn companion(self, head: &ExportHead) -> Result<Option<String>, WriteError> {
        match self {
            Self::LabelStudio => label_studio::labelling_config(head).map(Some),
            Self::Cvat => cvat::label_specification(head).map(Some),
            Self::Coco | Self::Csv => Ok(None),
        }
    }

    /// What the file is in HTTP.
    #[must_use]
    pub fn media_type(self) -> &'static str {
        match self {
            Self::LabelStudio | Self::Coco => "application/json",
            Self::Cvat => "application/xml",
            Self::Csv => "text/csv; charset=utf-8",
        }
    }
}

/// Writes images one after the other.
pub struct ExportWriter<W: Write>(Inner<W>);

enum Inner<W: Write> {
    LabelStudio(LabelStudioWriter<W>),
    Cvat(CvatWriter<W>),
    Coco(Box<CocoWriter<W>>),
    Csv(Box<SheetWriter<W>>),
}

impl<W: Write> ExportWriter<W> {
    /// Starts a file.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn new(format: ExportFormat, head: ExportHead, out: W) -> Result<Self, WriteError> {
        Ok(Self(match format {
            ExportFormat::LabelStudio => Inner::LabelStudio(LabelStudioWriter::new(head, out)?),
            ExportFormat::Cvat => Inner::Cvat(CvatWriter::new(head, out)?),
            ExportFormat::Coco => Inner::Coco(Box::new(CocoWriter::new(head, out)?)),
            ExportFormat::Csv => Inner::Csv(Box::new(SheetWriter::new(out)?)),
        }))
    }

    /// Adds an image. If the format [needs sizes](ExportFormat::needs_sizes), an image without one is left
    /// out.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn push(&mut self, image: &ExportImage) -> Result<(), WriteError> {
        match &mut self.0 {
            Inner::LabelStudio(writer) => writer.push(image),
            Inner::Cvat(writer) => writer.push(image),
            Inner::Coco(writer) => writer.push(image),
            Inner::Csv(writer) => writer.push(image),
        }
    }

    /// Ends the file.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn finish(self) -> Result<(), WriteError> {
        match self.0 {
            Inner::LabelStudio(writer) => writer.finish(),
            Inner::Cvat(writer) => writer.finish(),
            Inner::Coco(writer) => writer.finish(),
            Inner::Csv(writer) => writer.finish(),
        }
    }
}
