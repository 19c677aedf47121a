//! Images drawn at random, for people to judge: what they decide tells how many findings are right, and how
//! many faults nothing was found of.
//!
//! By the hash of the key, so that the same images give the same sample, and a larger sample has all of
//! a smaller one. Upstream: [`findings`](super::findings). Downstream: the report's page, which shows a
//! sample to people, and the report, which counts what they decided.

use std::collections::HashSet;

use camshaft_common::key::ImageKey;
use camshaft_common::layout::DECISIONS;
use camshaft_common::store::{Folder, JSON, StoreError, StoreErrorKind};
use chrono::{DateTime, Utc};
use futures::TryStreamExt;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::SampleError;
use crate::findings::Findings;

/// The folder of samples below the folder of decisions.
const FOLDER: &str = "samples";
/// Before a kind: images without a finding of that kind.
const WITHOUT: &str = "no-";
/// The word for findings of any kind.
const ANY: &str = "any";
/// The largest sample that is read: some 100,000 keys.
const MAX_BYTES: u64 = 64 << 20;

/// A sample of a run's images.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// 1.
    pub schema: u32,
    /// What the images were drawn from.
    pub kind: SampleKind,
    /// The images, in the order in which they were drawn.
    pub keys: Vec<ImageKey>,
    /// How many images there were to draw from.
    pub of: u64,
    /// When it was drawn.
    pub drawn_at: DateTime<Utc>,
}

/// What images a sample is drawn from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum SampleKind {
    /// Those with a finding: `any`.
    #[default]
    Any,
    /// Those with a finding of this kind or problem: its word.
    With(String),
    /// Those without one, and with a label and a prediction: `no-` and the word.
    Without(String),
}

impl From<String> for SampleKind {
    fn from(text: String) -> Self {
        match text.strip_prefix(WITHOUT) {
            Some(word) => Self::Without(word.to_owned()),
            None if text == ANY => Self::Any,
            None => Self::With(text),
        }
    }
}

impl From<SampleKind> for String {
    fn from(kind: SampleKind) -> Self {
        kind.to_string()
    }
}

impl std::fmt::Display for SampleKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Any => f.write_str(ANY),
            Self::With(word) => f.write_str(word),
            Self::Without(word) => write!(f, "{WITHOUT}{word}"),
        }
    }
}

impl SampleKind {
    /// Whether images are drawn that no finding may be about.
    #[must_use]
    pub fn is_without(&self) -> bool {
        matches!(self, Self::Without(_))
    }
}

impl Sample {
    /// Draws up to `size` images of this kind. `judged` are all images of the run with a label and a
    /// prediction; only a sample of images without a finding needs them.
    #[must_use]
    pub fn draw(
        findings: &Findings,
        judged: Vec<ImageKey>,
        size: usize,
        kind: SampleKind,
        now: DateTime<Utc>,
    ) -> Self {
        let of_kind = |word: Option<&str>| -> Vec<ImageKey> {
            let images = findings.images().iter().filter(|image| match word {
                Some(word) => image.has(word),
                None => !image.findings.is_empty(),
            });
            images.map(|image| image.key.clone()).collect()
        };
        let mut keys: Vec<ImageKey> = match &kind {
            SampleKind::Any => of_kind(None),
            SampleKind::With(word) => of_kind(Some(word)),
            SampleKind::Without(word) => {
                let found: HashSet<_> = of_kind(Some(word)).into_iter().collect();
                judged.into_iter().filter(|key| !found.contains(key)).collect()
            }
        };
        let of = keys.len() as u64;
        keys.sort_by_cached_key(|key| Sha256::digest(key.as_str()).to_vec());
        keys.truncate(size);
        Self { schema: 1, kind, keys, of, drawn_at: crate::decision::whole_millis(now) }
    }

    /// The sample's path below OUT. A new sample of the same kind replaces it.
    #[must_use]
    pub fn path(&self) -> String {
        format!("{DECISIONS}/{FOLDER}/{}.json", self.kind)
    }

