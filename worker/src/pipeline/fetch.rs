//! Second stage: reads the image from SOURCE, unless an earlier try has done it.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use camshaft_common::layout;
use camshaft_common::prediction::PredictionRecord;
use camshaft_common::store::StoreErrorKind;

use super::budget::Share;
use super::context::Context;
use super::stage::{Admitted, Exit, ExitCause};
use super::traces;
use camshaft_model::ModelFiles;

/// An image's file, unread.
#[derive(Debug)]
pub struct Fetched {
    /// The image on its way.
    pub image: Admitted,
    /// The file's content.
    pub bytes: Bytes,
    /// Its share of the budget for files.
    pub share: Share,
    /// The model its job asks for.
    pub model: Arc<ModelFiles>,
}

/// Larger than any prediction record this program writes.
const MAX_RECORD_BYTES: u64 = 16 * 1024 * 1024;

/// Reads the image and makes sure that its model can be used.
pub async fn fetch(context: Arc<Context>, mut image: Admitted) -> Result<Fetched, Exit> {
    match read(&context, &mut image).await {
        Ok((bytes, share, model)) => Ok(Fetched { image, bytes, share, model }),
        Err(cause) => Err(Exit { image: Box::new(image), cause }),
    }
}

async fn read(
    context: &Context,
    image: &mut Admitted,
) -> Result<(Bytes, Share, Arc<ModelFiles>), ExitCause> {
    let model = context.models.files_for(&image.job.model).await?;
    let source = context.folder(&image.job.source).map_err(ExitCause::Source)?;
    let started = Instant::now();
    if image.may_have_a_result() && !image.job.replaces && is_done(context, image).await? {
        return Err(ExitCause::AlreadyDone);
    }
    let max_bytes = context.limits.image.max_bytes;
    let fetched = source.get(image.job.key.as_str(), max_bytes, &context.files).await;
    let (fetched, share) = fetched.map_err(ExitCause::Source)?;
    image.timings.fetch = started.elapsed().as_secs_f64() * 1000.0;
    image.image.etag = fetched.etag;
    image.image.bytes = Some(fetched.bytes.len() as u64);
    context.metrics.count_read(fetched.bytes.len());
    traces::note_bytes(fetched.bytes.len());
    Ok((fetched.bytes, share, model))
}

/// Whether an earlier try of this run has stored a prediction for the image as it is now.
/// A run's options never change, so the run, the model and the entity tag say it all.
async fn is_done(context: &Context, image: &Admitted) -> Result<bool, ExitCause> {
    let job = &image.job;
    let out = context.folder(&job.out).map_err(ExitCause::Out)?;
    let path = layout::prediction(&job.key);
    let stored = match out.get(&path, MAX_RECORD_BYTES, &context.files).await {
        Ok((stored, _share)) => stored,
        Err(error) if error.kind() == StoreErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(ExitCause::Out(error)),
    };
    let Ok(record) = serde_json::from_slice::<PredictionRecord>(&stored.bytes) else {
        return Ok(false);
    };
    if record.run != job.run || record.model.digest != job.model.digest {
        return Ok(false);
    }
    let source = context.folder(&job.source).map_err(ExitCause::Source)?;
    let now = source.head(job.key.as_str()).await.map_err(ExitCause::Source)?;
    if now.etag != record.image.etag {
        return Ok(false);
    }
    // The earlier try may have been stopped between writing this and removing that.
    out.delete(&layout::failure(&job.key)).await.map_err(ExitCause::Out)?;
    Ok(true)
}
