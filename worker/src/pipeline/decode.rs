//! Third stage: the file becomes pixels and the network's input, and is measured, unless it has the digest
//! of a prediction in OUT that can be kept. No more pixels are decoded than the network, measures and
//! overlays need.

use std::sync::Arc;
use std::time::{Duration, Instant};

use camshaft_common::camera::Camera;
use camshaft_common::decoded_scale::{DecodedFrame, DecodedScale};
use camshaft_common::explain::{ExplainOptions, OverlayFormat, OverlaySize};
use camshaft_common::measure::ImageMeasures;
use camshaft_common::model::FileDigest;
use camshaft_decoding::{self as decoding, DecodeError, DecodedPicture, ImageLimits};
use camshaft_model::ModelFiles;
use camshaft_vision::input::{self, InputRule};
use camshaft_vision::picture::Picture;
use camshaft_vision::{measures, reduction};
use image::RgbImage;

use super::admitted::Admitted;
use super::exit::{Exit, ExitCause};
use super::fetch::{Fetched, FetchedFile};
use super::memory_budget::{ImageMemoryPermit, MemoryBudget};
use super::reporting::Reporting;
use super::stages::Stage;
use super::stored_prediction::StoredPrediction;
use super::traces::{self, HasSpans, ImageSpans};
use crate::cores::{self, DecoderFailure};

/// Red, green and blue.
const INPUT_CHANNELS: usize = 3;

/// An image as pixels.
#[derive(Debug)]
pub struct Decoded {
    /// The image and its delivery.
    pub admitted: Admitted,
    /// The image's pixels, as large as its overlays.
    pub picture: RgbImage,
    /// The network's input as bytes, `[H, W, 3]`, resized as the model's input rule says. A batch takes
    /// it; the network scales it.
    pub input: Vec<u8>,
    /// The model that its job asks for.
    pub model: Arc<ModelFiles>,
    /// The right to hold the pixels, or the overlays if they are more, and the input in memory.
    pub memory: ImageMemoryPermit,
    /// Bytes of the input.
    pub input_bytes: u64,
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
    /// The size that one image may have, and how long its decoding may take.
    pub image_limits: ImageLimits,
    /// Threads of the decoders.
    pub cores: usize,
    /// Learns that too many decoders are lost.
    pub reporting: Arc<Reporting>,
}

impl Stage for DecodeStage {
    const NAME: &'static str = "decode";
    const COMPUTES: bool = true;
    type Input = Fetched;
    type Output = Decoded;

    async fn process(&self, fetched: Fetched) -> Result<Decoded, Exit> {
        let Fetched { mut admitted, file, model, stored } = fetched;
        if admitted.image.held.has_to_go_back() {
            return Err(Exit::of_image(admitted, ExitCause::NoTime));
        }
        match self.decode(&mut admitted, file, &model, stored).await {
            Ok(Pixels { picture, input, memory, .. }) => {
                let input_bytes = input.len() as u64;
                Ok(Decoded { admitted, picture, input, model, memory, input_bytes })
            }
            Err(cause) => Err(Exit::of_image(admitted, cause)),
        }
    }
}

/// Bytes of an overlay of a picture of `pixel_bytes`, roughly: of a detailed photograph.
fn expected_bytes(options: &ExplainOptions, pixel_bytes: u64) -> u64 {
    let drawn_bytes = match options.overlay_size {
        OverlaySize::Full => pixel_bytes,
        OverlaySize::AtMost(side) => {
            let side = u64::from(side);
            pixel_bytes.min(INPUT_CHANNELS as u64 * side * side)
        }
    };
    match options.overlay {
        OverlayFormat::None => 0,
        OverlayFormat::Jpeg => drawn_bytes / 6,
        OverlayFormat::Png | OverlayFormat::Webp => drawn_bytes / 3 * 2,
    }
}

/// What a decoder's thread makes of a file.
struct Pixels {
    picture: RgbImage,
    /// Where the image lay in the pixels that the input and the measures were taken of.
    frame: DecodedFrame,
    input: Vec<u8>,
    measures: ImageMeasures,
    camera: Option<Camera>,
    memory: ImageMemoryPermit,
    elapsed: Duration,
}

