//! What is known of every picture, small enough to hold for all images at once, and whether two of
//! them are copies of one picture.
//!
//! Owns the thresholds. Upstream: `predictions.parquet`. Downstream: the candidates, which are
//! tested here, and the groups.

use std::collections::HashMap;

use camshaft_common::measure::SKETCH_NUMBERS;

use crate::predictions::read_file_digests;
use crate::predictions::sketches::{CentredSketches, SketchVector};
use crate::similarity::orientation::Orientation;
use crate::table::{TableError, TableReader};

/// The least entropy of brightness of a picture whose hash says anything.
const MIN_INFORMATION: f32 = 0.2;
/// What a copy that lies the same way needs. Tuned on copies of ten kinds, see
/// `tests/benches/findings/duplicates.py`.
const SAME_WAY: [CloseEnough; 3] = [
    CloseEnough { max_hash_bits: 2, min_cosine: 0.75, min_centred: 0.45 },
    CloseEnough { max_hash_bits: 4, min_cosine: 0.85, min_centred: 0.60 },
    CloseEnough { max_hash_bits: 7, min_cosine: 0.90, min_centred: 0.75 },
];
/// What a mirrored copy needs: a network sees it much like the original.
const MIRRORED: [CloseEnough; 2] = [
    CloseEnough { max_hash_bits: 2, min_cosine: 0.85, min_centred: 0.50 },
    CloseEnough { max_hash_bits: 3, min_cosine: 0.90, min_centred: 0.75 },
];
/// What a turned copy needs: to a network it may be another thing. Hashes of unrelated pictures are
/// hardly ever so close.
const TURNED: [CloseEnough; 2] = [
    CloseEnough { max_hash_bits: 2, min_cosine: 0.70, min_centred: -1.0 },
    CloseEnough { max_hash_bits: 3, min_cosine: 0.85, min_centred: 0.50 },
];
/// What a cropped or edited copy needs. Its hash may differ in more bits, up to
/// [`MAX_EDITED_BITS`]: then the centred cosine must be higher by [`CENTRED_PER_BIT`] for each.
const EDITED: CloseEnough = CloseEnough { max_hash_bits: 14, min_cosine: 0.95, min_centred: 0.84 };
pub(super) const MAX_EDITED_BITS: u32 = 24;
const CENTRED_PER_BIT: f32 = 0.012;
/// By how much it must be higher again in a set of ten times as many images as [`TUNED_IMAGES`]:
/// among a hundred times as many pairs, more are alike by chance.
const CENTRED_PER_TENFOLD: f32 = 0.02;
const TUNED_IMAGES: f32 = 1500.0;
/// By how much of themselves brightness and contrast change in an edited copy: of two unrelated
/// photographs, one in ten pairs is as alike in all four measures.
const MAX_LIGHT_CHANGE: f32 = 0.18;
const MAX_INFORMATION_CHANGE: f32 = 0.12;
const MAX_CHROMA_CHANGE: f32 = 0.05;
/// The least entropy of brightness of a picture whose parts are looked for. Screenshots and charts
/// have less, and one layout with other words is no copy.
const MIN_INFORMATION_EDITED: f32 = 0.5;
/// The most bits by which the hashes of duplicates differ if there are no embeddings.
const MAX_HASH_BITS_ALONE: u32 = 3;
/// The most bits by which a hash tells of a turned copy: the last of [`MIRRORED`] and [`TURNED`].
pub(super) const MAX_TURNED_BITS: u32 = 3;
/// The most bits by which a hash tells of a copy: the last of [`SAME_WAY`].
pub(super) const MAX_HASH_BITS: u32 = 7;
/// A picture whose hash is this close to its own turned hash looks the same when it is turned.
const SYMMETRIC_BITS: u32 = 8;

/// Thresholds that make two pictures copies.
struct CloseEnough {
    max_hash_bits: u32,
    /// The least cosine of the two sketches.
    min_cosine: f32,
    /// The least cosine of the two sketches less the mean of all.
    min_centred: f32,
}

impl CloseEnough {
    fn admits(&self, bits: u32, cosines: Cosines) -> bool {
        bits <= self.max_hash_bits
            && cosines.plain >= self.min_cosine
            && cosines.centred >= self.min_centred
    }
}

/// How one picture was made from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Relation {
    /// The files are equal.
    SameFile,
    /// Nearly the same picture: encoded again, resized, brighter.
    SamePicture,
    /// The other is this one, mirrored or turned.
    Turned(Orientation),
    /// A part of it, or it was edited.
    Edited,
}

