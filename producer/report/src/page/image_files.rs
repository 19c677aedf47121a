//! The files of `report/images`, which hold the data of all images in runs that are too large for the page.

use std::collections::HashSet;

use camshaft_common::layout::REPORT;
use camshaft_common::store::{Folder, JSON};
use futures::stream::TryStreamExt;
use tokio::sync::mpsc::Receiver;

use super::images::ImageFile;
use crate::error::ReportError;

/// Puts the files that come into OUT, and removes those of an earlier report that did not come.
pub(crate) async fn put_files(
    out: &Folder,
    mut files: Receiver<ImageFile>,
) -> Result<(), ReportError> {
    let folder = format!("{REPORT}/images");
    let mut names = HashSet::new();
    while let Some(ImageFile { name, content }) = files.recv().await {
        let content_type = if name.ends_with(".json") { JSON } else { "application/octet-stream" };
        out.put(&format!("{folder}/{name}"), content, content_type).await?;
        names.insert(name);
    }
    let earlier: Vec<String> = out.list(&folder).map_ok(|file| file.path).try_collect().await?;
    let is_left = |name: &String| !names.contains(name);
    let left = earlier.into_iter().filter(is_left).map(|name| format!("{folder}/{name}"));
    out.delete_all(&left.collect::<Vec<_>>()).await?;
    Ok(())
}
