//! Decides which images of SOURCE get a job, given the results that lie in OUT and the manifest of the
//! run's previous enqueue or audit.

use std::collections::HashSet;
use std::sync::Arc;

use camshaft_common::key::ImageKey;
use camshaft_common::manifest::ManifestImages;
use chrono::{DateTime, Utc};

use crate::images::existing_results::{ExistingResult, ExistingResults, ResultKind};
use crate::images::found_image::FoundImage;
use crate::images::previous_image::PreviousImage;

/// Which images get a job: `--only`.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    clap::ValueEnum,
    serde::Serialize,
    serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Selection {
    /// Those without a result, and those that changed after their result was written.
    #[default]
    New,
    /// Every image.
    All,
    /// Those whose result is a failure.
    Failed,
    /// Those that were lost: once the queue is empty, they have neither a result nor a dead letter.
    Missing,
}

impl Selection {
    /// What is said of images that get no job.
    #[must_use]
    pub(crate) fn of_others(self) -> &'static str {
        match self {
            Self::New | Self::All => "have results already",
            Self::Failed | Self::Missing => "left as they are",
        }
    }
}

/// What happens to an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Decision {
    /// Its job, if it gets one.
    pub(crate) job: Option<JobMarks>,
    /// Which results of it count from now on.
    pub(crate) counting: CountingResults,
}

/// What a job says of results that may lie in OUT already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct JobMarks {
    /// True if there may be one and it must be replaced.
    pub(crate) replaces: bool,
    /// True if that is because the image or its label is not as it was, and the result is a prediction:
    /// a worker keeps what is still right of it.
    pub(crate) changed: bool,
    /// True if there may be one that is right: a worker looks for it first.
    pub(crate) again: bool,
}

/// Which results of an image count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CountingResults {
    /// The one that lies in OUT.
    Kept,
    /// Those written from the beginning of this enqueue on.
    FromNowOn,
    /// Those written since an earlier enqueue, whose jobs may still wait.
    Since(DateTime<Utc>),
}

/// Decides about images.
#[derive(Debug, Default)]
pub(crate) struct ImageSelector {
    /// The results in OUT.
    pub(crate) results: Arc<ExistingResults>,
    /// The images of the previous manifest, if there is one.
    pub(crate) previous: Option<ManifestImages>,
    /// Images whose job is a dead letter: they are not lost.
    pub(crate) dead: HashSet<ImageKey>,
    /// True if the run was enqueued before: jobs of then may still wait, or be in work.
    pub(crate) goes_on: bool,
    /// No result counts that was written before this time.
    pub(crate) results_since: Option<DateTime<Utc>>,
    /// When an enqueue or audit began that has not ended: of what it has done, no manifest tells.
    pub(crate) interrupted_since: Option<DateTime<Utc>>,
}

/// Why an image needs a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    /// It doesn't.
    Nothing,
    /// It has no result that counts.
    Result,
    /// Its result may be of another content or label.
    Change,
    /// It has a result, and nothing tells whether that is of the image as it is now.
    Check,
}

/// Why an image gets a job, for a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum JobReason {
    /// It has no result.
    NoResult,
    /// Its content is not as it was.
    Changed,
    /// Only its label is not as it was.
    Relabelled,
    /// Its result may be right: a worker looks at it first.
    Look,
    /// Its result no longer counts, or the user wants another.
    Redo,
}

impl ImageSelector {
    /// True if the image's result is a failure.
    #[must_use]
    pub(crate) fn has_failed(&self, key: &ImageKey) -> bool {
        self.results.get(key).is_some_and(|result| result.kind() == ResultKind::Failure)
    }