/// Two pictures that are copies.
#[derive(Clone, Copy, Debug)]
pub(super) struct Copies {
    pub(super) relation: Relation,
    /// Whether they are hardly different, so that a copy of one is a copy of the other.
    pub(super) is_strong: bool,
}

#[derive(Clone, Copy)]
struct Cosines {
    plain: f32,
    centred: f32,
}

/// Measures that a crop or a text hardly changes.
#[derive(Clone, Copy)]
struct Light {
    brightness: f32,
    contrast: f32,
    information: f32,
    chroma: f32,
}

impl Light {
    /// Whether one picture may be a part of the other, or the other with a text on it.
    fn allows_edit(self, other: Self) -> bool {
        let alike =
            |one: f32, other: f32, limit: f32| (one - other).abs() <= limit * one.max(other);
        self.information.min(other.information) >= MIN_INFORMATION_EDITED
            && alike(self.brightness, other.brightness, MAX_LIGHT_CHANGE)
            && alike(self.contrast, other.contrast, MAX_LIGHT_CHANGE)
            && alike(self.information, other.information, MAX_INFORMATION_CHANGE)
            && (self.chroma - other.chroma).abs() <= MAX_CHROMA_CHANGE
    }
}

/// By row, what is compared of pictures.
pub(super) struct Pictures {
    /// The first row with the same file; the row itself if there is none or it is not known.
    pub(super) file: Vec<u32>,
    /// Images whose files are not known.
    pub(super) without_file: usize,
    /// The perceptual hash; 0 for a row without.
    pub(super) hashes: Vec<u64>,
    /// Whether there is a hash, of a picture with enough shades to tell it from others.
    pub(super) usable: Vec<bool>,
    light: Vec<Light>,
    pub(super) sketches: Option<Sketches>,
    /// By how much the centred cosine of an edited copy must be higher in a set of this size.
    edited_margin: f32,
}

/// By row, the sketch of the embedding, all zeros for a row without.
pub(super) struct Sketches {
    numbers: Vec<[i8; SKETCH_NUMBERS]>,
    scales: Vec<f32>,
    /// The product with the mean of all sketches.
    with_mean: Vec<f32>,
    mean_squared: f32,
    pub(super) exists: Vec<bool>,
    /// The signs of the centred sketch: of its first 64 numbers, and of the others.
    pub(super) signs: [Vec<u64>; 2],
}

impl Pictures {
    pub(super) fn read(table: &TableReader) -> Result<Self, TableError> {
        let (file, without_file) = files(table)?;
        let (mut hashes, mut usable, mut light) = (Vec::new(), Vec::new(), Vec::new());
        for group in 0..table.groups() {
            let information = table.floats(group, "information")?;
            for (at, hash) in table.texts(group, "perceptual_hash")?.into_iter().enumerate() {
                let hash = hash.and_then(|hash| u64::from_str_radix(&hash, 16).ok());
                usable.push(hash.is_some() && information[at] >= MIN_INFORMATION);
                hashes.push(hash.unwrap_or(0));
            }
            let (brightness, contrast) =
                (table.floats(group, "brightness")?, table.floats(group, "contrast")?);
            let chroma = table.floats(group, "chroma")?;
            light.extend((0..chroma.len()).map(|at| Light {
                brightness: brightness[at],
                contrast: contrast[at],
                information: information[at],
                chroma: chroma[at],
            }));
        }
        let mean = CentredSketches::new(table)?.map(|sketches| sketches.mean());
        let sketches = mean.map(|mean| Sketches::read(table, &mean)).transpose()?;
        let tenfolds = (table.rows() as f32 / TUNED_IMAGES).log10().max(0.0);
        let edited_margin = CENTRED_PER_TENFOLD * tenfolds;
        Ok(Self { file, without_file, hashes, usable, light, sketches, edited_margin })
    }

