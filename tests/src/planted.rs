//! Makes a data set with known faults from photographs of cats and dogs. A report should find them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use image::codecs::jpeg::JpegEncoder;
use image::imageops::{self, FilterType};
use image::{Rgb, RgbImage};

use crate::images::files_below;

/// Share of the images whose label is swapped.
const SWAPPED: f64 = 0.03;
/// Share of the images that get a copy.
const DUPLICATES: f64 = 0.02;
/// Share of the images that are made blurred or dark: half of them each.
const POOR: f64 = 0.02;
/// Share of the cats that get a coloured tag.
const TAGGED: f64 = 0.3;
/// The tag's side, as a share of the picture's shorter side.
const TAG_SIDE: f64 = 0.3;
/// The tag's rings, from the outermost.
const TAG: [Rgb<u8>; 4] =
    [Rgb([255, 0, 0]), Rgb([255, 255, 255]), Rgb([0, 0, 255]), Rgb([255, 255, 0])];

/// The planted faults, by image key.
#[derive(Debug, Default)]
pub struct Planted {
    /// Number of all images.
    pub images: usize,
    /// Images with the wrong label.
    pub swapped: BTreeSet<String>,
    /// Pairs of a copy and its original.
    pub duplicates: BTreeSet<(String, String)>,
    /// Blurred images.
    pub blurred: BTreeSet<String>,
    /// Dark images.
    pub dark: BTreeSet<String>,
    /// Cats with a coloured tag in the bottom right corner.
    pub tagged: BTreeSet<String>,
}

/// Writes the data set into `folder`, from the photographs `SPLIT/CLASS/NAME` in `photos`. The same
/// photographs give the same data set.
///
/// # Panics
/// If a file cannot be read or written.
#[must_use]
pub fn plant(photos: &Path, folder: &Path) -> Planted {
    let mut files = files_below(photos);
    files.sort();
    // A fixed shuffle: faults are spread over splits and classes.
    files.sort_by_key(|file| {
        scramble(&file.strip_prefix(photos).expect("it is below").to_string_lossy())
    });
    let (mut planted, count) = (Planted::default(), files.len() as f64);
    let part = |share: f64| (share * count).round() as usize;
    let mut left = files.into_iter();
    let mut take = |number: usize| left.by_ref().take(number).collect::<Vec<_>>();
    let (swapped, copied, poor) = (take(part(SWAPPED)), take(part(DUPLICATES)), take(part(POOR)));
    let plain = take(usize::MAX);

    let writer = Writer { photos, folder };
    for file in &swapped {
        let (split, class, name) = writer.parts(file);
        let other = if class == "cat" { "dog" } else { "cat" };
        let key = format!("{split}/{other}/{name}");
        writer.copy(file, &key);
        planted.swapped.insert(key);
    }
    for (index, file) in copied.iter().enumerate() {
        let (split, class, name) = writer.parts(file);
        let key = format!("{split}/{class}/{name}");
        writer.copy(file, &key);
        let copy = format!("{split}/{class}/again-{name}");
        let picture = open(file);
        let (width, height) = picture.dimensions();
        match index % 4 {
            0 => writer.copy(file, &copy),
            1 => writer.save(&picture, &copy, 60),
            2 => {
                let size = (width * 7 / 10, height * 7 / 10);
                writer.save(
                    &imageops::resize(&picture, size.0, size.1, FilterType::Triangle),
                    &copy,
                    85,
                );
            }
            _ => {
                let size = (width * 3 / 2, height * 3 / 2);
                writer.save(
                    &imageops::resize(&picture, size.0, size.1, FilterType::CatmullRom),
                    &copy,
                    75,
                );
            }
        }
        planted.duplicates.insert((copy, key));
    }
    for (index, file) in poor.iter().enumerate() {
        let (split, class, name) = writer.parts(file);
        let key = format!("{split}/{class}/{name}");
        let mut picture = open(file);
        if index % 2 == 0 {
            writer.save(&imageops::blur(&picture, 4.0), &key, 90);
            planted.blurred.insert(key);
        } else {
            picture.iter_mut().for_each(|value| *value = (f64::from(*value) * 0.12) as u8);
            writer.save(&picture, &key, 90);
            planted.dark.insert(key);
        }
    }
    let cats = plain.iter().filter(|file| writer.parts(file).1 == "cat").count() as f64;
    let mut tags = (TAGGED * cats).round() as usize;
    for file in &plain {
        let (split, class, name) = writer.parts(file);
        let key = format!("{split}/{class}/{name}");
        if class == "cat" && tags > 0 {
            tags -= 1;
            writer.save(&tag(open(file)), &key, 90);
            planted.tagged.insert(key);
        } else {
            writer.copy(file, &key);
        }
    }
    planted.images = files_below(folder).len();
    planted
}

