//! COCO's JSON: images with annotations of the whole image, out and in.
//!
//! Format: <https://cocodataset.org/#format-data>. What is known of an image is in the object `camshaft` of its
//! annotation, or of the image if it has no label. A category that still is the given label says nothing.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Seek, SeekFrom, Write};

use serde::{Deserialize, Serialize};

use crate::answer::{Answer, DROP, Verdict};
use crate::error::{ReadError, WriteError};
use crate::image::{ExportFinding, ExportHead, ExportImage};

pub(crate) struct CocoWriter<W> {
    out: W,
    head: ExportHead,
    /// The annotations, which come after the images.
    annotations: BufWriter<File>,
    images: u64,
    annotated: u64,
}

#[derive(Serialize)]
struct Info<'a> {
    description: &'static str,
    version: &'static str,
    camshaft: InfoFacts<'a>,
}

#[derive(Serialize)]
struct InfoFacts<'a> {
    run: &'a str,
    model: &'a str,
    model_digest: &'a str,
}

#[derive(Serialize)]
struct NewCategory<'a> {
    id: usize,
    name: &'a str,
    supercategory: &'static str,
}

#[derive(Serialize)]
struct NewImage<'a> {
    id: u64,
    file_name: &'a str,
    coco_url: &'a str,
    width: u32,
    height: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    camshaft: Option<Facts<'a>>,
}

#[derive(Serialize)]
struct NewAnnotation<'a> {
    id: u64,
    image_id: u64,
    category_id: usize,
    bbox: [u32; 4],
    area: u64,
    iscrowd: u8,
    segmentation: [u32; 0],
    camshaft: Facts<'a>,
}

/// What is known of an image, and a place for a decision.
#[derive(Serialize)]
struct Facts<'a> {
    predicted: Option<&'a str>,
    probability: Option<f32>,
    suggested: Option<&'a str>,
    findings: &'a [ExportFinding],
    overlay: Option<&'a str>,
    given_overlay: Option<&'a str>,
    decided: Option<&'a str>,
    decision: Option<&'a str>,
}

impl<W: Write> CocoWriter<W> {
    pub(crate) fn new(head: ExportHead, mut out: W) -> Result<Self, WriteError> {
        let ExportHead { run, model, model_digest, .. } = &head;
        let info = Info {
            description: "Images of a Camshaft audit, with their given labels",
            version: "1.0",
            camshaft: InfoFacts { run, model, model_digest },
        };
        let drop = head.number_of(DROP).is_none().then_some(DROP);
        let names = head.labels.iter().map(String::as_str).chain(drop);
        let categories: Vec<_> = names
            .zip(1..)
            .map(|(name, id)| NewCategory { id, name, supercategory: "label" })
            .collect();
        out.write_all(b"{\"info\":")?;
        serde_json::to_writer(&mut out, &info)?;
        out.write_all(b",\n\"licenses\":[],\n\"categories\":")?;
        serde_json::to_writer(&mut out, &categories)?;
        out.write_all(b",\n\"images\":[")?;
        let annotations = BufWriter::new(tempfile::tempfile()?);
        Ok(Self { out, head, annotations, images: 0, annotated: 0 })
    }

    pub(crate) fn push(&mut self, image: &ExportImage) -> Result<(), WriteError> {
        let Some([width, height]) = image.size else { return Ok(()) };
        let facts = Facts {
            predicted: image.predicted.as_deref(),
            probability: image.probability,
            suggested: image.suggested.as_deref(),
            findings: &image.findings,
            overlay: image.overlay.as_deref(),
            given_overlay: image.given_overlay.as_deref(),
            decided: image.decided.as_deref(),
            decision: None,
        };
        let category = image.label.as_deref().and_then(|label| self.head.number_of(label));
        // COCO's tools count from 1.
        let id = image.number + 1;
        let (of_image, of_annotation) = match category {
            Some(number) => (None, Some((number + 1, facts))),
            None => (Some(facts), None),
        };
        let new = NewImage {
            id,
            file_name: &image.key,
            coco_url: &image.address,
            width,
            height,
            camshaft: of_image,
        };
        self.out.write_all(if self.images == 0 { b"\n" } else { b",\n" })?;
        serde_json::to_writer(&mut self.out, &new)?;
        self.images += 1;
        if let Some((category_id, camshaft)) = of_annotation {
            let new = NewAnnotation {
                id,
                image_id: id,
                category_id,
                bbox: [0, 0, width, height],
                area: u64::from(width) * u64::from(height),
                iscrowd: 0,
                segmentation: [],
                camshaft,
            };
            self.annotations.write_all(if self.annotated == 0 { b"\n" } else { b",\n" })?;
            serde_json::to_writer(&mut self.annotations, &new)?;
            self.annotated += 1;
        }
        Ok(())
    }

