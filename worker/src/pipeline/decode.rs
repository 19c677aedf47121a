//! Third stage: the file becomes pixels and the network's input, and both are measured.

use std::sync::Arc;
use std::time::{Duration, Instant};

use camshaft_common::model::FileDigest;
use image::RgbImage;

use super::budget::Share;
use super::context::Context;
use super::fetch::Fetched;
use super::stage::{Admitted, Exit, ExitCause};
use super::traces;
use crate::cores::{self, Astray};
use camshaft_decoding::DecodeError;
use camshaft_model::ModelFiles;
use camshaft_vision::{input, measures};

/// An image as pixels.
#[derive(Debug)]
pub struct Decoded {
    /// The image on its way.
    pub image: Admitted,
    /// Its pixels at its own size.
    pub picture: RgbImage,
    /// The network's input, `[3, H, W]`, as the model's input rule says. A batch takes it.
    pub input: Vec<f32>,
    /// The model its job asks for.
    pub model: Arc<ModelFiles>,
    /// Its share of the pixel budget, given back when it is dropped.
    pub memory: Share,
}

/// Decodes on the decoders' threads, within the pixel budget and the time for one image.
pub async fn decode(context: Arc<Context>, fetched: Fetched) -> Result<Decoded, Exit> {
    let Fetched { mut image, bytes, share, model } = fetched;
    let (limits, limit) = (context.limits.image, context.limits.decode_time);
    let header = bytes.clone();
    let reading = cores::decode_within(limit, move || {
        (FileDigest::of(&header), camshaft_decoding::memory_to_decode(&header, &limits))
    });
    let memory_bytes = match reading.await {
        Ok((digest, memory_bytes)) => {
            image.image.digest = Some(digest);
            memory_bytes
        }
        Err(astray) => return Err(leaves(image, cause(&astray, limit))),
    };
    let memory_bytes = match memory_bytes {
        Ok(bytes) => bytes,
        Err(error) => return Err(leaves(image, error.into())),
    };
    let memory = context.pixels.reserve(memory_bytes).await;
    let rule = Arc::clone(&model);
    let span = image.span.clone();
    let work = cores::decode_within(limit, move || {
        let _entered = span.enter();
        // They stay where the memory is, should this never end.
        let (_share, mut memory) = (share, memory);
        let started = Instant::now();
        let picture = camshaft_decoding::decode(&bytes, &limits)?;
        memory.shrink(picture.as_raw().len() as u64);
        let input = input::to_input(&picture, &rule.config().input);
        let measures = measures::measure(&picture);
        Ok::<_, DecodeError>((picture, input, measures, memory, started.elapsed()))
    });
    match work.await {
        Ok(Ok((picture, input, measures, memory, elapsed))) => {
            image.timings.decode = elapsed.as_secs_f64() * 1000.0;
            traces::note_bytes(picture.as_raw().len());
            (image.image.width, image.image.height) =
                (Some(picture.width()), Some(picture.height()));
            image.image.measures = Some(measures);
            image.image.region = input::region(picture.dimensions(), &model.config().input);
            Ok(Decoded { image, picture, input, model, memory })
        }
        Ok(Err(error)) => Err(leaves(image, error.into())),
        Err(astray) => Err(leaves(image, cause(&astray, limit))),
    }
}

fn leaves(image: Admitted, cause: ExitCause) -> Exit {
    Exit { image: Box::new(image), cause }
}

fn cause(astray: &Astray, limit: Duration) -> ExitCause {
    match astray {
        Astray::Panicked => ExitCause::DecoderPanicked,
        Astray::Overran => ExitCause::DecoderOverran(limit),
    }
}
