//! What a finding is: its kind, its problem, and the row of `findings.parquet` that it becomes.
//!
//! Describes findings only. The searches make them, `name_images` ranks them.

use camshaft_common::shortcuts::ProofVerdict;
use chrono::{DateTime, Utc};
use serde::Serialize;

use super::class_maps::ClassMaps;
use crate::table::{Cell, Column, columns};

/// Defines an enum with a fixed word for each variant. Tables, the page and `--json` use the words.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident => $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub(crate) enum $name { $($(#[$variant_doc])* $variant,)+ }

        impl $name {
            /// Every variant.
            pub(crate) const ALL: &[Self] = &[$(Self::$variant),+];

            /// The variant's word.
            pub(crate) fn name(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.name())
            }
        }
    };
}

words! {
    /// The kind of a finding.
    FindingKind {
        /// The given label is probably wrong.
        LabelError => "label-error",
        /// Another image shows the same picture.
        Duplicate => "duplicate",
        /// The picture is of poor quality, or of an odd shape.
        ImageProblem => "image-problem",
        /// No other image looks like it.
        Outlier => "outlier",
        /// The model looks at an odd place.
        Attention => "attention",
        /// A group of images that the model may be sure of for the wrong reason.
        Shortcut => "shortcut",
        /// The image could not be predicted.
        Failure => "failure",
        /// The model is sure of another class than the label's, and nothing else was found.
        Wrong => "wrong",
    }
}

words! {
    /// What exactly is wrong, for the kinds that tell several problems apart.
    Problem {
        /// The same file twice.
        Exact => "exact",
        /// Nearly the same picture twice.
        Near => "near",
        /// The same picture in two splits.
        Leak => "leak",
        /// The same picture with two labels.
        Conflict => "conflict",
        /// Too little light.
        Dark => "dark",
        /// Nearly white everywhere.
        Bright => "bright",
        /// Out of focus or shaken.
        Blurred => "blurred",
        /// Nearly one shade.
        LowInformation => "low-information",
        /// Much larger or smaller than the others.
        OddSize => "odd-size",
        /// Much wider or higher than the others.
        OddAspect => "odd-aspect",
        /// Without colour, among pictures in colour.
        Grey => "grey",
        /// The attention lies on the border.
        Border => "border",
        /// The attention lies in one corner.
        Corner => "corner",
        /// The map is the same everywhere.
        Flat => "flat",
        /// The map is zero: nothing in the image speaks for the class.
        Nothing => "nothing",
        /// The map is far from the usual one of its class.
        Unusual => "unusual",
        /// Hardly any contrast, and neither dark nor bright.
        WashedOut => "washed-out",
        /// Bars on two opposite sides.
        Letterbox => "letterbox",
        /// The blocks of a strongly compressed JPEG can be seen.
        Compression => "compression",
    }
}

/// The words of all kinds and problems, by which rules of decisions name findings.
pub fn finding_words() -> impl Iterator<Item = &'static str> {
    let kinds = FindingKind::ALL.iter().map(|kind| kind.name());
    kinds.chain(Problem::ALL.iter().map(|problem| problem.name()))
}

/// A finding of a search, which knows images by their row.
#[derive(Clone, Debug)]
pub(super) struct RowFinding {
    pub(super) row: u32,
    /// The row of the image that this one is a duplicate of.
    pub(super) other: Option<u32>,
    pub(super) kind: FindingKind,
    pub(super) problem: Option<Problem>,
    /// Urgency, 0 to 1.
    pub(super) score: f32,
    /// Why it is a finding, in a sentence.
    pub(super) reason: String,
    /// The label that the image should probably have.
    pub(super) suggested: Option<String>,
    /// The id of the cluster that the finding is about.
    pub(super) cluster: Option<u32>,
    /// What two opinions say of a label.
    pub(super) opinions: LabelOpinions,
    /// What came out when the finding was measured on images.
    pub(super) verdict: Option<ProofVerdict>,
    /// The class of the failure that the finding is about.
    pub(super) failure: Option<String>,
    /// The group of duplicates that the image belongs to; `other` is its best one.
    pub(super) group: Option<DuplicateGroup>,
}

/// What the two opinions say of a suspected label.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct LabelOpinions {
    /// The held-out head's probability of the suggested label.
    pub(crate) held_out: Option<f32>,
    /// The held-out head's probability of the given label.
    pub(crate) held_out_label: Option<f32>,
    /// The model's probability of the given label.
    pub(crate) model_label: Option<f32>,
    /// Whether the suggested label is the model's most probable class.
    pub(crate) model_agrees: Option<bool>,
}

/// Images that show the same picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct DuplicateGroup {
    /// Counted from 1.
    pub(crate) id: u32,
    /// Its images, the best one included.
    pub(crate) images: u32,
}

impl RowFinding {
    /// A finding without a particular problem.
    pub(super) fn new(row: usize, kind: FindingKind, score: f32, reason: String) -> Self {
        let row = u32::try_from(row).expect("a table has fewer than four billion rows");
        let (other, problem, suggested) = (None, None, None);
        let (cluster, verdict, failure) = (None, None, None);
        let opinions = LabelOpinions::default();
        Self {
            row,
            other,
            kind,
            problem,
            score,
            reason,
            suggested,
            cluster,
            opinions,
            verdict,
            failure,
            group: None,
        }
    }

    /// A finding of this problem. Scores are clamped to 0 to 1.
    pub(super) fn of_problem(row: usize, problem: Problem, score: f32, reason: String) -> Self {
        let kind = problem.kind();
        Self { problem: Some(problem), ..Self::new(row, kind, score.clamp(0.0, 1.0), reason) }
    }
}