impl DecodeStage {
    async fn decode(
        &self,
        admitted: &mut Admitted,
        file: FetchedFile,
        model: &Arc<ModelFiles>,
        stored: Option<Box<StoredPrediction>>,
    ) -> Result<Pixels, ExitCause> {
        let needed = NeededSize::of(&admitted.image.job.explain, model);
        let measured = self.measure_file(admitted, &file, &needed).await?;
        if let Some(kept) = stored.and_then(|stored| stored.of_file(&admitted.image.record)) {
            return Err(ExitCause::Kept(kept));
        }
        let Measured { memory_bytes, elapsed } = measured.map_err(|error| self.cause(error))?;
        let InputRule { height, width, .. } = model.config().input;
        let input_bytes = (INPUT_CHANNELS * height * width) as u64;
        let options = admitted.image.job.explain.clone();
        let maps = model.explanation_cost(&options).maps as u64;
        let overlay_size = options.overlay_size;
        let with_overlays = move |bytes: u64| bytes.max(maps * expected_bytes(&options, bytes));
        let memory_bytes = with_overlays(memory_bytes) + input_bytes;
        let memory = self.pixel_budget.reserve(memory_bytes).await;
        let rule = Arc::clone(model);
        // The header's time counts.
        let max_time = self.image_limits.max_time.saturating_sub(elapsed);
        let limits = ImageLimits { max_time, ..self.image_limits };
        let span = admitted.delivery.spans.logs.clone();
        let work = move || {
            let _entered = span.enter();
            // If the decoder never ends, the memory stays in use, and so do the permits here.
            let FetchedFile { bytes, memory: _file_memory } = file;
            let mut memory = memory;
            let started = Instant::now();
            let DecodedPicture { pixels, frame } =
                decoding::decode_at_scale(&bytes, &limits, rule.config().transparency, &|size| {
                    needed.scale(size)
                })?;
            let picture = Picture { pixels: &pixels, frame };
            let input = input::to_pixels(picture, &rule.config().input);
            let measures = measures::measure(picture);
            let picture = reduction::for_overlays(pixels, frame, overlay_size);
            memory.shrink(with_overlays(picture.as_raw().len() as u64) + input_bytes);
            let camera = decoding::camera(&bytes);
            let elapsed = started.elapsed();
            Ok(Pixels { picture, frame, input, measures, camera, memory, elapsed })
        };
        let mut pixels = self.run(memory_bytes, work).await?;
        let image = &mut admitted.image;
        image.timings.decode = pixels.elapsed.as_secs_f64() * 1000.0;
        image.record.camera = pixels.camera.take();
        traces::note_bytes(pixels.picture.as_raw().len());
        let DecodedFrame { size, scale, .. } = pixels.frame;
        image.record.width = Some(size.0);
        image.record.height = Some(size.1);
        image.record.decoded_scale = scale;
        image.record.measures = Some(pixels.measures);
        image.record.region = input::region(size, &model.config().input);
        Ok(pixels)
    }

    /// Notes the file's digest, and reads from its header what its decoding needs. The inner error is
    /// about the header.
    async fn measure_file(
        &self,
        admitted: &mut Admitted,
        file: &FetchedFile,
        needed: &NeededSize,
    ) -> Result<Result<Measured, DecodeError>, ExitCause> {
        let (bytes, limits, needed) = (file.bytes.clone(), self.image_limits, needed.clone());
        let measure = move || {
            let digest = FileDigest::of(&bytes);
            let started = Instant::now();
            let memory_bytes =
                decoding::memory_to_decode_at_scale(&bytes, &limits, &|size| needed.scale(size));
            let measured = memory_bytes
                .map(|memory_bytes| Measured { memory_bytes, elapsed: started.elapsed() });
            Ok((digest, measured))
        };
        let (digest, measured) = self.run(0, measure).await?;
        // A file that fails has a digest, too.
        admitted.image.record.digest = Some(digest);
        Ok(measured)
    }

    /// Runs `work`, which holds `memory_bytes`, on a decoder's thread. If it does not come back, it
    /// counts as lost until it does. If too many are lost, this process can't go on for long.
    async fn run<T: Send + 'static>(
        &self,
        memory_bytes: u64,
        work: impl FnOnce() -> Result<T, DecodeError> + Send + 'static,
    ) -> Result<T, ExitCause> {
        let running = Arc::new(());
        let held = Arc::clone(&running);
        let work = move || {
            let _held = held;
            work()
        };
        let max_time = self.image_limits.max_time;
        match cores::decode_within(max_time, work).await {
            Ok(result) => result.map_err(|error| self.cause(error)),
            Err(DecoderFailure::Panicked) => Err(ExitCause::DecoderPanicked),
            Err(DecoderFailure::TimedOut) => {
                self.pixel_budget.lose(&running, memory_bytes);
                if let Some(problem) = self.pixel_budget.lost().problem(self.cores) {
                    self.reporting.lasting_errors.note(&problem);
                }
                Err(ExitCause::DecoderTimedOut(max_time))
            }
        }
    }

    fn cause(&self, error: DecodeError) -> ExitCause {
        match error {
            DecodeError::TookTooLong { .. } => {
                ExitCause::DecoderTimedOut(self.image_limits.max_time)
            }
            error => error.into(),
        }
    }
}

/// How large an image has to be decoded.
#[derive(Clone, Debug)]
struct NeededSize {
    model: Arc<ModelFiles>,
    /// None if no overlay is drawn.
    overlay: Option<OverlaySize>,
}

impl NeededSize {
    fn of(options: &ExplainOptions, model: &Arc<ModelFiles>) -> Self {
        let overlay = match options.overlay {
            OverlayFormat::None => None,
            OverlayFormat::Jpeg | OverlayFormat::Png | OverlayFormat::Webp => {
                Some(options.overlay_size)
            }
        };
        Self { model: Arc::clone(model), overlay }
    }

    fn scale(&self, size: (u32, u32)) -> DecodedScale {
        reduction::scale_for(size, &self.model.config().input, self.overlay)
    }
}

/// What a file's header tells.
struct Measured {
    memory_bytes: u64,
    /// How long it took to read it.
    elapsed: Duration,
}
