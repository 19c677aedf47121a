//! Third stage: the file becomes pixels and the network's input, and is measured.

use std::sync::Arc;
use std::time::{Duration, Instant};

use camshaft_common::measure::ImageMeasures;
use camshaft_common::model::FileDigest;
use camshaft_decoding::{self as decoding, DecodeError, ImageLimits};
use camshaft_model::ModelFiles;
use camshaft_vision::{input, measures};
use image::RgbImage;

use super::admitted::Admitted;
use super::exit::{Exit, ExitCause};
use super::fetch::{Fetched, FetchedFile};
use super::memory_budget::{ImageMemoryPermit, MemoryBudget};
use super::stages::Stage;
use super::traces::{self, HasSpans, ImageSpans};
use crate::cores::{self, DecoderFailure};

/// An image as pixels.
#[derive(Debug)]
pub struct Decoded {
    /// The image and its delivery.
    pub admitted: Admitted,
    /// The image's pixels, at its own size.
    pub picture: RgbImage,
    /// The network's input, `[3, H, W]`, made as the model's input rule says. A batch takes it.
    pub input: Vec<f32>,
    /// The model that its job asks for.
    pub model: Arc<ModelFiles>,
    /// The right to hold the pixels in memory.
    pub memory: ImageMemoryPermit,
}

impl HasSpans for Decoded {
    fn spans(&self) -> Option<&ImageSpans> {
        self.admitted.spans()
    }
}

/// Decodes images on the decoders' threads.
#[derive(Debug)]
pub struct DecodeStage {
    /// Memory for pixels.
    pub pixel_budget: Arc<MemoryBudget>,
    /// The size that one image may have.
    pub image_limits: ImageLimits,
    /// How long the decoding of one image may take.
    pub time_limit: Duration,
}

impl Stage for DecodeStage {
    const NAME: &'static str = "decode";
    type Input = Fetched;
    type Output = Decoded;

    async fn process(&self, fetched: Fetched) -> Result<Decoded, Exit> {
        let Fetched { mut admitted, file, model } = fetched;
        match self.decode(&mut admitted, file, &model).await {
            Ok(Pixels { picture, input, memory, .. }) => {
                Ok(Decoded { admitted, picture, input, model, memory })
            }
            Err(cause) => Err(Exit::of_image(admitted, cause)),
        }
    }
}

/// What a decoder's thread makes of a file.
struct Pixels {
    picture: RgbImage,
    input: Vec<f32>,
    measures: ImageMeasures,
    memory: ImageMemoryPermit,
    elapsed: Duration,
}

impl DecodeStage {
    async fn decode(
        &self,
        admitted: &mut Admitted,
        file: FetchedFile,
        model: &Arc<ModelFiles>,
    ) -> Result<Pixels, ExitCause> {
        let memory_bytes = self.measure_file(admitted, &file).await?;
        let memory = self.pixel_budget.reserve(memory_bytes).await;
        let (limits, rule) = (self.image_limits, Arc::clone(model));
        let span = admitted.delivery.spans.logs.clone();
        let work = cores::decode_within(self.time_limit, move || {
            let _entered = span.enter();
            // If the decoder never ends, the memory stays in use, and so do the permits here.
            let FetchedFile { bytes, memory: _file_memory } = file;
            let mut memory = memory;
            let started = Instant::now();
            let picture = decoding::decode(&bytes, &limits, rule.config().transparency)?;
            memory.shrink(picture.as_raw().len() as u64);
            let input = input::to_input(&picture, &rule.config().input);
            let measures = measures::measure(&picture);
            let elapsed = started.elapsed();
            Ok::<_, DecodeError>(Pixels { picture, input, measures, memory, elapsed })
        });
        let pixels = work.await.map_err(|failure| self.cause(&failure))??;
        let image = &mut admitted.image;
        image.timings.decode = pixels.elapsed.as_secs_f64() * 1000.0;
        let picture = &pixels.picture;
        traces::note_bytes(picture.as_raw().len());
        image.record.width = Some(picture.width());
        image.record.height = Some(picture.height());
        image.record.measures = Some(pixels.measures);
        image.record.region = input::region(picture.dimensions(), &model.config().input);
        Ok(pixels)
    }

    /// Notes the file's digest, and returns how much memory its decoding needs.
    async fn measure_file(
        &self,
        admitted: &mut Admitted,
        file: &FetchedFile,
    ) -> Result<u64, ExitCause> {
        let (bytes, limits) = (file.bytes.clone(), self.image_limits);
        let reading = cores::decode_within(self.time_limit, move || {
            (FileDigest::of(&bytes), decoding::memory_to_decode(&bytes, &limits))
        });
        let (digest, memory_bytes) = reading.await.map_err(|failure| self.cause(&failure))?;
        admitted.image.record.digest = Some(digest);
        Ok(memory_bytes?)
    }

    fn cause(&self, failure: &DecoderFailure) -> ExitCause {
        match failure {
            DecoderFailure::Panicked => ExitCause::DecoderPanicked,
            DecoderFailure::TimedOut => ExitCause::DecoderTimedOut(self.time_limit),
        }
    }
}
