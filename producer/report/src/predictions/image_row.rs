//! One image as a row of `predictions.parquet`: its prediction or its failure, and the columns.

use camshaft_common::camera::Camera;
use camshaft_common::decoded_scale::DecodedScale;
use camshaft_common::label::{LabelMatcher, LabelProblem};
use camshaft_common::measure::ImageMeasures;
use camshaft_common::prediction::{
    Explanation, FailureRecord, ImageRecord, PredictionRecord, StageTimings,
};
use camshaft_common::split_names;
use chrono::{DateTime, Utc};

use super::label_class::LabelMeaning;
use crate::table::{Cell, Column, columns};

/// An image and its result: a prediction, a failure, or neither in tests.
#[derive(Debug, Default)]
pub(crate) struct ImageRow {
    pub(crate) key: String,
    /// Where the image is; none if the run does not tell.
    pub(crate) uri: Option<String>,
    pub(crate) label: Option<String>,
    /// What the label means. [`LabelMeaning::NoClass`] for a failure.
    pub(crate) meaning: LabelMeaning,
    /// True if the label could be several classes.
    pub(crate) is_ambiguous: bool,
    pub(crate) bytes: Option<u64>,
    pub(crate) width: Option<u32>,
    pub(crate) height: Option<u32>,
    pub(crate) decoded_scale: DecodedScale,
    /// The part that the network saw: left, top, right and bottom as shares; none if it is all.
    pub(crate) region: Option<[f32; 4]>,
    pub(crate) digest: Option<String>,
    pub(crate) measures: Option<ImageMeasures>,
    pub(crate) camera: Option<Camera>,
    pub(crate) perceptual_hash: Option<String>,
    pub(crate) predicted: Option<RowPrediction>,
    pub(crate) failure: Option<RowFailure>,
    pub(crate) worker: String,
    pub(crate) finished_at: DateTime<Utc>,
}

/// What the model predicts for the image.
#[derive(Debug, Default)]
pub(crate) struct RowPrediction {
    /// Class names, most probable first.
    pub(crate) labels: Vec<String>,
    /// Class indices, in the same order.
    pub(crate) classes: Vec<usize>,
    pub(crate) probabilities: Vec<f32>,
    /// The probability of the given label.
    pub(crate) label_probability: Option<f32>,
    /// Difference of the two largest logits.
    pub(crate) logit_margin: Option<f32>,
    /// The logit of the most probable class; NaN if there is none.
    pub(crate) logit: f32,
    pub(crate) entropy: Option<f32>,
    pub(crate) sketch: Option<SketchBytes>,
    pub(crate) embedding: Option<Vec<[u8; 2]>>,
    /// The first explanation.
    pub(crate) explanation: Option<Explanation>,
    /// The explanation of the given label, if the first explanation is of another class.
    pub(crate) given: Option<Explanation>,
    pub(crate) timings: StageTimings,
}

/// The sketch of an embedding: numbers from −127 to 127, to be multiplied by the scale.
#[derive(Debug)]
pub(crate) struct SketchBytes {
    pub(crate) scale: f32,
    /// Two's complement.
    pub(crate) numbers: Vec<u8>,
}

/// Why the image has no prediction.
#[derive(Debug)]
pub(crate) struct RowFailure {
    pub(crate) class: String,
    pub(crate) message: String,
    pub(crate) attempts: u32,
}

impl ImageRow {
    /// The row of a prediction. `embeddings` says whether the row keeps the whole embedding.
    /// `classes` are those that results name, for labels of older results; none while they are not
    /// known.
    pub(crate) fn predicted(
        record: PredictionRecord,
        embeddings: bool,
        classes: Option<&LabelMatcher>,
    ) -> Self {
        let PredictionRecord { image, predictions, entropy, embedding, explanations, .. } = record;
        let meaning = LabelMeaning::of(&image, &predictions, classes);
        let is_given =
            |class: usize| matches!(meaning, LabelMeaning::Class(given, _) if given == class);
        let margin = predictions.get(1).map(|second| predictions[0].logit - second.logit);
        let of_label = predictions.iter().find(|listed| is_given(listed.class));
        let mut explanations = explanations.into_iter();
        let explanation = explanations.next();
        let predicted = RowPrediction {
            label_probability: of_label.map(|class| class.probability),
            logit_margin: margin,
            logit: predictions.first().map_or(f32::NAN, |first| first.logit),
            entropy,
            sketch: embedding.as_ref().map(|embedding| SketchBytes {
                scale: embedding.scale,
                numbers: embedding.sketch.0.iter().map(|&number| number.cast_unsigned()).collect(),
            }),
            embedding: embedding
                .and_then(|embedding| embedding.values)
                .filter(|_| embeddings)
                .map(|values| values.0),
            explanation,
            given: explanations.find(|other| is_given(other.class)),
            probabilities: predictions.iter().map(|class| class.probability).collect(),
            classes: predictions.iter().map(|class| class.class).collect(),
            labels: predictions.into_iter().map(|class| class.label).collect(),
            timings: record.timings_ms,
        };
        let row = Self::without_result(image, record.worker, record.finished_at);
        Self { predicted: Some(predicted), meaning, ..row }
    }

