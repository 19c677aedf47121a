//! The job: a message with everything that a worker needs to do one image.
//!
//! Owns the JSON and its version. Upstream: the producer. Downstream: the queue, which carries it
//! unread, and the worker.

use serde::{Deserialize, Serialize};

use crate::explain::ExplainOptions;
use crate::key::ImageKey;
use crate::location::Location;
use crate::model::ModelIdentity;
use crate::run::{Generation, RunId};

/// The version of the message's JSON.
pub const JOB_VERSION: u32 = 1;

/// The most bytes of a message. Most jobs have one or two kilobytes; the longest names and labels take
/// some forty. A longer message is not read.
pub const MAX_JOB_BYTES: usize = 64 * 1024;

/// One image to predict and explain.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// [`JOB_VERSION`].
    pub v: u32,
    /// The run it belongs to.
    pub run: RunId,
    /// The enqueue or audit that it belongs to. Absent in jobs of older versions, which come before all
    /// others, and if that has no manifest.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub generation: Option<Generation>,
    /// The image below `source`.
    pub key: ImageKey,
    /// The store's entity tag when the image was listed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub etag: Option<String>,
    /// Its size in bytes when it was listed; absent if the list does not tell.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub size: Option<u64>,
    /// Its label, if it has one, in words that name one of the model's classes if possible. It is not
    /// always the given one: see `given_label`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub label: Option<String>,
    /// The label as a folder or list gives it, if a label map replaced it. Results name this one.
    /// Workers of older versions don't read it: they name `label`, and compare that with classes.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub given_label: Option<String>,
    /// The place of the images.
    pub source: Location,
    /// The place for results.
    pub out: Location,
    /// The model to use.
    pub model: ModelIdentity,
    /// How to explain.
    pub explain: ExplainOptions,
    /// True if an older result may lie in `out`: a worker computes a new one and removes the other.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub replaces: bool,
    /// True if the job replaces a prediction because the image or its label is not as it was. A worker
    /// keeps what of the prediction is still right: see `docs/reliability.md`. Workers of older versions
    /// don't read it, and compute a new one.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub changed: bool,
    /// True if an earlier enqueue may have published a job for the image before. A worker first looks
    /// for its result.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub again: bool,
}

/// Why a message is not a job.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// More than [`MAX_JOB_BYTES`].
    #[error("message of {0} bytes is longer than {MAX_JOB_BYTES}")]
    TooLong(usize),
    /// Not the JSON of a job.
    #[error("message is not a job: {0}")]
    Malformed(#[source] serde_json::Error),
    /// From another version of Camshaft.
    #[error("message has version {0}, this worker reads {JOB_VERSION}; update the older side")]
    Version(u64),
}

impl Job {
    /// Reads a message's body.
    ///
    /// # Errors
    /// If it is not a job of this version. Its fields are checked as they are read: a key or place
    /// that leads out of SOURCE or OUT makes the message malformed.
    pub fn parse(body: &[u8]) -> Result<Self, JobError> {
        #[derive(Deserialize)]
        struct Version {
            v: u64,
        }
        if body.len() > MAX_JOB_BYTES {
            return Err(JobError::TooLong(body.len()));
        }
        let Version { v } = serde_json::from_slice(body).map_err(JobError::Malformed)?;
        if v != u64::from(JOB_VERSION) {
            return Err(JobError::Version(v));
        }
        serde_json::from_slice(body).map_err(JobError::Malformed)
    }

    /// The label that results name: the given one.
    #[must_use]
    pub fn result_label(&self) -> Option<&str> {
        // The one in `label` is for the model if a label map has replaced the given one.
        self.given_label.as_deref().or(self.label.as_deref())
    }

    /// The message's body.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a job has only strings and numbers")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn job(key: &str, label: Option<String>) -> Job {
        Job {
            v: JOB_VERSION,
            run: RunId::generate(),
            generation: None,
            key: ImageKey::parse(key).unwrap(),
            etag: Some("\"abc\"".into()),
            size: Some(9123),
            label,
            given_label: None,
            source: "s3://data/pets".parse().unwrap(),
            out: "s3://data/out".parse().unwrap(),
            model: ModelIdentity::bundled(),
            explain: ExplainOptions::default(),
            replaces: false,
            changed: false,
            again: false,
        }
    }

    #[test]
    fn a_message_of_another_version_is_named_as_such() {
        let mut value = serde_json::to_value(job("a.jpg", None)).unwrap();
        value["v"] = 2.into();
        let error = Job::parse(value.to_string().as_bytes()).unwrap_err();
        assert!(matches!(error, JobError::Version(2)), "{error}");
    }

    #[test]
    fn a_key_that_climbs_out_makes_the_message_malformed() {
        let mut value = serde_json::to_value(job("a.jpg", None)).unwrap();
        value["key"] = "../../etc/passwd".into();
        assert!(matches!(Job::parse(value.to_string().as_bytes()), Err(JobError::Malformed(_))));
    }

    #[test]
    fn a_label_that_no_map_replaced_is_written_as_before() {
        let mapped = Job { given_label: Some("0".into()), ..job("a.jpg", Some("cat".into())) };
        assert_eq!(Job::parse(&mapped.to_json()).unwrap(), mapped);
        assert_eq!(mapped.result_label(), Some("0"));
        let plain = job("a.jpg", Some("cat".into()));
        assert_eq!(plain.result_label(), Some("cat"));
        assert!(!String::from_utf8(plain.to_json()).unwrap().contains("given_label"));
    }

    #[test]
    fn a_job_without_a_generation_is_written_as_before() {
        let plain = job("a.jpg", None);
        assert!(!String::from_utf8(plain.to_json()).unwrap().contains("generation"));
        let generation = Some(Generation::after(None));
        let with_generation = Job { generation, ..plain };
        assert_eq!(Job::parse(&with_generation.to_json()).unwrap(), with_generation);
    }

    #[test]
    fn a_job_of_an_image_that_has_not_changed_is_written_as_before() {
        let plain = Job { replaces: true, ..job("a.jpg", None) };
        assert!(!String::from_utf8(plain.to_json()).unwrap().contains("changed"));
        let changed = Job { changed: true, ..plain };
        assert_eq!(Job::parse(&changed.to_json()).unwrap(), changed);
    }

    #[test]
    fn junk_is_refused() {
        for junk in [&b""[..], b"{}", b"[1]", b"\xff\xfe", b"{\"v\":1}", b"null"] {
            assert!(Job::parse(junk).is_err());
        }
        assert!(matches!(Job::parse(&vec![b' '; MAX_JOB_BYTES + 1]), Err(JobError::TooLong(_))));
    }

    proptest! {
        #[test]
        fn jobs_survive_the_queue(name in "[^\\p{Cc}/]{1,30}", label in proptest::option::of(".{0,20}")) {
            prop_assume!(name != "." && name != "..");
            let key = ImageKey::from_name(format!("cat/{name}").as_bytes()).unwrap();
            let job = job(key.as_str(), label);
            prop_assert_eq!(Job::parse(&job.to_json()).unwrap(), job);
        }
    }
}
