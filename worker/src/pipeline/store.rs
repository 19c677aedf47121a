//! Seventh stage: writes the overlays, then the prediction, so that a prediction's
//! presence means the rest is there.

use std::sync::Arc;
use std::time::Instant;

use camshaft_common::layout;
use camshaft_common::prediction::{PredictionRecord, StageTimings};
use camshaft_common::run::SCHEMA;
use camshaft_common::store::{JSON, StoreError};
use chrono::Utc;

use super::context::Context;
use super::render::Rendered;
use super::stage::{Admitted, Exit, ExitCause};
use super::traces;
use crate::metrics::Written;

/// An image whose prediction is at rest; only its receipt is open.
#[derive(Debug)]
pub struct Stored {
    /// The image on its way.
    pub image: Admitted,
}

/// Writes an image's results.
pub async fn store(context: Arc<Context>, rendered: Rendered) -> Result<Stored, Exit> {
    match write(&context, rendered).await {
        Ok(image) => Ok(Stored { image }),
        Err((image, error)) => Err(Exit { image, cause: ExitCause::Out(error) }),
    }
}

async fn write(
    context: &Context,
    rendered: Rendered,
) -> Result<Admitted, (Box<Admitted>, StoreError)> {
    let Rendered {
        mut image,
        model,
        predictions,
        entropy,
        embedding,
        explanations,
        overlays,
        memory,
    } = rendered;
    let written = async {
        let started = Instant::now();
        let out = context.folder(&image.job.out)?;
        let mut bytes = 0;
        for overlay in overlays {
            let size = overlay.bytes.len();
            bytes += size;
            out.put(&overlay.path, overlay.bytes, overlay.content_type).await?;
            context.metrics.count_written(Written::Overlay, size);
        }
        drop(memory);
        image.timings.store = started.elapsed().as_secs_f64() * 1000.0;
        let record = PredictionRecord {
            schema: SCHEMA,
            run: image.job.run,
            image: image.image.clone(),
            model,
            predictions,
            entropy: Some(entropy),
            embedding,
            explanations,
            timings_ms: rounded(image.timings),
            worker: context.worker.clone(),
            finished_at: Utc::now(),
        };
        let json = serde_json::to_vec(&record).expect("a record has only strings and numbers");
        let size = json.len();
        traces::note_bytes(bytes + size);
        out.put(&layout::prediction(&image.job.key), json, JSON).await?;
        context.metrics.count_written(Written::Prediction, size);
        if image.may_have_a_result() {
            out.delete(&layout::failure(&image.job.key)).await?;
        }
        Ok(())
    };
    match written.await {
        Ok(()) => Ok(image),
        Err(error) => Err((Box::new(image), error)),
    }
}

/// Microseconds are as fine as these are meant.
fn rounded(timings: StageTimings) -> StageTimings {
    let round = |ms: f64| (ms * 1000.0).round() / 1000.0;
    let StageTimings { fetch, decode, model, overlay, store } = timings;
    StageTimings {
        fetch: round(fetch),
        decode: round(decode),
        model: round(model),
        overlay: round(overlay),
        store: round(store),
    }
}
