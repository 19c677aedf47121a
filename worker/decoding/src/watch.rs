//! Stops a decoder that works on one image for too long.
//!
//! Owns the clock: the processor time of the decoder's own thread, so that an image does not fail
//! because the machine is busy. A decoder asks for more of the file again and again; past the limit
//! it gets an error instead, and its thread comes back. Does not stop a decoder that asks for nothing.
//! Upstream: [`ImageLimits`](super::ImageLimits). Downstream: the decoders.

use std::cell::Cell;
use std::io::{self, BufRead, Cursor, ErrorKind, Read, Seek, SeekFrom};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Steps of a decoder between two looks at the clock, which cost a system call each. A step is a read,
/// or a row of blocks.
const STEPS_PER_LOOK: u32 = 64;
/// The most bytes that a decoder gets at once.
const MAX_BYTES_AT_ONCE: usize = 64 << 10;

/// Watches the decoding of one image, on the thread that this was made on.
#[derive(Debug)]
pub(super) struct Watch {
    /// The thread's processor time at which the decoder is stopped.
    end: Duration,
    steps: Cell<u32>,
    is_over: Cell<bool>,
}

impl Watch {
    /// Allows this processor time from now on.
    pub(super) fn start(limit: Duration) -> Self {
        let end = thread_time().saturating_add(limit);
        Self { end, steps: Cell::new(0), is_over: Cell::new(false) }
    }

    /// True if the time is over. Looks at the clock.
    fn look(&self) -> bool {
        if !self.is_over.get() && thread_time() >= self.end {
            self.is_over.set(true);
        }
        self.is_over.get()
    }

    /// True if the time was over when somebody looked.
    pub(super) fn was_over(&self) -> bool {
        self.is_over.get()
    }

    /// Notes a step of the decoder. True if the time is over; looks at the clock now and then.
    pub(super) fn step(&self) -> bool {
        let steps = self.steps.get().wrapping_add(1);
        self.steps.set(steps);
        self.was_over() || (steps.is_multiple_of(STEPS_PER_LOOK) && self.look())
    }

    fn note_read(&self) -> io::Result<()> {
        match self.step() {
            true => Err(io::Error::new(ErrorKind::TimedOut, "decoding takes too long")),
            false => Ok(()),
        }
    }
}

/// The processor time of this thread so far.
fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    // It counts up from zero.
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

/// A file in memory. Reading it fails once the time is over.
#[derive(Debug)]
pub(super) struct WatchedFile<'a> {
    file: Cursor<&'a [u8]>,
    watch: &'a Watch,
}

impl<'a> WatchedFile<'a> {
    pub(super) fn new(bytes: &'a [u8], watch: &'a Watch) -> Self {
        Self { file: Cursor::new(bytes), watch }
    }
}

impl Read for WatchedFile<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.watch.note_read()?;
        self.file.read(buffer)
    }
}

impl BufRead for WatchedFile<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.watch.note_read()?;
        let rest = self.file.fill_buf()?;
        Ok(&rest[..rest.len().min(MAX_BYTES_AT_ONCE)])
    }

    fn consume(&mut self, bytes: usize) {
        self.file.consume(bytes);
    }
}

impl Seek for WatchedFile<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn reading_ends_with_an_error_once_the_time_is_over() {
        let watch = Watch::start(Duration::from_millis(20));
        let started = Instant::now();
        let bytes = [0; 16];
        let error = loop {
            // A decoder that goes back and forth in a small file without end.
            let mut file = WatchedFile::new(&bytes, &watch);
            if let Err(error) = file.read_exact(&mut [0; 8]) {
                break error;
            }
            assert!(started.elapsed() < Duration::from_secs(60), "it never ends");
        };
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert!(watch.was_over());
    }

    #[test]
    fn waiting_costs_no_time() {
        let watch = Watch::start(Duration::from_secs(5));
        std::thread::sleep(Duration::from_millis(50));
        assert!(!watch.look());
        assert!(watch.end - thread_time() > Duration::from_millis(4900), "it counts waiting");
    }

    #[test]
    fn a_decoder_gets_the_whole_file_bit_by_bit() {
        let bytes: Vec<_> = (0..200_000_u32).map(|at| at as u8).collect();
        let watch = Watch::start(Duration::from_secs(60));
        let mut read = Vec::new();
        let mut file = WatchedFile::new(&bytes, &watch);
        assert!(file.fill_buf().unwrap().len() <= MAX_BYTES_AT_ONCE);
        file.read_to_end(&mut read).unwrap();
        assert_eq!(read, bytes);
    }
}
