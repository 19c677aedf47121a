//! Label Studio's JSON: tasks with predictions out, annotated tasks in; and the labelling configuration.
//!
//! Format: <https://labelstud.io/guide/tasks> and <https://labelstud.io/guide/export>. `JSON` and `JSON-MIN` are
//! read, one task at a time. A task without an annotation says nothing.

use std::fmt;
use std::io::{BufRead, Write};

use chrono::{DateTime, Utc};
use quick_xml::Writer as XmlWriter;
use quick_xml::events::{BytesText, Event};
use serde::de::{DeserializeSeed, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::answer::{Answer, DROP, Verdict, time};
use crate::error::{ReadError, WriteError};
use crate::image::{ExportHead, ExportImage};
use crate::xml_text::{checked, cleaned};

/// The name of the Choices control. Tasks' data have no field of this name: `JSON-MIN` puts both side by side.
const CONTROL: &str = "new_label";
/// The name of the image in the configuration.
const IMAGE: &str = "image";
const FORMAT: &str = "Label Studio";
const NO_TASK: &str =
    "it is no task of Label Studio; a file that is a list must be its export, JSON or JSON-MIN";

pub(crate) struct LabelStudioWriter<W> {
    out: W,
    head: ExportHead,
    is_first: bool,
}

/// A task that is not annotated yet.
#[derive(Serialize)]
struct NewTask<'a> {
    data: NewData<'a>,
    predictions: Vec<Prediction<'a>>,
}

#[derive(Serialize)]
struct NewData<'a> {
    image: &'a str,
    camshaft_key: &'a str,
    given_label: Option<&'a str>,
    predicted: Option<&'a str>,
    probability: Option<f32>,
    suggested: Option<&'a str>,
    decided: Option<&'a str>,
    findings: Vec<String>,
    reasons: Vec<&'a str>,
    summary: String,
    #[serde(flatten)]
    overlay: Option<Overlay<'a>>,
    #[serde(flatten)]
    given_overlay: Option<GivenOverlay<'a>>,
}

#[derive(Serialize)]
struct Overlay<'a> {
    overlay: &'a str,
    overlay_title: String,
}

#[derive(Serialize)]
struct GivenOverlay<'a> {
    given_overlay: &'a str,
    given_overlay_title: String,
}

#[derive(Serialize)]
struct Prediction<'a> {
    model_version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    score: Option<f32>,
    result: [NewResult<'a>; 1],
}

#[derive(Serialize)]
struct NewResult<'a> {
    from_name: &'static str,
    to_name: &'static str,
    r#type: &'static str,
    value: NewChoices<'a>,
}

#[derive(Serialize)]
struct NewChoices<'a> {
    choices: [&'a str; 1],
}

impl<W: Write> LabelStudioWriter<W> {
    pub(crate) fn new(head: ExportHead, mut out: W) -> Result<Self, WriteError> {
        out.write_all(b"[")?;
        Ok(Self { out, head, is_first: true })
    }

    pub(crate) fn push(&mut self, image: &ExportImage) -> Result<(), WriteError> {
        self.out.write_all(if self.is_first { b"\n" } else { b",\n" })?;
        self.is_first = false;
        let predicted = image
            .predicted
            .as_deref()
            .map(|class| prediction(self.head.model_version(), image.probability, class));
        let suggested = image.suggested.as_deref().map(|label| {
            prediction("suggested label".to_owned(), image.suggested_probability, label)
        });
        let task = NewTask {
            data: self.data(image),
            predictions: predicted.into_iter().chain(suggested).collect(),
        };
        Ok(serde_json::to_writer(&mut self.out, &task)?)
    }

