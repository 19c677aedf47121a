//! Fourth stage: images wait for company. A batch leaves when it is full, when its first
//! image has waited long enough, or when the next image needs another model.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::batch_size::BatchSize;
use super::channel::Receiver;
use super::decode::Decoded;

/// Images for one pass of one model; never empty.
#[derive(Debug)]
pub struct Batch {
    /// The images, without their inputs.
    pub images: Vec<Decoded>,
    /// The network's input, `[N, 3, H, W]`, put together here so that the model's thread has
    /// nothing to do but its own.
    pub input: Vec<f32>,
    /// Since when the first of them has been ready for the model.
    pub since: Instant,
}

impl Batch {
    fn new(mut images: Vec<Decoded>, since: Instant) -> Self {
        let inputs: Vec<_> =
            images.iter_mut().map(|image| std::mem::take(&mut image.input)).collect();
        Self { images, input: inputs.concat(), since }
    }
}

/// Gathers until the images end. While the model is busy a late batch keeps filling.
pub async fn gather(
    decoded: Receiver<Decoded>,
    ready: mpsc::Sender<Batch>,
    size: Arc<BatchSize>,
    wait: Duration,
) {
    let mut held: Option<(Decoded, Instant)> = None;
    loop {
        let (first, since) = match held.take() {
            Some(image) => image,
            None => match decoded.recv().await {
                Ok((image, waited)) => (image, ago(waited)),
                Err(_ended) => return,
            },
        };
        let due = Instant::now() + wait;
        let mut batch = vec![first];
        let mut open = true;
        let size = size.now();
        let slot = loop {
            let alone = batch[0].image.pass.is_alone();
            let full = !open || batch.len() >= size || held.is_some() || alone;
            let late = Instant::now() >= due;
            tokio::select! {
                biased;
                image = decoded.recv(), if !full => match image {
                    Ok((image, _)) if same_model(&batch[0], &image) => batch.push(image),
                    Ok((other, waited)) => held = Some((other, ago(waited))),
                    Err(_ended) => open = false,
                },
                slot = ready.reserve(), if full || late => break slot,
                () = sleep_until(due), if !full && !late => {}
            }
        };
        match slot {
            Ok(slot) => slot.send(Batch::new(batch, since)),
            // The model is gone: dropping the images hands them back.
            Err(_closed) => return,
        }
    }
}

fn ago(waited: Duration) -> Instant {
    let now = Instant::now();
    now.checked_sub(waited).unwrap_or(now)
}

fn same_model(one: &Decoded, other: &Decoded) -> bool {
    Arc::ptr_eq(&one.model, &other.model)
}
