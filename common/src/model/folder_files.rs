//! The files of a model folder: their names, how large they may be, and which one holds the
//! weights.
//!
//! Does not read or download anything. Downstream: [`files`](super::files) reads the files from a
//! folder, [`hub`](super::hub) downloads them.

use super::BUNDLED_MODEL;
use crate::location::Location;

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
const WEIGHTS: [WeightsName; 8] = [
    WeightsName::Exactly(WEIGHTS_FILE),
    WeightsName::EndsWith(&[".safetensors.index.json"]),
    WeightsName::EndsWith(&[".safetensors"]),
    WeightsName::Exactly("pytorch_model.bin"),
    WeightsName::EndsWith(&[".bin.index.json"]),
    WeightsName::EndsWith(&[".pth", ".pt", ".bin"]),
    WeightsName::EndsWith(&[".ckpt", ".pth.tar"]),
    WeightsName::EndsWith(&[".h5", ".hdf5", ".keras"]),
];

/// The name that transformers gives the index of a checkpoint in several files.
pub(super) const INDEX_FILE: &str = "model.safetensors.index.json";

/// How the names of files end that can be a model alone.
const FILES: [&str; 10] = [
    ".safetensors",
    ".pth",
    ".pt",
    ".bin",
    ".ckpt",
    ".pth.tar",
    ".index.json",
    ".h5",
    ".hdf5",
    ".keras",
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
    /// The folder isn't there.
    #[error(
        "there is no folder or file {place}; a model is a folder or store URL with its files, \
         hf:OWNER/NAME, or {BUNDLED_MODEL}, which is inside the program"
    )]
    Absent {
        /// The folder.
        place: String,
    },
    /// There is no `config.json`.
    #[error(
        "{place} has no {CONFIG_FILE}, which names the architecture, the classes and the input; \
         docs/models.md tells how to write one; or give the names of the classes alone, and \
         torchvision's usual input is assumed"
    )]
    NoConfig {
        /// The folder or repository.
        place: String,
    },
    /// There is no `config.json` beside a file of weights.
    #[error(
        "{place} is a file of weights without a {CONFIG_FILE} beside it, and nothing names its \
         classes; give a file with their names"
    )]
    NoClasses {
        /// The file.
        place: String,
    },
    /// No file has the name of a weights file.
    #[error(
        "{place} has no weights; a model folder has {WEIGHTS_FILE} or another .safetensors, .pth, \
         .pt, .bin or .ckpt file"
    )]
    NoWeights {
        /// The folder or repository.
        place: String,
    },
    /// Several files could be the weights.
    #[error(
        "{place} has several files that could be the weights ({candidates}); name the file itself \
         as the model, keep one, or call it {WEIGHTS_FILE}{}",
        if candidates.contains("-of-0") {
            "; if they are parts of one checkpoint, their index (….index.json) is missing"
        } else {
            ""
        }
    )]
    ManyWeights {
        /// The folder or repository.
        place: String,
        /// Names of the files.
        candidates: String,
    },
    /// The index of a checkpoint in several files can't be used.
    #[error("{index} in {place} is not the index of a checkpoint in several files: {problem}")]
    Index {
        /// The folder or repository.
        place: String,
        /// Name of the index.
        index: String,
        /// What is wrong with it.
        problem: String,
    },
}

/// True if `name` is that of an index, which lists the files of a checkpoint.
pub(super) fn is_index(name: &str) -> bool {
    name.to_ascii_lowercase().ends_with(".index.json")
}

/// The names of the files that the content of an index lists, in order, each once.
pub(super) fn shards(
    place: &str,
    index: &str,
    content: &[u8],
) -> Result<Vec<String>, ModelFolderError> {
    /// `model.safetensors.index.json`, as transformers writes it.
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: std::collections::BTreeMap<String, String>,
    }
    let refused = |problem: String| ModelFolderError::Index {
        place: place.to_owned(),
        index: index.to_owned(),
        problem,
    };
    let Index { weight_map } =
        serde_json::from_slice(content).map_err(|error| refused(error.to_string()))?;
    let names: std::collections::BTreeSet<_> = weight_map.into_values().collect();
    // They are read from the folder of the index, and from nowhere else.
    let strange = |name: &&String| name.is_empty() || name.contains(['/', '\\']) || *name == "..";
    if let Some(name) = names.iter().find(strange) {
        return Err(refused(format!("it names {name:?}, which is no file beside it")));
    }
    match names.len() {
        0 => Err(refused("it names no file".to_owned())),
        1..=MAX_SHARDS => Ok(names.into_iter().collect()),
        many => Err(refused(format!("it names {many} files; at most {MAX_SHARDS} can be read"))),
    }
}

/// Most files of one checkpoint. A ResNet has one, unless it was cut into small pieces.
const MAX_SHARDS: usize = 1000;

/// The folder of a file of weights and the file's name, if `location` is that of a file: by its
/// ending in a store, by what is there on this machine.
#[must_use]
pub fn folder_of_weights(location: &Location) -> Option<(Location, String)> {
    let (folder, name) = location.split_last()?;
    let named = FILES.iter().any(|ending| name.to_ascii_lowercase().ends_with(ending));
    let is_file = match location.local_path() {
        Some(path) => path.is_file() || (named && !path.is_dir()),
        None => named,
    };
    is_file.then_some((folder, name))
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
            (&["last.ckpt", "best.pth"][..], "best.pth"),
            (&["epoch=9-step=70.ckpt", "config.yaml"][..], "epoch=9-step=70.ckpt"),
            (
                &[
                    "model-00001-of-00002.safetensors",
                    "model-00002-of-00002.safetensors",
                    INDEX_FILE,
                ][..],
                INDEX_FILE,
            ),
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

    #[test]
    fn an_index_names_files_beside_it_and_no_others() {
        let listed =
            |map: &str| shards("here", INDEX_FILE, format!("{{\"weight_map\":{map}}}").as_bytes());
        let names = listed(r#"{"a": "2.safetensors", "b": "1.safetensors", "c": "2.safetensors"}"#);
        assert_eq!(names.unwrap(), ["1.safetensors", "2.safetensors"]);
        for map in ["{}", "[]", r#"{"a": "../secret"}"#, r#"{"a": ".."}"#, r#"{"a": ""}"#] {
            let error = listed(map).unwrap_err().to_string();
            assert!(error.contains("model.safetensors.index.json in here"), "{map}: {error}");
        }
        let parts = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
        let error = chosen(&parts).unwrap_err().to_string();
        assert!(error.contains("index (….index.json) is missing"), "{error}");
    }

    #[test]
    fn a_file_of_weights_is_told_from_a_folder() {
        let told = |text: &str| folder_of_weights(&text.parse().unwrap()).map(|(_, name)| name);
        assert_eq!(told("s3://bucket/models/w%20x.pth").as_deref(), Some("w x.pth"));
        assert_eq!(told("s3://bucket/models/pets"), None);
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
        std::fs::create_dir(directory.path().join("folder.pth")).unwrap();
        std::fs::write(directory.path().join("weights"), "").unwrap();
        assert_eq!(told(&path("folder.pth")), None);
        assert_eq!(told(&path("weights")).as_deref(), Some("weights"));
        assert_eq!(told(&path("absent.ckpt")).as_deref(), Some("absent.ckpt"));
        assert_eq!(told(&path("absent")), None);
    }
}
