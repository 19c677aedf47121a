//! The prediction that lies in OUT before its image is worked on, and whether a job can keep it.
//!
//! A job can if the prediction is of the same run, model and content. It then needs at most another
//! label, entity tag or generation, and no network. Decides, and makes the record;
//! [`settle`](super::settle) writes it. Upstream: [`fetch`](super::fetch), which knows the image's entity
//! tag, and [`decode`](super::decode), which knows its digest.

use camshaft_common::entity_tag::comparable;
use camshaft_common::job::Job;
use camshaft_common::layout::Layout;
use camshaft_common::location::Location;
use camshaft_common::prediction::{Explanation, ImageRecord, MAX_RECORD_BYTES, PredictionRecord};
use camshaft_common::store::{Listed, StoreError, StoreErrorKind};
use camshaft_model::{ExplainRequest, KnownMap, ModelFiles, Relabelled};

use super::memory_budget::MemoryBudget;
use super::overlay_path::overlay_path;
use super::retrying_folder::RetryingFolder;

/// The largest prediction that waits in memory while the image's file is read; most have some twenty
/// kilobytes. It is counted in no budget: who waits for memory may hold none.
const MAX_WAITING_BYTES: usize = 1024 * 1024;

/// How a job keeps a prediction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeptAs {
    /// An earlier try, or the job of another enqueue, has made it for the image as it is.
    AlreadyDone,
    /// It gets another label.
    Relabelled,
    /// The image was written again with the same content.
    Renewed,
}

/// A prediction in OUT.
#[derive(Debug)]
pub struct StoredPrediction {
    record: PredictionRecord,
    /// The size of its JSON.
    bytes: usize,
    kept_as: KeptAs,
    /// True if the record is not as OUT has it.
    is_new: bool,
}