    /// Decides about an image.
    #[must_use]
    pub(crate) fn decide(&self, image: &FoundImage, selection: Selection) -> Decision {
        let result = self.results.get(&image.key);
        let before = self.before(image);
        let need = self.need(image, result, before);
        let is_selected = match selection {
            Selection::All => true,
            Selection::New => need != Need::Nothing,
            Selection::Failed => self.has_failed(&image.key),
            Selection::Missing => need == Need::Result && !self.dead.contains(&image.key),
        };
        if !is_selected {
            // An unusable result may have been written since.
            let may_count = result.is_none_or(ExistingResult::is_usable);
            let counting = match (need, before.and_then(|before| before.since)) {
                (Need::Nothing, _) => CountingResults::Kept,
                (Need::Result, Some(since)) if may_count => CountingResults::Since(since),
                _ => CountingResults::FromNowOn,
            };
            return Decision { job: None, counting };
        }
        // A result of the enqueue that was interrupted may be of the image as it is now.
        let may_be_right = need == Need::Check
            || need == Need::Change && result.is_some_and(|result| self.is_of_interrupted(result));
        let replaces = match selection {
            Selection::New => result.is_some() && !may_be_right,
            Selection::All | Selection::Failed | Selection::Missing => result.is_some(),
        };
        // The job of an earlier enqueue may still wait, or be in work: the two must not both be done,
        // nor end differently, one as a prediction and one as a failure.
        let may_be_in_work = match (&self.previous, before) {
            (None, _) => self.goes_on,
            (Some(_), before) => before.is_some(),
        };
        let looks = match selection {
            Selection::New => may_be_right || may_be_in_work,
            Selection::Missing => true,
            Selection::All | Selection::Failed => false,
        };
        // What is to be redone, or was enqueued before and not done, is computed anew.
        let changed = replaces
            && selection == Selection::New
            && need == Need::Change
            && result.is_some_and(|result| result.kind() == ResultKind::Prediction);
        let job = Some(JobMarks { replaces, changed, again: looks && !replaces });
        Decision { job, counting: CountingResults::FromNowOn }
    }

    /// Why the image gets a job, if [`Self::decide`] gives it one.
    #[must_use]
    pub(crate) fn job_reason(&self, image: &FoundImage) -> JobReason {
        let Some(result) = self.results.get(&image.key) else { return JobReason::NoResult };
        let before = self.before(image);
        let has_other_content = before.is_some_and(|before| before.has_other_content)
            || is_written_since(image, result, before)
            || self.has_come_or_gone(image, result, before);
        match self.need(image, Some(result), before) {
            Need::Nothing | Need::Result => JobReason::Redo,
            Need::Change if has_other_content => JobReason::Changed,
            Need::Change => JobReason::Relabelled,
            Need::Check => JobReason::Look,
        }
    }

    fn before(&self, image: &FoundImage) -> Option<PreviousImage> {
        PreviousImage::of(self.previous.as_ref()?, image)
    }

    fn need(
        &self,
        image: &FoundImage,
        result: Option<ExistingResult>,
        before: Option<PreviousImage>,
    ) -> Need {
        let Some(result) = result.filter(|result| result.is_usable()) else { return Need::Result };
        let is_older_than =
            |time: Option<DateTime<Utc>>| time.is_some_and(|time| result.is_older_than(time));
        if is_older_than(self.results_since) || is_older_than(before.and_then(|b| b.since)) {
            return Need::Result;
        }
        if is_written_since(image, result, before) || before.is_some_and(|it| it.is_changed()) {
            return Need::Change;
        }
        if self.has_come_or_gone(image, result, before) {
            return Need::Change;
        }
        // The image has come since the last enqueue, or has come back.
        let is_unknown = self.previous.is_some() && before.is_none();
        if is_unknown && !self.is_of_interrupted(result) { Need::Check } else { Need::Nothing }
    }

    /// True if an image of a list was there when its result was made and is not now, or the other way
    /// round, as far as the manifest doesn't tell it.
    fn has_come_or_gone(
        &self,
        image: &FoundImage,
        result: ExistingResult,
        before: Option<PreviousImage>,
    ) -> bool {
        match result.kind() {
            ResultKind::Unusable => false,
            ResultKind::Prediction => image.is_absent,
            // Nobody looked at the object before the failure. Perhaps it was not there.
            ResultKind::Failure => {
                image.was_seen()
                    && before.is_some_and(|before| !before.is_known)
                    && !self.is_of_interrupted(result)
            }
        }
    }

