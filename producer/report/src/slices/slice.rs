//! What a slice is: the row of `slices.parquet` that it becomes. The searches make them.

use serde::Serialize;

use crate::predictions::ImageExample;
use crate::table::{Cell, Column, columns};

/// Which question a slice answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Question {
    /// Where is the model wrong more often?
    Accuracy,
    /// Which property gives the label away?
    Nuisance,
}

impl Question {
    fn name(self) -> &'static str {
        match self {
            Self::Accuracy => "accuracy",
            Self::Nuisance => "nuisance",
        }
    }
}

/// Images that share a property.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Slice {
    pub(crate) question: Question,
    /// The label of its images; none if it has images of any label.
    pub(crate) class: Option<String>,
    /// The property, such as `brightness` or `camera make`.
    pub(crate) feature: String,
    /// The least value of a property that is a number; none if there is no least one.
    pub(crate) from: Option<f32>,
    /// The number that all values are below; none if there is none.
    pub(crate) to: Option<f32>,
    /// The value of a property that is a name.
    pub(crate) value: Option<String>,
    /// The number of images.
    pub(crate) images: u64,
    /// The images whose most probable class is not their label's.
    pub(crate) wrong: Option<u64>,
    /// Share of its images that are right.
    pub(crate) accuracy: Option<f32>,
    /// The lower end of Wilson's 95 % interval of the accuracy.
    pub(crate) accuracy_low: Option<f32>,
    /// The upper end.
    pub(crate) accuracy_high: Option<f32>,
    /// The accuracy of all other images, with as many images of each class as the slice has.
    pub(crate) rest_accuracy: Option<f32>,
    /// How much lower the accuracy is; of a nuisance, the chance that an image with the label has
    /// more of the property than one without, where a tie counts half.
    pub(crate) effect: f32,
    /// Of a nuisance, the share of the labels' entropy that the property tells.
    pub(crate) information: Option<f32>,
    /// The false discovery rate at which it counts as a discovery.
    pub(crate) q: f64,
    /// Why it is listed, in a sentence.
    pub(crate) reason: String,
    /// The rows of its examples.
    #[serde(skip)]
    pub(crate) example_rows: Vec<u32>,
    /// Its examples.
    #[serde(skip)]
    pub(crate) examples: Vec<ImageExample>,
    /// The keys of its examples.
    #[serde(skip)]
    pub(crate) example_keys: Vec<String>,
}

/// The columns of `slices.parquet`. `docs/report.md` describes them.
pub(crate) const COLUMNS: &[Column<Slice>] = columns! {
    "question" Text |slice| Cell::Text(Some(slice.question.name()));
    "class" Text |slice| Cell::Text(slice.class.as_deref());
    "feature" Text |slice| Cell::Text(Some(&slice.feature));
    "from" Float |slice| Cell::Float(slice.from);
    "to" Float |slice| Cell::Float(slice.to);
    "value" Text |slice| Cell::Text(slice.value.as_deref());
    "images" Integer |slice| Cell::Integer(slice.images.try_into().ok());
    "wrong" Integer |slice| Cell::Integer(slice.wrong.and_then(|n| n.try_into().ok()));
    "accuracy" Float |slice| Cell::Float(slice.accuracy);
    "accuracy_low" Float |slice| Cell::Float(slice.accuracy_low);
    "accuracy_high" Float |slice| Cell::Float(slice.accuracy_high);
    "rest_accuracy" Float |slice| Cell::Float(slice.rest_accuracy);
    "effect" Float |slice| Cell::Float(Some(slice.effect));
    "information" Float |slice| Cell::Float(slice.information);
    "q" Float |slice| Cell::Float(Some(slice.q as f32));
    "reason" Text |slice| Cell::Text(Some(&slice.reason));
    "examples" TextList |slice| Cell::TextList(Some(&slice.example_keys));
};
