//! The files of a model folder: their names, how large they may be, and which one holds the
//! weights.
//!
//! Does not read or download anything. Downstream: [`files`](super::files) reads the files from a
//! folder, [`hub`](super::hub) downloads them.

/// File with the weights in a model folder, if it has its usual name.
pub const WEIGHTS_FILE: &str = "model.safetensors";
/// File with class names and input rules in a model folder.
pub const CONFIG_FILE: &str = "config.json";
/// Further input rules, as transformers writes them.
pub const PREPROCESSOR_FILE: &str = "preprocessor_config.json";

/// Largest weights file. A ResNet-152 in f32 has 240 MB.
pub const MAX_WEIGHTS_BYTES: u64 = 4 << 30;
/// Largest `config.json`. The names of all classes of ImageNet-21k take 1 MB.
pub const MAX_CONFIG_BYTES: u64 = 16 << 20;

/// Names and endings of weights files that PyTorch's programs and Keras write, best first.
const WEIGHTS: [WeightsName; 5] = [
    WeightsName::Exactly(WEIGHTS_FILE),
    WeightsName::EndsWith(&[".safetensors"]),
    WeightsName::Exactly("pytorch_model.bin"),
    WeightsName::EndsWith(&[".pth", ".pt", ".bin"]),
    WeightsName::EndsWith(&[".h5", ".hdf5", ".keras"]),
];

/// How the names of files begin that a training writes beside the weights.
const NOT_WEIGHTS: [&str; 4] = ["optimizer.", "scheduler.", "rng_state", "training_args."];

/// Names of weights files; none is preferred over another.
#[derive(Clone, Copy)]
enum WeightsName {
    Exactly(&'static str),
    EndsWith(&'static [&'static str]),
}

impl WeightsName {
    fn matches(self, name: &str) -> bool {
        match self {
            Self::Exactly(wanted) => name == wanted,
            Self::EndsWith(endings) => {
                let lower = name.to_ascii_lowercase();
                endings.iter().any(|ending| lower.ends_with(ending))
                    && !NOT_WEIGHTS.iter().any(|start| lower.starts_with(start))
            }
        }
    }
}

/// A folder or repository does not have the files of a model.
#[derive(Debug, thiserror::Error)]
pub enum ModelFolderError {
    /// There is no `config.json`.
    #[error(
        "{place} has no {CONFIG_FILE}, which names the architecture, the classes and the input; \
         docs/models.md tells how to write one"
    )]
    NoConfig {
        /// The folder or repository.
        place: String,
    },
    /// No file has the name of a weights file.
    #[error(
        "{place} has no weights; a model folder has {WEIGHTS_FILE} or another .safetensors, .pth, \
         .pt or .bin file"
    )]
    NoWeights {
        /// The folder or repository.
        place: String,
    },
    /// Several files could be the weights.
    #[error(
        "{place} has several files that could be the weights ({candidates}); keep one, or call it \
         {WEIGHTS_FILE}"
    )]
    ManyWeights {
        /// The folder or repository.
        place: String,
        /// Names of the files.
        candidates: String,
    },
}

/// Chooses the weights file among the `names` of a folder's files.
pub(super) fn weights_among(names: &[String], place: &str) -> Result<String, ModelFolderError> {
    for wanted in WEIGHTS {
        let mut found: Vec<_> = names.iter().filter(|name| wanted.matches(name)).collect();
        found.sort();
        match found[..] {
            [] => {}
            [name] => return Ok(name.clone()),
            _ => {
                let names: Vec<_> = found.iter().map(|name| name.as_str()).collect();
                return Err(ModelFolderError::ManyWeights {
                    place: place.to_owned(),
                    candidates: names.join(", "),
                });
            }
        }
    }
    Err(ModelFolderError::NoWeights { place: place.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(names: &[&str]) -> Result<String, ModelFolderError> {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        weights_among(&names, "here")
    }

    #[test]
    fn safetensors_come_first_and_the_usual_name_before_others() {
        for (names, expected) in [
            (&["pytorch_model.bin", "model.safetensors", "a.safetensors"][..], "model.safetensors"),
            (&["pytorch_model.bin", "a.safetensors", "tf_model.h5"][..], "a.safetensors"),
            (&["pytorch_model.bin", "best.pth", "optimizer.pt"][..], "pytorch_model.bin"),
            (&["resnet50-11ad3fa6.PTH", "training_args.bin"][..], "resnet50-11ad3fa6.PTH"),
            (&["README.md", "weights.h5"][..], "weights.h5"),
        ] {
            assert_eq!(chosen(names).unwrap(), expected);
        }
    }

    #[test]
    fn several_candidates_are_named_and_none_guessed() {
        let error = chosen(&["last.pth", "best.pt"]).unwrap_err().to_string();
        assert!(
            error.contains("here has several") && error.contains("best.pt, last.pth"),
            "{error}"
        );
        assert!(matches!(chosen(&["README.md"]), Err(ModelFolderError::NoWeights { .. })));
    }
}
