//! Fourth stage: images wait for company. A batch leaves when it is full, when its first
//! image has waited long enough, or when the next image needs another model.

use std::sync::Arc;
use std::time::Duration;

use async_channel::Receiver;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::decode::Decoded;

/// Images for one pass of one model; never empty.
#[derive(Debug)]
pub struct Batch(pub Vec<Decoded>);

/// Gathers until the images end. While the model is busy a late batch keeps filling.
pub async fn gather(
    decoded: Receiver<Decoded>,
    ready: mpsc::Sender<Batch>,
    size: usize,
    wait: Duration,
) {
    let mut held: Option<Decoded> = None;
    loop {
        let first = match held.take() {
            Some(image) => image,
            None => match decoded.recv().await {
                Ok(image) => image,
                Err(_ended) => return,
            },
        };
        let due = Instant::now() + wait;
        let mut batch = vec![first];
        let mut open = true;
        let slot = loop {
            let alone = batch[0].image.pass.is_alone();
            let full = !open || batch.len() >= size || held.is_some() || alone;
            let late = Instant::now() >= due;
            tokio::select! {
                biased;
                image = decoded.recv(), if !full => match image {
                    Ok(image) if same_model(&batch[0], &image) => batch.push(image),
                    Ok(other) => held = Some(other),
                    Err(_ended) => open = false,
                },
                slot = ready.reserve(), if full || late => break slot,
                () = sleep_until(due), if !full && !late => {}
            }
        };
        match slot {
            Ok(slot) => slot.send(Batch(batch)),
            // The model is gone: dropping the images hands them back.
            Err(_closed) => return,
        }
    }
}

fn same_model(one: &Decoded, other: &Decoded) -> bool {
    Arc::ptr_eq(&one.model, &other.model)
}
