//! Models on the Hugging Face Hub: brought into the cache that Hugging Face's own programs use,
//! with the endpoint, token and cache that their environment variables name.
//!
//! Only the files a model consists of are downloaded. Without the network, or with
//! `HF_HUB_OFFLINE`, the cached copy is used. Downstream: [`client`] asks the hub, [`cache`] knows
//! the files on disk.

use std::path::PathBuf;
use std::time::Duration;

use tokio::io::AsyncWriteExt;

use super::files::{
    CONFIG_FILE, MAX_WEIGHTS_BYTES, ModelFilesError, PREPROCESSOR_FILE, weights_among,
};
use super::{HubModel, ModelFilesError as Error};
use crate::location::Location;
use crate::store::StoreOptions;
use cache::Cache;
use client::{HubClient, OpenedFile, RemoteFile, RequestError};

mod cache;
mod client;

/// A hub that hasn't listed a repository by then is as good as out of reach.
const LIST_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest excerpt of what the hub said.
const MAX_REASON_CHARS: usize = 200;

/// A model can't be had from the hub.
#[derive(Debug, thiserror::Error)]
#[error("cannot get {model} from the hub: {problem}")]
pub struct HubError {
    model: HubModel,
    problem: String,
}

/// A repository's files on this machine.
pub(super) struct Snapshot {
    pub(super) folder: Location,
    /// The commit that the revision stood for.
    pub(super) commit: String,
}

/// Brings a model's files into the cache, unless they are there.
pub(super) async fn snapshot(model: &HubModel, options: &StoreOptions) -> Result<Snapshot, Error> {
    let cache = Cache::open(model, options);
    let offline = options.variable("HF_HUB_OFFLINE").is_some_and(is_set);
    if offline {
        return cached(&cache, model)?.ok_or_else(|| {
            let problem = "HF_HUB_OFFLINE is set and the cache doesn't have it; unset it, or \
                           download it first";
            HubError { model: model.clone(), problem: problem.to_owned() }.into()
        });
    }
    let client = HubClient::new(model, options)
        .map_err(|error| HubError { model: model.clone(), problem: told(&error) })?;
    match download(&client, &cache, model).await {
        Ok(folder) => here(model, folder),
        Err(Failure::Refused(error)) => Err(error),
        Err(Failure::OutOfReach(reason)) => match cached(&cache, model)? {
            Some(snapshot) => {
                tracing::warn!(%model, reason, "the hub is out of reach; using the cached copy");
                Ok(snapshot)
            }
            None => {
                let problem = format!(
                    "it is out of reach and the cache doesn't have it ({reason}); check the \
                     network and HF_ENDPOINT, or download it where there is one"
                );
                Err(HubError { model: model.clone(), problem }.into())
            }
        },
    }
}

/// As huggingface_hub reads its switches.
fn is_set(value: &str) -> bool {
    matches!(value.to_ascii_uppercase().as_str(), "1" | "ON" | "YES" | "TRUE")
}

/// Why nothing was downloaded.
enum Failure {
    /// Perhaps the cache helps.
    OutOfReach(String),
    /// The hub's own answer, or what lies there is no model.
    Refused(Error),
}

async fn download(client: &HubClient, cache: &Cache, model: &HubModel) -> Result<PathBuf, Failure> {
    let refused = |problem| Failure::Refused(HubError { model: model.clone(), problem }.into());
    let failed = |error: RequestError| match is_out_of_reach(&error) {
        true => Failure::OutOfReach(told(&error)),
        false => refused(told(&error)),
    };
    let unwritten = |error: std::io::Error| refused(format!("the cache can't be written: {error}"));
    let listing = async {
        let commit = client.commit(model.revision()).await?;
        let files = client.files(&commit).await?;
        Ok((commit, files))
    };
    let Ok(listed) = tokio::time::timeout(LIST_TIMEOUT, listing).await else {
        return Err(Failure::OutOfReach(format!("no answer in {} s", LIST_TIMEOUT.as_secs())));
    };
    let (commit, files) = listed.map_err(failed)?;
    let names: Vec<_> = files.iter().map(|file| file.name.clone()).collect();
    let weights = weights_among(&names, &model.to_string()).map_err(Failure::Refused)?;
    if let Some(RemoteFile { size_bytes, .. }) = files.iter().find(|file| file.name == weights)
        && *size_bytes > MAX_WEIGHTS_BYTES
    {
        let problem = format!("{weights} has {size_bytes} bytes, more than any network known here");
        return Err(refused(problem));
    }
    if !names.iter().any(|name| name == CONFIG_FILE) {
        let place = model.to_string();
        return Err(Failure::Refused(ModelFilesError::NoConfig { place }));
    }
    let snapshot = cache.snapshot(&commit);
    let wanted = |file: &&RemoteFile| {
        [CONFIG_FILE, PREPROCESSOR_FILE, &weights].contains(&file.name.as_str())
    };
    for file in files.iter().filter(wanted) {
        if snapshot.join(&file.name).exists() {
            continue;
        }
        let opened = client.open(&commit, &file.name).await.map_err(failed)?;
        let etag = opened.etag.clone();
        store(cache, opened, file).await.map_err(|error| match error {
            StoreBlobError::Request(error) => failed(error),
            StoreBlobError::Disk(error) => unwritten(error),
        })?;
        cache.link(&commit, &file.name, &etag).map_err(unwritten)?;
    }
    cache.remember(model.revision(), &commit).map_err(unwritten)?;
    Ok(snapshot)
}

/// A file's content didn't get into the cache.
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

/// Reads a file's content into the cache, unless it is there. A blob is there whole or not at all.
async fn store(cache: &Cache, opened: OpenedFile, file: &RemoteFile) -> Result<(), StoreBlobError> {
    let OpenedFile { etag, mut response } = opened;
    let blob = cache.blob(&etag);
    if blob.exists() {
        return Ok(());
    }
    let _lock = cache.lock(&etag).await?;
    // Whoever had the lock may have downloaded it.
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
fn cached(cache: &Cache, model: &HubModel) -> Result<Option<Snapshot>, Error> {
    match cache.find(model.revision()) {
        Ok(Some(folder)) => here(model, folder).map(Some),
        Ok(None) | Err(_) => Ok(None),
    }
}

fn here(model: &HubModel, folder: PathBuf) -> Result<Snapshot, Error> {
    let commit = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let location = folder.to_str().and_then(|path| path.parse().ok());
    let folder = location.ok_or_else(|| HubError {
        model: model.clone(),
        problem: format!("the cache's path {} can't be read as text", folder.display()),
    })?;
    Ok(Snapshot { folder, commit })
}

fn is_out_of_reach(error: &RequestError) -> bool {
    match error {
        RequestError::Transport(_) => true,
        RequestError::Status { status, .. } => status.is_server_error() || status.as_u16() == 429,
        RequestError::Malformed(_) | RequestError::Settings(_) => false,
    }
}

/// One line for a person. No header, and so no token, is in it.
fn told(error: &RequestError) -> String {
    let text = match error {
        RequestError::Status { status, .. } if status.as_u16() == 401 => {
            // The hub also answers so if there is no such repository.
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
