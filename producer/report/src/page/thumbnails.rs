//! Thumbnails of the images and overlays that the page shows.
//!
//! Owns where thumbnails lie and when they are made: a thumbnail that is newer than its result
//! stays. Each is a file of its own: a page shows few of them at a time, in any order, and many in one
//! file would all be decoded for one. Upstream: the wiring, which says which ones the page wants;
//! `camshaft serve`, which makes those that a report has left out when a browser asks for them.

use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use camshaft_common::decoded_scale::DecodedScale;
use camshaft_common::key::ImageKey;
use camshaft_common::layout::REPORT;
use camshaft_common::store::{Folder, StoreErrorKind};
use camshaft_common::transparency::Transparency;
use camshaft_decoding::{BYTES_PER_PIXEL, ImageLimits, decode_at_scale, memory_to_decode_at_scale};
use chrono::{DateTime, Utc};
use futures::stream::{StreamExt, TryStreamExt};
use image::DynamicImage;
use image::codecs::jpeg::JpegEncoder;
use tokio::sync::Semaphore;

use crate::error::ReportError;

/// The longer side in pixels: twice what the page shows, for dense screens.
const SIDE: u32 = 320;
const QUALITY: u8 = 82;
const JPEG: &str = "image/jpeg";
/// The memory for all pictures that are in work, in MiB. A picture that takes more is in work
/// alone.
const MEMORY_MIB: u32 = 512;

/// The largest picture that gets a thumbnail. An audit may have been given higher limits than its
/// usual ones; this holds 1 GiB while it is decoded.
const LIMITS: ImageLimits = ImageLimits {
    max_bytes: 256 << 20,
    max_pixels: (1 << 30) / BYTES_PER_PIXEL,
    max_side: 65_535,
    max_time: Duration::from_secs(60),
};

/// A picture that the page shows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum PagePicture {
    /// An image below SOURCE, by its key.
    Image(String),
    /// An overlay, by its path below OUT.
    Overlay(String),
}

impl PagePicture {
    /// The path of the thumbnail below OUT.
    fn thumbnail_path(&self) -> String {
        match self {
            Self::Image(key) => format!("{REPORT}/thumbnails/image/{key}.jpg"),
            Self::Overlay(path) => format!("{REPORT}/thumbnails/{path}.jpg"),
        }
    }
}

/// A thumbnail that the page wants.
#[derive(Clone, Debug)]
pub(crate) struct WantedThumbnail {
    pub(crate) picture: PagePicture,
    /// A thumbnail that was made before this time is made again.
    pub(crate) not_before: DateTime<Utc>,
}

/// The wanted thumbnails that exist.
#[derive(Debug, Default)]
pub(crate) struct Thumbnails {
    existing: HashSet<PagePicture>,
    pub(crate) missing: Option<MissingThumbnails>,
}

/// The wanted thumbnails that could not be made.
#[derive(Debug)]
pub(crate) struct MissingThumbnails {
    pub(crate) count: u64,
    /// Why the first of them could not be made.
    pub(crate) first_reason: String,
}

impl Thumbnails {
    /// Whether the picture has a thumbnail.
    pub(crate) fn has(&self, picture: &PagePicture) -> bool {
        self.existing.contains(picture)
    }

    /// Makes the wanted thumbnails that are missing or too old. `source` is the folder SOURCE, if
    /// the run's record tells it.
    pub(crate) async fn make(
        out: &Folder,
        source: Option<&Folder>,
        wanted: Vec<WantedThumbnail>,
    ) -> Result<Self, ReportError> {
        let folder = format!("{REPORT}/thumbnails");
        let listed = out
            .list(&folder)
            .map_ok(|object| (format!("{folder}/{}", object.path), object.last_modified));
        let made_at: HashMap<String, DateTime<Utc>> = listed.try_collect().await?;
        let mut this = Self::default();
        let mut to_make = Vec::new();
        let mut seen = HashSet::new();
        for WantedThumbnail { picture, not_before } in wanted {
            if !seen.insert(picture.clone()) {
                continue;
            }
            if made_at.get(&picture.thumbnail_path()).is_some_and(|made| *made >= not_before) {
                this.existing.insert(picture);
            } else {
                to_make.push(picture);
            }
        }
        let at_once = 2 * std::thread::available_parallelism().map_or(1, usize::from);
        let maker = ThumbnailMaker::new(out.clone(), source.cloned());
        let made = futures::stream::iter(to_make).map(|picture| async {
            let result = maker.make(&picture).await;
            (picture, result)
        });
        let mut made = std::pin::pin!(made.buffered(at_once));
        while let Some((picture, result)) = made.next().await {
            match result? {
                Ok(_small) => {
                    this.existing.insert(picture);
                }
                Err(first_reason) => {
                    let missing = MissingThumbnails { count: 0, first_reason };
                    this.missing.get_or_insert(missing).count += 1;
                }
            }
        }
        Ok(this)
    }
}

/// Makes thumbnails and puts them into OUT.
#[derive(Debug)]
pub struct ThumbnailMaker {
    out: Folder,
    source: Option<Folder>,
    memory: Arc<Semaphore>,
}

impl ThumbnailMaker {
    /// A maker for the run in `out`. `source` is the folder of its images, if that is known.
    #[must_use]
    pub fn new(out: Folder, source: Option<Folder>) -> Self {
        Self { out, source, memory: Arc::new(Semaphore::new(MEMORY_MIB as usize)) }
    }