    /// The row of a failure.
    pub(crate) fn failed(record: FailureRecord) -> Self {
        let FailureRecord { image, error, attempts, worker, finished_at, .. } = record;
        let class = error.class.to_string();
        let failure = RowFailure { class, message: error.message, attempts };
        Self { failure: Some(failure), ..Self::without_result(image, worker, finished_at) }
    }

    fn without_result(image: ImageRecord, worker: String, finished_at: DateTime<Utc>) -> Self {
        Self {
            key: image.key.into(),
            label: image.label,
            is_ambiguous: image.label_problem == Some(LabelProblem::Ambiguous),
            bytes: image.bytes,
            width: image.width,
            height: image.height,
            decoded_scale: image.decoded_scale,
            region: image.region,
            digest: image.digest.map(|digest| digest.to_string()),
            measures: image.measures,
            camera: image.camera,
            perceptual_hash: image.measures.map(|measures| measures.perceptual_hash.to_string()),
            worker,
            finished_at,
            ..Self::default()
        }
    }

    /// The most probable class.
    pub(crate) fn class(&self) -> Option<&str> {
        self.predicted.as_ref()?.labels.first().map(String::as_str)
    }

    /// The probability of the most probable class.
    pub(crate) fn probability(&self) -> Option<f32> {
        self.predicted.as_ref()?.probabilities.first().copied()
    }

    /// The name of the class that the label means; none without a label, if it means no class, and
    /// for a failure.
    pub(crate) fn label_class(&self) -> Option<&str> {
        match &self.meaning {
            LabelMeaning::Class(_, name) => Some(name),
            LabelMeaning::NoClass | LabelMeaning::Open => None,
        }
    }

    /// Whether the most probable class is that of the label; none if one of them is missing.
    pub(crate) fn correct(&self) -> Option<bool> {
        Some(self.class()? == self.label_class()?)
    }

    /// The first explanation.
    pub(crate) fn explanation(&self) -> Option<&Explanation> {
        self.predicted.as_ref()?.explanation.as_ref()
    }

    /// The explanation of the given label, if the first explanation is of another class.
    fn given_explanation(&self) -> Option<&Explanation> {
        self.predicted.as_ref()?.given.as_ref()
    }

    fn number(&self, read: impl Fn(&RowPrediction) -> Option<f32>) -> Cell<'_> {
        Cell::Float(self.predicted.as_ref().and_then(read))
    }

    fn measure(&self, read: impl Fn(&ImageMeasures) -> f32) -> Cell<'_> {
        Cell::Float(self.measures.as_ref().map(read))
    }

    /// A measure that older results don't have.
    fn newer_measure(&self, read: impl Fn(&ImageMeasures) -> Option<f32>) -> Cell<'_> {
        Cell::Float(self.measures.as_ref().and_then(read))
    }

    fn camera_text(&self, read: impl Fn(&Camera) -> Option<&str>) -> Cell<'_> {
        Cell::Text(self.camera.as_ref().and_then(read))
    }

    fn map(&self, read: impl Fn(&Explanation) -> f32) -> Cell<'_> {
        Cell::Float(self.explanation().map(read))
    }

    fn time(&self, read: impl Fn(&StageTimings) -> f64) -> Cell<'_> {
        self.number(|predicted| Some(read(&predicted.timings) as f32))
    }
}