    /// True if the result was written after an enqueue began that has not ended.
    fn is_of_interrupted(&self, result: ExistingResult) -> bool {
        self.interrupted_since.is_some_and(|since| !result.is_older_than(since))
    }
}

/// True if the image was written after its result, as far as no entity tags tell more: clocks differ, and
/// a file's time may be any.
fn is_written_since(
    image: &FoundImage,
    result: ExistingResult,
    before: Option<PreviousImage>,
) -> bool {
    before.is_none_or(|before| !before.has_etags)
        && image.last_modified.is_some_and(|modified| result.is_older_than(modified))
}

#[cfg(test)]
mod tests {
    use camshaft_common::manifest::ManifestEntry;
    use chrono::TimeDelta;

    use super::*;

    const FIRST: JobMarks = JobMarks { replaces: false, changed: false, again: false };
    const LOOKS: JobMarks = JobMarks { again: true, ..FIRST };
    const REPLACES: JobMarks = JobMarks { replaces: true, ..FIRST };
    const CHANGED: JobMarks = JobMarks { changed: true, ..REPLACES };

    fn key(key: &str) -> ImageKey {
        ImageKey::parse(key).unwrap()
    }

    fn image(key: &str, modified: Option<DateTime<Utc>>) -> FoundImage {
        FoundImage {
            key: ImageKey::parse(key).unwrap(),
            etag: Some("1".to_owned()),
            size_bytes: Some(1),
            last_modified: modified,
            is_absent: false,
            label: Some("cat".to_owned()),
        }
    }

    fn selector(now: DateTime<Utc>) -> ImageSelector {
        let mut results = ExistingResults::default();
        for (name, kind) in [
            ("done.jpg", ResultKind::Prediction),
            ("redo.jpg", ResultKind::Prediction),
            ("failed.jpg", ResultKind::Failure),
        ] {
            results.insert(&key(name), kind, now);
        }
        let dead = HashSet::from([key("dead.jpg")]);
        ImageSelector { results: Arc::new(results), dead, ..ImageSelector::default() }
    }

    /// The same after an enqueue of these images, each with the time since when results count.
    fn after(now: DateTime<Utc>, images: &[(&FoundImage, Option<DateTime<Utc>>)]) -> ImageSelector {
        let mut previous = ManifestImages::of(Some(&"s3://bucket/images".parse().unwrap()));
        for (image, since) in images {
            let FoundImage { key, etag, size_bytes: size, is_absent: absent, label, .. } =
                (*image).clone();
            previous.insert(&ManifestEntry { key, etag, size, absent, label, since: *since });
        }
        ImageSelector { previous: Some(previous), goes_on: true, ..selector(now) }
    }

    #[test]
    fn each_choice_takes_its_images() {
        let now = Utc::now();
        let earlier = Some(now - TimeDelta::hours(1));
        let later = Some(now + TimeDelta::hours(1));
        let selector = selector(now);
        let job =
            |name, modified, selection| selector.decide(&image(name, modified), selection).job;

        assert_eq!(job("new.jpg", earlier, Selection::New), Some(FIRST));
        assert_eq!(job("done.jpg", earlier, Selection::New), None);
        assert_eq!(job("done.jpg", None, Selection::New), None);
        assert_eq!(job("done.jpg", later, Selection::New), Some(CHANGED));
        assert_eq!(job("failed.jpg", later, Selection::New), Some(REPLACES));
        assert_eq!(job("failed.jpg", earlier, Selection::New), None);
        assert_eq!(job("failed.jpg", earlier, Selection::Failed), Some(REPLACES));
        assert_eq!(job("new.jpg", earlier, Selection::Failed), None);
        assert_eq!(job("lost.jpg", earlier, Selection::Missing), Some(LOOKS));
        for there in ["done.jpg", "failed.jpg", "dead.jpg"] {
            assert_eq!(job(there, later, Selection::Missing), None);
        }
        for modified in [earlier, later] {
            assert_eq!(job("done.jpg", modified, Selection::All), Some(REPLACES));
        }
        assert_eq!(job("new.jpg", earlier, Selection::All), Some(FIRST));
        // Of a run that goes on without a manifest, any job may still wait.
        let goes_on = ImageSelector { goes_on: true, ..ImageSelector::default() };
        assert_eq!(goes_on.decide(&image("new.jpg", earlier), Selection::New).job, Some(LOOKS));
    }

