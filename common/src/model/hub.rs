//! Downloads models from the Hugging Face Hub into the cache that Hugging Face's own programs use.
//! Their environment variables name the endpoint, the token and the cache.
//!
//! Downloads only the files that a model consists of. Uses the cached copy if the network is down
//! or `HF_HUB_OFFLINE` is set. Upstream: [`files`](super::files). Downstream: [`client`] asks the
//! hub, [`cache`] knows the files on disk.

use std::path::PathBuf;
use std::time::Duration;

use tokio::io::AsyncWriteExt;

use super::HubModel;
use super::folder_files::{
    CONFIG_FILE, MAX_CONFIG_BYTES, MAX_WEIGHTS_BYTES, ModelFolderError, PREPROCESSOR_FILE,
    is_index, shards, weights_among,
};
use crate::location::Location;
use crate::store::StoreOptions;
use cache::Cache;
use client::{HubClient, OpenedFile, RemoteFile, RequestError};

mod cache;
mod client;

/// How long listing a repository may take. After that the hub counts as out of reach.
const LIST_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest reason in an error; the hub's own text may be longer.
const MAX_REASON_CHARS: usize = 200;

/// A model can't be downloaded from the hub, nor read from its cache.
#[derive(Debug, thiserror::Error)]
#[error("cannot get {model} from the hub: {problem}")]
pub struct HubError {
    model: HubModel,
    problem: String,
    out_of_reach: bool,
}

impl HubError {
    /// The hub, or this machine, refuses: another try doesn't help.
    fn refused(model: &HubModel, problem: impl Into<String>) -> Self {
        Self { model: model.clone(), problem: problem.into(), out_of_reach: false }
    }

    /// True if the hub didn't answer, so that the same request may work later.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        self.out_of_reach
    }
}

