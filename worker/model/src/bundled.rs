//! The model inside the program, which needs no download.

use camshaft_common::model::BUNDLED_MODEL;

use crate::config::ModelConfig;

/// The weights of `cats-vs-dogs`. The README beside the file says where they come from.
pub(super) const WEIGHTS: &[u8] = include_bytes!("../models/cats-vs-dogs/model.safetensors");
/// Its `config.json`.
pub(super) const CONFIG: &[u8] = include_bytes!("../models/cats-vs-dogs/config.json");

impl ModelConfig {
    /// The configuration of the model inside the program, without a look at its weights.
    #[must_use]
    pub fn bundled() -> Self {
        Self::parse(BUNDLED_MODEL, CONFIG).expect("the bundled config.json is part of this version")
    }
}

#[cfg(test)]
mod tests {
    use camshaft_common::model::{ModelIdentity, ModelReference};

    use super::{CONFIG, WEIGHTS};

    #[test]
    fn the_bundled_model_is_named_by_its_bytes() {
        let found = ModelIdentity::of_files(ModelReference::Bundled, WEIGHTS, CONFIG, None);
        assert_eq!(found, ModelIdentity::bundled());
    }
}
