//! The data of all images, for the page's views of them: keys, labels, numbers, sketches and places on
//! the map.
//!
//! Owns the second JSON block of the page, which is read when one of these views is opened, and the files
//! of `report/images` that take its place in large runs. images.js reads both; [`image_columns`] makes the
//! columns, [`image_keys`] sorts and packs the keys. Upstream: a finished `predictions.parquet`, the
//! findings and the map.
//!
//! Images are in the order of their keys as browsers compare them, so that a key is found by halving.

use std::io;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use camshaft_common::layout::OVERLAYS;
use camshaft_common::measure::SKETCH_NUMBERS;
use serde::Serialize;
use tokio::sync::mpsc::Sender;

use super::image_columns::{self, ColumnReader, Dictionary, Numbers};
use super::image_keys::{KEYS_PER_PAGE, KeyPart, SortedKeys};
use super::thumbnails::{PagePicture, Thumbnails};
use crate::error::ReportError;
use crate::projection::{ImageMap, NOWHERE};
use crate::table::{TableError, TableReader};

/// The most images whose data are in the page itself.
pub(crate) const MOST_IN_PAGE: usize = 100_000;
/// The place of an image that is not in the table.
const NO_PLACE: u32 = u32::MAX;

/// The JSON block.
#[derive(Debug, Serialize)]
pub(crate) struct ImagesData {
    schema: u32,
    /// The number of images.
    images: usize,
    /// True if the columns and keys are in files beside the page.
    in_files: bool,
    /// The `file://` URL of SOURCE, as in the page's other data.
    originals: Option<String>,
    keys_per_page: usize,
    /// The first key of each page of keys.
    first_keys: Vec<String>,
    /// The pages of keys; none if they are in files.
    keys: Vec<Vec<KeyPart>>,
    /// The names in dictionary columns, by number from 1. Labels and classes share theirs.
    names: Vec<String>,
    splits: Vec<String>,
    failures: Vec<String>,
    /// Paths of overlays below OUT. One that begins with a full stop follows `overlays/` and the key.
    overlays: Vec<String>,
    columns: Vec<ImageColumn>,
    /// Images on the map.
    mapped: usize,
}

/// A column of numbers, one for each image.
#[derive(Debug, Serialize)]
struct ImageColumn {
    name: &'static str,
    /// `u8`, `u16` or `u32`: little-endian; `i8` for sketches.
    kind: &'static str,
    /// What a number of the column means: `from + step · number`. The largest number is a missing one.
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    step: Option<f32>,
    /// In base64; none if it is in a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<String>,
}

/// A file of `report/images`.
#[derive(Debug)]
pub(crate) struct ImageFile {
    pub(crate) name: String,
    pub(crate) content: Vec<u8>,
}

/// What the data are made of, besides the table.
#[derive(Debug)]
pub(crate) struct ListedImages {
    /// The keys of the findings that the page lists, each with that of the best of its group.
    pub(crate) findings: Vec<(String, Option<String>)>,
    pub(crate) map: Option<ImageMap>,
    pub(crate) originals: Option<String>,
    /// The most images whose data are in the page.
    pub(crate) most_in_page: usize,
}

