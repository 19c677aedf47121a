//! Small pictures of the images and overlays that the page shows, made once: those that are
//! there and newer than their result stay.

use std::collections::{HashMap, HashSet};
use std::io::Cursor;
use std::sync::Arc;

use camshaft_common::layout::REPORT;
use camshaft_common::store::Folder;
use chrono::{DateTime, Utc};
use futures::stream::{StreamExt, TryStreamExt};
use image::codecs::jpeg::JpegEncoder;
use image::{DynamicImage, ImageDecoder, ImageReader, Limits};
use tokio::sync::Semaphore;

use crate::error::ReportError;

/// Pixels of the longer side: twice what the page shows, for dense screens.
const SIDE: u32 = 320;
const QUALITY: u8 = 82;
/// A larger picture is left out: one that large was hardly predicted either.
const MAX_FILE_BYTES: u64 = 256 * 1024 * 1024;
/// Memory for one picture's pixels.
const MAX_PIXEL_BYTES: u64 = 1024 * 1024 * 1024;
/// Memory for all pictures on their way, in MiB. One that takes more is on its way alone.
const MEMORY_MIB: u32 = 512;
/// What a decoder holds at most of a picture, times what it hands out: that, and beside it
/// twice as much, such as a progressive JPEG's coefficients of 16 bits.
const DECODER_SHARE: u64 = 3;

/// A picture to make a small one of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Picture {
    /// An image of SOURCE, by its key.
    Image(String),
    /// An overlay, by its place below OUT.
    Overlay(String),
}

impl Picture {
    /// Where its thumbnail lies below OUT.
    fn place(&self) -> String {
        match self {
            Self::Image(key) => format!("{REPORT}/thumbnails/image/{key}.jpg"),
            Self::Overlay(path) => format!("{REPORT}/thumbnails/{path}.jpg"),
        }
    }
}

/// The thumbnails there are.
#[derive(Debug, Default)]
pub(crate) struct Thumbnails {
    there: HashSet<Picture>,
    /// Pictures that could not be read, and why not the first of them.
    pub(crate) missing: Option<(u64, String)>,
}

impl Thumbnails {
    /// Whether there is one.
    pub(crate) fn has(&self, picture: &Picture) -> bool {
        self.there.contains(picture)
    }

    /// Makes those of `wanted` that are missing or older than they may be.
    pub(crate) async fn make(
        out: &Folder,
        source: Option<&Folder>,
        wanted: Vec<(Picture, DateTime<Utc>)>,
    ) -> Result<Self, ReportError> {
        let folder = format!("{REPORT}/thumbnails");
        let listed = out
            .list(&folder)
            .map_ok(|object| (format!("{folder}/{}", object.path), object.last_modified));
        let known: HashMap<String, DateTime<Utc>> = listed.try_collect().await?;
        let mut this = Self::default();
        let mut work = Vec::new();
        let mut seen = HashSet::new();
        for (picture, not_before) in wanted {
            if !seen.insert(picture.clone()) {
                continue;
            }
            if known.get(&picture.place()).is_some_and(|made| *made >= not_before) {
                this.there.insert(picture);
            } else {
                work.push(picture);
            }
        }
        let at_once = 2 * std::thread::available_parallelism().map_or(1, usize::from);
        let memory = Arc::new(Semaphore::new(MEMORY_MIB as usize));
        let made = futures::stream::iter(work).map(|picture| async {
            let result = make_one(out, source, &picture, &memory).await;
            (picture, result)
        });
        let mut made = std::pin::pin!(made.buffered(at_once));
        while let Some((picture, result)) = made.next().await {
            match result? {
                Ok(()) => {
                    this.there.insert(picture);
                }
                Err(reason) => {
                    this.missing.get_or_insert((0, reason)).0 += 1;
                }
            }
        }
        Ok(this)
    }
}

/// Makes one. A picture that can't be read is no error of the report's.
async fn make_one(
    out: &Folder,
    source: Option<&Folder>,
    picture: &Picture,
    memory: &Arc<Semaphore>,
) -> Result<Result<(), String>, ReportError> {
    let (folder, path) = match (picture, source) {
        (Picture::Image(key), Some(source)) => (source, key),
        (Picture::Image(_), None) => return Ok(Err("SOURCE is not known".to_owned())),
        (Picture::Overlay(path), _) => (out, path),
    };
    let content = match folder.get(path, MAX_FILE_BYTES).await {
        Ok(content) => content.bytes,
        Err(error) => return Ok(Err(error.to_string())),
    };
    let share = match memory_to_shrink(&content) {
        Ok(mib) => Arc::clone(memory).acquire_many_owned(mib.min(MEMORY_MIB)).await,
        Err(error) => return Ok(Err(format!("{path}: {error}"))),
    };
    let small = tokio::task::spawn_blocking(move || {
        // Kept until the pixels are gone, should nobody wait for them any more.
        let _share = share;
        shrink(&content)
    });
    match small.await.map_err(|_panicked| ReportError::Panicked)? {
        Ok(small) => {
            out.put(&picture.place(), small, "image/jpeg").await?;
            Ok(Ok(()))
        }
        Err(error) => Ok(Err(format!("{path}: {error}"))),
    }
}

fn decoder(content: &[u8]) -> image::ImageResult<impl ImageDecoder> {
    let mut limits = Limits::default();
    limits.max_alloc = Some(MAX_PIXEL_BYTES);
    let mut reader = ImageReader::new(Cursor::new(content)).with_guessed_format()?;
    reader.limits(limits);
    reader.into_decoder()
}

/// In MiB, by what the header says.
fn memory_to_shrink(content: &[u8]) -> image::ImageResult<u32> {
    let bytes = decoder(content)?.total_bytes().saturating_mul(DECODER_SHARE);
    Ok(u32::try_from(bytes >> 20).unwrap_or(u32::MAX).saturating_add(1))
}

fn shrink(content: &[u8]) -> image::ImageResult<Vec<u8>> {
    let mut decoder = decoder(content)?;
    let orientation = decoder.orientation()?;
    let mut picture = DynamicImage::from_decoder(decoder)?;
    if picture.width().max(picture.height()) > SIDE {
        picture = picture.thumbnail(SIDE, SIDE);
    }
    // The small one, which needs no second copy of the large one.
    picture.apply_orientation(orientation);
    let mut small = Vec::new();
    JpegEncoder::new_with_quality(&mut small, QUALITY).encode_image(&picture.to_rgb8())?;
    Ok(small)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_become_small_and_keep_their_shape() {
        let picture = image::RgbImage::from_pixel(1000, 500, image::Rgb([200, 10, 10]));
        let mut file = Vec::new();
        let png = image::codecs::png::PngEncoder::new(&mut file);
        picture.write_with_encoder(png).unwrap();
        let small = image::load_from_memory(&shrink(&file).unwrap()).unwrap();
        assert_eq!((small.width(), small.height()), (320, 160));
        assert!(shrink(b"no picture").is_err());
    }
}
