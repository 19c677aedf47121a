//! Bounded channels between stages. They tell how long each item waited in them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, mpsc};

/// The end of a channel into which a stage puts its results.
#[derive(Debug)]
pub struct Sender<T>(mpsc::Sender<(T, Instant)>);

/// The end of a channel from which a stage takes its work. The tasks of a stage share it, and wait
/// for items in turn.
#[derive(Debug)]
pub struct Receiver<T>(Arc<Mutex<mpsc::Receiver<(T, Instant)>>>);

/// The other end of the channel is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed;

/// A channel that holds up to `capacity` items, at least one.
pub fn channel<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    let (sender, receiver) = mpsc::channel(capacity.max(1));
    (Sender(sender), Receiver(Arc::new(Mutex::new(receiver))))
}

impl<T> Sender<T> {
    /// Waits until there is room, and sends. The item's waiting time starts when this is called.
    ///
    /// # Errors
    /// If all receivers are gone; the item is dropped.
    pub async fn send(&self, item: T) -> Result<(), Closed> {
        self.0.send((item, Instant::now())).await.map_err(|_| Closed)
    }

    /// Does the same as [`send`](Self::send), and blocks the thread meanwhile.
    ///
    /// # Errors
    /// If all receivers are gone; the item is dropped.
    pub fn send_blocking(&self, item: T) -> Result<(), Closed> {
        self.0.blocking_send((item, Instant::now())).map_err(|_| Closed)
    }
}

impl<T> Receiver<T> {
    /// Waits for the next item. Returns it with the time that it waited.
    ///
    /// # Errors
    /// If all senders are gone and the channel is empty.
    pub async fn recv(&self) -> Result<(T, Duration), Closed> {
        let (item, sent) = self.0.lock().await.recv().await.ok_or(Closed)?;
        Ok((item, sent.elapsed()))
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}
