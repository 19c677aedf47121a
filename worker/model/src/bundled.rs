//! The checkpoint inside the program, so that it works with no download.

/// Weights of `cats-vs-dogs`; its README beside them tells where they come from.
pub(super) const WEIGHTS: &[u8] = include_bytes!("../models/cats-vs-dogs/model.safetensors");
/// Its `config.json`.
pub(super) const CONFIG: &[u8] = include_bytes!("../models/cats-vs-dogs/config.json");

#[cfg(test)]
mod tests {
    use camshaft_common::model::ModelIdentity;

    use crate::ModelFiles;

    #[test]
    fn the_producer_names_the_bundled_model_by_its_bytes() {
        assert_eq!(ModelFiles::bundled().identity(), &ModelIdentity::bundled());
    }
}