/// Reads the data of all images. Sends files if they are not all in the page.
pub(crate) fn read_images(
    table: &TableReader,
    listed: &ListedImages,
    thumbnails: &Thumbnails,
    files: &Sender<ImageFile>,
) -> Result<ImagesData, ReportError> {
    let keys = SortedKeys::read(table)?;
    let in_files = keys.len() > listed.most_in_page;
    let mut data = ImagesData {
        schema: 1,
        images: keys.len(),
        in_files,
        originals: listed.originals.clone(),
        keys_per_page: KEYS_PER_PAGE,
        first_keys: keys.first_of_pages(),
        keys: Vec::new(),
        names: Vec::new(),
        splits: Vec::new(),
        failures: Vec::new(),
        overlays: Vec::new(),
        columns: Vec::new(),
        mapped: 0,
    };
    let mut columns = Columns { all: Vec::new(), files: in_files.then_some(files) };
    for (number, page) in keys.pages().enumerate() {
        match in_files {
            true => columns.send(format!("keys-{number}.json"), json(&page))?,
            false => data.keys.push(page),
        }
    }

    let reader = ColumnReader { table, order: keys.order() };
    let (mut names, mut splits) = (Dictionary::default(), Dictionary::default());
    let (mut failures, mut overlays) = (Dictionary::default(), Dictionary::default());
    for column in ["label", "label_class", "predicted"] {
        columns.add_names(column, &reader.names(column, &mut names, |_, name| name)?)?;
    }
    columns.add_names("split", &reader.names("split", &mut splits, |_, name| name)?)?;
    columns.add_names("failure", &reader.names("failure", &mut failures, |_, name| name)?)?;
    let short = |row: usize, path: String| {
        let rest = path.strip_prefix(OVERLAYS).and_then(|rest| rest.strip_prefix('/'));
        let suffix = rest.and_then(|rest| rest.strip_prefix(keys.of_row(row)));
        suffix.filter(|suffix| suffix.starts_with('.')).map_or(path.clone(), str::to_owned)
    };
    let overlay = reader.names("overlay", &mut overlays, short)?;
    columns.add_names("overlay", &overlay)?;
    let has_thumbnails = keys.in_order().zip(&overlay).map(|(key, overlay)| {
        let path = overlays.name(*overlay).map(|path| match path.starts_with('.') {
            true => format!("{OVERLAYS}/{key}{path}"),
            false => path.to_owned(),
        });
        let image = thumbnails.has(&PagePicture::Image(key.to_owned()));
        let overlay = path.is_some_and(|path| thumbnails.has(&PagePicture::Overlay(path)));
        u8::from(image) | u8::from(overlay) << 1
    });
    columns.add("thumbnails", "u8", None, has_thumbnails.collect())?;
    for numbers in image_columns::NUMBERS {
        if let Some(Numbers { name, kind, scale, bytes }) = reader.numbers(numbers)? {
            columns.add(name, kind, scale, bytes)?;
        }
    }
    let place = |key: Option<&String>| key.and_then(|key| keys.place_of(key)).unwrap_or(NO_PLACE);
    let of_findings = listed.findings.iter().map(|(key, _)| place(Some(key)));
    columns.add("finding_images", "u32", None, of_findings.flat_map(u32::to_le_bytes).collect())?;
    let best = listed.findings.iter().map(|(_, best)| place(best.as_ref()));
    columns.add("best_images", "u32", None, best.flat_map(u32::to_le_bytes).collect())?;
    if let Some(ImageMap { points }) = &listed.map {
        data.mapped = points.iter().filter(|point| **point != NOWHERE).count();
        for (side, name) in ["map_x", "map_y"].into_iter().enumerate() {
            let places = keys.order().iter().map(|&row| points[row as usize][side]);
            columns.add(name, "u16", None, places.flat_map(u16::to_le_bytes).collect())?;
        }
    }
    // In large runs `camshaft serve` compares images.
    if !in_files && let Some(sketches) = read_sketches(table, keys.places())? {
        columns.add("sketch", "i8", None, sketches)?;
    }
    data.columns = columns.all;
    data.names = names.into_names();
    data.splits = splits.into_names();
    data.failures = failures.into_names();
    data.overlays = overlays.into_names();
    Ok(data)
}

/// The columns so far, and where their numbers go.
struct Columns<'a> {
    all: Vec<ImageColumn>,
    files: Option<&'a Sender<ImageFile>>,
}

impl Columns<'_> {
    fn add(
        &mut self,
        name: &'static str,
        kind: &'static str,
        scale: Option<[f32; 2]>,
        bytes: Vec<u8>,
    ) -> Result<(), ReportError> {
        let data = match self.files {
            None => Some(BASE64.encode(bytes)),
            Some(_) => {
                self.send(format!("{name}.bin"), bytes)?;
                None
            }
        };
        let (from, step) = (scale.map(|[from, _]| from), scale.map(|[_, step]| step));
        self.all.push(ImageColumn { name, kind, from, step, data });
        Ok(())
    }

    /// Adds numbers of names; 0 is none.
    fn add_names(&mut self, name: &'static str, numbers: &[u32]) -> Result<(), ReportError> {
        let most = numbers.iter().copied().max().unwrap_or(0);
        let numbers = numbers.iter();
        let (kind, bytes) = if u8::try_from(most).is_ok() {
            ("u8", numbers.map(|number| *number as u8).collect())
        } else if u16::try_from(most).is_ok() {
            ("u16", numbers.flat_map(|number| (*number as u16).to_le_bytes()).collect())
        } else {
            ("u32", numbers.flat_map(|number| number.to_le_bytes()).collect())
        };
        self.add(name, kind, None, bytes)
    }

    fn send(&self, name: String, content: Vec<u8>) -> Result<(), ReportError> {
        let Some(files) = self.files else { return Ok(()) };
        // Who receives them has ended with an error, which its caller returns.
        let gone = |_| ReportError::from(io::Error::from(io::ErrorKind::BrokenPipe));
        files.blocking_send(ImageFile { name, content }).map_err(gone)
    }
}