impl Problem {
    /// The kind of finding that the problem belongs to.
    fn kind(self) -> FindingKind {
        match self {
            Self::Exact | Self::Near | Self::Leak | Self::Conflict => FindingKind::Duplicate,
            Self::Border | Self::Corner | Self::Flat | Self::Nothing | Self::Unusual => {
                FindingKind::Attention
            }
            Self::Dark
            | Self::Bright
            | Self::Blurred
            | Self::LowInformation
            | Self::OddSize
            | Self::OddAspect
            | Self::Grey
            | Self::WashedOut
            | Self::Letterbox
            | Self::Compression => FindingKind::ImageProblem,
        }
    }
}

/// A finding with the names of its images: a row of `findings.parquet`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Finding {
    /// 1 is the most urgent.
    pub(crate) rank: u64,
    /// The kind of the finding.
    pub(crate) kind: FindingKind,
    /// What exactly is wrong.
    pub(crate) problem: Option<Problem>,
    /// Urgency, 0 to 1.
    pub(crate) score: f32,
    /// The key of the image.
    pub(crate) key: String,
    /// The key of the image that it is a duplicate of.
    pub(crate) other: Option<String>,
    /// The given label of the image.
    pub(crate) label: Option<String>,
    /// The name of the class that the label means.
    pub(crate) label_class: Option<String>,
    /// The label that the image should probably have.
    pub(crate) suggested: Option<String>,
    /// The most probable class of the image.
    pub(crate) predicted: Option<String>,
    /// The probability of that class.
    pub(crate) probability: Option<f32>,
    /// Why it is a finding, in a sentence.
    pub(crate) reason: String,
    /// The id of the cluster that the finding is about.
    pub(crate) cluster: Option<u32>,
    /// The path below OUT of the overlay of the image's first explanation.
    pub(crate) overlay: Option<String>,
    /// The overlay of the given label, if the first explanation is of another class.
    pub(crate) given_overlay: Option<String>,
    /// The overlay of the other image.
    pub(crate) other_overlay: Option<String>,
    /// The label of the other image.
    pub(crate) other_label: Option<String>,
    /// The maps of the predicted and of the given class, as far as they were made.
    pub(crate) class_maps: Option<ClassMaps>,
    /// The probability of the suggested label, by a head that has not seen the image.
    pub(crate) held_out_probability: Option<f32>,
    /// The probability of the given label, by that head.
    pub(crate) held_out_label_probability: Option<f32>,
    /// The model's probability of the given label.
    pub(crate) model_label_probability: Option<f32>,
    /// Whether the model suggests the same label.
    pub(crate) model_agrees: Option<bool>,
    /// What `--prove-shortcuts` found out about it.
    pub(crate) verdict: Option<ProofVerdict>,
    /// The class of the failure that the finding is about.
    pub(crate) failure: Option<String>,
    /// The group of duplicates that the image belongs to.
    pub(crate) group: Option<DuplicateGroup>,
    /// The key of the image of the group that is best kept.
    pub(crate) best: Option<String>,
    /// Where the image is.
    #[serde(skip)]
    pub(crate) uri: Option<String>,
    /// When the results of its images were written; the later time of two.
    #[serde(skip)]
    pub(crate) finished_at: DateTime<Utc>,
}

/// The columns of `findings.parquet`. `docs/report.md` describes them.
pub(crate) const COLUMNS: &[Column<Finding>] = columns! {
    "rank" Integer |finding| Cell::Integer(finding.rank.try_into().ok());
    "kind" Text |finding| Cell::Text(Some(finding.kind.name()));
    "problem" Text |finding| Cell::Text(finding.problem.map(Problem::name));
    "score" Float |finding| Cell::Float(Some(finding.score));
    "key" Text |finding| Cell::Text(Some(&finding.key));
    "other" Text |finding| Cell::Text(finding.other.as_deref());
    "label" Text |finding| Cell::Text(finding.label.as_deref());
    "suggested" Text |finding| Cell::Text(finding.suggested.as_deref());
    "predicted" Text |finding| Cell::Text(finding.predicted.as_deref());
    "probability" Float |finding| Cell::Float(finding.probability);
    "reason" Text |finding| Cell::Text(Some(&finding.reason));
    "cluster" Integer |finding| Cell::Integer(finding.cluster.map(i64::from));
    "overlay" Text |finding| Cell::Text(finding.overlay.as_deref());
    "label_overlay" Text |finding| Cell::Text(finding.given_overlay.as_deref());
    "other_overlay" Text |finding| Cell::Text(finding.other_overlay.as_deref());
    "label_class" Text |finding| Cell::Text(finding.label_class.as_deref());
    "held_out_probability" Float |finding| Cell::Float(finding.held_out_probability);
    "held_out_label_probability" Float |finding| Cell::Float(finding.held_out_label_probability);
    "model_label_probability" Float |finding| Cell::Float(finding.model_label_probability);
    "model_agrees" Boolean |finding| Cell::Boolean(finding.model_agrees);
    "verdict" Text |finding| Cell::Text(finding.verdict.map(ProofVerdict::name));
    "failure" Text |finding| Cell::Text(finding.failure.as_deref());
    "group" Integer |finding| Cell::Integer(finding.group.map(|group| i64::from(group.id)));
    "best" Text |finding| Cell::Text(finding.best.as_deref());
    "uri" PrefixedText |finding| Cell::Text(finding.uri.as_deref());
};