    /// Makes the thumbnail of an image of the run, puts it into OUT if OUT can be written, and returns it
    /// as a JPEG. If the image can't be read, returns why.
    ///
    /// # Errors
    /// If the work ends with a panic.
    pub async fn of_image(&self, key: &ImageKey) -> Result<Result<Vec<u8>, String>, ReportError> {
        let picture = PagePicture::Image(key.as_str().to_owned());
        let small = match self.shrunken(&picture).await? {
            Ok(small) => small,
            Err(reason) => return Ok(Err(reason)),
        };
        // Who may only read a run still sees its pictures.
        let put = self.out.put(&picture.thumbnail_path(), small.clone(), JPEG).await;
        if let Err(error) = put {
            tracing::debug!(%error, "a thumbnail could not be kept");
        }
        Ok(Ok(small))
    }

    /// Makes one thumbnail. If the picture can't be read, returns why; that is no error of the report.
    async fn make(&self, picture: &PagePicture) -> Result<Result<(), String>, ReportError> {
        let small = match self.shrunken(picture).await? {
            Ok(small) => small,
            Err(reason) => return Ok(Err(reason)),
        };
        match self.out.put(&picture.thumbnail_path(), small, JPEG).await {
            Ok(()) => Ok(Ok(())),
            // The name is longer than the store can hold.
            Err(error) if error.kind() == StoreErrorKind::Unusable => Ok(Err(error.to_string())),
            Err(error) => Err(error.into()),
        }
    }

    async fn shrunken(
        &self,
        picture: &PagePicture,
    ) -> Result<Result<Vec<u8>, String>, ReportError> {
        let (PagePicture::Image(path) | PagePicture::Overlay(path)) = picture;
        let limits = LIMITS;
        let content = match (picture, &self.source) {
            (PagePicture::Image(key), Some(source)) => match ImageKey::parse(key) {
                Ok(key) => source.get_image(&key, limits.max_bytes).await,
                Err(error) => return Ok(Err(error.to_string())),
            },
            (PagePicture::Image(_), None) => return Ok(Err("SOURCE is not known".to_owned())),
            (PagePicture::Overlay(path), _) => self.out.get(path, limits.max_bytes).await,
        };
        let content = match content {
            Ok(content) => content.bytes,
            Err(error) => return Ok(Err(error.to_string())),
        };
        let permit = match memory_to_shrink(&content, &limits) {
            Ok(mib) => Arc::clone(&self.memory).acquire_many_owned(mib.min(MEMORY_MIB)).await,
            Err(error) => return Ok(Err(format!("{path}: {error}"))),
        };
        let small = tokio::task::spawn_blocking(move || {
            // The task holds the permit, because it goes on even if its caller is dropped.
            let _permit = permit;
            shrink(&content, &limits)
        });
        let small = small.await.map_err(|_panicked| ReportError::Panicked)?;
        Ok(small.map_err(|error| format!("{path}: {error}")))
    }
}

/// The memory in MiB that [`shrink`] takes, by the picture's header.
fn memory_to_shrink(content: &[u8], limits: &ImageLimits) -> Result<u32, String> {
    let bytes = memory_to_decode_at_scale(content, limits, &scale_for)
        .map_err(|error| error.to_string())?;
    Ok(u32::try_from(bytes >> 20).unwrap_or(u32::MAX).saturating_add(1))
}

/// The smallest scale at which a JPEG has twice the pixels of its thumbnail along each axis, so that the
/// thumbnail is as sharp as one of the whole picture.
fn scale_for(size: (u32, u32)) -> DecodedScale {
    let is_enough = |scale: &DecodedScale| {
        let (width, height) = scale.reduce(size);
        width.max(height) >= 2 * SIDE
    };
    DecodedScale::REDUCED.into_iter().find(is_enough).unwrap_or_default()
}

/// Decodes a picture and returns its thumbnail as a JPEG.
fn shrink(content: &[u8], limits: &ImageLimits) -> Result<Vec<u8>, String> {
    // A decoder may panic on a file that was made to break it.
    let decoded = catch_unwind(AssertUnwindSafe(|| {
        decode_at_scale(content, limits, Transparency::OverWhite, &scale_for)
    }));
    let picture = decoded.map_err(|_panic| "its decoder crashed".to_owned())?;
    let mut picture = DynamicImage::from(picture.map_err(|error| error.to_string())?.pixels);
    if picture.width().max(picture.height()) > SIDE {
        picture = picture.thumbnail(SIDE, SIDE);
    }
    let mut small = Vec::new();
    let mut encoder = JpegEncoder::new_with_quality(&mut small, QUALITY);
    encoder.encode_image(&picture).map_err(|error| error.to_string())?;
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
        let limits = ImageLimits::default();
        let small = image::load_from_memory(&shrink(&file, &limits).unwrap()).unwrap();
        assert_eq!((small.width(), small.height()), (320, 160));
        assert!(shrink(b"no picture", &limits).is_err());

        assert_eq!(
            [640, 1278, 1279, 4032].map(|side| scale_for((side, 300)).divisor()),
            [1, 1, 2, 4]
        );
        let mut jpeg = Vec::new();
        JpegEncoder::new_with_quality(&mut jpeg, 90).encode_image(&picture).unwrap();
        let large = image::RgbImage::from_pixel(2600, 1300, image::Rgb([200, 10, 10]));
        let mut file = Vec::new();
        JpegEncoder::new_with_quality(&mut file, 90).encode_image(&large).unwrap();
        let [of_whole, of_reduced] = [&jpeg, &file].map(|file| shrink(file, &limits).unwrap());
        assert_eq!(of_whole, of_reduced, "a flat picture of the same shape");
    }
}
