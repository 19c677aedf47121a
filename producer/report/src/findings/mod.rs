//! What is wrong with a data set or with where its model looks, most urgent first.
//!
//! Each module looks for one kind, reads only the columns it needs, and knows images by their
//! row; [`resolve`] gives them their names.

use chrono::{DateTime, Utc};
use serde::Serialize;

mod attention;
mod clusters;
mod duplicates;
pub(crate) mod known;
mod labels;
pub(crate) mod maps;
mod outliers;
mod problems;
mod resolve;
#[cfg(test)]
mod tests;

pub(crate) use clusters::{AttentionTest, Cluster, ClusterExample};
pub(crate) use known::Known;
pub(crate) use resolve::COLUMNS;

use crate::table::{TableError, TableReader};

/// An enum of fixed words, the same in files, on the page and in conditions.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident => $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub(crate) enum $name { $($(#[$variant_doc])* $variant,)+ }

        impl $name {
            /// Every one.
            pub(crate) const ALL: &[Self] = &[$(Self::$variant),+];

            /// Its word.
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
    /// What kind of thing was found.
    FindingKind {
        /// The given label is probably wrong.
        LabelError => "label-error",
        /// Another image shows the same.
        Duplicate => "duplicate",
        /// The picture is poor, or of an odd shape.
        ImageProblem => "image-problem",
        /// No other image looks like it.
        Outlier => "outlier",
        /// The model looked at an odd place.
        Attention => "attention",
        /// A group of images of a class that the model is oddly sure of, for where it looks.
        Shortcut => "shortcut",
    }
}

words! {
    /// What it is in particular.
    Problem {
        /// The same file again.
        Exact => "exact",
        /// Nearly the same picture again.
        Near => "near",
        /// The same picture in two splits.
        Leak => "leak",
        /// The same picture with two labels.
        Conflict => "conflict",
        /// Hardly any light.
        Dark => "dark",
        /// Nearly white all over.
        Bright => "bright",
        /// Out of focus or shaken.
        Blurred => "blurred",
        /// Nearly one shade.
        LowInformation => "low-information",
        /// Far larger or smaller than the others.
        OddSize => "odd-size",
        /// Far wider or higher than the others.
        OddAspect => "odd-aspect",
        /// Without colour, among coloured ones.
        Grey => "grey",
        /// The map lies on the border.
        Border => "border",
        /// The map lies in one corner.
        Corner => "corner",
        /// The map is the same everywhere.
        Flat => "flat",
        /// Nothing speaks for the class.
        Nothing => "nothing",
        /// The map lies far from its class's usual place.
        Unusual => "unusual",
    }
}

/// A finding, its images known by their rows.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) row: u32,
    /// The image it is a duplicate of.
    pub(crate) other: Option<u32>,
    pub(crate) kind: FindingKind,
    pub(crate) problem: Option<Problem>,
    /// Urgency, 0 to 1.
    pub(crate) score: f32,
    /// A sentence.
    pub(crate) reason: String,
    /// The label it should have.
    pub(crate) suggested: Option<String>,
    /// The cluster it is about.
    pub(crate) cluster: Option<u32>,
}

impl Found {
    fn new(row: usize, kind: FindingKind, score: f32, reason: String) -> Self {
        let row = u32::try_from(row).expect("a table has fewer than four billion rows");
        let (other, problem, suggested, cluster) = (None, None, None, None);
        Self { row, other, kind, problem, score, reason, suggested, cluster }
    }

    fn problem(row: usize, problem: Problem, score: f32, reason: String) -> Self {
        let kind = match problem {
            Problem::Exact | Problem::Near | Problem::Leak | Problem::Conflict => {
                FindingKind::Duplicate
            }
            Problem::Border
            | Problem::Corner
            | Problem::Flat
            | Problem::Nothing
            | Problem::Unusual => FindingKind::Attention,
            _ => FindingKind::ImageProblem,
        };
        Self { problem: Some(problem), ..Self::new(row, kind, score.clamp(0.0, 1.0), reason) }
    }
}

/// A finding as it is written down.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Finding {
    /// 1 is the most urgent.
    pub(crate) rank: u64,
    /// What kind of thing it is.
    pub(crate) kind: FindingKind,
    /// What it is in particular.
    pub(crate) problem: Option<Problem>,
    /// Urgency, 0 to 1.
    pub(crate) score: f32,
    /// The image.
    pub(crate) key: String,
    /// The image it is a duplicate of.
    pub(crate) other: Option<String>,
    /// Its given label.
    pub(crate) label: Option<String>,
    /// The label it should have.
    pub(crate) suggested: Option<String>,
    /// Its most probable class.
    pub(crate) predicted: Option<String>,
    /// That class's probability.
    pub(crate) probability: Option<f32>,
    /// Why, in a sentence.
    pub(crate) reason: String,
    /// The cluster it is about.
    pub(crate) cluster: Option<u32>,
    /// The overlay of its first explanation, below OUT.
    pub(crate) overlay: Option<String>,
    /// The overlay of its given label, where that is another.
    pub(crate) given_overlay: Option<String>,
    /// The other image's overlay.
    pub(crate) other_overlay: Option<String>,
    /// When its images' results were written; the later one.
    #[serde(skip)]
    pub(crate) finished_at: DateTime<Utc>,
}

/// Everything found.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    /// Ranked.
    pub(crate) list: Vec<Finding>,
    pub(crate) clusters: Vec<Cluster>,
    pub(crate) tests: Vec<AttentionTest>,
    pub(crate) estimated_label_errors: Option<u64>,
    /// What was not looked for, and why.
    pub(crate) notes: Vec<String>,
}

/// Looks for all there is to find in a finished `predictions.parquet`.
pub(crate) fn find(table: &TableReader) -> Result<Findings, TableError> {
    let known = Known::read(table)?;
    let (mut found, mut notes) = (Vec::new(), Vec::new());
    let labels = labels::find(table, &known, &mut notes)?;
    found.extend(labels.found);
    found.extend(duplicates::find(table, &known, &mut notes)?);
    found.extend(problems::find(table, &mut notes)?);
    found.extend(outliers::find(table, &mut notes)?);
    found.extend(attention::find(table, &known, &mut notes)?);
    let mut attention = clusters::find(table, &known, &mut notes)?;
    found.append(&mut attention.found);
    let named = resolve::resolve(table, found, &mut attention.clusters)?;
    Ok(Findings {
        list: named,
        clusters: attention.clusters,
        tests: attention.tests,
        estimated_label_errors: labels.estimated,
        notes,
    })
}
