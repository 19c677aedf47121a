//! Reads a model's files whole, from a folder or from the Hugging Face Hub.
//!
//! Does not look into the files: the worker does. [`folder_files`](super::folder_files) knows their
//! names, [`hub`] downloads them. Upstream: a [`ModelReference`]. Downstream: the worker loads the
//! files; the producer only computes their digests.

use bytes::Bytes;

use super::class_names::{ClassNames, ClassNamesError, parse_class_names};
use super::folder_files::{
    CONFIG_FILE, INDEX_FILE, MAX_CONFIG_BYTES, MAX_WEIGHTS_BYTES, ModelFolderError,
    PREPROCESSOR_FILE, WEIGHTS_FILE, folder_of_weights, is_index, shards, weights_among,
};
use super::hub::{self, HubError, SnapshotError};
use super::{
    BUNDLED_MODEL, CalibrationReference, ClassesReference, FileDigest, HubModel,
    MAX_CALIBRATION_BYTES, ModelIdentity, ModelOptions, ModelReference,
};
use crate::location::Location;
use crate::store::{Folder, StoreError, StoreErrorKind, StoreOptions};

/// A model's files can't be found or read.
#[derive(Debug, thiserror::Error)]
pub enum ModelFilesError {
    /// The folder's store failed or refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The hub failed or refused, and its cache does not have the model.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// The folder or repository lacks a file, or its weights are ambiguous.
    #[error(transparent)]
    Folder(#[from] ModelFolderError),
    /// The file of class names can't be read.
    #[error("the class names can't be read: {0}")]
    ReadClasses(#[source] StoreError),
    /// The calibration can't be read.
    #[error(
        "the run's calibration can't be read: {0}; restore it from a copy, or do the images in a new OUT"
    )]
    ReadCalibration(#[source] StoreError),
    /// The calibration is not that of the run.
    #[error(
        "the calibration at {place} is another one ({found}) than the run's ({wanted}): restore it \
         from a copy, or do the images in a new OUT"
    )]
    OtherCalibration {
        /// Where it is.
        place: String,
        /// The digest of the file.
        found: String,
        /// The digest that is wanted.
        wanted: String,
    },
    /// The file of class names can't be used.
    #[error(transparent)]
    Classes(#[from] ClassNamesError),
    /// Options for the model inside the program.
    #[error(
        "{BUNDLED_MODEL}, the model inside the program, has its own classes and tensors; leave out \
         the options for other models"
    )]
    OptionsOfBundled,
}

impl ModelFilesError {
    /// True if the same request may work later without a change to the configuration: a store or
    /// the hub did not answer.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Store(error) | Self::ReadClasses(error) | Self::ReadCalibration(error) => {
                error.kind().may_pass()
            }
            Self::Hub(error) => error.may_pass(),
            Self::Folder(_)
            | Self::Classes(_)
            | Self::OptionsOfBundled
            | Self::OtherCalibration { .. } => false,
        }
    }
}

impl From<SnapshotError> for ModelFilesError {
    fn from(error: SnapshotError) -> Self {
        match error {
            SnapshotError::Hub(error) => Self::Hub(error),
            SnapshotError::Folder(error) => Self::Folder(error),
        }
    }
}

/// A model's files, as a folder or the hub has them.
#[derive(Clone, Debug)]
pub struct StoredModel {
    /// Name, place and digests. The revision of a model on the hub is a commit, not a branch.
    pub identity: ModelIdentity,
    /// The weights, in any supported format: one file, or all shards of one checkpoint.
    pub weights: Vec<Bytes>,
    /// `config.json`; it may be absent only if `classes` are given.
    pub config: Option<Bytes>,
    /// `preprocessor_config.json`, if there is one.
    pub preprocessor: Option<Bytes>,
    /// The class names that the options of the identity refer to.
    pub classes: Option<ClassNames>,
    /// The calibration that the options refer to.
    pub calibration: Option<Bytes>,
}

