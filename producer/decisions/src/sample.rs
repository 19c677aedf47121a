//! Findings drawn at random, for people to judge: from what they decide it can be told how many findings
//! are right.
//!
//! By the hash of the key, so that the same findings give the same sample, and a larger sample has all of
//! a smaller one. Upstream: [`findings`](super::findings). Downstream: whoever shows the sample to people.

use camshaft_common::key::ImageKey;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::findings::Findings;

/// The sample's path below OUT.
pub const SAMPLE_FILE: &str = "decisions/sample.json";

/// A sample of the images with findings, or with findings of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// 1.
    pub schema: u32,
    /// The kind or problem of the findings; none if they are of any.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub kind: Option<String>,
    /// The images, in the order in which they were drawn.
    pub keys: Vec<ImageKey>,
    /// How many images there were to draw from.
    pub of: u64,
    /// When it was drawn.
    pub drawn_at: DateTime<Utc>,
}

impl Sample {
    /// Draws up to `size` images that have a finding, of this kind or problem if it is given.
    #[must_use]
    pub fn draw(findings: &Findings, size: usize, kind: Option<&str>, now: DateTime<Utc>) -> Self {
        let is_drawn_from = |image: &&crate::ImageFindings| match kind {
            Some(word) => image.findings.iter().any(|finding| finding.has(word)),
            None => !image.findings.is_empty(),
        };
        let images = findings.images().iter().filter(is_drawn_from);
        let mut keys: Vec<_> = images.map(|image| &image.key).collect();
        let of = keys.len() as u64;
        keys.sort_by_cached_key(|key| Sha256::digest(key.as_str()).to_vec());
        keys.truncate(size);
        let keys = keys.into_iter().cloned().collect();
        let kind = kind.map(str::to_owned);
        Self { schema: 1, kind, keys, of, drawn_at: crate::decision::whole_millis(now) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::tests_of_meaning::{finding, image};

    #[test]
    fn a_larger_sample_has_all_of_a_smaller_one() {
        let images = (0..40).map(|number| {
            let kind = ["duplicate", "outlier"][number % 2];
            image(&format!("{number:02}"), vec![finding(kind, "", 0.5, ["", ""])], false)
        });
        let findings = Findings::of(images.chain([image("best", Vec::new(), true)]).collect());
        let draw = |size, kind| Sample::draw(&findings, size, kind, Utc::now());
        let (small, large) = (draw(5, Some("outlier")), draw(10, Some("outlier")));
        assert_eq!(small.keys, large.keys[..5]);
        assert_eq!((large.of, large.keys.len()), (20, 10));
        let odd = |key: &ImageKey| key.as_str().parse::<u32>().unwrap() % 2 == 1;
        assert!(large.keys.iter().all(odd));
        assert_eq!((draw(99, None).keys.len(), draw(3, Some("dark")).of), (40, 0));
        assert_eq!(serde_json::to_value(&small).unwrap()["kind"], "outlier");
    }
}
