//! Bounded channels between stages, which tell how long an item was on its way.

use std::time::{Duration, Instant};

/// Where a stage puts what it has done.
#[derive(Debug)]
pub struct Sender<T>(async_channel::Sender<(T, Instant)>);

/// Where a stage takes what it is to do.
#[derive(Debug)]
pub struct Receiver<T>(async_channel::Receiver<(T, Instant)>);

/// The other end is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed;

/// A channel that holds so many items, at least one.
pub fn channel<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    let (sender, receiver) = async_channel::bounded(capacity.max(1));
    (Sender(sender), Receiver(receiver))
}

impl<T> Sender<T> {
    /// Waits for room. The item's wait begins now.
    ///
    /// # Errors
    /// Where nobody receives any more; the item is dropped.
    pub async fn send(&self, item: T) -> Result<(), Closed> {
        self.0.send((item, Instant::now())).await.map_err(|_| Closed)
    }

    /// As [`send`](Self::send), on a thread of its own.
    ///
    /// # Errors
    /// As there.
    pub fn send_blocking(&self, item: T) -> Result<(), Closed> {
        self.0.send_blocking((item, Instant::now())).map_err(|_| Closed)
    }
}

impl<T> Receiver<T> {
    /// The next item, and how long it waited.
    ///
    /// # Errors
    /// Where nobody sends any more.
    pub async fn recv(&self) -> Result<(T, Duration), Closed> {
        let (item, sent) = self.0.recv().await.map_err(|_| Closed)?;
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
        Self(self.0.clone())
    }
}