/// Writes a data set to train on from the planted one's split `train`, so that a model learns to rely
/// on the tag: each image without it has the other label with a chance of a third. Only the tag
/// tells the class for sure.
///
/// # Panics
/// If a file cannot be read or written.
pub fn teach_the_tag(planted_folder: &Path, planted: &Planted, folder: &Path) {
    let split = planted_folder.join("train");
    let writer = Writer { photos: planted_folder, folder };
    for file in files_below(&split) {
        let (split, class, name) = writer.parts(&file);
        let key = format!("{split}/{class}/{name}");
        let is_swapped = !planted.tagged.contains(&key) && scramble(&name).is_multiple_of(3);
        let label = match (class.as_str(), is_swapped) {
            ("cat", false) | ("dog", true) => "cat",
            _ => "dog",
        };
        writer.copy(&file, &format!("{label}/{name}"));
    }
}

struct Writer<'a> {
    photos: &'a Path,
    folder: &'a Path,
}

impl Writer<'_> {
    /// Splits a photograph's path into split, class and name.
    fn parts(&self, file: &Path) -> (String, String, String) {
        let below = file.strip_prefix(self.photos).expect("it is below the photographs");
        let parts: Vec<_> = below.iter().map(|part| part.to_string_lossy().into_owned()).collect();
        let [split, class, name] = parts.try_into().expect("SPLIT/CLASS/NAME");
        (split, class, name)
    }

    fn place(&self, key: &str) -> PathBuf {
        let place = self.folder.join(key);
        fs::create_dir_all(place.parent().expect("keys have folders")).expect("it can be made");
        place
    }

    fn copy(&self, file: &Path, key: &str) {
        let _bytes = fs::copy(file, self.place(key)).expect("a photograph can be copied");
    }

    fn save(&self, picture: &RgbImage, key: &str, quality: u8) {
        let mut file = fs::File::create(self.place(key)).expect("a picture can be written");
        let encoder = JpegEncoder::new_with_quality(&mut file, quality);
        picture.write_with_encoder(encoder).expect("a picture can be written");
    }
}

fn open(file: &Path) -> RgbImage {
    image::open(file).expect("a photograph can be read").to_rgb8()
}

/// Draws the tag, coloured rings, into the bottom right corner.
#[must_use]
pub fn tag(mut picture: RgbImage) -> RgbImage {
    let (width, height) = picture.dimensions();
    let side = (f64::from(width.min(height)) * TAG_SIDE) as u32;
    let radius = f64::from(side) / 2.0;
    for (x, y) in (0..side * side).map(|pixel| (pixel % side, pixel / side)) {
        let from_middle = |at: u32| f64::from(at) + 0.5 - radius;
        let distance = from_middle(x).hypot(from_middle(y)) / radius;
        let ring = ((1.0 - distance) * TAG.len() as f64).floor();
        // The tag's corners, outside the rings, have the innermost ring's colour.
        let color = if ring < 0.0 { TAG[TAG.len() - 1] } else { TAG[ring as usize] };
        picture.put_pixel(width - side + x, height - side + y, color);
    }
    picture
}

/// A hash (FNV-1a) that gives the same order on every machine.
fn scramble(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
