//! Which results are of the run's images as they are now, and made as the run asks for.
//!
//! Owns the comparison of a result with `run.json` and the manifest. Where one side does not tell,
//! nothing is said against the result: a run of an older version has no manifest, and its results
//! no generation. Upstream: results as they are read. Downstream: `read_results`.

use std::collections::HashSet;

use camshaft_common::explain::{FusedLayers, Method, TargetLayer};
use camshaft_common::key::ImageKey;
use camshaft_common::manifest::{ManifestImage, ManifestImages};
use camshaft_common::prediction::{FailureRecord, ImageRecord, PredictionRecord};
use camshaft_common::run::{Generation, RunId, RunRecord};
use chrono::{DateTime, Utc};

use crate::left_out::LeftOutReason;

/// The images of a run. OUT may hold results of others.
#[derive(Debug)]
pub(crate) struct RunImages {
    run: RunRecord,
    /// The images that SOURCE had when it was last listed, if the run has a manifest.
    listed: Option<ManifestImages>,
    /// The methods and layers of the run's maps.
    maps: HashSet<MapKind>,
    /// Words that jobs have in place of given labels. Workers of older versions write them into results.
    label_words: HashSet<String>,
}

/// How a map is made. The order of fused layers makes no difference.
type MapKind = (Method, Vec<TargetLayer>);

/// What becomes of a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Judgement {
    /// It has a row.
    Counts,
    /// It is of a file that is no image of the run. An older version took every file for an image.
    OfNoImage,
    /// It is left out.
    LeftOut(LeftOutReason),
}

/// What predictions and failures tell alike.
#[derive(Clone, Copy, Debug)]
struct ResultFacts<'a> {
    run: RunId,
    generation: Option<Generation>,
    image: &'a ImageRecord,
    written: DateTime<Utc>,
}

impl RunImages {
    pub(crate) fn new(run: &RunRecord, listed: Option<ManifestImages>) -> Self {
        let layers = run.explain.layer.iter();
        let maps = layers.flat_map(|layer| {
            run.explain.method.iter().map(move |method| (*method, layers_in_order(layer)))
        });
        Self {
            run: run.clone(),
            listed,
            maps: maps.collect(),
            label_words: run.label_map.values().cloned().collect(),
        }
    }

    /// The run.
    pub(crate) fn run(&self) -> &RunRecord {
        &self.run
    }

    /// Judges a prediction that was written at this time of the store's clock.
    pub(crate) fn judge_prediction(
        &self,
        record: &PredictionRecord,
        written: DateTime<Utc>,
    ) -> Judgement {
        let PredictionRecord { run, generation, image, .. } = record;
        let facts = ResultFacts { run: *run, generation: *generation, image, written };
        self.judge(facts, || self.other_making(record))
    }

    /// As [`Self::judge_prediction`], of a failure.
    pub(crate) fn judge_failure(
        &self,
        record: &FailureRecord,
        written: DateTime<Utc>,
    ) -> Judgement {
        let FailureRecord { run, generation, image, .. } = record;
        let facts = ResultFacts { run: *run, generation: *generation, image, written };
        self.judge(facts, || None)
    }

    /// Judges a result by its image's key alone.
    pub(crate) fn judge_key(&self, key: &ImageKey) -> Judgement {
        if !self.run.selects(key) {
            return Judgement::OfNoImage;
        }
        match &self.listed {
            Some(listed) if listed.get(key).is_none() => Judgement::LeftOut(LeftOutReason::Gone),
            _ => Judgement::Counts,
        }
    }

    fn judge(
        &self,
        facts: ResultFacts<'_>,
        other_making: impl FnOnce() -> Option<LeftOutReason>,
    ) -> Judgement {
        match self.judge_key(&facts.image.key) {
            Judgement::Counts => {}
            other => return other,
        }
        let listed = self.listed.as_ref().and_then(|listed| listed.get(&facts.image.key));
        let wrong = self
            .is_too_old(facts, listed)
            .or_else(other_making)
            .or_else(|| listed.and_then(|listed| self.other_image(facts, listed)));
        wrong.map_or(Judgement::Counts, Judgement::LeftOut)
    }

