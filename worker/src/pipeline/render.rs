//! Sixth stage: maps become overlays, encoded, and the prediction record takes shape.

use std::sync::Arc;
use std::time::Instant;

use camshaft_common::explain::ExplainOptions;
use camshaft_common::key::ImageKey;
use camshaft_common::layout::{self, OverlayDifference};
use camshaft_common::measure::Embedding;
use camshaft_common::prediction::{ClassPrediction, Explanation, MapRecord, ModelRecord};
use image::RgbImage;

use super::budget::Share;
use super::context::Context;
use super::explain::Explained;
use super::stage::{Admitted, Exit, ExitCause};
use super::traces;
use crate::model::{self, ClassMap};
use crate::overlay::{self, EncodeOverlayError, OverlayStyle};
use crate::{cores, embedding};

/// An image whose results are ready to be written.
#[derive(Debug)]
pub struct Rendered {
    /// The image on its way.
    pub image: Admitted,
    /// The model that made the results.
    pub model: ModelRecord,
    /// Its classes.
    pub predictions: Vec<ClassPrediction>,
    /// How unsure the model is of them, 0 to 1.
    pub entropy: f32,
    /// What the network made of it, where that is finite.
    pub embedding: Option<Embedding>,
    /// Its maps.
    pub explanations: Vec<Explanation>,
    /// Encoded overlays and where they go.
    pub overlays: Vec<EncodedOverlay>,
    /// The overlays' share of the budget.
    pub memory: Share,
}

/// An overlay as a file.
#[derive(Debug)]
pub struct EncodedOverlay {
    /// Its place under OUT.
    pub path: String,
    /// The file's content.
    pub bytes: Vec<u8>,
    /// The file's media type.
    pub content_type: &'static str,
}

/// Draws and encodes on the pool.
pub async fn render(_context: Arc<Context>, explained: Explained) -> Result<Rendered, Exit> {
    let Explained { mut image, picture, explained, model, memory } = explained;
    let span = image.span.clone();
    let (key, options) = (image.job.key.clone(), image.job.explain.clone());
    let region = image.image.region;
    let work = cores::compute(move || {
        let _entered = span.enter();
        let started = Instant::now();
        let model::Explained { predictions, entropy, features, explanations } = explained;
        let embedding = embedding::embedding(&features, options.embeddings);
        let drawn = draw(&key, &options, (&picture, region), explanations)?;
        // The pixels go with this closure.
        drop(picture);
        let mut memory = memory;
        memory.shrink(drawn.1.iter().map(|overlay| overlay.bytes.len() as u64).sum());
        let said = (predictions, entropy, embedding);
        Ok::<_, EncodeOverlayError>((said, drawn, memory, started.elapsed()))
    });
    match work.await.expect("drawing and encoding never panic") {
        Ok((said, (explanations, overlays), memory, elapsed)) => {
            image.timings.overlay = elapsed.as_secs_f64() * 1000.0;
            traces::note_bytes(overlays.iter().map(|overlay| overlay.bytes.len()).sum());
            let (predictions, entropy, embedding) = said;
            Ok(Rendered {
                image,
                model,
                predictions,
                entropy,
                embedding,
                explanations,
                overlays,
                memory,
            })
        }
        Err(error) => Err(Exit { image: Box::new(image), cause: ExitCause::Encode(error) }),
    }
}

fn draw(
    key: &ImageKey,
    options: &ExplainOptions,
    (picture, region): (&RgbImage, Option<[f32; 4]>),
    classes: Vec<ClassMap>,
) -> Result<(Vec<Explanation>, Vec<EncodedOverlay>), EncodeOverlayError> {
    let mut explanations = Vec::with_capacity(classes.len());
    let mut overlays = Vec::new();
    let (method, layer) = (options.method.first(), options.layer.first());
    let class = classes.first().map(|first| first.class);
    for explained in classes {
        let differs = OverlayDifference {
            method: Some(explained.method).filter(|other| other != method),
            layer: Some(&explained.layer).filter(|other| *other != layer),
            class: Some(explained.class).filter(|other| Some(*other) != class),
        };
        let path = layout::overlay(key, differs, options.overlay);
        if let (Some(path), Some(content_type)) = (&path, options.overlay.content_type()) {
            let style = OverlayStyle {
                colormap: options.colormap,
                alpha: options.alpha,
                format: options.overlay,
            };
            if let Some(bytes) = overlay::draw(picture, region, &explained.map, style)? {
                overlays.push(EncodedOverlay { path: path.clone(), bytes, content_type });
            }
        }
        explanations.push(record(explained, path));
    }
    Ok((explanations, overlays))
}

fn record(explained: ClassMap, overlay: Option<String>) -> Explanation {
    let ClassMap { method, layer, class, label, map, statistics } = explained;
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