    fn data<'a>(&self, image: &'a ExportImage) -> NewData<'a> {
        // The configuration asks for these of every task, so a task without one shows the image.
        let overlay = self.head.has_overlays.then(|| Overlay {
            overlay: image.overlay.as_deref().unwrap_or(&image.address),
            overlay_title: match (&image.overlay, &image.overlay_class) {
                (Some(_), Some(class)) => format!("Map of {class}"),
                (Some(_), None) => "Map".to_owned(),
                (None, _) => "No map".to_owned(),
            },
        });
        let given_overlay = self.head.has_given_overlays.then(|| GivenOverlay {
            given_overlay: image.given_overlay.as_deref().unwrap_or(&image.address),
            given_overlay_title: match (&image.given_overlay, &image.label) {
                (Some(_), Some(label)) => format!("Map of {label}, the given label"),
                (Some(_), None) | (None, _) => "No map of the given label".to_owned(),
            },
        });
        NewData {
            image: &image.address,
            camshaft_key: &image.key,
            given_label: image.label.as_deref(),
            predicted: image.predicted.as_deref(),
            probability: image.probability,
            suggested: image.suggested.as_deref(),
            decided: image.decided.as_deref(),
            findings: image.finding_names(),
            reasons: image.reasons(),
            summary: image.summary(),
            overlay,
            given_overlay,
        }
    }

    pub(crate) fn finish(mut self) -> Result<(), WriteError> {
        self.out.write_all(b"\n]\n")?;
        Ok(self.out.flush()?)
    }
}

fn prediction(model_version: String, score: Option<f32>, label: &str) -> Prediction<'_> {
    let value = NewChoices { choices: [label] };
    let result = NewResult { from_name: CONTROL, to_name: IMAGE, r#type: "choices", value };
    Prediction { model_version, score, result: [result] }
}

/// The labelling configuration: the image with its maps, and a choice of all labels.
pub(crate) fn labelling_config(head: &ExportHead) -> Result<String, WriteError> {
    for label in &head.labels {
        checked(label)?;
    }
    let mut xml = XmlWriter::new_with_indent(Vec::new(), b' ', 2);
    let about = format!(
        " Run {}, model {}. The choice \"{DROP}\" leaves an image out. ",
        head.run,
        cleaned(&head.model_version()).replace("--", "-")
    );
    xml.create_element("View").write_inner_content(|xml| {
        xml.write_event(Event::Comment(BytesText::from_escaped(about)))?;
        header(xml, "$summary")?;
        xml.create_element("View")
            .with_attribute(("style", "display: flex; gap: 8px"))
            .write_inner_content(|xml| {
                picture(xml, IMAGE, "Image")?;
                if head.has_overlays {
                    picture(xml, "overlay", "$overlay_title")?;
                }
                if head.has_given_overlays {
                    picture(xml, "given_overlay", "$given_overlay_title")?;
                }
                Ok(())
            })?;
        let choices =
            [("name", CONTROL), ("toName", IMAGE), ("choice", "single"), ("showInLine", "true")];
        xml.create_element("Choices").with_attributes(choices).write_inner_content(|xml| {
            for label in &head.labels {
                xml.create_element("Choice")
                    .with_attribute(("value", label.as_str()))
                    .write_empty()?;
            }
            // Its value must be there once.
            if head.number_of(DROP).is_none() {
                let drop = [("value", DROP), ("hint", "Leave the image out")];
                xml.create_element("Choice").with_attributes(drop).write_empty()?;
            }
            Ok(())
        })?;
        Ok(())
    })?;
    let mut text = String::from_utf8_lossy(&xml.into_inner()).into_owned();
    text.push('\n');
    Ok(text)
}

fn header(xml: &mut XmlWriter<Vec<u8>>, value: &str) -> std::io::Result<()> {
    let attributes = [("value", value), ("size", "5")];
    xml.create_element("Header").with_attributes(attributes).write_empty().map(drop)
}

fn picture(xml: &mut XmlWriter<Vec<u8>>, name: &str, title: &str) -> std::io::Result<()> {
    let column = xml.create_element("View").with_attribute(("style", "flex: 1"));
    let written = column.write_inner_content(|xml| {
        header(xml, title)?;
        let address = format!("${name}");
        let image = [("name", name), ("value", address.as_str()), ("zoom", "true")];
        xml.create_element("Image").with_attributes(image).write_empty().map(drop)
    });
    written.map(drop)
}

