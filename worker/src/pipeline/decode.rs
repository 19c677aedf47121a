//! Third stage: the file becomes pixels and the network's input.

use std::io::Cursor;
use std::sync::Arc;
use std::time::Instant;

use image::{ImageDecoder, ImageError, ImageReader, RgbImage};
use tokio::sync::OwnedSemaphorePermit;

use super::context::Context;
use super::fetch::Fetched;
use super::stage::{Admitted, Exit, ExitCause};
use crate::cores;
use crate::decoding::{self, DecodeError};
use crate::input;
use crate::model::ModelFiles;

/// An image as pixels.
#[derive(Debug)]
pub struct Decoded {
    /// The image on its way.
    pub image: Admitted,
    /// Its pixels at its own size.
    pub picture: RgbImage,
    /// The network's input, `[3, H, W]`, as the model's input rule says.
    pub input: Vec<f32>,
    /// The model its job asks for.
    pub model: Arc<ModelFiles>,
    /// Its share of the pixel budget, given back when it is dropped.
    pub memory: OwnedSemaphorePermit,
}

/// Decodes on the pool, within the pixel budget.
pub async fn decode(context: Arc<Context>, fetched: Fetched) -> Result<Decoded, Exit> {
    let Fetched { mut image, bytes, model } = fetched;
    let limits = context.limits.image;
    let memory = context.reserve_pixels(pixel_bytes(&bytes)).await;
    let rule = Arc::clone(&model);
    let span = image.span.clone();
    let work = cores::compute(move || {
        let _entered = span.enter();
        let started = Instant::now();
        let picture = decoding::decode(&bytes, &limits)?;
        let input = input::to_input(&picture, &rule.config().input);
        Ok::<_, DecodeError>((picture, input, started.elapsed()))
    });
    match work.await {
        Ok(Ok((picture, input, elapsed))) => {
            image.timings.decode = elapsed.as_secs_f64() * 1000.0;
            (image.image.width, image.image.height) =
                (Some(picture.width()), Some(picture.height()));
            image.image.region = input::region(picture.dimensions(), &model.config().input);
            Ok(Decoded { image, picture, input, model, memory })
        }
        Ok(Err(error)) => Err(Exit { image: Box::new(image), cause: error.into() }),
        Err(_panic) => Err(Exit { image: Box::new(image), cause: ExitCause::DecoderPanicked }),
    }
}

/// What decoding will hold at its height: the decoder's own pixels, and eight-bit RGB. Zero
/// where the header can't be read: decoding then ends there.
fn pixel_bytes(bytes: &[u8]) -> u64 {
    const RGB_BYTES: u64 = 3;
    let reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format();
    let Ok(decoder) = reader.map_err(ImageError::from).and_then(ImageReader::into_decoder) else {
        return 0;
    };
    let (width, height) = decoder.dimensions();
    let pixel = u64::from(decoder.color_type().bytes_per_pixel()) + RGB_BYTES;
    u64::from(width).saturating_mul(u64::from(height)).saturating_mul(pixel)
}