impl StoredModel {
    /// Reads a model from a folder on disk or in a store, or from a file of weights there.
    ///
    /// # Errors
    /// If files are missing, ambiguous or too large, if the store fails, or if the file of class
    /// names can't be used.
    pub async fn from_place(
        location: &Location,
        options: &ModelOptions,
        stores: &StoreOptions,
    ) -> Result<Self, ModelFilesError> {
        let reference = ModelReference::Folder(location.clone());
        if let Some((folder, name)) = folder_of_weights(location) {
            let folder = Folder::open(&folder, stores)?;
            let reader = Reader { folder, place: location.to_string(), options, stores };
            match reader.read(Some(&name), reference.clone()).await {
                // In a store, a folder may have the name of a file.
                Err(ModelFilesError::Store(error))
                    if error.kind() == StoreErrorKind::NotFound
                        && location.local_path().is_none() => {}
                read => return read,
            }
        }
        let place = location.to_string();
        if location.local_path().is_some_and(|path| !path.exists()) {
            return Err(ModelFolderError::Absent { place }.into());
        }
        let folder = Folder::open(location, stores)?;
        Reader { folder, place, options, stores }.read(None, reference).await
    }

    /// Reads a model from the Hugging Face Hub or its cache.
    ///
    /// # Errors
    /// As [`Self::from_place`], and if neither the hub nor its cache has the model.
    pub async fn from_hub(
        model: &HubModel,
        options: &ModelOptions,
        stores: &StoreOptions,
    ) -> Result<Self, ModelFilesError> {
        let needs_config = options.classes.is_none();
        let snapshot = hub::snapshot(model, needs_config, stores).await?;
        let folder = Folder::open(&snapshot.folder, stores)?;
        let reference = ModelReference::Hub(model.at(&snapshot.commit));
        Reader { folder, place: model.to_string(), options, stores }.read(None, reference).await
    }
}

/// Reads the files of one model.
struct Reader<'a> {
    folder: Folder,
    /// The model's place, for errors.
    place: String,
    options: &'a ModelOptions,
    stores: &'a StoreOptions,
}

impl Reader<'_> {
    /// Reads a model with the weights in the file `name`, or in the folder's only one.
    async fn read(
        &self,
        name: Option<&str>,
        reference: ModelReference,
    ) -> Result<StoredModel, ModelFilesError> {
        let Self { folder, .. } = self;
        let config = bytes_if_found(folder.get(CONFIG_FILE, MAX_CONFIG_BYTES).await)?;
        let preprocessor = bytes_if_found(folder.get(PREPROCESSOR_FILE, MAX_CONFIG_BYTES).await)?;
        let classes = self.classes().await?;
        let calibration = match &self.options.calibration {
            Some(calibration) => Some(calibration.read(self.stores).await?),
            None => None,
        };
        // Before the weights, which may be large. But that a file is missing comes first.
        if config.is_none() && classes.is_none() {
            let place = self.place.clone();
            return Err(match name {
                None => ModelFolderError::NoConfig { place }.into(),
                Some(name) => match folder.head(name).await {
                    Ok(_) => ModelFolderError::NoClasses { place }.into(),
                    Err(error) => error.into(),
                },
            });
        }
        let (index, weights) = match name {
            Some(name) => self.weights_in(name).await?,
            None => self.weights().await?,
        };
        let mut digested: Vec<&[u8]> = weights.iter().map(|shard| &shard[..]).collect();
        digested.extend(index.as_deref());
        let files = [&config, &preprocessor].map(|file| file.as_deref().unwrap_or_default());
        let options = self.options.clone();
        let identity =
            ModelIdentity::of_content(reference, &digested, files, options, classes.as_ref());
        Ok(StoredModel { identity, weights, config, preprocessor, classes, calibration })
    }

    /// The folder's weights. If they are several files, also the index that names them.
    async fn weights(&self) -> Result<(Option<Bytes>, Vec<Bytes>), ModelFilesError> {
        let Self { folder, place, .. } = self;
        // Tried by name first: a bucket that forbids listing will do if the files have their usual
        // names.
        if let Some(weights) = bytes_if_found(folder.get(WEIGHTS_FILE, MAX_WEIGHTS_BYTES).await)? {
            return Ok((None, vec![weights]));
        }
        if let Some(index) = bytes_if_found(folder.get(INDEX_FILE, MAX_CONFIG_BYTES).await)? {
            return self.shards(INDEX_FILE, index).await;
        }
        self.weights_in(&weights_among(&folder.names().await?, place)?).await
    }

    /// The weights in the file `name`, or in the files that it lists.
    async fn weights_in(&self, name: &str) -> Result<(Option<Bytes>, Vec<Bytes>), ModelFilesError> {
        if is_index(name) {
            let index = self.folder.get(name, MAX_CONFIG_BYTES).await?.bytes;
            return self.shards(name, index).await;
        }
        Ok((None, vec![self.folder.get(name, MAX_WEIGHTS_BYTES).await?.bytes]))
    }

    async fn shards(
        &self,
        name: &str,
        index: Bytes,
    ) -> Result<(Option<Bytes>, Vec<Bytes>), ModelFilesError> {
        let names = shards(&self.place, name, &index)?;
        let (mut weights, mut left) = (Vec::with_capacity(names.len()), MAX_WEIGHTS_BYTES);
        for name in &names {
            let shard = self.folder.get(name, left).await?.bytes;
            left -= shard.len() as u64;
            weights.push(shard);
        }
        // A checkpoint in one file is that file, with or without an index.
        Ok(((weights.len() > 1).then_some(index), weights))
    }

    async fn classes(&self) -> Result<Option<ClassNames>, ModelFilesError> {
        let place = match &self.options.classes {
            None => return Ok(None),
            Some(ClassesReference::ImageNet1k) => return Ok(Some(ClassNames::ImageNet1k)),
            Some(ClassesReference::File(place)) => place,
        };
        let content = read_file(place, MAX_CONFIG_BYTES, self.stores).await;
        let content = content.map_err(ModelFilesError::ReadClasses)?;
        Ok(Some(ClassNames::List(parse_class_names(&place.to_string(), &content)?)))
    }
}