    pub(crate) fn finish(mut self) -> Result<(), WriteError> {
        self.out.write_all(b"\n],\n\"annotations\":[")?;
        let mut annotations = self.annotations.into_inner().map_err(|error| error.into_error())?;
        annotations.seek(SeekFrom::Start(0))?;
        std::io::copy(&mut BufReader::new(annotations), &mut self.out)?;
        self.out.write_all(b"\n]}\n")?;
        Ok(self.out.flush()?)
    }
}

#[derive(Deserialize)]
struct Dataset {
    images: Vec<Image>,
    #[serde(default)]
    annotations: Vec<Annotation>,
    #[serde(default)]
    categories: Vec<Category>,
}

#[derive(Deserialize)]
struct Image {
    id: Id,
    file_name: String,
    #[serde(default)]
    camshaft: Option<Decided>,
}

#[derive(Deserialize)]
struct Annotation {
    image_id: Id,
    #[serde(default)]
    category_id: Option<i64>,
    #[serde(default)]
    camshaft: Option<Decided>,
}

#[derive(Deserialize)]
struct Decided {
    #[serde(default)]
    decision: Option<String>,
}

#[derive(Deserialize)]
struct Category {
    id: i64,
    name: String,
}

/// Some programs have texts for numbers.
#[derive(Deserialize, PartialEq, Eq, Hash)]
#[serde(untagged)]
enum Id {
    Number(i64),
    Text(String),
}

/// Reads a whole file: its images may stand behind their annotations.
pub(crate) fn read(
    mut reader: impl BufRead,
    visit: &mut dyn FnMut(Answer),
) -> Result<(), ReadError> {
    crate::byte_order_mark::skip_bom(&mut reader)?;
    let dataset: Dataset = serde_json::from_reader(reader)
        .map_err(|source| ReadError::Json { format: "COCO", source })?;
    let Dataset { images, annotations, categories } = dataset;
    let mut names = HashMap::new();
    for Category { id, name } in categories {
        let item = format!("category {name:?}");
        if let Some(other) = names.insert(id, name) {
            let reason = format!("category {other:?} has the same id, {id}; give one another");
            return Err(ReadError::item(item, reason));
        }
    }
    let mut places: HashMap<Id, usize> = HashMap::new();
    let mut found = Vec::new();
    for image in images {
        let item = format!("image {:?}", image.file_name);
        let word = image.camshaft.and_then(|camshaft| camshaft.decision);
        if places.insert(image.id, found.len()).is_some() {
            return Err(ReadError::item(item, "another image has the same id"));
        }
        found.push((image.file_name, Vec::new(), word));
    }
    for (annotation, number) in annotations.into_iter().zip(1_u64..) {
        let item = || format!("annotation {number}");
        let Some(place) = places.get(&annotation.image_id) else {
            return Err(ReadError::item(item(), "there is no image with its image_id"));
        };
        let (_, labels, word) = &mut found[*place];
        if let Some(id) = annotation.category_id {
            let Some(name) = names.get(&id) else {
                return Err(ReadError::item(item(), format!("there is no category {id}")));
            };
            labels.push(name.clone());
        }
        *word = word.take().or(annotation.camshaft.and_then(|camshaft| camshaft.decision));
    }
    for (key, labels, word) in found {
        let item = format!("image {key:?}");
        let word = Verdict::of_word(word.as_deref().unwrap_or_default())
            .map_err(|reason| ReadError::item(&item, reason))?;
        if let Some(verdict) = word.or_else(|| Verdict::labels(labels, false)) {
            visit(Answer { key, verdict, by: None, at: None, item });
        }
    }
    Ok(())
}