/// The sketches of all images, zeros for those without one; none if no image has one.
fn read_sketches(table: &TableReader, places: Vec<u32>) -> Result<Option<Vec<u8>>, TableError> {
    let mut all = vec![0; places.len() * SKETCH_NUMBERS];
    let (mut row, mut has_any) = (0, false);
    for group in 0..table.groups() {
        for sketch in table.bytes(group, "sketch")? {
            if let Some(sketch) = sketch.filter(|sketch| sketch.data().len() == SKETCH_NUMBERS) {
                let at = places[row] as usize * SKETCH_NUMBERS;
                all[at..at + SKETCH_NUMBERS].copy_from_slice(sketch.data());
                has_any = true;
            }
            row += 1;
        }
    }
    Ok(has_any.then_some(all))
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("the data have only strings and numbers")
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use tokio::sync::mpsc;

    use super::*;
    use crate::predictions::{COLUMNS, ImageRow, LabelMeaning, RowFailure, RowPrediction};
    use crate::predictions::{SketchBytes, usual_measures};
    use crate::table::table_of;

    fn table() -> TableReader {
        let predicted = |label: &str, probability, number: u8| {
            let numbers = vec![number; SKETCH_NUMBERS];
            Some(RowPrediction {
                labels: vec![label.to_owned()],
                probabilities: vec![probability],
                sketch: Some(SketchBytes { scale: 1.0, numbers }),
                ..RowPrediction::default()
            })
        };
        let row = |key: &str| ImageRow { key: key.to_owned(), ..ImageRow::default() };
        let rows = [
            ImageRow {
                label: Some("kitty".to_owned()),
                meaning: LabelMeaning::Class(0, "cat".to_owned()),
                predicted: predicted("dog", 0.5, 3),
                measures: Some(usual_measures()),
                width: Some(70_000),
                ..row("b.jpg")
            },
            ImageRow { predicted: predicted("cat", 0.75, 7), ..row("c.jpg") },
            ImageRow {
                failure: Some(RowFailure {
                    class: "undecodable".to_owned(),
                    message: String::new(),
                    attempts: 1,
                }),
                ..row("a.jpg")
            },
        ];
        table_of(rows, COLUMNS)
    }

    /// The data, and the files by name.
    fn read(most_in_page: usize) -> (ImagesData, HashMap<String, Vec<u8>>) {
        let listed = ListedImages {
            findings: vec![
                ("c.jpg".to_owned(), Some("b.jpg".to_owned())),
                ("a.jpg".to_owned(), None),
            ],
            map: Some(ImageMap { points: vec![[1, 2], [3, 4], NOWHERE] }),
            originals: Some("file:///images".to_owned()),
            most_in_page,
        };
        let (sender, mut receiver) = mpsc::channel(100);
        let data = read_images(&table(), &listed, &Thumbnails::default(), &sender).unwrap();
        let mut files = HashMap::new();
        while let Ok(file) = receiver.try_recv() {
            files.insert(file.name, file.content);
        }
        (data, files)
    }

    fn column<'a>(data: &'a ImagesData, name: &str) -> &'a ImageColumn {
        data.columns.iter().find(|column| column.name == name).unwrap()
    }

    #[test]
    fn the_page_has_all_images_in_the_order_of_their_keys() {
        let (data, files) = read(3);
        assert!(files.is_empty());
        assert_eq!((data.images, data.mapped, data.in_files), (3, 2, false));
        assert_eq!(
            serde_json::to_string(&data.keys).unwrap(),
            r#"[[0,"a.jpg",0,"b.jpg",0,"c.jpg"]]"#
        );
        assert_eq!(data.names, ["kitty", "cat", "dog"]);
        let bytes = |name| BASE64.decode(column(&data, name).data.as_ref().unwrap()).unwrap();
        assert_eq!(bytes("label"), [0, 1, 0]);
        assert_eq!(bytes("label_class"), [0, 2, 0]);
        assert_eq!(bytes("predicted"), [0, 3, 2]);
        assert_eq!(bytes("failure"), [1, 0, 0]);
        assert_eq!(bytes("probability"), [255, 255, 0, 0, 254, 255]);
        let probability = column(&data, "probability");
        assert_eq!(probability.from, Some(0.5));
        assert!((probability.step.unwrap() * 65_534.0 - 0.25).abs() < 1e-6);
        assert_eq!(bytes("width"), [[255; 4], 70_000_u32.to_le_bytes(), [255; 4]].concat());
        assert_eq!(bytes("finding_images"), [[2, 0, 0, 0], [0; 4]].concat());
        assert_eq!(bytes("best_images"), [[1, 0, 0, 0], [255; 4]].concat());
        assert_eq!(bytes("map_y"), [255, 255, 2, 0, 4, 0]);
        let sketches = [[0; SKETCH_NUMBERS], [3; SKETCH_NUMBERS], [7; SKETCH_NUMBERS]].concat();
        assert_eq!(bytes("sketch"), sketches);
        // No image has the number, so that nothing is there to sort by.
        assert!(data.columns.iter().all(|column| column.name != "camera_year"));
    }

    #[test]
    fn data_of_more_images_are_in_files() {
        let (page, _) = read(3);
        let (data, files) = read(2);
        assert!(data.in_files && data.keys.is_empty());
        assert_eq!(data.first_keys, ["a.jpg"]);
        assert_eq!(files["keys-0.json"], br#"[0,"a.jpg",0,"b.jpg",0,"c.jpg"]"#);
        for column in &data.columns {
            assert_eq!(column.data, None);
            let in_page = page.columns.iter().find(|other| other.name == column.name).unwrap();
            let content = &files[&format!("{}.bin", column.name)];
            assert_eq!(Some(BASE64.encode(content)), in_page.data, "{}", column.name);
        }
        assert!(!files.contains_key("sketch.bin"));
    }
}
