//! Sixth stage: draws maps as overlays, encodes them, and collects the contents of the prediction
//! record.

use std::time::{Duration, Instant};

use camshaft_common::explain::ExplainOptions;
use camshaft_common::key::ImageKey;
use camshaft_common::layout::Layout;
use camshaft_common::measure::Embedding;
use camshaft_common::prediction::{ClassPrediction, Explanation, MapRecord, ModelRecord};
use camshaft_model::{ClassMap, ExplainedImage, KnownMap, embedding};
use camshaft_vision::overlay::{self, OverlayStyle};
use image::RgbImage;

use super::admitted::Admitted;
use super::exit::{Exit, ExitCause};
use super::explain::Explained;
use super::memory_budget::ImageMemoryPermit;
use super::overlay_path::overlay_path;
use super::stages::Stage;
use super::traces::{self, HasSpans, ImageSpans};
use crate::cores;

/// An image whose results are ready to be written.
#[derive(Debug)]
pub struct Rendered {
    /// The image and its delivery.
    pub admitted: Admitted,
    /// The model that predicted.
    pub model: ModelRecord,
    /// What is written.
    pub results: RenderedResults,
    /// The right to hold the overlays in memory.
    pub memory: ImageMemoryPermit,
}

/// The results for one image.
#[derive(Debug)]
pub struct RenderedResults {
    /// Its classes.
    pub predictions: Vec<ClassPrediction>,
    /// How unsure the model is of them, from 0 to 1.
    pub entropy: f32,
    /// The image's embedding, if its numbers are finite.
    pub embedding: Option<Embedding>,
    /// Its maps.
    pub explanations: Vec<Explanation>,
    /// Its overlays.
    pub overlays: Vec<EncodedOverlay>,
}

/// An overlay as a file.
#[derive(Debug)]
pub struct EncodedOverlay {
    /// Its path below OUT.
    pub path: String,
    /// The file's content.
    pub bytes: Vec<u8>,
    /// The file's media type.
    pub content_type: &'static str,
}

impl RenderedResults {
    fn overlay_bytes(&self) -> usize {
        self.overlays.iter().map(|overlay| overlay.bytes.len()).sum()
    }
}

impl HasSpans for Rendered {
    fn spans(&self) -> Option<&ImageSpans> {
        self.admitted.spans()
    }
}

/// Draws and encodes on the threads for drawing.
#[derive(Debug)]
pub struct RenderStage {
    /// Bytes that one image's overlays may have.
    pub max_overlay_bytes: u64,
}

impl Stage for RenderStage {
    const NAME: &'static str = "render";
    const COMPUTES: bool = true;
    type Input = Explained;
    type Output = Rendered;

    async fn process(&self, explained: Explained) -> Result<Rendered, Exit> {
        let Explained { mut admitted, picture, explanation, model, memory } = explained;
        let span = admitted.delivery.spans.logs.clone();
        let subject = Subject {
            key: admitted.image.job.key.clone(),
            layout: Layout::of(&admitted.image.job.out),
            options: admitted.image.job.explain.clone(),
            picture,
            region: admitted.image.record.region,
            max_overlay_bytes: self.max_overlay_bytes,
        };
        let work = cores::beside_network(move || {
            let _entered = span.enter();
            render(subject, explanation, memory)
        });
        match work.await.expect("drawing and encoding never panic") {
            Ok(Drawn { results, memory, elapsed }) => {
                admitted.image.timings.overlay = elapsed.as_secs_f64() * 1000.0;
                traces::note_bytes(results.overlay_bytes());
                Ok(Rendered { admitted, model, results, memory })
            }
            Err(error) => Err(Exit::of_image(admitted, error)),
        }
    }
}

/// An image to draw on.
struct Subject {
    key: ImageKey,
    /// Where its results lie.
    layout: Layout,
    options: ExplainOptions,
    picture: RgbImage,
    /// The part of the picture that the maps lie over.
    region: Option<[f32; 4]>,
    max_overlay_bytes: u64,
}

/// What the pool's thread makes of an image.
struct Drawn {
    results: RenderedResults,
    memory: ImageMemoryPermit,
    elapsed: Duration,
}

fn render(
    subject: Subject,
    explanation: ExplainedImage,
    mut memory: ImageMemoryPermit,
) -> Result<Drawn, ExitCause> {
    let started = Instant::now();
    let ExplainedImage { predictions, entropy, features, explanations, .. } = explanation;
    let embedding = embedding::embedding(&features, subject.options.embeddings);
    let (explanations, overlays) = draw(&subject, explanations)?;
    // The pixels are freed before their memory is given back.
    drop(subject);
    let results = RenderedResults { predictions, entropy, embedding, explanations, overlays };
    memory.shrink(results.overlay_bytes() as u64);
    Ok(Drawn { results, memory, elapsed: started.elapsed() })
}

fn draw(
    subject: &Subject,
    maps: Vec<ClassMap>,
) -> Result<(Vec<Explanation>, Vec<EncodedOverlay>), ExitCause> {
    let &Subject { ref key, ref layout, ref options, ref picture, region, max_overlay_bytes } =
        subject;
    let map_count = maps.len();
    let mut explanations = Vec::with_capacity(map_count);
    let mut overlays = Vec::new();
    let mut left = max_overlay_bytes;
    let first = maps.first().map(|first| first.class);
    for map in maps {
        let known = KnownMap { method: map.method, layer: &map.layer, class: map.class };
        let path = overlay_path(*layout, key, options, first, known);
        if let (Some(path), Some(content_type)) = (&path, options.overlay.content_type()) {
            let style = OverlayStyle {
                colormap: options.colormap,
                alpha: options.alpha,
                opacity: options.overlay_style,
                format: options.overlay,
            };
            if let Some(bytes) = overlay::draw(picture, region, &map.map, style)? {
                left = left.checked_sub(bytes.len() as u64).ok_or(ExitCause::OverlaysTooLarge {
                    done: overlays.len() + 1,
                    overlays: map_count,
                    max_bytes: max_overlay_bytes,
                })?;
                overlays.push(EncodedOverlay { path: path.clone(), bytes, content_type });
            }
        }
        explanations.push(explanation_record(map, path));
    }
    Ok((explanations, overlays))
}

fn explanation_record(class_map: ClassMap, overlay: Option<String>) -> Explanation {
    let ClassMap { method, layer, class, label, map, statistics } = class_map;
    Explanation {
        method,
        layer,
        class,
        label,
        overlay,
        map: MapRecord { height: map.height, width: map.width, values: map.values },
        max: statistics.max,
        mass: statistics.mass,
        entropy: statistics.entropy,
        centroid: statistics.centroid,
        border_share: statistics.border_share,
    }
}
