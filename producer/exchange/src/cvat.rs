//! CVAT's XML, "CVAT for images 1.1": images with tags, out and in; and the specification of its labels.
//!
//! Format: <https://docs.cvat.ai/docs/dataset_management/formats/format-cvat/>. CVAT matches images by name, which is
//! the key here. A tag that still is the given label says nothing: whoever leaves an image as it is leaves the
//! tag, too.

use std::io::{BufRead, Write};

use quick_xml::XmlVersion;
use quick_xml::events::{BytesDecl, BytesStart, BytesText, Event};
use quick_xml::{Reader, Writer as XmlWriter};
use serde::Serialize;

use crate::answer::{Answer, DROP, Verdict, time};
use crate::error::{ReadError, WriteError};
use crate::image::{ExportHead, ExportImage};
use crate::xml_text::{checked, cleaned};

/// The attribute of a tag that decides about the image.
const DECISION: &str = "decision";
const DECISIONS: [&str; 3] = ["none", "keep", DROP];
/// The attributes that tell what is known of the image.
const FACTS: [&str; 6] =
    ["predicted", "probability", "suggested", "findings", "reasons", "decided"];

pub(crate) struct CvatWriter<W: Write> {
    xml: XmlWriter<W>,
}

impl<W: Write> CvatWriter<W> {
    pub(crate) fn new(head: ExportHead, out: W) -> Result<Self, WriteError> {
        for label in &head.labels {
            checked(label)?;
        }
        let mut xml = XmlWriter::new_with_indent(out, b' ', 1);
        xml.write_event(Event::Decl(BytesDecl::new("1.0", Some("utf-8"), None)))?;
        xml.write_event(Event::Start(BytesStart::new("annotations")))?;
        text(&mut xml, "version", "1.1")?;
        let name = format!("camshaft {} {}", head.run, cleaned(&head.model_version()));
        xml.create_element("meta").write_inner_content(|xml| {
            xml.create_element("task").write_inner_content(|xml| {
                text(xml, "name", &name)?;
                xml.create_element("labels").write_inner_content(|xml| {
                    for specification in specifications(&head) {
                        write_label(xml, &specification)?;
                    }
                    Ok(())
                })?;
                Ok(())
            })?;
            Ok(())
        })?;
        Ok(Self { xml })
    }

    pub(crate) fn push(&mut self, image: &ExportImage) -> Result<(), WriteError> {
        let Some([width, height]) = image.size else { return Ok(()) };
        let name = checked(&image.key)?;
        let label = image.label.as_deref().map(checked).transpose()?;
        let (number, width, height) =
            (image.number.to_string(), width.to_string(), height.to_string());
        let place = [("id", &*number), ("name", name), ("width", &*width), ("height", &*height)];
        let element = self.xml.create_element("image").with_attributes(place);
        let Some(label) = label else {
            element.write_empty()?;
            return Ok(());
        };
        let facts = [
            image.predicted.clone().unwrap_or_default(),
            image.probability.map(|probability| probability.to_string()).unwrap_or_default(),
            image.suggested.clone().unwrap_or_default(),
            image.finding_names().join(", "),
            image.reasons().join(" "),
            image.decided.clone().unwrap_or_default(),
        ];
        element.write_inner_content(|xml| {
            let tag = [("label", label), ("source", "file")];
            xml.create_element("tag").with_attributes(tag).write_inner_content(|xml| {
                for (name, value) in FACTS.iter().zip(&facts) {
                    attribute(xml, name, &cleaned(value))?;
                }
                attribute(xml, DECISION, DECISIONS[0])
            })?;
            Ok(())
        })?;
        Ok(())
    }

    pub(crate) fn finish(mut self) -> Result<(), WriteError> {
        self.xml.write_event(Event::End(BytesStart::new("annotations").to_end()))?;
        let mut out = self.xml.into_inner();
        out.write_all(b"\n")?;
        Ok(out.flush()?)
    }
}

fn text<W: Write>(xml: &mut XmlWriter<W>, name: &str, text: &str) -> std::io::Result<()> {
    xml.create_element(name).write_text_content(BytesText::new(text)).map(drop)
}