/// The columns of `predictions.parquet`. `docs/report.md` describes them.
pub(crate) const COLUMNS: &[Column<ImageRow>] = columns! {
    "key" Text |row| Cell::Text(Some(&row.key));
    "split" Text |row| Cell::Text(split_names::of_key(&row.key));
    "label" Text |row| Cell::Text(row.label.as_deref());
    "predicted" Text |row| Cell::Text(row.class());
    "probability" Float |row| Cell::Float(row.probability());
    "correct" Boolean |row| Cell::Boolean(row.correct());
    "label_probability" Float |row| row.number(|predicted| predicted.label_probability);
    "margin" Float |row| row.number(|predicted| {
        Some(predicted.probabilities.first()? - predicted.probabilities.get(1)?)
    });
    "logit" Float |row| row.number(|predicted| Some(predicted.logit).filter(|x| !x.is_nan()));
    "logit_margin" Float |row| row.number(|predicted| predicted.logit_margin);
    "entropy" Float |row| row.number(|predicted| predicted.entropy);
    "top_labels" TextList |row| Cell::TextList(row.predicted.as_ref().map(|p| &p.labels[..]));
    "top_probabilities" FloatList |row| {
        Cell::FloatList(row.predicted.as_ref().map(|p| &p.probabilities[..]))
    };
    "target" Text |row| Cell::Text(row.explanation().map(|map| &*map.label));
    "overlay" Text |row| Cell::Text(row.explanation().and_then(|map| map.overlay.as_deref()));
    "label_overlay" Text |row| {
        Cell::Text(row.given_explanation().and_then(|map| map.overlay.as_deref()))
    };
    "map" FloatList |row| Cell::FloatList(row.explanation().map(|map| &map.map.values[..]));
    "map_height" Integer |row| Cell::Integer(row.explanation().map(|map| map.map.height as i64));
    "map_width" Integer |row| Cell::Integer(row.explanation().map(|map| map.map.width as i64));
    "map_max" Float |row| row.map(|map| map.max);
    "map_mass" Float |row| row.map(|map| map.mass);
    "map_entropy" Float |row| row.map(|map| map.entropy);
    "map_centroid_x" Float |row| row.map(|map| map.centroid[0]);
    "map_centroid_y" Float |row| row.map(|map| map.centroid[1]);
    "map_border_share" Float |row| row.map(|map| map.border_share);
    "bytes" Integer |row| Cell::Integer(row.bytes.and_then(|bytes| bytes.try_into().ok()));
    "width" Integer |row| Cell::Integer(row.width.map(i64::from));
    "height" Integer |row| Cell::Integer(row.height.map(i64::from));
    "brightness" Float |row| row.measure(|measures| measures.brightness);
    "contrast" Float |row| row.measure(|measures| measures.contrast);
    "dark_percentile" Float |row| row.measure(|measures| measures.dark_percentile);
    "bright_percentile" Float |row| row.measure(|measures| measures.bright_percentile);
    "information" Float |row| row.measure(|measures| measures.information);
    "blur" Float |row| row.measure(|measures| measures.blur);
    "chroma" Float |row| row.measure(|measures| measures.chroma);
    "digest" Text |row| Cell::Text(row.digest.as_deref());
    "perceptual_hash" Text |row| Cell::Text(row.perceptual_hash.as_deref());
    "sketch_scale" Float |row| row.number(|p| p.sketch.as_ref().map(|sketch| sketch.scale));
    "sketch" Bytes |row| {
        Cell::Bytes(row.predicted.as_ref().and_then(|p| Some(&p.sketch.as_ref()?.numbers[..])))
    };
    "embedding" HalfList |row| {
        Cell::HalfList(row.predicted.as_ref().and_then(|p| p.embedding.as_deref()))
    };
    "fetch_ms" Float |row| row.time(|timings| timings.fetch);
    "decode_ms" Float |row| row.time(|timings| timings.decode);
    "model_ms" Float |row| row.time(|timings| timings.model);
    "overlay_ms" Float |row| row.time(|timings| timings.overlay);
    "store_ms" Float |row| row.time(|timings| timings.store);
    "failure" Text |row| Cell::Text(row.failure.as_ref().map(|failure| &*failure.class));
    "failure_message" Text |row| Cell::Text(row.failure.as_ref().map(|failure| &*failure.message));
    "attempts" Integer |row| Cell::Integer(row.failure.as_ref().map(|f| i64::from(f.attempts)));
    "worker" Text |row| Cell::Text(Some(&row.worker));
    "finished_at" Time |row| Cell::Time(Some(row.finished_at));
    "label_class" Text |row| Cell::Text(row.label_class());
    "label_map" FloatList |row| {
        Cell::FloatList(row.given_explanation().map(|map| &map.map.values[..]))
    };
    "region" FloatList |row| Cell::FloatList(row.region.as_ref().map(|region| &region[..]));
    "measures_version" Integer |row| {
        Cell::Integer(row.measures.map(|measures| i64::from(measures.version)))
    };
    "border" Float |row| row.newer_measure(ImageMeasures::border_share);
    "border_left" Float |row| row.newer_measure(|measures| Some(measures.border?[0]));
    "border_top" Float |row| row.newer_measure(|measures| Some(measures.border?[1]));
    "border_right" Float |row| row.newer_measure(|measures| Some(measures.border?[2]));
    "border_bottom" Float |row| row.newer_measure(|measures| Some(measures.border?[3]));
    "blocking" Float |row| row.newer_measure(|measures| measures.blocking);
    "camera_make" Text |row| row.camera_text(|camera| camera.make.as_deref());
    "camera_model" Text |row| row.camera_text(|camera| camera.model.as_deref());
    "camera_year" Integer |row| {
        Cell::Integer(row.camera.as_ref().and_then(|camera| camera.year).map(i64::from))
    };
    "uri" PrefixedText |row| Cell::Text(row.uri.as_deref());
    "decoded_scale" Text |row| Cell::Text(row.width.map(|_decoded| row.decoded_scale.word()));
};
