//! Fourth stage: gathers images, so that the model takes several at once. A batch is sent when it
//! is full, when its first image has waited long enough, when no further image comes, or when the
//! next one needs another model. Images that could not be done in time go back to the queue from here.

use std::sync::Arc;
use std::time::Duration;

use camshaft_model::{ModelConfig, ModelFiles};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::admitted::AdmittedImage;
use super::batch_size::BatchSize;
use super::channel::{Receiver, Sender};
use super::decode::Decoded;
use super::exit::{Exit, ExitCause};
use super::hold_limit::HoldLimit;
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
    /// The network's input as bytes, `[N, H, W, 3]`. It is put together here, to spare the model's
    /// thread the work.
    pub input: Vec<u8>,
    /// When the first image became ready for the model.
    pub ready_since: Instant,
}

impl Batch {
    fn new(waiting: Vec<Waiting>) -> Self {
        let ready_since = waiting.first().expect("a batch is never empty").since;
        let mut images: Vec<_> = waiting.into_iter().map(|waiting| waiting.image).collect();
        let inputs: Vec<_> =
            images.iter_mut().map(|image| std::mem::take(&mut image.input)).collect();
        let input = inputs.concat();
        for image in &mut images {
            image.memory.give_back(image.input_bytes);
        }
        Self { images, input, ready_since }
    }

    /// The model of its images.
    #[must_use]
    pub fn model(&self) -> &Arc<ModelFiles> {
        &self.images.first().expect("a batch is never empty").model
    }
}

/// An image that waits to be in a batch.
struct Waiting {
    image: Decoded,
    since: Instant,
    /// True if no other image may be in its batch, or if none should be.
    alone: bool,
    /// True if its maps take further passes of the network.
    takes_passes: bool,
}

impl Waiting {
    fn new(mut image: Decoded, waited: Duration) -> Self {
        image.admitted.image.held.has_come();
        let now = Instant::now();
        let since = now.checked_sub(waited).unwrap_or(now);
        let AdmittedImage { job, permit, .. } = &*image.admitted.image;
        let alone = permit.is_exclusive() || image.model.fills_batches(&job.explain);
        let takes_passes = image.model.explanation_cost(&job.explain).passes > 0;
        Self { image, since, alone, takes_passes }
    }

    fn has_to_go_back(&mut self) -> bool {
        self.image.admitted.image.held.has_to_go_back()
    }

    /// Goes back to the queue.
    fn exit(self) -> Exit {
        Exit::of_image(self.image.admitted, ExitCause::NoTime)
    }
}

/// Gathers batches.
#[derive(Debug)]
pub struct BatchStage {
    /// How many images a full batch has at present.
    pub size: Arc<BatchSize>,
    /// How long a batch's first image waits for further ones that are on their way.
    pub wait: Duration,
    /// The most memory that a network may take for the larger inputs of a batch; none on a GPU.
    pub max_activation_bytes: Option<u64>,
    /// How many images this worker may hold.
    pub hold: Arc<HoldLimit>,
}

/// The images that wait for the model.
#[derive(Default)]
struct Gathering {
    /// All of one model.
    batch: Vec<Waiting>,
    /// The first one of the next batch.
    next: Option<Waiting>,
}

impl Gathering {
    /// Adds an image: to the batch, if it may be in it, or as the first one of the next.
    fn add(&mut self, image: Waiting, batch_is_full: bool) {
        let joins = self.batch.first().is_none_or(|first| {
            !batch_is_full && !image.alone && same_model(&first.image, &image.image)
        });
        if joins {
            self.batch.push(image);
        } else {
            self.next = Some(image);
        }
    }

    /// Takes out what has to go back to the queue. What came last goes first.
    fn take_what_goes_back(&mut self) -> Vec<Waiting> {
        let mut back: Vec<_> = self.next.take_if(Waiting::has_to_go_back).into_iter().collect();
        for index in (0..self.batch.len()).rev() {
            if self.batch[index].has_to_go_back() {
                back.push(self.batch.remove(index));
            }
        }
        back
    }
}

impl BatchStage {
    /// Starts the task that gathers. One batch is ready while the model works on another.
    pub fn start(self, stages: &mut Stages, decoded: Receiver<Decoded>) -> mpsc::Receiver<Batch> {
        let (ready, batches) = mpsc::channel(1);
        let exits = stages.exits();
        stages.spawn("batch", self.gather(decoded, ready, exits));
        batches
    }

    /// Gathers until the images end. While the model is busy, a batch that is due keeps filling. If
    /// the worker holds more than it can do in time, what waits here or comes goes back to the queue.
    async fn gather(
        self,
        decoded: Receiver<Decoded>,
        ready: mpsc::Sender<Batch>,
        exits: Sender<Exit>,
    ) {
        let mut limit_changes = self.hold.prefetch_changes();
        let mut gathering = Gathering::default();
        let (mut open, mut due) = (true, Instant::now());
        loop {
            let too_much = self.hold.is_exceeded();
            if too_much && !send_back(gathering.take_what_goes_back(), &exits).await {
                return;
            }
            if gathering.batch.is_empty() {
                match gathering.next.take() {
                    Some(first) => {
                        due = Instant::now() + self.wait;
                        gathering.batch.push(first);
                    }
                    None if !open => return,
                    None => {}
                }
            }
            let full = !open || self.is_full(&gathering);
            let room = !full || (too_much && gathering.next.is_none());
            let some = !gathering.batch.is_empty();
            let late = Instant::now() >= due || self.hold.nothing_comes();
            tokio::select! {
                biased;
                image = decoded.recv(), if open && room => match image {
                    Ok((image, waited)) => {
                        if !some {
                            due = Instant::now() + self.wait;
                        }
                        gathering.add(Waiting::new(image, waited), full);
                    }
                    Err(_ended) => open = false,
                },
                slot = ready.reserve(), if some && (full || late) => {
                    // If the model's thread is gone, dropping the images gives their messages back.
                    let Ok(slot) = slot else { return };
                    if !send_back(gathering.take_what_goes_back(), &exits).await {
                        return;
                    }
                    if !gathering.batch.is_empty() {
                        slot.send(Batch::new(std::mem::take(&mut gathering.batch)));
                    }
                }
                () = sleep_until(due), if some && !full && !late => {}
                Ok(()) = limit_changes.changed() => {}
            }
        }
    }

    /// True if no further image may be in the batch.
    fn is_full(&self, gathering: &Gathering) -> bool {
        let Gathering { batch, next } = gathering;
        let Some(first) = batch.first() else { return false };
        let most = self.most_images(first.image.model.config());
        let most = most.min(self.size_for(first)).min(self.hold.batch());
        next.is_some() || first.alone || batch.len() >= most
    }
}

/// Sends images back to the queue. False if the last stage is gone.
async fn send_back(images: Vec<Waiting>, exits: &Sender<Exit>) -> bool {
    for image in images {
        if exits.send(image.exit()).await.is_err() {
            return false;
        }
    }
    true
}

impl BatchStage {
    /// How many images a batch that begins with `first` should have. On a CPU larger batches are for
    /// the network's kernels alone: a backward pass keeps what each layer computed for each image, and
    /// is no faster with more images.
    fn size_for(&self, first: &Waiting) -> usize {
        let on_cpu = self.max_activation_bytes.is_some();
        let now = self.size.now();
        if on_cpu && first.takes_passes { now.min(self.size.first()) } else { now }
    }

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
