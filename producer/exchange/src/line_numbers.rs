//! Tells in which line of a file a byte lies, whatever ends its lines.
//!
//! [`csv`] counts line feeds, and sets a record's number before it has read what is left of the end of the line
//! before: with `\r\n`, and after blank lines, its numbers are too low.

use std::collections::VecDeque;
use std::io::{self, Read};

/// Reads through, and remembers where lines end.
pub(crate) struct LineNumbers<R> {
    inner: R,
    /// The bytes that were read.
    read: u64,
    is_after_return: bool,
    /// Where the lines end that were read and not asked for yet: the place after the end, and its length.
    ends: VecDeque<(u64, u64)>,
    /// The number of the line before the first of `ends`.
    line: u64,
}

impl<R> LineNumbers<R> {
    /// Counts from this line.
    pub(crate) fn from(inner: R, line: u64) -> Self {
        Self { inner, read: 0, is_after_return: false, ends: VecDeque::new(), line }
    }

    /// The number of the line with this byte; of the next one with a text, if it is a blank one's. Bytes come
    /// in their order.
    pub(crate) fn at(&mut self, byte: u64) -> u64 {
        let mut byte = byte;
        while let Some((end, length)) = self.ends.front().copied()
            && end - length <= byte
        {
            byte = byte.max(end);
            self.ends.pop_front();
            self.line += 1;
        }
        self.line
    }
}

impl<R: Read> Read for LineNumbers<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        for byte in buffer.iter().take(length) {
            self.read += 1;
            match (byte, self.ends.back_mut()) {
                (b'\n', Some(end)) if self.is_after_return => *end = (self.read, 2),
                (b'\n' | b'\r', _) => self.ends.push_back((self.read, 1)),
                _ => {}
            }
            self.is_after_return = *byte == b'\r';
        }
        Ok(length)
    }
}
