//! Which layers of a model a training changed, as its `config.json` may say.
//!
//! A network whose convolutions were trained on a data set has embeddings that know the data set's
//! labels. Downstream: trainings, run records, and the report, which then judges labels with less.

use serde::{Deserialize, Serialize};

/// Which layers are trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TrainedLayers {
    /// The new head only.
    Head,
    /// Every convolution, every BatchNorm and the head.
    All,
}

impl TrainedLayers {
    /// What a `config.json` says, in our format; none if it says nothing that can be read.
    #[must_use]
    pub fn of_config(json: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Config {
            trained_layers: TrainedLayers,
        }
        Some(serde_json::from_slice::<Config>(json).ok()?.trained_layers)
    }
}

#[cfg(test)]
mod tests {
    use super::TrainedLayers;

    #[test]
    fn a_config_says_it_or_nothing() {
        let of = |json: &str| TrainedLayers::of_config(json.as_bytes());
        assert_eq!(
            of(r#"{"classes": ["a", "b"], "trained_layers": "all"}"#),
            Some(TrainedLayers::All)
        );
        for silent in ["{}", r#"{"trained_layers": 7}"#, "no JSON"] {
            assert_eq!(of(silent), None, "{silent}");
        }
    }
}
