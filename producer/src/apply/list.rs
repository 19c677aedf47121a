//! A clean data set as a list: CSV with the columns key, label and split.
//!
//! `audit`, `enqueue` and `train` take it as `list:PATH`. Upstream: [`plan`](super::plan). Downstream: one
//! file, on disk or in a bucket.

use camshaft_common::location::Location;
use camshaft_common::model::FileDigest;
use camshaft_common::store::{Folder, StoreOptions};

use super::ApplyError;
use super::plan::Plan;
use super::undo::UndoFile;

const CSV: &str = "text/csv; charset=utf-8";

/// Where a list goes.
pub(super) struct Target {
    folder: Folder,
    name: String,
    content: Vec<u8>,
    digests: Vec<FileDigest>,
}

impl Target {
    /// Makes the list, and makes sure that it can be written. It replaces nothing but a list that
    /// `camshaft apply` wrote and nobody changed since.
    pub(super) async fn open(
        to: &Location,
        plan: &Plan,
        undo: &UndoFile,
        stores: &StoreOptions,
    ) -> Result<Self, ApplyError> {
        let (folder, name) = to.split_last().ok_or_else(|| ApplyError::NoName(to.clone()))?;
        let folder = Folder::open(&folder, stores)?;
        let has_spaces = |key: &str| key.trim() != key;
        if let Some(image) = plan.left().iter().find(|image| has_spaces(image.key.as_str())) {
            return Err(ApplyError::SpacesInKey(image.key.clone()));
        }
        let content = lines(plan);
        let mut digests = vec![FileDigest::of(&content)];
        if folder.exists(&name).await? {
            let Some(written) = undo.digests().await? else {
                return Err(ApplyError::Exists(to.clone()));
            };
            let there = FileDigest::of(&folder.get(&name, u64::MAX).await?.bytes);
            // A record of an older version names no list.
            if !written.is_empty() && !written.contains(&there) {
                return Err(ApplyError::Changed(to.clone()));
            }
            // Until the new list is there, the record must know the old one.
            digests.push(there);
        }
        Ok(Self { folder, name, content, digests })
    }

    /// The digests that the list may have from now on: its own, and before it is written that of the list
    /// that it replaces.
    pub(super) fn digests(&self) -> Vec<FileDigest> {
        self.digests.clone()
    }

    pub(super) async fn write(self) -> Result<(), ApplyError> {
        Ok(self.folder.put(&self.name, self.content, CSV).await?)
    }
}

/// The list's content.
fn lines(plan: &Plan) -> Vec<u8> {
    let mut lines = csv::Writer::from_writer(Vec::new());
    let written = lines.write_record(["key", "label", "split"]).and_then(|()| {
        plan.left().iter().try_for_each(|image| {
            lines.write_record([
                image.key.as_str(),
                image.label.as_deref().unwrap_or_default(),
                image.split().unwrap_or_default(),
            ])
        })
    });
    written.expect("each line has three columns, and memory can be written");
    lines.into_inner().expect("memory can be written")
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
        let text = String::from_utf8(lines(&plan)).unwrap();
        assert!(text.starts_with("key,label,split\n\"train/cat/a, \"\"b\"\".jpg\",cat,train\n"));
        let format = ListFormat::recognise(&text, false, &ListColumns::default()).unwrap();
        let mut reader = ListLines::new(format, KeyBase::new(&"/data".parse().unwrap()));
        let mut read = Vec::new();
        for line in text.split_inclusive('\n') {
            read.extend(
                reader
                    .read(line)
                    .unwrap()
                    .map(|image| RunImage { key: image.key, label: image.label }),
            );
        }
        assert_eq!(read, images);
    }
}