    #[test]
    fn an_image_that_is_not_as_it_was_is_done_again() {
        let now = Utc::now();
        let modified = Some(now - TimeDelta::hours(1));
        let before = image("done.jpg", modified);
        let selector = after(now, &[(&before, None)]);
        let decide = |image: &FoundImage, selection| selector.decide(image, selection);
        let kept = Decision { job: None, counting: CountingResults::Kept };
        assert_eq!(decide(&before, Selection::New), kept);
        let changes: [fn(&mut FoundImage); 4] = [
            |image| image.etag = Some("2".to_owned()),
            |image| image.etag = Some("3".to_owned()),
            |image| image.label = Some("dog".to_owned()),
            |image| image.label = None,
        ];
        for change in changes {
            let mut now = before.clone();
            change(&mut now);
            assert_eq!(decide(&now, Selection::New).job, Some(CHANGED), "{now:?}");
            // That it is to be done is not forgotten.
            let waiting = Decision { job: None, counting: CountingResults::FromNowOn };
            assert_eq!(decide(&now, Selection::Failed), waiting, "{now:?}");
            assert_eq!(decide(&now, Selection::Missing), waiting, "{now:?}");
        }
    }

    #[test]
    fn a_result_that_an_earlier_enqueue_wanted_to_replace_does_not_count() {
        let now = Utc::now();
        // Manifests have whole milliseconds.
        let since = now.timestamp_millis() + 60_000;
        let since = DateTime::from_timestamp_millis(since).unwrap();
        let modified = Some(now - TimeDelta::hours(1));
        let [redo, lost] = ["redo.jpg", "lost.jpg"].map(|name| image(name, modified));
        let mut selector = after(now, &[(&redo, Some(since)), (&lost, Some(since))]);
        for selection in [Selection::New, Selection::Missing, Selection::All] {
            let decision = selector.decide(&redo, selection);
            let counting = CountingResults::FromNowOn;
            assert_eq!(decision, Decision { job: Some(REPLACES), counting });
        }
        // Their jobs may still wait.
        for image in [&redo, &lost] {
            let waits = Decision { job: None, counting: CountingResults::Since(since) };
            assert_eq!(selector.decide(image, Selection::Failed), waits);
        }
        assert_eq!(selector.decide(&lost, Selection::New).job, Some(LOOKS));
        assert_eq!(selector.decide(&image("new.jpg", modified), Selection::New).job, Some(FIRST));
        // Every image was to be redone, and that enqueue was killed.
        selector.previous = None;
        assert_eq!(selector.decide(&redo, Selection::New).job, None);
        selector.results_since = Some(since);
        assert_eq!(selector.decide(&redo, Selection::New).job, Some(REPLACES));
        assert_eq!(selector.decide(&redo, Selection::Missing).job, Some(REPLACES));
    }

    #[test]
    fn a_person_is_told_why_an_image_gets_a_job() {
        let now = Utc::now();
        let hour = TimeDelta::hours(1);
        let since = DateTime::from_timestamp_millis(now.timestamp_millis() + 60_000).unwrap();
        let [done, redo] = ["done.jpg", "redo.jpg"].map(|name| image(name, Some(now - hour)));
        let selector = after(now, &[(&done, None), (&redo, Some(since))]);
        let written = Some(now + hour);
        let label = Some("dog".to_owned());
        for (found, reason) in [
            (image("new.jpg", written), JobReason::NoResult),
            (FoundImage { etag: Some("3".to_owned()), ..done.clone() }, JobReason::Changed),
            (FoundImage { last_modified: written, etag: None, ..done.clone() }, JobReason::Changed),
            (FoundImage { label, ..done.clone() }, JobReason::Relabelled),
            (image("failed.jpg", Some(now - hour)), JobReason::Look),
            (redo, JobReason::Redo),
            (done, JobReason::Redo),
        ] {
            assert_eq!(selector.job_reason(&found), reason, "{found:?}");
        }
    }