    /// Why the result is not of the jobs that the run waits for, if it is not. A result that was kept
    /// may be of any: nobody asked for another one.
    fn is_too_old(
        &self,
        facts: ResultFacts<'_>,
        listed: Option<ManifestImage<'_>>,
    ) -> Option<LeftOutReason> {
        let asked = listed.and_then(|listed| listed.since());
        if self.run.results_since.max(asked).is_some_and(|since| facts.written < since) {
            return Some(LeftOutReason::ToBeRedone);
        }
        asked?;
        if facts.run != self.run.run {
            return Some(LeftOutReason::Run);
        }
        // Of a cancelled run no job counts any more, but the results do that are there.
        let jobs_since = self.run.jobs_since.filter(|since| Some(*since) <= self.run.generation);
        // Workers of older versions name no generation.
        let is_superseded = facts.generation.is_some() && facts.generation < jobs_since;
        is_superseded.then_some(LeftOutReason::Generation)
    }

    /// In what the prediction was made otherwise than the run asks for, if it was. A run without a
    /// generation was last started by an older version: its report is as that version's.
    fn other_making(&self, record: &PredictionRecord) -> Option<LeftOutReason> {
        self.run.generation?;
        let (model, of_run) = (&record.model, &self.run.model);
        if model.digest != of_run.digest || model.config_digest != of_run.config_digest {
            return Some(LeftOutReason::Model);
        }
        let explanations = record.explanations.iter();
        let maps: HashSet<MapKind> =
            explanations.map(|map| (map.method, layers_in_order(&map.layer))).collect();
        (!maps.is_empty() && maps != self.maps).then_some(LeftOutReason::Options)
    }

    /// In what the image is another one than the result tells of, if it is.
    fn other_image(
        &self,
        facts: ResultFacts<'_>,
        listed: ManifestImage<'_>,
    ) -> Option<LeftOutReason> {
        let image = facts.image;
        if !listed.may_have_content(image.etag.as_deref(), image.bytes) {
            return Some(LeftOutReason::Content);
        }
        let label = image.label.as_deref();
        let is_word = || label.is_some_and(|label| self.label_words.contains(label));
        let has_label = listed.has_label(label) || facts.generation.is_none() && is_word();
        (!has_label).then_some(LeftOutReason::Label)
    }
}

fn layers_in_order(layers: &FusedLayers) -> Vec<TargetLayer> {
    let mut layers = layers.as_slice().to_vec();
    layers.sort_unstable();
    layers
}

#[cfg(test)]
pub(crate) mod tests {
    use camshaft_common::explain::ExplainOptions;
    use camshaft_common::manifest::{ManifestEntry, ManifestWriter};
    use camshaft_common::model::{FileDigest, ModelIdentity};
    use camshaft_common::run::SCHEMA;
    use camshaft_common::store::{Folder, StoreOptions};
    use chrono::TimeDelta;
    use serde_json::{Value, json};

    use super::*;

    /// A run of an older version.
    pub(crate) fn run() -> RunRecord {
        let json = json!({
            "schema": SCHEMA, "run": RunId::generate(), "source": "s3://bucket/images",
            "model": ModelIdentity::bundled(), "explain": ExplainOptions::default(), "images": 1,
            "created_at": Utc::now(), "updated_at": Utc::now(), "camshaft": "",
        });
        serde_json::from_value(json).unwrap()
    }

    fn image() -> Value {
        json!({"key": "cat/a.jpg", "etag": "\"1\"", "bytes": 3, "width": null, "height": null,
            "label": "cat"})
    }