    /// Whether two pictures are copies.
    pub(super) fn compare(&self, one: u32, other: u32) -> Option<Copies> {
        let copies = |relation, is_strong| Some(Copies { relation, is_strong });
        let (a, b) = (one as usize, other as usize);
        if self.file[a] == self.file[b] {
            return copies(Relation::SameFile, true);
        }
        if !self.usable[a] || !self.usable[b] {
            return None;
        }
        let (hash, other) = (self.hashes[a], self.hashes[b]);
        let bits = (hash ^ other).count_ones();
        let Some(cosines) = self.sketches.as_ref().and_then(|all| all.cosines(a, b)) else {
            let alike = bits <= MAX_HASH_BITS_ALONE;
            return alike.then_some(Copies { relation: Relation::SamePicture, is_strong: true });
        };
        if SAME_WAY.iter().any(|limit| limit.admits(bits, cosines)) {
            return copies(Relation::SamePicture, bits <= SAME_WAY[0].max_hash_bits);
        }
        for orientation in &Orientation::ALL[1..] {
            let turned = orientation.of_hash(hash);
            let limits: &[_] =
                if *orientation == Orientation::Mirrored { &MIRRORED } else { &TURNED };
            let turned_bits = (turned ^ other).count_ones();
            if limits.iter().any(|limit| limit.admits(turned_bits, cosines))
                && (turned ^ hash).count_ones() > SYMMETRIC_BITS
            {
                return copies(Relation::Turned(*orientation), false);
            }
        }
        let further = CENTRED_PER_BIT * bits.saturating_sub(EDITED.max_hash_bits) as f32;
        let edited = bits <= MAX_EDITED_BITS
            && self.light[a].allows_edit(self.light[b])
            && cosines.plain >= EDITED.min_cosine
            && cosines.centred >= EDITED.min_centred + further + self.edited_margin;
        edited.then_some(Copies { relation: Relation::Edited, is_strong: false })
    }
}

impl Sketches {
    fn read(table: &TableReader, mean: &SketchVector) -> Result<Self, TableError> {
        let rows = table.rows();
        let mut all = Self {
            numbers: Vec::with_capacity(rows),
            scales: Vec::with_capacity(rows),
            with_mean: Vec::with_capacity(rows),
            mean_squared: mean.iter().map(|value| value * value).sum(),
            exists: Vec::with_capacity(rows),
            signs: [Vec::with_capacity(rows), Vec::with_capacity(rows)],
        };
        for group in 0..table.groups() {
            let scales = table.floats(group, "sketch_scale")?;
            for (bytes, scale) in table.bytes(group, "sketch")?.iter().zip(scales) {
                let bytes = bytes.as_ref().and_then(|bytes| bytes.data().try_into().ok());
                let bytes = bytes.map(|bytes: &[u8; SKETCH_NUMBERS]| bytes.map(u8::cast_signed));
                let numbers = bytes.unwrap_or([0; SKETCH_NUMBERS]);
                all.exists.push(bytes.is_some());
                all.scales.push(scale);
                let values = numbers.map(|number| f32::from(number) * scale);
                all.with_mean.push(values.iter().zip(mean).map(|(value, mean)| value * mean).sum());
                for (half, signs) in all.signs.iter_mut().enumerate() {
                    let of_half = values.iter().zip(mean).skip(64 * half).take(64).enumerate();
                    signs.push(
                        of_half.fold(0, |all, (bit, (value, mean))| {
                            all | u64::from(value > mean) << bit
                        }),
                    );
                }
                all.numbers.push(numbers);
            }
        }
        Ok(all)
    }

    /// The cosines of two rows; none if one of them has no sketch.
    fn cosines(&self, one: usize, other: usize) -> Option<Cosines> {
        if !self.exists[one] || !self.exists[other] {
            return None;
        }
        let product = |a: usize, b: usize| {
            let products = self.numbers[a].iter().zip(&self.numbers[b]);
            let sum: i32 = products.map(|(a, b)| i32::from(i16::from(*a) * i16::from(*b))).sum();
            sum as f32 * self.scales[a] * self.scales[b]
        };
        let (both, first, second) = (product(one, other), product(one, one), product(other, other));
        let centred = |product: f32, a: usize, b: usize| {
            product - self.with_mean[a] - self.with_mean[b] + self.mean_squared
        };
        let cosine = |both: f32, squares: f32| {
            let length = squares.max(0.0).sqrt();
            if length > 0.0 { both / length } else { 0.0 }
        };
        Some(Cosines {
            plain: cosine(both, first * second),
            centred: cosine(
                centred(both, one, other),
                centred(first, one, one) * centred(second, other, other),
            ),
        })
    }
}

/// By row, the first row with the same digest; and the number of rows without one.
fn files(table: &TableReader) -> Result<(Vec<u32>, usize), TableError> {
    let digests = read_file_digests(table)?;
    let mut first = HashMap::with_capacity(digests.len());
    let rows = (0..).zip(&digests);
    let file =
        rows.map(|(row, digest)| digest.map_or(row, |digest| *first.entry(digest).or_insert(row)));
    let file = file.collect();
    Ok((file, digests.iter().filter(|digest| digest.is_none()).count()))
}