impl StoredPrediction {
    /// Reads the prediction of a job's image; `None` if there is none that can be read.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn read(
        job: &Job,
        out: &RetryingFolder,
        budget: &MemoryBudget,
    ) -> Result<Option<Self>, StoreError> {
        let path = Layout::of(&job.out).prediction(&job.key);
        let stored = match out.get(&path, MAX_RECORD_BYTES, budget).await {
            Ok((stored, _memory)) => stored.bytes,
            Err(error) => match error.kind() {
                // One in an archive is made again.
                StoreErrorKind::NotFound | StoreErrorKind::ArchivedOrEncrypted => return Ok(None),
                _ => return Err(error),
            },
        };
        Ok(serde_json::from_slice(&stored).ok().map(|record| Self::new(record, stored.len())))
    }

    fn new(record: PredictionRecord, bytes: usize) -> Self {
        Self { record, bytes, kept_as: KeptAs::AlreadyDone, is_new: false }
    }

    /// True if the job of a later enqueue of the run has made it: what that wanted counts more.
    #[must_use]
    pub fn is_of_later_than(&self, job: &Job) -> bool {
        // Without generations, a changed image's job is told from others by nothing.
        let can_tell = !job.changed || job.generation.is_some();
        can_tell && self.record.run == job.run && self.record.generation > job.generation
    }

    /// The prediction as the job wants it, provided that the image's content is still the same. `None` if
    /// the job has to compute one. The options of a run never change: other options make another run. So
    /// it is enough to compare the run, the model and the label.
    #[must_use]
    pub fn for_job(mut self, job: &Job, model: &ModelFiles) -> Option<Self> {
        let PredictionRecord { run, generation, model: made_by, image, .. } = &self.record;
        let is_of_model =
            made_by.digest == job.model.digest && made_by.config_digest == job.model.config_digest;
        let is_older = *generation != job.generation;
        // An older result is to be replaced though it is of the same image.
        let is_unwanted = is_older && job.replaces && !job.changed;
        // Somebody may have renamed it.
        let is_of_image = image.key == job.key;
        if *run != job.run || !is_of_image || !is_of_model || is_unwanted {
            return None;
        }
        // A result counts if it is newer than the change and than the enqueue that asks for it.
        let is_before_change = job.changed && (is_older || job.generation.is_none());
        if image.label.as_deref() != job.result_label() {
            self.relabel(job, model)?;
            self.kept_as = KeptAs::Relabelled;
        } else if is_before_change {
            self.kept_as = KeptAs::Renewed;
        }
        self.record.generation = job.generation;
        self.is_new = is_older || self.kept_as != KeptAs::AlreadyDone;
        Some(self)
    }

    /// Changes what depends on the label. `None` if that needs the network, or another overlay.
    fn relabel(&mut self, job: &Job, model: &ModelFiles) -> Option<()> {
        let PredictionRecord { image, predictions, explanations, .. } = &mut self.record;
        let request = ExplainRequest { options: &job.explain, label: job.label.as_deref() };
        let known: Vec<_> = explanations.iter().map(known_map).collect();
        let made = model.relabel(predictions, &known, &request)?;
        let Relabelled { label, predictions: listed, maps } = made;
        let kept: Vec<_> = maps.into_iter().map(|map| explanations[map].clone()).collect();
        // The overlays' names tell how they differ from the first.
        let (layout, first) = (Layout::of(&job.out), kept.first().map(|first| first.class));
        let has_overlay = |kept: &Explanation| {
            let path = overlay_path(layout, &job.key, &job.explain, first, known_map(kept));
            kept.overlay == path
        };
        if !kept.iter().all(has_overlay) {
            return None;
        }
        image.label = job.result_label().map(str::to_owned);
        image.class = label.and_then(Result::ok);
        image.label_problem = label.and_then(Result::err);
        *predictions = listed;
        *explanations = kept;
        Some(())
    }

    /// True if the image in SOURCE is the one of the prediction, by its entity tag.
    #[must_use]
    pub fn is_of(&self, now: &Listed, source: &Location) -> bool {
        let is_local = source.local_path().is_some();
        let etags = [&now.etag, &self.record.image.etag];
        let [now, then] = etags.map(|etag| etag.as_deref().map(|etag| comparable(etag, is_local)));
        now.is_some() && now == then
    }

    /// True if the image in SOURCE may be the one of the prediction though its entity tag is another.
    /// Its digest tells.
    #[must_use]
    pub fn may_be_of(&self, now: &Listed) -> bool {
        let ImageRecord { digest, bytes, .. } = &self.record.image;
        digest.is_some() && *bytes == Some(now.size_bytes) && self.bytes <= MAX_WAITING_BYTES
    }

    /// The prediction with the entity tag of a file that was read, if that has the same content.
    #[must_use]
    pub fn of_file(mut self: Box<Self>, file: &ImageRecord) -> Option<Box<Self>> {
        let image = &mut self.record.image;
        if image.digest.is_none() || image.digest != file.digest {
            return None;
        }
        image.etag.clone_from(&file.etag);
        if self.kept_as == KeptAs::AlreadyDone {
            self.kept_as = KeptAs::Renewed;
        }
        self.is_new = true;
        Some(self)
    }

    /// How the job keeps it.
    #[must_use]
    pub fn kept_as(&self) -> KeptAs {
        self.kept_as
    }

    /// What is to be written; `None` if OUT has it already.
    #[must_use]
    pub fn to_write(&self) -> Option<Vec<u8>> {
        let json =
            || serde_json::to_vec(&self.record).expect("a record has only strings and numbers");
        self.is_new.then(json)
    }
}

fn known_map(explanation: &Explanation) -> KnownMap<'_> {
    let Explanation { method, layer, class, .. } = explanation;
    KnownMap { method: *method, layer, class: *class }
}

#[cfg(test)]
#[cfg(feature = "bundled-model")]
mod tests {
    use camshaft_common::explain::{ExplainOptions, Target};
    use camshaft_common::job::JOB_VERSION;
    use camshaft_common::key::ImageKey;
    use camshaft_common::model::{FileDigest, ModelIdentity};
    use camshaft_common::run::{Generation, RunId};
    use chrono::DateTime;
    use serde_json::json;