    fn prediction(run: &RunRecord, maps: &[(&str, &str)]) -> PredictionRecord {
        let map = |(method, layer): &(&str, &str)| {
            json!({"method": method, "layer": layer, "class": 0, "label": "cat", "overlay": null,
                "map": {"height": 1, "width": 1, "values": [1.0]}, "max": 1.0, "mass": 1.0,
                "entropy": 0.0, "centroid": [0.5, 0.5], "border_share": 1.0})
        };
        let ModelIdentity { name, digest, config_digest, .. } = &run.model;
        let json = json!({
            "schema": SCHEMA, "run": run.run, "generation": run.generation, "image": image(),
            "model": {"name": name, "digest": digest, "config_digest": config_digest,
                "precision": "f32", "kernel": "candle", "device": "cpu"},
            "predictions": [], "explanations": maps.iter().map(map).collect::<Vec<_>>(),
            "timings_ms": {"fetch": 0.0, "decode": 0.0, "model": 0.0, "overlay": 0.0, "store": 0.0},
            "worker": "w", "finished_at": Utc::now(),
        });
        serde_json::from_value(json).unwrap()
    }

    /// The run, with a manifest of one image.
    async fn listed(run: &RunRecord, since: Option<DateTime<Utc>>) -> RunImages {
        let directory = tempfile::tempdir().unwrap();
        let location = directory.path().to_str().unwrap().parse().unwrap();
        let out = Folder::open(&location, &StoreOptions::default()).unwrap();
        let mut writer = ManifestWriter::new(out.clone(), run.manifest.unwrap());
        let (key, label) = (ImageKey::parse("cat/a.jpg").unwrap(), Some("cat".to_owned()));
        let (etag, size) = (Some("1".to_owned()), Some(3));
        writer.push(ManifestEntry { key, etag, size, absent: false, label, since }).await.unwrap();
        writer.finish().await.unwrap();
        RunImages::new(run, ManifestImages::read(&out, run).await.unwrap())
    }

    fn run_of_a_generation() -> RunRecord {
        let generation = Some(Generation::after(None));
        RunRecord { generation, manifest: generation, jobs_since: generation, ..run() }
    }

    type Change = fn(&mut PredictionRecord);

    static OTHER_IMAGE: [(Change, LeftOutReason); 4] = [
        (|record| record.image.etag = Some("\"2\"".to_owned()), LeftOutReason::Content),
        (|record| record.image.label = Some("dog".to_owned()), LeftOutReason::Label),
        (|record| record.image.label = None, LeftOutReason::Label),
        (|record| record.image.key = ImageKey::parse("b.jpg").unwrap(), LeftOutReason::Gone),
    ];
    static OTHER_MAKING: [(Change, LeftOutReason); 4] = [
        (|record| record.model.digest = FileDigest::of(b"other"), LeftOutReason::Model),
        (|record| record.model.config_digest = FileDigest::of(b"other"), LeftOutReason::Model),
        (|record| record.explanations[0].method = Method::LayerCam, LeftOutReason::Options),
        (
            |record| record.explanations[0].layer = TargetLayer::Stage(3).into(),
            LeftOutReason::Options,
        ),
    ];
    static OTHER_JOB: [(Change, LeftOutReason); 2] = [
        (|record| record.run = RunId::generate(), LeftOutReason::Run),
        (
            |record| {
                record.generation = "01890a5d-ac96-774b-bcce-b302099a8057".parse().ok();
            },
            LeftOutReason::Generation,
        ),
    ];

