//! Image files made to do harm, each with what must become of it.
//!
//! Owns the corpus: damaged, lying, huge and misnamed files of every format, made from a sample
//! photo and from bytes written here, the same in each run. What is expected follows from how a
//! file was made, never from what a decoder said of it. One module a format; what goes for all
//! is in `common`.

mod bits;
mod bmp;
mod common;
mod gif;
mod jpeg;
mod png;
mod tiff;
mod webp;

use camshaft_common::prediction::FailureClass;

/// A file and what must become of it.
#[derive(Debug)]
pub struct Hostile {
    /// Its name, none like another's.
    pub name: String,
    /// Its content.
    pub bytes: Vec<u8>,
    /// Its result.
    pub expected: Expected,
}

/// What must become of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// It is a picture, whatever else it is.
    Prediction,
    /// It has none, for this reason.
    Failure(FailureClass),
    /// Damage in compressed samples without a checksum: what is left may be a valid file of
    /// another picture, and only decoding it tells.
    PredictionOrUndecodable,
}

impl Expected {
    const UNDECODABLE: Self = Self::Failure(FailureClass::Undecodable);
    const UNSUPPORTED: Self = Self::Failure(FailureClass::Unsupported);
    const TOO_LARGE: Self = Self::Failure(FailureClass::TooLarge);
}

/// The files made so far.
#[derive(Debug, Default)]
struct Corpus(Vec<Hostile>);

impl Corpus {
    fn add(&mut self, name: impl Into<String>, bytes: Vec<u8>, expected: Expected) {
        self.0.push(Hostile { name: name.into(), bytes, expected });
    }
}

/// Every file.
#[must_use]
pub fn corpus() -> Vec<Hostile> {
    let mut corpus = Corpus::default();
    common::add(&mut corpus);
    jpeg::add(&mut corpus);
    png::add(&mut corpus);
    webp::add(&mut corpus);
    gif::add(&mut corpus);
    bmp::add(&mut corpus);
    tiff::add(&mut corpus);
    corpus.0
}
