//! Images to run the programs on, made from the sample photos.

use std::fs;
use std::path::{Path, PathBuf};

use image::imageops::FilterType;
use image::{ImageFormat, RgbImage};

use crate::repository;

/// Writes `count` small JPEG files, no two alike, into the class folders `even` and `odd`, and
/// returns their keys: `even/00000.jpg`, `odd/00001.jpg`, …
///
/// # Panics
/// If they cannot be written.
pub fn write_small_images(folder: &Path, count: usize) -> Vec<String> {
    let photos = sample_photos();
    let mut keys = Vec::with_capacity(count);
    for name in ["even", "odd"] {
        fs::create_dir_all(folder.join(name)).expect("the folder can be made");
    }
    for index in 0..count {
        let mut image = photos[index % photos.len()].clone();
        // The first 16 pixels hold the index, so that the tests notice results that are mixed up.
        for bit in 0..16 {
            let value = if index >> bit & 1 == 1 { 255 } else { 0 };
            image.put_pixel(bit, 0, image::Rgb([value; 3]));
        }
        let key = format!("{}/{index:05}.jpg", ["even", "odd"][index % 2]);
        image.save_with_format(folder.join(&key), ImageFormat::Jpeg).expect("it can be written");
        keys.push(key);
    }
    keys
}

/// Writes a JPEG of one grey: a small file, even if the picture is large.
///
/// # Panics
/// If it can't be written.
pub fn write_flat_jpeg(path: &Path, width: u32, height: u32) {
    let picture = image::GrayImage::from_pixel(width, height, image::Luma([127]));
    picture.save_with_format(path, ImageFormat::Jpeg).expect("it can be written");
}

fn sample_photos() -> Vec<RgbImage> {
    let mut files = files_below(&repository::chelsea());
    files.sort();
    let small = files.iter().map(|file| {
        let photo = image::open(file).expect("a sample photo can be read").to_rgb8();
        image::imageops::resize(&photo, 96, 64, FilterType::Triangle)
    });
    small.collect()
}

/// The paths of all files below a folder, in no order.
///
/// # Panics
/// If it can't be listed.
#[must_use]
pub fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).expect("the folder can be listed") {
        let entry = entry.expect("its entries can be read");
        let kind = entry.file_type().expect("its entries can be read");
        // A look at each file would take long: only links are followed.
        if kind.is_dir() || (kind.is_symlink() && entry.path().is_dir()) {
            files.extend(files_below(&entry.path()));
        } else {
            files.push(entry.path());
        }
    }
    files
}

/// Writes the bundled model with a 64×64 input. It takes a twelfth of the time, for tests that are
/// not about the network.
///
/// # Panics
/// If it can't be written.
pub fn write_small_model(folder: &Path) {
    let bundled = repository::root().join("worker/model/models/cats-vs-dogs");
    fs::create_dir_all(folder).expect("the folder can be made");
    fs::copy(bundled.join("model.safetensors"), folder.join("model.safetensors"))
        .expect("the weights can be copied");
    let config = fs::read_to_string(bundled.join("config.json")).expect("the config can be read");
    let small = config.replace("224", "64");
    assert_ne!(small, config, "the bundled model's input is no longer 224×224");
    fs::write(folder.join("config.json"), small).expect("the config can be written");
}

/// Writes JPEGs of 12 megapixels, and returns their keys and upright sizes: photographs as large as a
/// phone's, mosaics of sixteen, one of a size that is no multiple of eight, and one held upright.
///
/// # Panics
/// If they cannot be written.
#[must_use]
pub fn write_large_photos(folder: &Path) -> Vec<(String, (u32, u32))> {
    let mut files = files_below(&repository::root().join("tests/data/photos"));
    files.sort();
    let photos: Vec<_> = files.iter().filter_map(|file| image::open(file).ok()).collect();
    let photo = |index: usize, width: u32, height: u32| {
        photos[index % photos.len()].resize_exact(width, height, FilterType::CatmullRom).to_rgb8()
    };
    let mut written = Vec::new();
    for (index, (width, height)) in
        [(4032, 3024), (3999, 3001), (4000, 3000), (4032, 3024), (4030, 3022)]
            .into_iter()
            .enumerate()
    {
        let mut large = RgbImage::new(width, height);
        let tiles = if index < 2 { 4 } else { 1 };
        for tile in 0..tiles * tiles {
            let (x, y) = (tile % tiles * (width / tiles), tile / tiles * (height / tiles));
            let (right, below) = (width - x, height - y);
            let sides = if tiles == 1 { (right, below) } else { (width / tiles, height / tiles) };
            let part = photo(7 * index + 3 * tile as usize, sides.0, sides.1);
            image::imageops::replace(&mut large, &part, i64::from(x), i64::from(y));
        }
        let mut file = Vec::new();
        let encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(&mut file, 92);
        large.write_with_encoder(encoder).expect("it can be encoded");
        let key = format!("large-{index}.jpg");
        let is_turned = index == 4;
        let file = if is_turned { turned(&file) } else { file };
        fs::write(folder.join(&key), file).expect("it can be written");
        written.push((key, if is_turned { (height, width) } else { (width, height) }));
    }
    written
}

/// A JPEG file with an EXIF orientation of 6: the camera was held upright.
///
/// # Panics
/// If it is no JPEG.
#[must_use]
pub fn turned(jpeg: &[u8]) -> Vec<u8> {
    let (start, rest) = jpeg.split_at(2);
    assert_eq!(start, [0xff, 0xd8], "a JPEG");
    // One directory with one entry: tag 0x0112, a short, one of it, 6.
    let exif = b"\xff\xe1\x00\x22Exif\0\0II\x2a\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0";
    [start, &exif[..], rest].concat()
}
