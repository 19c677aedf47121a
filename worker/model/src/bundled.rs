//! The model inside the program, which needs no download.

/// The weights of `cats-vs-dogs`. The README beside the file says where they come from.
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
