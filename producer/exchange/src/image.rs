//! An image as it is exported, and what all images of a file have in common.

use serde::Serialize;

/// What all images of a file have in common.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExportHead {
    /// The run's id.
    pub run: String,
    /// The model's name.
    pub model: String,
    /// The digest of its weights.
    pub model_digest: String,
    /// All labels that an image may get, in order.
    pub labels: Vec<String>,
    /// Whether an image has the map of its first explanation as an overlay.
    pub has_overlays: bool,
    /// Whether an image has the map of its given label as an overlay.
    pub has_given_overlays: bool,
}

impl ExportHead {
    /// The model's name with the first digits of its digest: which model a prediction is of.
    #[must_use]
    pub fn model_version(&self) -> String {
        const DIGITS: usize = 12;
        let digest = self.model_digest.rsplit(':').next().unwrap_or_default();
        format!("{} {}", self.model, digest.get(..DIGITS).unwrap_or(digest))
    }

    /// The number of a label in [`Self::labels`].
    pub(crate) fn number_of(&self, label: &str) -> Option<usize> {
        self.labels.binary_search_by(|known| known.as_str().cmp(label)).ok()
    }
}

/// What was found about an image.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ExportFinding {
    /// The kind of the finding.
    pub kind: String,
    /// What exactly is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// Its urgency, 0 to 1.
    pub score: f32,
    /// Why it is a finding, in a sentence.
    pub reason: String,
}

impl ExportFinding {
    /// `duplicate (exact)`.
    pub(crate) fn name(&self) -> String {
        match &self.problem {
            Some(problem) => format!("{} ({problem})", self.kind),
            None => self.kind.clone(),
        }
    }
}

/// An image with what is known of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ExportImage {
    /// Its place among the images of the file in the order of keys, from 0.
    pub number: u64,
    /// Its key.
    pub key: String,
    /// Where another program finds it.
    pub address: String,
    /// The label that it was given.
    pub label: Option<String>,
    /// The most probable class, as a label.
    pub predicted: Option<String>,
    /// The probability of that class.
    pub probability: Option<f32>,
    /// The label that a finding suggests.
    pub suggested: Option<String>,
    /// How probable a head that has not seen the image finds that label.
    pub suggested_probability: Option<f32>,
    /// What was found, the most urgent first.
    pub findings: Vec<ExportFinding>,
    /// The address of the overlay with the map of the first explanation.
    pub overlay: Option<String>,
    /// The class that this map explains.
    pub overlay_class: Option<String>,
    /// The address of the overlay with the map of the given label.
    pub given_overlay: Option<String>,
    /// Width and height; none if the image can't be decoded.
    pub size: Option<[u32; 2]>,
    /// What is decided about it so far, such as `keep` or `relabel: dog`.
    pub decided: Option<String>,
}

impl ExportImage {
    /// The names of its findings, each once.
    pub(crate) fn finding_names(&self) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for name in self.findings.iter().map(ExportFinding::name) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }

    /// The reasons of its findings.
    pub(crate) fn reasons(&self) -> Vec<&str> {
        self.findings.iter().map(|finding| finding.reason.as_str()).collect()
    }

    /// All of it in a line: `Given: cat · Predicted: dog (98.1 %) · Suggested: dog · label-error: …`.
    pub(crate) fn summary(&self) -> String {
        let mut parts = vec![format!("Given: {}", self.label.as_deref().unwrap_or("no label"))];
        if let Some(predicted) = &self.predicted {
            let probability = self.probability.map(|p| format!(" ({:.1} %)", f64::from(p) * 100.0));
            parts.push(format!("Predicted: {predicted}{}", probability.unwrap_or_default()));
        }
        parts.extend(self.suggested.as_ref().map(|label| format!("Suggested: {label}")));
        parts.extend(self.decided.as_ref().map(|decided| format!("Decided: {decided}")));
        parts.extend(self.findings.iter().map(|f| format!("{}: {}", f.name(), f.reason)));
        parts.join(" · ")
    }
}
