//! A clean data set as a list: CSV with the columns key, label and split.
//!
//! `audit`, `enqueue` and `train` take it as `list:PATH`. Upstream: [`plan`](super::plan). Downstream: one
//! file, on disk or in a bucket.

use std::io::{Seek, SeekFrom, Write};

use camshaft_common::location::Location;
use camshaft_common::store::{Folder, StoreOptions};

use super::ApplyError;
use super::plan::Plan;
use super::undo::UndoFile;

const CSV: &str = "text/csv; charset=utf-8";

/// Where a list goes.
pub(super) struct Target {
    folder: Folder,
    name: String,
}

impl Target {
    /// Makes sure that the list can be written, and replaces nothing that something else wrote.
    pub(super) async fn open(
        to: &Location,
        plan: &Plan,
        undo: &UndoFile,
        stores: &StoreOptions,
    ) -> Result<Self, ApplyError> {
        let (folder, name) = to.split_last().ok_or_else(|| ApplyError::NoName(to.clone()))?;
        let folder = Folder::open(&folder, stores)?;
        if folder.exists(&name).await? && !undo.exists().await? {
            return Err(ApplyError::Exists(to.clone()));
        }
        let has_spaces = |key: &str| key.trim() != key;
        match plan.left().iter().find(|image| has_spaces(image.key.as_str())) {
            Some(image) => Err(ApplyError::SpacesInKey(image.key.clone())),
            None => Ok(Self { folder, name }),
        }
    }

    pub(super) async fn write(self, plan: &Plan) -> Result<(), ApplyError> {
        let mut file = tempfile::tempfile().map_err(ApplyError::Temporary)?;
        // Blocks little: a temporary file is written to the disk's cache.
        write_lines(plan, &file).map_err(|error| ApplyError::Temporary(error.into()))?;
        file.seek(SeekFrom::Start(0)).map_err(ApplyError::Temporary)?;
        Ok(self.folder.put_file(&self.name, file, CSV).await?)
    }
}

fn write_lines(plan: &Plan, file: impl Write) -> csv::Result<()> {
    let mut lines = csv::Writer::from_writer(file);
    lines.write_record(["key", "label", "split"])?;
    for image in plan.left() {
        lines.write_record([
            image.key.as_str(),
            image.label.as_deref().unwrap_or_default(),
            image.split().unwrap_or_default(),
        ])?;
    }
    Ok(lines.flush()?)
}

#[cfg(test)]
mod tests {
    use camshaft_common::key::ImageKey;
    use camshaft_decisions::MergedDecisions;

    use super::*;
    use crate::images::list_lines::{KeyBase, ListColumns, ListFormat, ListLines};
    use crate::run_images::RunImage;

    #[test]
    fn what_is_written_is_read_as_a_list() {
        let images = [
            ("train/cat/a, \"b\".jpg", Some("cat")),
            ("b;c.jpg", Some("cat, \"big\"")),
            ("val/c|d.jpg", None),
            ("%=a%0Ab.jpg", Some("two\nlines")),
        ]
        .map(|(key, label)| RunImage {
            key: ImageKey::parse(key).unwrap(),
            label: label.map(str::to_owned),
        });
        let plan = Plan::new(images.to_vec(), &MergedDecisions::default());
        let mut text = Vec::new();
        write_lines(&plan, &mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert!(text.starts_with("key,label,split\n\"train/cat/a, \"\"b\"\".jpg\",cat,train\n"));
        let format = ListFormat::recognise(&text, false, &ListColumns::default()).unwrap();
        let mut lines = ListLines::new(format, KeyBase::new(&"/data".parse().unwrap()));
        let mut read = Vec::new();
        for line in text.split_inclusive('\n') {
            read.extend(
                lines
                    .read(line)
                    .unwrap()
                    .map(|image| RunImage { key: image.key, label: image.label }),
            );
        }
        assert_eq!(read, images);
    }
}
