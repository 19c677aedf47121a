//! Image files made to do harm, each with the result that a worker must give it.
//!
//! Owns the corpus: damaged, lying, huge and misnamed files of every format. They are made from a
//! sample photo and from bytes written here, and are the same in each run. The expected result
//! follows from how a file was made, never from what a decoder said. Each format has a module;
//! `common` has the files that all formats share.

mod bits;
mod bmp;
mod common;
mod gif;
mod jpeg;
mod png;
mod tiff;
mod webp;

use camshaft_common::prediction::FailureClass;

/// A file and its expected result.
#[derive(Debug)]
pub struct Hostile {
    /// Its name, unique in the corpus.
    pub name: String,
    /// Its content.
    pub bytes: Vec<u8>,
    /// The result that it must get.
    pub expected: Expected,
}

/// The result that a file must get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// A prediction: the file holds a picture that can be decoded.
    Prediction,
    /// A failure of this class.
    Failure(FailureClass),
    /// Either. Compressed samples without a checksum are damaged: the file may now be a valid file
    /// of another picture, and only a decoder can tell.
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