/// A model can't be brought into the cache.
#[derive(Debug, thiserror::Error)]
pub(super) enum SnapshotError {
    /// The hub failed or refused, or the cache can't be used.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// The repository does not have a model's files.
    #[error(transparent)]
    Folder(#[from] ModelFolderError),
}

/// A repository's files on this machine.
pub(super) struct Snapshot {
    pub(super) folder: Location,
    /// The commit that the revision stands for.
    pub(super) commit: String,
}

/// Brings a model's files into the cache, unless they are there. `needs_config` refuses a
/// repository without `config.json`.
pub(super) async fn snapshot(
    model: &HubModel,
    needs_config: bool,
    options: &StoreOptions,
) -> Result<Snapshot, SnapshotError> {
    let cache = Cache::open(model, options);
    let offline = options.variable("HF_HUB_OFFLINE").is_some_and(is_set);
    if offline {
        return find_cached(&cache, model)?.ok_or_else(|| {
            let problem = "HF_HUB_OFFLINE is set and the cache doesn't have the model; unset \
                           it, or download the model first";
            HubError::refused(model, problem).into()
        });
    }
    let client = HubClient::new(model, options)
        .map_err(|error| HubError::refused(model, describe(&error)))?;
    match download(&client, &cache, model, needs_config).await {
        Ok(folder) => snapshot_in(model, folder),
        Err(DownloadError::Refused(error)) => Err(error),
        Err(DownloadError::OutOfReach(reason)) => match find_cached(&cache, model)? {
            Some(snapshot) => {
                tracing::warn!(%model, reason, "the hub is out of reach; using the cached copy");
                Ok(snapshot)
            }
            None => {
                let problem = format!(
                    "the hub is out of reach and the cache doesn't have the model ({reason}); \
                     check the network and HF_ENDPOINT, or download the model beforehand"
                );
                Err(HubError { out_of_reach: true, ..HubError::refused(model, problem) }.into())
            }
        },
    }
}

/// True if huggingface_hub would read this value of a variable as "on".
fn is_set(value: &str) -> bool {
    matches!(value.to_ascii_uppercase().as_str(), "1" | "ON" | "YES" | "TRUE")
}

/// A model's files were not downloaded.
enum DownloadError {
    /// The hub did not answer; the cached copy may do.
    OutOfReach(String),
    /// The hub refused, the repository has no model, or the cache can't be written.
    Refused(SnapshotError),
}

async fn download(
    client: &HubClient,
    cache: &Cache,
    model: &HubModel,
    needs_config: bool,
) -> Result<PathBuf, DownloadError> {
    let not_written =
        |error: std::io::Error| refused(model, format!("the cache can't be written: {error}"));
    let listing = async {
        let commit = client.commit(model.revision()).await?;
        let files = client.files(&commit).await?;
        Ok((commit, files))
    };
    let Ok(listed) = tokio::time::timeout(LIST_TIMEOUT, listing).await else {
        return Err(DownloadError::OutOfReach(format!(
            "no answer in {} s",
            LIST_TIMEOUT.as_secs()
        )));
    };
    let (commit, files) = listed.map_err(|error| failed(model, error))?;
    let place = model.to_string();
    let names: Vec<_> = files.iter().map(|file| file.name.clone()).collect();
    let weights =
        weights_among(&names, &place).map_err(|error| DownloadError::Refused(error.into()))?;
    if needs_config && !names.iter().any(|name| name == CONFIG_FILE) {
        return Err(DownloadError::Refused(ModelFolderError::NoConfig { place }.into()));
    }
    let download = Download { client, cache, model, commit: &commit, files: &files };
    // First, so that a file of weights that is too large stops the download before it begins.
    download.file(&weights).await?;
    for name in [CONFIG_FILE, PREPROCESSOR_FILE] {
        if names.iter().any(|listed| listed == name) {
            download.file(name).await?;
        }
    }
    let snapshot = cache.snapshot(&commit);
    if is_index(&weights) {
        let index = std::fs::read(snapshot.join(&weights)).map_err(not_written)?;
        let shards = shards(&place, &weights, &index)
            .map_err(|error| DownloadError::Refused(error.into()))?;
        let of_shards = files.iter().filter(|file| shards.contains(&file.name));
        let sum = of_shards.fold(0_u64, |sum, file| sum.saturating_add(file.size_bytes));
        if sum > MAX_WEIGHTS_BYTES {
            let problem = format!(
                "the files that {weights} names have {sum} bytes; the limit is {MAX_WEIGHTS_BYTES}"
            );
            return Err(refused(model, problem));
        }
        for shard in shards {
            download.file(&shard).await?;
        }
    }
    cache.remember(model.revision(), &commit).map_err(not_written)?;
    Ok(snapshot)
}

/// The most bytes of a model's file. All but weights is JSON that is read whole.
fn max_bytes(name: &str) -> u64 {
    let is_json = is_index(name) || [CONFIG_FILE, PREPROCESSOR_FILE].contains(&name);
    if is_json { MAX_CONFIG_BYTES } else { MAX_WEIGHTS_BYTES }
}

fn refused(model: &HubModel, problem: String) -> DownloadError {
    DownloadError::Refused(HubError::refused(model, problem).into())
}

fn failed(model: &HubModel, error: RequestError) -> DownloadError {
    match is_out_of_reach(&error) {
        true => DownloadError::OutOfReach(describe(&error)),
        false => refused(model, describe(&error)),
    }
}

/// The download of a commit's files.
struct Download<'a> {
    client: &'a HubClient,
    cache: &'a Cache,
    model: &'a HubModel,
    commit: &'a str,
    /// What the repository has.
    files: &'a [RemoteFile],
}

impl Download<'_> {
    /// Brings a file into the cache, unless it is there.
    async fn file(&self, name: &str) -> Result<(), DownloadError> {
        let Self { client, cache, model, commit, files } = *self;
        let Some(file) = files.iter().find(|file| file.name == name) else {
            return Err(refused(model, format!("it has no {name}, which its index names")));
        };
        let (size_bytes, max_bytes) = (file.size_bytes, max_bytes(name));
        if size_bytes > max_bytes {
            let problem = format!("{name} has {size_bytes} bytes; the limit is {max_bytes}");
            return Err(refused(model, problem));
        }
        if cache.snapshot(commit).join(name).exists() {
            return Ok(());
        }
        let not_written =
            |error: std::io::Error| refused(model, format!("the cache can't be written: {error}"));
        let opened = client.open(commit, name).await.map_err(|error| failed(model, error))?;
        let etag = opened.etag.clone();
        store_blob(cache, opened, file).await.map_err(|error| match error {
            StoreBlobError::Request(error) => failed(model, error),
            StoreBlobError::Disk(error) => not_written(error),
        })?;
        cache.link(commit, name, &etag).map_err(not_written)
    }
}

