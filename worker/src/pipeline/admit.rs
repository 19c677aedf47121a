//! First stage: a delivery's message becomes a job, if it can be read and its places are allowed.

use std::sync::Arc;

use camshaft_common::decoded_scale::DecodedScale;
use camshaft_common::job::Job;
use camshaft_common::prediction::{ImageRecord, StageTimings};
use camshaft_queue::Delivery;
use camshaft_telemetry::TraceContext;
use tracing::info_span;

use super::admitted::{Admitted, AdmittedImage, OpenDelivery};
use super::allowed_places::AllowedPlaces;
use super::exit::Exit;
use super::hold_limit::HoldLimit;
use super::reporting::Reporting;
use super::stages::Stage;
use super::traces::{self, HasSpans, ImageSpans, Received};
use super::work_permits::WorkPermits;

/// Admits deliveries.
#[derive(Debug)]
pub struct AdmitStage {
    /// The places that jobs may name.
    pub allowed_places: Arc<AllowedPlaces>,
    /// Which images may be in the pipeline at the same time.
    pub permits: WorkPermits,
    /// How many images this worker may hold.
    pub hold: Arc<HoldLimit>,
    /// Counts deliveries and their time in the queue, and follows the recent ones.
    pub reporting: Arc<Reporting>,
}

impl HasSpans for Delivery {
    /// Its message must be read first.
    fn spans(&self) -> Option<&ImageSpans> {
        None
    }
}

impl Stage for AdmitStage {
    const NAME: &'static str = "admit";
    type Input = Delivery;
    type Output = Admitted;

    async fn process(&self, delivery: Delivery) -> Result<Admitted, Exit> {
        let Delivery {
            body,
            queue,
            attempt,
            redelivered,
            alone,
            trace,
            published_at,
            received_at,
            receipt,
        } = delivery;
        self.reporting.counters.count_taken();
        let held = self.hold.hold(received_at, alone);
        let mut taken = Box::new(self.reporting.recent_jobs.take());
        if let Some(Ok(waited)) = published_at.map(|published| published.elapsed()) {
            self.reporting.metrics.observe_queue_wait(waited);
        }
        let job = match Job::parse(&body) {
            Ok(job) => job,
            Err(error) => {
                let delivery = OpenDelivery { receipt, spans: ImageSpans::none(), taken };
                return Err(Exit::of_message(delivery, error));
            }
        };
        taken.set_run(job.run);
        let trace = trace.as_ref();
        let id = trace.and_then(TraceContext::trace_id).unwrap_or_default();
        let logs = info_span!("image", run = %job.run, key = %job.key, attempt, trace = id);
        let received = Received { queue: &queue, trace, bytes: body.len(), attempt };
        let spans = ImageSpans { logs, trace: traces::process(received, &job) };
        let delivery = OpenDelivery { receipt, spans, taken };
        let job = match self.allowed_places.admit(job).await {
            Ok(job) => job,
            Err(refused) => return Err(Exit::of_message(delivery, refused)),
        };
        let permit = self.permits.acquire(alone).await;
        let record = new_record(&job);
        let timings = StageTimings::default();
        let image = AdmittedImage { job, attempt, redelivered, permit, held, record, timings };
        Ok(Admitted { delivery, image: Box::new(image) })
    }
}

/// What the message says of the image. The stages add what they find.
fn new_record(job: &Job) -> ImageRecord {
    ImageRecord {
        key: job.key.clone(),
        etag: job.etag.clone(),
        bytes: job.size,
        width: None,
        height: None,
        decoded_scale: DecodedScale::Full,
        region: None,
        label: job.result_label().map(str::to_owned),
        class: None,
        label_problem: None,
        digest: None,
        measures: None,
        camera: None,
    }
}