/// A task of an export, `JSON` or `JSON-MIN`.
#[derive(Deserialize)]
struct Task {
    #[serde(default)]
    data: Option<Data>,
    #[serde(default)]
    annotations: Option<Vec<Annotation>>,
    /// `JSON-MIN` has the data and one annotation here.
    #[serde(default)]
    camshaft_key: Option<String>,
    #[serde(default)]
    annotation_id: Option<IgnoredAny>,
    #[serde(default)]
    new_label: Option<Choices>,
    #[serde(default)]
    annotator: Option<Annotator>,
    #[serde(default)]
    created_at: Option<String>,
    #[serde(default)]
    updated_at: Option<String>,
    /// A decision has this, which is no task.
    #[serde(default)]
    decision: Option<IgnoredAny>,
}

impl Task {
    fn is_task(&self) -> bool {
        let is_short = self.camshaft_key.is_some()
            || self.annotation_id.is_some()
            || self.new_label.is_some()
            || self.annotator.is_some();
        self.data.is_some() || is_short
    }
}

#[derive(Deserialize)]
struct Data {
    #[serde(default)]
    camshaft_key: Option<String>,
}

#[derive(Deserialize)]
struct Annotation {
    #[serde(default)]
    completed_by: Option<Annotator>,
    #[serde(default)]
    result: Option<Vec<ResultItem>>,
    #[serde(default)]
    was_cancelled: Option<bool>,
    #[serde(default)]
    created_at: Option<String>,
    #[serde(default)]
    updated_at: Option<String>,
}

#[derive(Deserialize)]
struct ResultItem {
    #[serde(default)]
    from_name: Option<String>,
    #[serde(default)]
    value: Option<ResultValue>,
}

#[derive(Deserialize)]
struct ResultValue {
    #[serde(default)]
    choices: Option<Vec<String>>,
}

/// What `JSON-MIN` has in place of results: a text for one choice.
#[derive(Deserialize)]
#[serde(untagged)]
enum Choices {
    One(String),
    Several { choices: Vec<String> },
    Listed(Vec<String>),
}

/// Who annotated: a number, or a user.
#[derive(Deserialize)]
#[serde(untagged)]
enum Annotator {
    Number(u64),
    Name(String),
    User {
        #[serde(default)]
        email: Option<String>,
        #[serde(default)]
        username: Option<String>,
        #[serde(default)]
        id: Option<serde_json::Value>,
    },
    /// What another version may have.
    Other(IgnoredAny),
}

impl Annotator {
    fn name(self) -> Option<String> {
        let numbered = |number: String| format!("label-studio user {number}");
        match self {
            Self::Number(number) => Some(numbered(number.to_string())),
            Self::Name(name) => Some(name),
            Self::User { email, username, id } => {
                let named = |name: &String| !name.is_empty();
                email
                    .filter(named)
                    .or(username.filter(named))
                    .or(id.map(|id| numbered(id.to_string())))
            }
            Self::Other(_) => None,
        }
    }
}

/// Reads an export, one task at a time.
pub(crate) fn read(
    mut reader: impl BufRead,
    visit: &mut dyn FnMut(Answer),
) -> Result<(), ReadError> {
    crate::byte_order_mark::skip_bom(&mut reader)?;
    let json = |source| ReadError::Json { format: FORMAT, source };
    let mut tasks = Tasks { visit, number: 0, problem: None, other_control: None, has_ours: false };
    let mut input = serde_json::Deserializer::from_reader(reader);
    let read = (&mut tasks).deserialize(&mut input).and_then(|()| input.end());
    let Tasks { number, problem, other_control, has_ours, .. } = tasks;
    if let Some(problem) = problem {
        return Err(problem);
    }
    read.map_err(|source| match source.is_data() && number > 0 {
        true => ReadError::item(format!("item {number}"), format!("{NO_TASK}: {source}")),
        false => json(source),
    })?;
    match other_control {
        Some(name) if !has_ours => Err(ReadError::item(
            format!("its choices are named {name:?}"),
            format!(
                "name the Choices control {CONTROL:?}, as in the configuration that camshaft export writes"
            ),
        )),
        _ => Ok(()),
    }
}