    use super::*;

    /// A job that replaces the result of an image whose label was `cat`.
    fn changed_job(label: &str) -> Job {
        let place: Location = "s3://bucket/place".parse().unwrap();
        Job {
            v: JOB_VERSION,
            run: RunId::generate(),
            generation: Some(Generation::after(None)),
            key: ImageKey::parse("a.jpg").unwrap(),
            etag: None,
            size: None,
            label: Some(label.to_owned()),
            given_label: None,
            source: place.clone(),
            out: place,
            model: ModelIdentity::bundled(),
            explain: ExplainOptions::default(),
            replaces: true,
            changed: true,
            again: false,
        }
    }

    /// The prediction that an earlier enqueue's job has made: the model says dog, the label was `cat`.
    fn stored(job: &Job) -> StoredPrediction {
        let explanation = |class: usize, label: &str, overlay: &str| {
            json!({
                "method": "grad-cam", "layer": "layer4", "class": class, "label": label,
                "overlay": overlay, "map": {"height": 1, "width": 1, "values": [1.0]}, "max": 1.0,
                "mass": 1.0, "entropy": 0.0, "centroid": [0.5, 0.5], "border_share": 1.0,
            })
        };
        let record = json!({
            "schema": 1,
            "run": job.run,
            "image": {
                "key": "a.jpg", "etag": "\"1\"", "bytes": 3, "width": 1, "height": 1,
                "label": "cat", "class": 0, "digest": FileDigest::of(b"abc"),
            },
            "model": {
                "name": "cats-vs-dogs", "digest": job.model.digest,
                "config_digest": job.model.config_digest, "precision": "f32", "kernel": "candle",
                "device": "cpu",
            },
            "predictions": [
                {"class": 1, "label": "dog", "probability": 0.75, "logit": 2.0},
                {"class": 0, "label": "cat", "probability": 0.25, "logit": 1.0},
            ],
            "explanations": [
                explanation(1, "dog", "overlays/a.jpg.jpg"),
                explanation(0, "cat", "overlays/a.jpg.class-0.jpg"),
            ],
            "timings_ms": {"fetch": 1.0, "decode": 1.0, "model": 1.0, "overlay": 1.0, "store": 1.0},
            "worker": "w",
            "finished_at": "2026-01-01T00:00:00Z",
        });
        StoredPrediction::new(serde_json::from_value(record).unwrap(), 1000)
    }

    fn written(kept: &StoredPrediction) -> PredictionRecord {
        serde_json::from_slice(&kept.to_write().unwrap()).unwrap()
    }

    fn listed(etag: &str, size_bytes: u64) -> Listed {
        let (path, last_modified) = ("a.jpg".to_owned(), DateTime::UNIX_EPOCH);
        Listed { path, etag: Some(etag.to_owned()), size_bytes, last_modified }
    }

    #[test]
    fn a_label_is_changed_if_its_maps_are_there() {
        let model = ModelFiles::bundled();
        for (label, class, overlays) in [
            ("dog", Some(1), &["overlays/a.jpg.jpg"][..]),
            ("whale", None, &["overlays/a.jpg.jpg"]),
            ("Cat", Some(0), &["overlays/a.jpg.jpg", "overlays/a.jpg.class-0.jpg"]),
        ] {
            let job = changed_job(label);
            let before = stored(&job).record;
            let kept = stored(&job).for_job(&job, &model).unwrap();
            assert_eq!(kept.kept_as(), KeptAs::Relabelled, "{label}");
            let record = written(&kept);
            assert_eq!((record.image.label.as_deref(), record.image.class), (Some(label), class));
            assert_eq!(record.image.label_problem.is_some(), class.is_none(), "{label}");
            let named: Vec<_> =
                record.explanations.iter().map(|one| one.overlay.clone().unwrap()).collect();
            assert_eq!(named, overlays);
            assert_eq!(record.generation, job.generation);
            assert_eq!(record.finished_at, before.finished_at, "the work was done then");
        }
        // With --target label its map comes first, and overlays are called by how they differ from that.
        let mut by_label = changed_job("dog");
        by_label.explain.target = Target::Label;
        let mut of_cat = stored(&by_label);
        let [dog, cat] = &mut of_cat.record.explanations[..] else { panic!("there are two") };
        dog.overlay = Some("overlays/a.jpg.class-1.jpg".to_owned());
        cat.overlay = Some("overlays/a.jpg.jpg".to_owned());
        of_cat.record.explanations.swap(0, 1);
        assert!(of_cat.for_job(&by_label, &model).is_none());
    }

