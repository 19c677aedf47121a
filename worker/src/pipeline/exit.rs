//! How a delivery leaves the pipeline before its own prediction is stored.
//!
//! Owns the causes. What becomes of each is decided in [`disposition`](super::disposition), and
//! done in [`settle`](super::settle).

use std::sync::Arc;
use std::time::Duration;

use camshaft_arguments::size::format_bytes;
use camshaft_common::job::JobError;
use camshaft_common::store::StoreError;
use camshaft_decoding::DecodeError;
use camshaft_model::{ExplainError, ModelError};
use camshaft_vision::overlay::EncodeOverlayError;

use super::admitted::{Admitted, AdmittedImage, OpenDelivery};
use super::allowed_places::PlaceRefused;
use super::model_files::ModelUnavailable;
use super::source_access::{SourceProblem, UnreadImage};
use super::stored_prediction::StoredPrediction;
use super::traces::{HasSpans, ImageSpans};
use crate::advice;

/// A delivery on its way to `settle`, without a prediction.
#[derive(Debug)]
pub struct Exit {
    /// The delivery to settle.
    pub delivery: OpenDelivery,
    /// The image; `None` if its message was not admitted.
    pub image: Option<Box<AdmittedImage>>,
    /// Why it leaves.
    pub cause: Box<ExitCause>,
}

/// Why a message was not admitted.
#[derive(Debug, thiserror::Error)]
pub enum NotAdmitted {
    /// The message is not a job.
    #[error(transparent)]
    Unreadable(#[from] JobError),
    /// The job names a place that this worker may not use.
    #[error(transparent)]
    Refused(#[from] PlaceRefused),
}

/// Why a delivery leaves early.
#[derive(Debug, thiserror::Error)]
pub enum ExitCause {
    /// The message was not admitted.
    #[error(transparent)]
    NotAdmitted(#[from] NotAdmitted),
    /// It would be held for longer than the broker allows, or than this worker has left.
    #[error("this worker holds more than it can do in time")]
    NoTime,
    /// The job of a later enqueue has stored a prediction.
    #[error("a later job has done it")]
    AlreadyDone,
    /// The prediction in OUT is kept, perhaps with another label or entity tag.
    #[error("its prediction in OUT is kept")]
    Kept(Box<StoredPrediction>),
    /// A later enqueue or audit has superseded the job, or its run was cancelled.
    #[error("a later enqueue or audit has superseded the job, or its run was cancelled")]
    Superseded,
    /// This worker can't use the model. All jobs of the model share the error.
    #[error("{0}")]
    Model(Arc<ModelUnavailable>),
    /// This worker's settings don't open the store of SOURCE or OUT.
    #[error(transparent)]
    Unopened(StoreError),
    /// Reading the image from SOURCE failed.
    #[error(transparent)]
    Source(StoreError),
    /// No image of SOURCE can be read.
    #[error(transparent)]
    WholeSource(SourceProblem),
    /// Reading or writing results in OUT failed.
    #[error(transparent)]
    Out(StoreError),
    /// The file is not an image that this worker can read.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The decoder panicked.
    #[error("the decoder crashed on this file")]
    DecoderPanicked,
    /// The decoder was not done in time.
    #[error(
        "decoding took longer than {} s; the file is corrupt, or --max-decode-seconds too low",
        .0.as_secs()
    )]
    DecoderTimedOut(Duration),
    /// The maps of this one image were not computed in time.
    #[error(
        "explaining it took longer than {} s, half of --consumer-timeout; choose a method with fewer \
         passes, or fewer layers or classes (--method, --layer, --target), use a faster device, or \
         raise --consumer-timeout and the broker's consumer_timeout",
        .0.as_secs_f64()
    )]
    ExplainTimedOut(Duration),
    /// The device failed on the image's batch.
    #[error("{}", advice::describe_model_error(.0))]
    Device(Arc<ModelError>),
    /// The model gave no finite prediction or map, or has no such target class, or the maps cost too much.
    #[error("{}", advice::describe_explain_error(.0))]
    Explain(#[from] ExplainError),
    /// The overlay could not be encoded.
    #[error(transparent)]
    Encode(#[from] EncodeOverlayError),
    /// The overlays are larger than all that the pipeline may hold.
    #[error(
        "its first {done} of {overlays} overlays are larger than the {} that --max-held-bytes leaves \
         for them; use --overlay none or jpeg, or fewer methods, layers or classes",
        format_bytes(*max_bytes)
    )]
    OverlaysTooLarge {
        /// Overlays that were drawn.
        done: usize,
        /// Overlays of the image.
        overlays: usize,
        /// The most that they may hold.
        max_bytes: u64,
    },
}

impl From<ModelUnavailable> for ExitCause {
    fn from(error: ModelUnavailable) -> Self {
        Self::Model(Arc::new(error))
    }
}

impl From<UnreadImage> for ExitCause {
    fn from(unread: UnreadImage) -> Self {
        match unread {
            UnreadImage::Image(error) => Self::Source(error),
            UnreadImage::Source(problem) => Self::WholeSource(problem),
        }
    }
}

impl ExitCause {
    /// True if something went wrong.
    #[must_use]
    pub fn is_error(&self) -> bool {
        !matches!(self, Self::AlreadyDone | Self::Kept(_) | Self::Superseded | Self::NoTime)
    }
}

impl Exit {
    /// An image leaves.
    pub fn of_image(admitted: Admitted, cause: impl Into<ExitCause>) -> Self {
        let Admitted { delivery, image } = admitted;
        Self { delivery, image: Some(image), cause: Box::new(cause.into()) }
    }

    /// A message leaves that was not admitted.
    pub fn of_message(delivery: OpenDelivery, cause: impl Into<NotAdmitted>) -> Self {
        let cause = Box::new(ExitCause::NotAdmitted(cause.into()));
        Self { delivery, image: None, cause }
    }
}

impl HasSpans for Exit {
    fn spans(&self) -> Option<&ImageSpans> {
        Some(&self.delivery.spans)
    }
}