/// A file's content could not be downloaded into the cache.
enum StoreBlobError {
    Request(RequestError),
    Disk(std::io::Error),
}

impl From<RequestError> for StoreBlobError {
    fn from(error: RequestError) -> Self {
        Self::Request(error)
    }
}

impl From<std::io::Error> for StoreBlobError {
    fn from(error: std::io::Error) -> Self {
        Self::Disk(error)
    }
}

/// Downloads a file's content into the cache, unless it is there. A blob is there whole or not at
/// all.
async fn store_blob(
    cache: &Cache,
    opened: OpenedFile,
    file: &RemoteFile,
) -> Result<(), StoreBlobError> {
    let OpenedFile { etag, mut response } = opened;
    let blob = cache.blob(&etag);
    if blob.exists() {
        return Ok(());
    }
    let _lock = cache.lock(&etag).await?;
    // Another program may have held the lock and downloaded the file.
    if blob.exists() {
        return Ok(());
    }
    std::fs::create_dir_all(blob.parent().expect("it lies in blobs/"))?;
    let incomplete = blob.with_file_name(format!("{etag}.incomplete"));
    let mut content = tokio::fs::File::create(&incomplete).await?;
    let mut size_bytes = 0;
    while let Some(chunk) = response.chunk().await.map_err(RequestError::from)? {
        size_bytes += chunk.len() as u64;
        if size_bytes > file.size_bytes {
            break;
        }
        content.write_all(&chunk).await?;
    }
    content.flush().await?;
    if size_bytes != file.size_bytes {
        let RemoteFile { name, size_bytes: expected } = file;
        let reason = format!("{name} came with {size_bytes} bytes instead of {expected}");
        return Err(RequestError::Malformed(reason).into());
    }
    Ok(std::fs::rename(incomplete, blob)?)
}

/// The cached copy, without asking the hub.
fn find_cached(cache: &Cache, model: &HubModel) -> Result<Option<Snapshot>, SnapshotError> {
    match cache.find(model.revision()) {
        Ok(Some(folder)) => snapshot_in(model, folder).map(Some),
        Ok(None) | Err(_) => Ok(None),
    }
}

/// The snapshot in a folder of the cache that is named after its commit.
fn snapshot_in(model: &HubModel, folder: PathBuf) -> Result<Snapshot, SnapshotError> {
    let commit = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let location = folder.to_str().and_then(|path| path.parse().ok());
    let folder = location.ok_or_else(|| {
        let path = folder.display();
        HubError::refused(model, format!("the cache's path {path} can't be read as text"))
    })?;
    Ok(Snapshot { folder, commit })
}

/// True if the cached copy may be used instead of the hub's answer.
fn is_out_of_reach(error: &RequestError) -> bool {
    match error {
        RequestError::Transport(_) => true,
        RequestError::Status { status, .. } => status.is_server_error() || status.as_u16() == 429,
        RequestError::Malformed(_) | RequestError::Settings(_) => false,
    }
}

/// Describes an error in one line. The line contains no header, and so no token.
fn describe(error: &RequestError) -> String {
    let text = match error {
        RequestError::Status { status, .. } if status.as_u16() == 401 => {
            // The hub also answers 401 if there is no such repository.
            "there is no such model, or it is private or gated; check the name, or accept its \
             terms and set HF_TOKEN"
                .to_owned()
        }
        RequestError::Status { status, .. } if status.as_u16() == 403 => {
            "the token may not read it; accept its terms on its page, or use another HF_TOKEN"
                .to_owned()
        }
        RequestError::Status { status, .. } if status.as_u16() == 404 => {
            "there is no such model or revision; check the name".to_owned()
        }
        RequestError::Transport(error) if error.is_timeout() => "no answer in time".to_owned(),
        RequestError::Transport(error) => {
            // The innermost cause says what happened.
            let mut cause: &dyn std::error::Error = error;
            while let Some(inner) = cause.source() {
                cause = inner;
            }
            cause.to_string()
        }
        other => other.to_string(),
    };
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    line.chars().take(MAX_REASON_CHARS).collect()
}
