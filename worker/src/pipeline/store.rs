//! Seventh stage: writes the overlays, then the prediction. So if a prediction is there, its
//! overlays are there too. A result that a later enqueue has made meanwhile stays.

use std::sync::Arc;
use std::time::Instant;

use camshaft_common::layout::Layout;
use camshaft_common::prediction::{ModelRecord, PredictionRecord, StageTimings};
use camshaft_common::run::SCHEMA;
use camshaft_common::store::{JSON, StoreError};
use chrono::Utc;

use super::admitted::{Admitted, AdmittedImage};
use super::exit::{Exit, ExitCause};
use super::memory_budget::ImageMemoryPermit;
use super::render::{Rendered, RenderedResults};
use super::reporting::Reporting;
use super::stages::Stage;
use super::stores::Stores;
use super::superseded::SupersededJobs;
use super::traces::{self, HasSpans, ImageSpans};
use crate::metrics::WrittenObject;

/// An image whose prediction is stored. Only its delivery is left to be settled.
#[derive(Debug)]
pub struct Stored {
    /// The image and its delivery.
    pub admitted: Admitted,
}

impl HasSpans for Stored {
    fn spans(&self) -> Option<&ImageSpans> {
        self.admitted.spans()
    }
}

/// Writes results.
#[derive(Debug)]
pub struct StoreStage {
    /// Opens OUT.
    pub stores: Arc<Stores>,
    /// Tells jobs that no longer count.
    pub superseded: Arc<SupersededJobs>,
    /// Names the worker, and counts bytes.
    pub reporting: Arc<Reporting>,
}

impl Stage for StoreStage {
    const NAME: &'static str = "store";
    type Input = Rendered;
    type Output = Stored;

    async fn process(&self, rendered: Rendered) -> Result<Stored, Exit> {
        let Rendered { mut admitted, model, results, memory } = rendered;
        if self.superseded.is_done_later(&admitted.image.job).await {
            return Err(Exit::of_image(admitted, ExitCause::Superseded));
        }
        match self.write(&mut admitted.image, model, results, memory).await {
            Ok(()) => Ok(Stored { admitted }),
            Err(error) => Err(Exit::of_image(admitted, ExitCause::Out(error))),
        }
    }
}

impl StoreStage {
    async fn write(
        &self,
        image: &mut AdmittedImage,
        model: ModelRecord,
        results: RenderedResults,
        memory: ImageMemoryPermit,
    ) -> Result<(), StoreError> {
        let RenderedResults { predictions, entropy, embedding, explanations, overlays } = results;
        let started = Instant::now();
        let out = self.stores.folder(&image.job.out)?;
        let layout = Layout::of(&image.job.out);
        let metrics = &self.reporting.metrics;
        let mut overlay_bytes = 0;
        for overlay in overlays {
            let bytes = overlay.bytes.len();
            overlay_bytes += bytes;
            out.put(&overlay.path, overlay.bytes, overlay.content_type).await?;
            metrics.count_written(WrittenObject::Overlay, bytes);
        }
        drop(memory);
        image.timings.store = started.elapsed().as_secs_f64() * 1000.0;
        let record = PredictionRecord {
            schema: SCHEMA,
            run: image.job.run,
            generation: image.job.generation,
            image: image.record.clone(),
            model,
            predictions,
            entropy: Some(entropy),
            embedding,
            explanations,
            timings_ms: rounded(image.timings),
            worker: self.reporting.worker_name.clone(),
            finished_at: Utc::now(),
        };
        let json = serde_json::to_vec(&record).expect("a record has only strings and numbers");
        let bytes = json.len();
        traces::note_bytes(overlay_bytes + bytes);
        out.put(&layout.prediction(&image.job.key), json, JSON).await?;
        metrics.count_written(WrittenObject::Prediction, bytes);
        if image.may_have_a_result() {
            out.delete(&layout.failure(&image.job.key)).await?;
        }
        Ok(())
    }
}

/// Rounds to microseconds: the measurement is not more precise.
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