/// Takes the tasks of the array.
struct Tasks<'a> {
    visit: &'a mut dyn FnMut(Answer),
    /// The number of the one that is being read, from 1.
    number: u64,
    /// A task that can't be taken.
    problem: Option<ReadError>,
    /// The name of a control with choices that is not ours.
    other_control: Option<String>,
    has_ours: bool,
}

impl<'de> DeserializeSeed<'de> for &mut Tasks<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for &mut Tasks<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of tasks")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut tasks: A) -> Result<(), A::Error> {
        loop {
            self.number += 1;
            let Some(task) = tasks.next_element::<Task>()? else { return Ok(()) };
            if let Err(problem) = self.take(task) {
                self.problem = Some(problem);
                return Err(serde::de::Error::custom("a task can't be taken"));
            }
        }
    }
}

impl Tasks<'_> {
    fn take(&mut self, task: Task) -> Result<(), ReadError> {
        let number = self.number;
        if !task.is_task() {
            let reason = match task.decision {
                Some(_) => "it is a decision; a file of decisions has one a line, and no list",
                None => NO_TASK,
            };
            return Err(ReadError::item(format!("item {number}"), reason));
        }
        let item = format!("task {number}");
        let Task { data, annotations, camshaft_key, new_label, annotator, .. } = task;
        let (created_at, updated_at) = (task.created_at, task.updated_at);
        let key = data.and_then(|data| data.camshaft_key).or(camshaft_key);
        let of_task = new_label.map(|choices| {
            self.has_ours = true;
            let choices = match choices {
                Choices::One(choice) => vec![choice],
                Choices::Several { choices } | Choices::Listed(choices) => choices,
            };
            (choices, annotator, updated_at.or(created_at))
        });
        let of_annotations = annotations.unwrap_or_default().into_iter().filter_map(|annotation| {
            let Annotation { completed_by, result, was_cancelled, created_at, updated_at } =
                annotation;
            if was_cancelled == Some(true) {
                return None;
            }
            let choices = self.choices(result.unwrap_or_default())?;
            Some((choices, completed_by, updated_at.or(created_at)))
        });
        let all: Vec<_> = of_annotations.chain(of_task).collect();
        let mut answers: Vec<(Verdict, Option<Annotator>, Option<DateTime<Utc>>)> = Vec::new();
        for (choices, by, at) in all {
            let Some(verdict) = Verdict::labels(choices, true) else { continue };
            let at =
                match at {
                    Some(text) => Some(time(&text).ok_or_else(|| {
                        ReadError::item(&item, format!("its time {text:?} is none"))
                    })?),
                    None => None,
                };
            answers.push((verdict, by, at));
        }
        if answers.is_empty() {
            return Ok(());
        }
        // Of several annotations the last one counts, as of several decisions. Whoever takes the answers
        // compares those whose times don't tell which it is.
        let last = answers.iter().filter_map(|(_, _, at)| *at).max();
        answers.retain(|(_, _, at)| at.is_none() || *at == last);
        let key = key.filter(|key| !key.is_empty()).ok_or_else(|| {
            ReadError::item(
                &item,
                "its data have no camshaft_key; label tasks that camshaft export wrote",
            )
        })?;
        for (verdict, by, at) in answers {
            let (key, by, item) = (key.clone(), by.and_then(Annotator::name), item.clone());
            (self.visit)(Answer { key, verdict, by, at, item });
        }
        Ok(())
    }

    /// The choices of our control; `None` if nothing was chosen there.
    fn choices(&mut self, results: Vec<ResultItem>) -> Option<Vec<String>> {
        let mut ours = None;
        for ResultItem { from_name, value } in results {
            let Some(choices) = value.and_then(|value| value.choices) else { continue };
            match from_name.as_deref() {
                Some(CONTROL) => {
                    self.has_ours = true;
                    ours.get_or_insert_with(Vec::new).extend(choices);
                }
                _ => self.other_control = from_name,
            }
        }
        ours
    }
}
