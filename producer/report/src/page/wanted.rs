//! Which pictures the page wants thumbnails of.
//!
//! Does not make them: [`thumbnails`](super::thumbnails) does. Upstream: findings, clusters, slices and
//! the comparison.

use chrono::DateTime;

use super::thumbnails::{PagePicture, WantedThumbnail};
use crate::comparison::RunComparison;
use crate::findings::{Cluster, Finding};
use crate::overview::ConfusedCell;
use crate::predictions::ImageExample;
use crate::slices::Slice;

/// The wrong cells' examples that get thumbnails.
const CONFUSED_EXAMPLES: usize = 200;

/// The pictures of the `most` most urgent findings, and of all clusters and compared images. The page
/// draws heat over the images of findings itself, so that only `without_images` it needs their overlays.
pub(crate) fn wanted_thumbnails(
    list: &[Finding],
    clusters: &[Cluster],
    comparison: Option<&RunComparison>,
    most: usize,
    without_images: bool,
) -> Vec<WantedThumbnail> {
    if most == 0 {
        return Vec::new();
    }
    let mut wanted = Vec::new();
    let mut add = |picture, not_before| wanted.push(WantedThumbnail { picture, not_before });
    let image = |key: &String| PagePicture::Image(key.clone());
    let overlay = |path: &String| PagePicture::Overlay(path.clone());
    for finding in list.iter().take(most) {
        let pictures = [
            // Only a failure to explain is of a picture that can be shown.
            finding
                .failure
                .as_ref()
                .is_none_or(|class| class == "explain-failed")
                .then(|| image(&finding.key)),
            finding.overlay.as_ref().filter(|_| without_images).map(overlay),
            finding.other.as_ref().map(image),
            finding.other_overlay.as_ref().filter(|_| without_images).map(overlay),
        ];
        pictures.into_iter().flatten().for_each(|picture| add(picture, finding.finished_at));
    }
    for compared in comparison.iter().flat_map(|comparison| &comparison.moved) {
        let pictures = [Some(image(&compared.key)), compared.overlay.as_ref().map(overlay)];
        pictures.into_iter().flatten().for_each(|picture| add(picture, DateTime::UNIX_EPOCH));
    }
    wanted.extend(pictures_of(clusters.iter().flat_map(|cluster| &cluster.examples)));
    wanted
}

/// The thumbnails of slices' examples, and of as many wrong cells of the confusion matrix as are
/// looked at: the first example of each cell, then the second, and so on.
pub(crate) fn wanted_examples(slices: &[Slice], confused: &[ConfusedCell]) -> Vec<WantedThumbnail> {
    let mut of_cells: Vec<(usize, &ImageExample)> =
        confused.iter().flat_map(|cell| cell.examples.iter().enumerate()).collect();
    of_cells.sort_by_key(|(nth, _)| *nth);
    let of_cells = of_cells.into_iter().map(|(_, example)| example).take(CONFUSED_EXAMPLES);
    pictures_of(slices.iter().flat_map(|slice| &slice.examples).chain(of_cells)).collect()
}

/// The picture of each example and its overlay.
fn pictures_of<'a>(
    examples: impl Iterator<Item = &'a ImageExample>,
) -> impl Iterator<Item = WantedThumbnail> {
    examples.flat_map(|ImageExample { key, overlay, finished_at }| {
        let overlay = overlay.clone().map(PagePicture::Overlay);
        let pictures = [Some(PagePicture::Image(key.clone())), overlay].into_iter().flatten();
        pictures.map(|picture| WantedThumbnail { picture, not_before: *finished_at })
    })
}