fn attribute<W: Write>(xml: &mut XmlWriter<W>, name: &str, value: &str) -> std::io::Result<()> {
    let element = xml.create_element("attribute").with_attribute(("name", name));
    element.write_text_content(BytesText::new(value)).map(drop)
}

/// A label as CVAT's constructor of labels takes it ("Raw").
#[derive(Serialize)]
struct LabelSpecification<'a> {
    name: &'a str,
    r#type: &'static str,
    attributes: Vec<AttributeSpecification>,
}

#[derive(Serialize)]
struct AttributeSpecification {
    name: &'static str,
    mutable: bool,
    input_type: &'static str,
    default_value: &'static str,
    values: Vec<&'static str>,
}

/// All labels, and the one that leaves an image out.
fn specifications(head: &ExportHead) -> impl Iterator<Item = LabelSpecification<'_>> {
    let drop = head.number_of(DROP).is_none().then_some(DROP);
    let labels = head.labels.iter().map(String::as_str);
    labels.map(|label| (label, true)).chain(drop.map(|label| (label, false))).map(
        |(name, has_attributes)| {
            let attributes = if has_attributes { attributes() } else { Vec::new() };
            LabelSpecification { name, r#type: "tag", attributes }
        },
    )
}

fn attributes() -> Vec<AttributeSpecification> {
    let fact = |name| AttributeSpecification {
        name,
        mutable: false,
        input_type: "text",
        default_value: "",
        values: vec![""],
    };
    let decision = AttributeSpecification {
        name: DECISION,
        mutable: false,
        input_type: "select",
        default_value: DECISIONS[0],
        values: DECISIONS.to_vec(),
    };
    FACTS.into_iter().map(fact).chain([decision]).collect()
}