    #[test]
    fn an_unusable_result_is_replaced_and_does_not_count_meanwhile() {
        let now = Utc::now();
        let image = image("bad.jpg", Some(now - TimeDelta::hours(1)));
        let earlier = DateTime::from_timestamp_millis(now.timestamp_millis() - 60_000);
        for since in [None, earlier] {
            let mut selector = after(now, &[(&image, since)]);
            let insert = |selector: &mut ImageSelector, kind| {
                Arc::get_mut(&mut selector.results).unwrap().insert(&image.key, kind, now);
            };
            insert(&mut selector, ResultKind::Unusable);
            for selection in [Selection::New, Selection::Missing] {
                assert_eq!(selector.decide(&image, selection).job, Some(REPLACES), "{since:?}");
            }
            let waiting = Decision { job: None, counting: CountingResults::FromNowOn };
            assert_eq!(selector.decide(&image, Selection::Failed), waiting, "{since:?}");
            // Of two results of an image, the other one may count.
            insert(&mut selector, ResultKind::Failure);
            insert(&mut selector, ResultKind::Unusable);
            assert_eq!(selector.decide(&image, Selection::New).job, None, "{since:?}");
        }
        let mut results = ExistingResults::default();
        results.insert(&image.key, ResultKind::Unusable, now);
        assert!(results.is_empty());
    }

    #[test]
    fn a_result_of_an_image_that_was_away_is_looked_at() {
        let now = Utc::now();
        let back = image("done.jpg", Some(now - TimeDelta::hours(1)));
        let mut selector = after(now, &[]);
        assert_eq!(selector.decide(&back, Selection::New).job, Some(LOOKS));
        // Unless an enqueue that was interrupted has done it.
        selector.interrupted_since = Some(now - TimeDelta::minutes(1));
        assert_eq!(selector.decide(&back, Selection::New).job, None);
        selector.interrupted_since = Some(now + TimeDelta::minutes(1));
        assert_eq!(selector.decide(&back, Selection::New).job, Some(LOOKS));
        // What it has done of a changed image may be right.
        let mut changed = after(now, &[(&back, None)]);
        let relabelled = FoundImage { label: Some("dog".to_owned()), ..back };
        assert_eq!(changed.decide(&relabelled, Selection::New).job, Some(CHANGED));
        changed.interrupted_since = Some(now - TimeDelta::minutes(1));
        assert_eq!(changed.decide(&relabelled, Selection::New).job, Some(LOOKS));
    }

    #[test]
    fn an_image_of_a_list_that_has_gone_or_come_is_done_again_once() {
        let now = Utc::now();
        let modified = Some(now - TimeDelta::hours(1));
        let unseen = |name| FoundImage { etag: None, size_bytes: None, ..image(name, None) };
        let gone = |name| unseen(name).without_object();
        let [done, failed] = ["done.jpg", "failed.jpg"];
        let job = |before: &FoundImage, image: &FoundImage| {
            after(now, &[(before, None)]).decide(image, Selection::New).job
        };
        // Nothing was known of it.
        assert_eq!(job(&unseen(done), &image(done, modified)), None);
        assert_eq!(job(&unseen(done), &gone(done)), Some(CHANGED));
        assert_eq!(
            job(&unseen(failed), &gone(failed)),
            None,
            "its failure says so, or what it was"
        );
        assert_eq!(job(&unseen(failed), &image(failed, modified)), Some(REPLACES), "it has come");
        assert_eq!(job(&unseen(failed), &unseen(failed)), None, "nobody could look");
        // It was looked at.
        assert_eq!(job(&image(failed, modified), &image(failed, modified)), None);
        assert_eq!(job(&image(failed, modified), &gone(failed)), Some(REPLACES));
        assert_eq!(job(&gone(failed), &gone(failed)), None);
        assert_eq!(job(&gone(failed), &image(failed, modified)), Some(REPLACES));
    }
}