    #[test]
    fn an_older_prediction_is_kept_only_for_a_change_or_if_none_is_replaced() {
        let model = ModelFiles::bundled();
        let changed = changed_job("cat");
        let to_be_redone = Job { changed: false, ..changed.clone() };
        let once_more = Job { replaces: false, again: true, ..to_be_redone.clone() };
        let without = Job { generation: None, ..changed.clone() };
        for (job, kept_as) in [
            (&changed, Some(KeptAs::Renewed)),
            (&without, Some(KeptAs::Renewed)),
            (&to_be_redone, None),
            (&once_more, Some(KeptAs::AlreadyDone)),
        ] {
            let kept = stored(job).for_job(job, &model);
            assert_eq!(kept.as_ref().map(StoredPrediction::kept_as), kept_as);
            // It gets a later time and generation.
            assert!(kept.is_none_or(|kept| written(&kept).generation == job.generation));
        }
        // An earlier try has written it.
        for job in [&changed, &to_be_redone, &once_more] {
            let mut done = stored(job);
            done.record.generation = job.generation;
            let kept = done.for_job(job, &model).unwrap();
            assert_eq!((kept.kept_as(), kept.to_write()), (KeptAs::AlreadyDone, None));
        }
        let other_run = Job { run: RunId::generate(), ..changed.clone() };
        let mut other_model = changed.clone();
        other_model.model.digest = FileDigest::of(b"other");
        for job in [other_run, other_model] {
            assert!(stored(&changed).for_job(&job, &model).is_none());
        }
    }

    #[test]
    fn what_a_later_enqueue_has_made_counts_more() {
        let job = changed_job("cat");
        let mut later = stored(&job);
        assert!(!later.is_of_later_than(&job));
        later.record.generation = Some(Generation::after(job.generation));
        assert!(later.is_of_later_than(&job));
        // The user may write no manifest any more.
        assert!(!later.is_of_later_than(&Job { generation: None, ..job.clone() }));
        assert!(!later.is_of_later_than(&Job { run: RunId::generate(), ..job }));
    }

    #[test]
    fn another_entity_tag_is_noted_if_the_digest_is_the_same() {
        let model = ModelFiles::bundled();
        let job = changed_job("cat");
        let kept = || Box::new(stored(&job).for_job(&job, &model).unwrap());
        let bucket = "s3://bucket/images".parse().unwrap();
        assert!(kept().is_of(&listed("\"1\"", 3), &bucket));
        let now = listed("\"2\"", 3);
        assert!(!kept().is_of(&now, &bucket) && kept().may_be_of(&now));
        assert!(!kept().may_be_of(&listed("\"2\"", 4)));
        let mut file = stored(&job).record.image;
        file.etag = now.etag;
        let renewed = kept().of_file(&file).unwrap();
        assert_eq!(renewed.kept_as(), KeptAs::Renewed);
        assert_eq!(written(&renewed).image.etag, file.etag);
        file.digest = Some(FileDigest::of(b"abd"));
        assert!(kept().of_file(&file).is_none());
        // An older version has written no digest.
        let mut older = kept();
        older.record.image.digest = None;
        assert!(!older.may_be_of(&listed("\"2\"", 3)));
        file.digest = None;
        assert!(older.of_file(&file).is_none());
    }
}