impl CalibrationReference {
    /// Reads the file.
    ///
    /// # Errors
    /// If it can't be read, or is another file by now.
    pub async fn read(&self, stores: &StoreOptions) -> Result<Bytes, ModelFilesError> {
        let content = read_file(&self.place, MAX_CALIBRATION_BYTES, stores).await;
        let content = content.map_err(ModelFilesError::ReadCalibration)?;
        let found = FileDigest::of(&content);
        if found != self.digest {
            let (place, wanted) = (self.place.to_string(), self.digest.to_string());
            let found = found.to_string();
            return Err(ModelFilesError::OtherCalibration { place, found, wanted });
        }
        Ok(content)
    }
}

/// The content of a single file.
async fn read_file(
    place: &Location,
    max_bytes: u64,
    stores: &StoreOptions,
) -> Result<Bytes, StoreError> {
    let (folder, name) = place.split_last().unwrap_or((place.clone(), String::new()));
    Ok(Folder::open(&folder, stores)?.get(&name, max_bytes).await?.bytes)
}

/// The object's content; `None` if there is no such object.
fn bytes_if_found(
    read: Result<crate::store::FetchedObject, StoreError>,
) -> Result<Option<Bytes>, ModelFilesError> {
    match read {
        Ok(fetched) => Ok(Some(fetched.bytes)),
        Err(error) if error.kind() == StoreErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_folder_is_read_with_its_preprocessor_in_the_digest() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, content: &str| {
            std::fs::write(directory.path().join(name), content).unwrap();
        };
        let location: Location = directory.path().to_str().unwrap().parse().unwrap();
        let options = StoreOptions::default();
        let said = ModelOptions::default();
        let read = async || StoredModel::from_place(&location, &said, &options).await;
        let absent: Location = format!("{location}/absent").parse().unwrap();
        let error = StoredModel::from_place(&absent, &said, &options).await.unwrap_err();
        assert!(error.to_string().contains("/absent; a model is a folder"), "{error}");
        write("best.pth", "weights");
        let error = read().await.unwrap_err();
        assert!(matches!(error, ModelFilesError::Folder(ModelFolderError::NoConfig { .. })));
        write("config.json", "{}");
        let plain = read().await.unwrap();
        assert_eq!(plain.weights, [&b"weights"[..]]);
        assert_eq!(plain.config.as_deref(), Some(&b"{}"[..]));
        write("preprocessor_config.json", "{ }");
        let more = read().await.unwrap();
        assert_eq!(more.preprocessor.as_deref(), Some(&b"{ }"[..]));
        assert_eq!(plain.identity.digest, more.identity.digest);
        assert_ne!(plain.identity.config_digest, more.identity.config_digest);
    }

    fn write(folder: &tempfile::TempDir, files: &[(&str, &str)]) -> Location {
        for (name, content) in files {
            std::fs::write(folder.path().join(name), content).unwrap();
        }
        folder.path().to_str().unwrap().parse().unwrap()
    }

    async fn read(place: &Location, options: &ModelOptions) -> Result<StoredModel, String> {
        let read = StoredModel::from_place(place, options, &StoreOptions::default()).await;
        read.map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn every_shard_and_the_index_count_in_the_digest() {
        let index = |map: &str| format!("{{\"weight_map\":{map}}}");
        let two = index(r#"{"a": "1.safetensors", "b": "2.safetensors"}"#);
        let folder = tempfile::tempdir().unwrap();
        let place = write(&folder, &[("config.json", "{}"), (INDEX_FILE, &two)]);
        let plain = ModelOptions::default();
        write(&folder, &[("1.safetensors", "one")]);
        let error = read(&place, &plain).await.unwrap_err();
        assert!(error.contains("2.safetensors"), "{error}");
        let mut digests = std::collections::HashSet::new();
        for (one, other, map) in [
            ("one", "two", r#"{"a": "1.safetensors", "b": "2.safetensors"}"#),
            ("eno", "two", r#"{"a": "1.safetensors", "b": "2.safetensors"}"#),
            ("one", "owt", r#"{"a": "1.safetensors", "b": "2.safetensors"}"#),
            ("one", "two", r#"{"a": "2.safetensors", "b": "1.safetensors"}"#),
        ] {
            let index = index(map);
            let files =
                [("1.safetensors", one), ("2.safetensors", other), (INDEX_FILE, index.as_str())];
            write(&folder, &files);
            let stored = read(&place, &plain).await.unwrap();
            assert_eq!(stored.weights, [one, other]);
            let named: Location = format!("{place}/{INDEX_FILE}").parse().unwrap();
            assert!(read(&named, &plain).await.unwrap().identity.same_content(&stored.identity));
            assert!(digests.insert(stored.identity.digest.to_string()), "{files:?}");
        }
        // One shard is the file that older programs read.
        let one = index(r#"{"a": "1.safetensors"}"#);
        write(&folder, &[(INDEX_FILE, &one)]);
        let stored = read(&place, &plain).await.unwrap();
        assert_eq!(stored.identity.digest, FileDigest::of(b"one"));
    }

    #[tokio::test]
    async fn a_file_of_weights_is_a_model_if_something_names_its_classes() {
        let folder = tempfile::tempdir().unwrap();
        let place = write(&folder, &[("w.pth", "weights"), ("v.pth", "others")]);
        let file: Location = format!("{place}/w.pth").parse().unwrap();
        let plain = ModelOptions::default();
        let error = read(&file, &plain).await.unwrap_err();
        assert!(error.contains("w.pth is a file of weights without a config.json"), "{error}");
        let absent: Location = format!("{place}/x.pth").parse().unwrap();
        let error = read(&absent, &plain).await.unwrap_err();
        assert!(error.contains("x.pth: it isn't there"), "{error}");

        let names = format!("{place}/names.txt");
        let named = ModelOptions { classes: Some(names.parse().unwrap()), ..plain.clone() };
        let error = read(&file, &named).await.unwrap_err();
        assert!(
            error.contains("class names can't be read") && error.contains("names.txt"),
            "{error}"
        );
        write(&folder, &[("names.txt", "cat\ncat\n")]);
        let error = read(&file, &named).await.unwrap_err();
        assert!(error.contains("both called \"cat\""), "{error}");
        write(&folder, &[("names.txt", "cat\ndog\n")]);
        let stored = read(&file, &named).await.unwrap();
        assert_eq!(stored.weights, ["weights"]);
        assert_eq!(stored.identity.name, "w.pth");
        assert_eq!(stored.classes, Some(ClassNames::List(vec!["cat".into(), "dog".into()])));

        // With a config.json beside it, it is the model of the folder.
        write(&folder, &[("config.json", "{}")]);
        assert!(read(&place, &plain).await.unwrap_err().contains("several files"));
        let stored = read(&file, &plain).await.unwrap();
        assert_eq!(stored.config.as_deref(), Some(&b"{}"[..]));
        std::fs::remove_file(folder.path().join("v.pth")).unwrap();
        assert!(stored.identity.same_content(&read(&place, &plain).await.unwrap().identity));
    }
}