    #[tokio::test]
    async fn a_result_is_compared_with_the_run_and_the_manifest() {
        let (run, now) = (run_of_a_generation(), Utc::now());
        let since = DateTime::from_timestamp_millis(now.timestamp_millis());
        let right = prediction(&run, &[("grad-cam", "layer4")]);
        let all = OTHER_IMAGE.iter().chain(&OTHER_MAKING).chain(&OTHER_JOB);
        for asked in [since, None] {
            let images = listed(&run, asked).await;
            assert_eq!(images.judge_prediction(&right, now), Judgement::Counts);
            let earlier = images.judge_prediction(&right, now - TimeDelta::hours(1));
            let redo = Judgement::LeftOut(LeftOutReason::ToBeRedone);
            assert_eq!(earlier == redo, asked.is_some(), "{earlier:?}");
            for (change, reason) in all.clone() {
                let mut record = right.clone();
                change(&mut record);
                // A result that was kept may be of any run and generation.
                let is_kept = asked.is_none() && OTHER_JOB.iter().any(|(_, r)| r == reason);
                let expected = match is_kept {
                    true => Judgement::Counts,
                    false => Judgement::LeftOut(*reason),
                };
                assert_eq!(images.judge_prediction(&record, now), expected, "{reason:?} {asked:?}");
            }
        }
    }

    #[tokio::test]
    async fn results_of_workers_of_older_versions_count() {
        let label_map = [("kitty", "cat"), ("cat", "tiger")];
        let label_map = label_map.map(|(given, word)| (given.to_owned(), word.to_owned()));
        let run = RunRecord { label_map: label_map.into(), ..run_of_a_generation() };
        let since = DateTime::from_timestamp_millis(Utc::now().timestamp_millis());
        let images = listed(&run, since).await;
        let mut record = prediction(&run, &[("grad-cam", "layer4")]);
        record.image.label = Some("tiger".to_owned());
        let label = Judgement::LeftOut(LeftOutReason::Label);
        assert_eq!(images.judge_prediction(&record, Utc::now()), label);
        record.generation = None;
        assert_eq!(images.judge_prediction(&record, Utc::now()), Judgement::Counts);
        // The run was cancelled when it was done.
        let jobs_since = Some(Generation::after(run.generation));
        let images = listed(&RunRecord { jobs_since, ..run.clone() }, since).await;
        record.generation = run.generation;
        record.image.label = Some("cat".to_owned());
        assert_eq!(images.judge_prediction(&record, Utc::now()), Judgement::Counts);
    }

    #[test]
    fn nothing_is_said_against_results_of_a_run_of_an_older_version() {
        let run = run();
        let images = RunImages::new(&run, None);
        let right = prediction(&run, &[("grad-cam", "layer4")]);
        for (change, reason) in OTHER_IMAGE.iter().chain(&OTHER_MAKING).chain(&OTHER_JOB) {
            let mut record = right.clone();
            change(&mut record);
            let judged = images.judge_prediction(&record, Utc::now());
            assert_eq!(judged, Judgement::Counts, "{reason:?}");
        }
    }

    #[test]
    fn the_order_in_which_maps_and_layers_are_named_makes_no_difference() {
        let mut run = run_of_a_generation();
        run.manifest = None;
        run.explain.method = "grad-cam,layer-cam".parse().unwrap();
        run.explain.layer = "layer3+layer4,layer4".parse().unwrap();
        let images = RunImages::new(&run, None);
        let mut maps = vec![
            ("layer-cam", "layer4"),
            ("layer-cam", "layer4+layer3"),
            ("grad-cam", "layer4"),
            ("grad-cam", "layer4"),
            ("grad-cam", "layer3+layer4"),
        ];
        let judge =
            |maps: &[(&str, &str)]| images.judge_prediction(&prediction(&run, maps), Utc::now());
        assert_eq!(judge(&maps), Judgement::Counts);
        maps.pop();
        assert_eq!(judge(&maps), Judgement::LeftOut(LeftOutReason::Options));
    }

    #[test]
    fn a_request_to_redo_every_image_that_was_cut_short_counts() {
        let since = Utc::now();
        let run = RunRecord { results_since: Some(since), ..run() };
        let images = RunImages::new(&run, None);
        let record = prediction(&run, &[]);
        let earlier = since - TimeDelta::hours(1);
        let redo = Judgement::LeftOut(LeftOutReason::ToBeRedone);
        assert_eq!(images.judge_prediction(&record, earlier), redo);
        assert_eq!(images.judge_prediction(&record, since), Judgement::Counts);
    }
}
