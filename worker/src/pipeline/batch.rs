//! Fourth stage: gathers images, so that the model takes several at once. A batch is sent when it
//! is full, when its first image has waited long enough, or when the next image needs another
//! model.

use std::sync::Arc;
use std::time::Duration;

use camshaft_model::ModelConfig;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::batch_size::BatchSize;
use super::channel::Receiver;
use super::decode::Decoded;
use super::stages::Stages;

/// The largest input of which a batch may have any number.
const PLAIN_PIXELS: usize = 512 * 512;
/// The most pixels of all larger inputs in a batch together: 32 of 512×512.
const BATCH_PIXELS: usize = 32 * PLAIN_PIXELS;

/// Images for one pass of one model; never empty.
#[derive(Debug)]
pub struct Batch {
    /// The images, without their inputs.
    pub images: Vec<Decoded>,
    /// The network's input, `[N, 3, H, W]`. It is put together here, to spare the model's thread
    /// the work.
    pub input: Vec<f32>,
    /// When the first image became ready for the model.
    pub ready_since: Instant,
}

impl Batch {
    fn new(mut images: Vec<Decoded>, ready_since: Instant) -> Self {
        let inputs: Vec<_> =
            images.iter_mut().map(|image| std::mem::take(&mut image.input)).collect();
        let input = inputs.concat();
        for image in &mut images {
            image.memory.give_back(image.input_bytes);
        }
        Self { images, input, ready_since }
    }
}

/// An image that waits to be in a batch.
struct Waiting {
    image: Decoded,
    since: Instant,
}

impl Waiting {
    fn new(image: Decoded, waited: Duration) -> Self {
        let now = Instant::now();
        Self { image, since: now.checked_sub(waited).unwrap_or(now) }
    }
}

/// Gathers batches.
#[derive(Debug)]
pub struct BatchStage {
    /// How many images a full batch has at present.
    pub size: Arc<BatchSize>,
    /// How long a batch's first image waits for further ones.
    pub wait: Duration,
    /// The most memory that a network may take for the larger inputs of a batch; none on a GPU.
    pub max_activation_bytes: Option<u64>,
}

impl BatchStage {
    /// Starts the task that gathers. One batch is ready while the model works on another.
    pub fn start(self, stages: &mut Stages, decoded: Receiver<Decoded>) -> mpsc::Receiver<Batch> {
        let (ready, batches) = mpsc::channel(1);
        stages.spawn("batch", self.gather(decoded, ready));
        batches
    }

    /// Gathers until the images end. While the model is busy, a batch that is due keeps filling.
    async fn gather(self, decoded: Receiver<Decoded>, ready: mpsc::Sender<Batch>) {
        // An image for another model: the first one of the next batch.
        let mut next: Option<Waiting> = None;
        loop {
            let first = match next.take() {
                Some(waiting) => waiting,
                None => match decoded.recv().await {
                    Ok((image, waited)) => Waiting::new(image, waited),
                    Err(_ended) => return,
                },
            };
            let due = Instant::now() + self.wait;
            let ready_since = first.since;
            let mut batch = vec![first.image];
            let mut open = true;
            let size = self.size.now().min(self.most_images(batch[0].model.config()));
            let slot = loop {
                let alone = batch[0].admitted.image.permit.is_exclusive();
                let full = !open || batch.len() >= size || next.is_some() || alone;
                let late = Instant::now() >= due;
                tokio::select! {
                    biased;
                    image = decoded.recv(), if !full => match image {
                        Ok((image, _)) if same_model(&batch[0], &image) => batch.push(image),
                        Ok((image, waited)) => next = Some(Waiting::new(image, waited)),
                        Err(_ended) => open = false,
                    },
                    slot = ready.reserve(), if full || late => break slot,
                    () = sleep_until(due), if !full && !late => {}
                }
            };
            match slot {
                Ok(slot) => slot.send(Batch::new(batch, ready_since)),
                // The model's thread is gone. Dropping the images hands their messages back.
                Err(_closed) => return,
            }
        }
    }
}

impl BatchStage {
    /// The most images of a batch, by the size of the network's input. What the network holds of an
    /// image grows with it, up to gigabytes.
    fn most_images(&self, config: &ModelConfig) -> usize {
        let pixels = config.input.height * config.input.width;
        if pixels <= PLAIN_PIXELS {
            return usize::MAX;
        }
        let in_memory = |bytes| usize::try_from(bytes / config.activation_bytes()).unwrap_or(1);
        let in_memory = self.max_activation_bytes.map_or(usize::MAX, in_memory);
        (BATCH_PIXELS / pixels).min(in_memory).max(1)
    }
}

fn same_model(one: &Decoded, other: &Decoded) -> bool {
    Arc::ptr_eq(&one.model, &other.model)
}
