//! What travels through the pipeline: an image with its job, and the delivery to settle.
//!
//! Every stage's own type holds an [`Admitted`]. The ways out of the pipeline are in
//! [`exit`](super::exit).

use camshaft_common::job::Job;
use camshaft_common::prediction::{ImageRecord, StageTimings};
use camshaft_queue::Receipt;

use super::hold_limit::HeldImage;
use super::recent_jobs::TakenJob;
use super::traces::{HasSpans, ImageSpans};
use super::work_permits::WorkPermit;

/// An image in the pipeline, with the delivery that it came in.
#[derive(Debug)]
pub struct Admitted {
    /// The delivery, to be settled at the end.
    pub delivery: OpenDelivery,
    /// The image.
    pub image: Box<AdmittedImage>,
}

/// A delivery that is not settled yet.
#[derive(Debug)]
pub struct OpenDelivery {
    /// The one way to settle it.
    pub receipt: Receipt,
    /// The spans of its image.
    pub spans: ImageSpans,
    /// To be told how it ends.
    pub taken: Box<TakenJob>,
}

/// An image and what is known of it so far.
#[derive(Debug)]
pub struct AdmittedImage {
    /// What to do with it.
    pub job: Job,
    /// The number of this try, from 1.
    pub attempt: u32,
    /// True if the queue delivered the message before and got no answer.
    pub redelivered: bool,
    /// Its right to be in the pipeline, beside other images or alone.
    pub permit: WorkPermit,
    /// Counts it as held by this worker.
    pub held: HeldImage,
    /// What results say about the image.
    pub record: ImageRecord,
    /// How long each stage worked on it.
    pub timings: StageTimings,
}

impl AdmittedImage {
    /// True if OUT may hold a result of another try or run. Then, after one kind of result
    /// (prediction or failure) is written, the other kind must be removed.
    #[must_use]
    pub fn may_have_a_result(&self) -> bool {
        self.job.replaces || self.may_have_been_begun()
    }

    /// True if OUT may hold a prediction that makes this try needless: that of another try or enqueue,
    /// or one that needs at most another label or entity tag. A result that a job replaces is told from
    /// the new one by its generation; older versions' jobs have none.
    #[must_use]
    pub fn may_be_done(&self) -> bool {
        let can_tell = !self.job.replaces || self.job.generation.is_some();
        self.job.changed || (self.may_have_been_begun() && can_tell)
    }

    fn may_have_been_begun(&self) -> bool {
        self.job.again || self.redelivered || self.attempt > 1
    }
}

impl HasSpans for Admitted {
    fn spans(&self) -> Option<&ImageSpans> {
        Some(&self.delivery.spans)
    }
}