    /// Writes the sample into OUT.
    ///
    /// # Errors
    /// If OUT can't be written.
    pub async fn write(&self, out: &Folder) -> Result<(), StoreError> {
        let json = serde_json::to_vec(self).expect("a sample has only texts and numbers");
        out.put(&self.path(), json, JSON).await
    }

    /// Reads all samples in OUT, in the order of their kinds' words, and why others can't be read.
    ///
    /// # Errors
    /// If OUT can't be read.
    pub async fn read_all(out: &Folder) -> Result<(Vec<Self>, Vec<SampleError>), StoreError> {
        let folder = format!("{DECISIONS}/{FOLDER}");
        let listed = out.list(&folder).map_ok(|object| format!("{folder}/{}", object.path));
        let mut paths: Vec<String> = match listed.try_collect().await {
            Ok(paths) => paths,
            Err(error) if error.kind() == StoreErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        paths.retain(|path| path.ends_with(".json"));
        paths.sort_unstable();
        let (mut samples, mut broken) = (Vec::new(), Vec::new());
        for path in paths {
            let content = out.get(&path, MAX_BYTES).await?.bytes;
            match serde_json::from_slice(&content) {
                Ok(sample) => samples.push(sample),
                Err(source) => broken.push(SampleError { path, source }),
            }
        }
        Ok((samples, broken))
    }
}

#[cfg(test)]
mod tests {
    use camshaft_common::store::StoreOptions;

    use super::*;
    use crate::rule::tests_of_meaning::{finding, image};

    fn findings() -> Findings {
        let images = (0..40).map(|number| {
            let kind = ["duplicate", "outlier"][number % 2];
            image(&format!("{number:02}"), vec![finding(kind, "", 0.5, ["", ""])], false)
        });
        Findings::of(images.chain([image("best", Vec::new(), true)]).collect())
    }

    fn draw(size: usize, kind: &str) -> Sample {
        let judged = (0..50).map(|number| ImageKey::parse(format!("{number:02}")).unwrap());
        let kind = kind.to_owned().into();
        Sample::draw(&findings(), judged.collect(), size, kind, Utc::now())
    }

    #[test]
    fn a_larger_sample_has_all_of_a_smaller_one() {
        let (small, large) = (draw(5, "outlier"), draw(10, "outlier"));
        assert_eq!(small.keys, large.keys[..5]);
        assert_eq!((large.of, large.keys.len()), (20, 10));
        let odd = |key: &ImageKey| key.as_str().parse::<u32>().unwrap() % 2 == 1;
        assert!(large.keys.iter().all(odd));
        assert_eq!((draw(99, "any").keys.len(), draw(3, "dark").of), (40, 0));
        assert_eq!(serde_json::to_value(&small).unwrap()["kind"], "outlier");
    }

    #[test]
    fn images_without_a_finding_can_be_drawn() {
        // Of 50 images with a label, 20 are outliers.
        let sample = draw(99, "no-outlier");
        assert_eq!((sample.of, sample.keys.len()), (30, 30));
        assert_eq!(sample.kind, SampleKind::Without("outlier".to_owned()));
        assert_eq!(sample.path(), "decisions/samples/no-outlier.json");
    }

    #[tokio::test]
    async fn samples_of_several_kinds_stand_beside_each_other() {
        let directory = tempfile::tempdir().unwrap();
        let location = directory.path().to_str().unwrap().parse().unwrap();
        let out = Folder::open(&location, &StoreOptions::default()).unwrap();
        assert!(Sample::read_all(&out).await.unwrap().0.is_empty());
        let samples = [draw(3, "any"), draw(2, "no-outlier")];
        for sample in &samples {
            sample.write(&out).await.unwrap();
        }
        assert_eq!(Sample::read_all(&out).await.unwrap().0, samples);
        std::fs::write(directory.path().join("decisions/samples/any.json"), "{").unwrap();
        // The others still count.
        let (read, broken) = Sample::read_all(&out).await.unwrap();
        assert_eq!(read, samples[1..]);
        let error = broken[0].to_string();
        assert!(error.contains("any.json") && error.contains("--sample"), "{error}");
    }
}