fn write_label<W: Write>(
    xml: &mut XmlWriter<W>,
    label: &LabelSpecification<'_>,
) -> std::io::Result<()> {
    xml.create_element("label").write_inner_content(|xml| {
        text(xml, "name", label.name)?;
        text(xml, "type", label.r#type)?;
        xml.create_element("attributes").write_inner_content(|xml| {
            for attribute in &label.attributes {
                xml.create_element("attribute").write_inner_content(|xml| {
                    text(xml, "name", attribute.name)?;
                    text(xml, "mutable", if attribute.mutable { "True" } else { "False" })?;
                    text(xml, "input_type", attribute.input_type)?;
                    text(xml, "default_value", attribute.default_value)?;
                    text(xml, "values", &attribute.values.join("\n"))
                })?;
            }
            Ok(())
        })?;
        Ok(())
    })?;
    Ok(())
}

/// The labels for CVAT's constructor of labels: a task needs them before it takes annotations.
pub(crate) fn label_specification(head: &ExportHead) -> Result<String, WriteError> {
    let labels: Vec<_> = specifications(head).collect();
    let mut json = serde_json::to_string_pretty(&labels)?;
    json.push('\n');
    Ok(json)
}

/// What was read so far of the image that is being read.
#[derive(Default)]
struct OpenImage {
    name: String,
    labels: Vec<String>,
    word: String,
}

/// Reads an export, one image at a time.
pub(crate) fn read(reader: impl BufRead, visit: &mut dyn FnMut(Answer)) -> Result<(), ReadError> {
    let mut xml = Reader::from_reader(reader);
    xml.config_mut().expand_empty_elements = true;
    let mut reading = Reading::default();
    let mut buffer = Vec::new();
    loop {
        buffer.clear();
        let event = xml.read_event_into(&mut buffer).map_err(|error| match error {
            quick_xml::Error::Io(error) => {
                ReadError::Io(std::io::Error::new(error.kind(), error.to_string()))
            }
            error => broken(xml.error_position(), error.to_string()),
        })?;
        let place = xml.buffer_position();
        match event {
            Event::Start(start) => reading.start(&start, place)?,
            Event::End(_) => {
                if let Some(answer) = reading.end()? {
                    visit(answer);
                }
            }
            Event::Text(text) => {
                let text = text.decode().map_err(|error| broken(place, error.to_string()))?;
                reading.text.push_str(&text);
            }
            Event::CData(text) => {
                let text = text.decode().map_err(|error| broken(place, error.to_string()))?;
                reading.text.push_str(&text);
            }
            Event::GeneralRef(reference) => {
                let failed = |error: quick_xml::Error| broken(place, error.to_string());
                if let Some(character) = reference.resolve_char_ref().map_err(failed)? {
                    reading.text.push(character);
                } else {
                    let name = reference.decode().map_err(|e| broken(place, e.to_string()))?;
                    let known = quick_xml::escape::resolve_predefined_entity(&name);
                    let unknown = || broken(place, format!("the entity &{name}; is unknown"));
                    reading.text.push_str(known.ok_or_else(unknown)?);
                }
            }
            Event::Eof if reading.path.is_empty() && reading.is_ours => return Ok(()),
            Event::Eof => return Err(broken(place, "it ends too early".to_owned())),
            _ => {}
        }
    }
}

fn broken(byte: u64, reason: String) -> ReadError {
    ReadError::Xml { byte, reason }
}

/// What is known after a part of the file.
#[derive(Default)]
struct Reading {
    /// The names of the elements that are open.
    path: Vec<Vec<u8>>,
    /// Whether the file is CVAT's.
    is_ours: bool,
    /// The text since the last start or end.
    text: String,
    /// The name of the attribute that is open.
    attribute: String,
    image: Option<OpenImage>,
    by: Option<String>,
    at: Option<chrono::DateTime<chrono::Utc>>,
}

impl Reading {
    fn start(&mut self, start: &BytesStart<'_>, place: u64) -> Result<(), ReadError> {
        let name = start.name().as_ref().to_vec();
        if self.path.is_empty() && name != b"annotations" {
            let reason =
                "it begins with another element than annotations; export \"CVAT for images 1.1\"";
            return Err(broken(place, reason.to_owned()));
        }
        self.is_ours = true;
        self.text.clear();
        let read = |name: &str| -> Result<Option<String>, ReadError> {
            let failed = |error: String| broken(place, error);
            let attribute = start.try_get_attribute(name).map_err(|e| failed(e.to_string()))?;
            let value = attribute.map(|attribute| {
                attribute.decoded_and_normalized_value(XmlVersion::Implicit1_0, start.decoder())
            });
            Ok(value.transpose().map_err(|e| failed(e.to_string()))?.map(|text| text.into_owned()))
        };
        let depth = self.path.len();
        match (depth, &*name) {
            (1, b"image") => {
                let name = read("name")?;
                let name = name.ok_or_else(|| broken(place, "an image has no name".to_owned()))?;
                self.image = Some(OpenImage { name, ..OpenImage::default() });
            }
            (2, b"tag") => {
                if let Some(image) = &mut self.image {
                    image.labels.extend(read("label")?);
                }
            }
            (3, b"attribute") => self.attribute = read("name")?.unwrap_or_default(),
            _ => {}
        }
        self.path.push(name);
        Ok(())
    }

    fn end(&mut self) -> Result<Option<Answer>, ReadError> {
        let text = std::mem::take(&mut self.text);
        let path: Vec<&[u8]> = self.path.iter().map(Vec::as_slice).collect();
        let mut answer = None;
        match &*path {
            [_, b"image"] => {
                if let Some(image) = self.image.take() {
                    answer = self.answer(image)?;
                }
            }
            [_, b"image", b"tag", b"attribute"] if self.attribute == DECISION => {
                if let Some(image) = &mut self.image
                    && text != DECISIONS[0]
                {
                    image.word = text;
                }
            }
            [_, b"meta", .., b"assignee", b"username"] if !text.trim().is_empty() => {
                self.by = Some(text.trim().to_owned());
            }
            [_, b"meta", b"dumped"] => self.at = time(&text),
            _ => {}
        }
        self.path.pop();
        Ok(answer)
    }

    fn answer(&self, image: OpenImage) -> Result<Option<Answer>, ReadError> {
        let OpenImage { name, labels, word } = image;
        let item = format!("image {name:?}");
        let word = Verdict::of_word(&word).map_err(|reason| ReadError::item(&item, reason))?;
        let verdict = word.or_else(|| Verdict::labels(labels, false));
        let (by, at) = (self.by.clone(), self.at);
        Ok(verdict.map(|verdict| Answer { key: name, verdict, by, at, item }))
    }
}
