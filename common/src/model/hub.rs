//! Models on the Hugging Face Hub: into its cache, by `hf-hub`, with what the environment says
//! of endpoint, token and cache as Hugging Face's own programs read it.
//!
//! Only the files a model consists of are downloaded. Without the network, or with
//! `HF_HUB_OFFLINE`, what the cache has is used.

use std::path::PathBuf;
use std::time::Duration;

use futures::TryStreamExt;
use hf_hub::repository::RepoTreeEntry;
use hf_hub::{HFClient, HFError};

use super::files::{
    CONFIG_FILE, MAX_WEIGHTS_BYTES, ModelFilesError, PREPROCESSOR_FILE, weights_among,
};
use super::{HubModel, ModelFilesError as Error};
use crate::location::Location;
use crate::store::StoreOptions;

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
    /// What the revision stood for.
    pub(super) commit: String,
}

/// Brings a model's files into the cache, unless they are there.
pub(super) async fn snapshot(model: &HubModel, options: &StoreOptions) -> Result<Snapshot, Error> {
    let failed = |error: &HFError| HubError { model: model.clone(), problem: told(error) };
    let client = client(options).map_err(|error| failed(&error))?;
    let offline = options.variable("HF_HUB_OFFLINE").is_some_and(is_set);
    if offline {
        return cached(&client, model).await?.ok_or_else(|| {
            let problem = "HF_HUB_OFFLINE is set and the cache doesn't have it; unset it, or \
                           download it first";
            HubError { model: model.clone(), problem: problem.to_owned() }.into()
        });
    }
    match download(&client, model).await {
        Ok(folder) => here(model, folder),
        Err(Failure::Refused(error)) => Err(error),
        Err(Failure::OutOfReach(reason)) => match cached(&client, model).await? {
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

fn client(options: &StoreOptions) -> Result<HFClient, HFError> {
    let mut builder = HFClient::builder();
    if let Some(endpoint) = options.variable("HF_ENDPOINT") {
        builder = builder.endpoint(endpoint);
    }
    if let Some(token) = options.variable("HF_TOKEN") {
        builder = builder.token(token);
    }
    if let Some(cache) = options.variable("HF_HUB_CACHE") {
        builder = builder.cache_dir(cache);
    }
    builder.build()
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

async fn download(client: &HFClient, model: &HubModel) -> Result<PathBuf, Failure> {
    let failed = |error: HFError| {
        if is_out_of_reach(&error) {
            return Failure::OutOfReach(told(&error));
        }
        let problem = told(&error);
        Failure::Refused(HubError { model: model.clone(), problem }.into())
    };
    let repository = client.model(model.owner(), model.name());
    let listing = async {
        let entries = repository.list_tree().revision(model.revision()).send()?;
        entries.try_collect::<Vec<_>>().await
    };
    let Ok(listed) = tokio::time::timeout(LIST_TIMEOUT, listing).await else {
        return Err(Failure::OutOfReach(format!("no answer in {} s", LIST_TIMEOUT.as_secs())));
    };
    let files: Vec<_> = listed
        .map_err(failed)?
        .into_iter()
        .filter_map(|entry| match entry {
            RepoTreeEntry::File { path, size, .. } => Some((path, size)),
            _ => None,
        })
        .collect();
    let names: Vec<_> = files.iter().map(|(name, _)| name.clone()).collect();
    let weights = weights_among(&names, &model.to_string()).map_err(Failure::Refused)?;
    if let Some((_, size)) = files.iter().find(|(name, _)| *name == weights)
        && *size > MAX_WEIGHTS_BYTES
    {
        let problem = format!("{weights} has {size} bytes, more than any network known here");
        return Err(Failure::Refused(HubError { model: model.clone(), problem }.into()));
    }
    if !names.iter().any(|name| name == CONFIG_FILE) {
        let place = model.to_string();
        return Err(Failure::Refused(ModelFilesError::NoConfig { place }));
    }
    let wanted = [CONFIG_FILE, PREPROCESSOR_FILE, &weights].map(literally);
    repository
        .snapshot_download()
        .revision(model.revision())
        .allow_patterns(wanted.to_vec())
        .send()
        .await
        .map_err(failed)
}

/// A file's name as a pattern that only it matches.
fn literally(name: &str) -> String {
    let escape = |c: char| match c {
        '*' | '?' | '[' | ']' | '{' | '}' => format!("[{c}]"),
        c => c.to_string(),
    };
    name.chars().map(escape).collect()
}

/// What the cache has, without asking the hub.
async fn cached(client: &HFClient, model: &HubModel) -> Result<Option<Snapshot>, Error> {
    let repository = client.model(model.owner(), model.name());
    let found =
        repository.snapshot_download().revision(model.revision()).local_files_only(true).send();
    match found.await {
        Ok(folder) => here(model, folder).map(Some),
        Err(_) => Ok(None),
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

fn is_out_of_reach(error: &HFError) -> bool {
    match error {
        HFError::Request { .. } | HFError::RateLimited { .. } => true,
        HFError::Http { context } => context.status.is_server_error(),
        _ => false,
    }
}

/// The status the hub answered with.
fn status(error: &HFError) -> Option<u16> {
    match error {
        HFError::Http { context }
        | HFError::AuthRequired { context }
        | HFError::Forbidden { context } => Some(context.status.as_u16()),
        HFError::RepoNotFound { .. }
        | HFError::RevisionNotFound { .. }
        | HFError::EntryNotFound { .. } => Some(404),
        _ => None,
    }
}

/// One line for a person. No header, and so no token, is in it.
fn told(error: &HFError) -> String {
    let text = match (status(error), error) {
        // The hub also answers so where there is no such repository, not to tell.
        (Some(401), _) => "there is no such model, or it is private or gated; check the name, or \
                           accept its terms and set HF_TOKEN"
            .to_owned(),
        (Some(403), _) => "the token may not read it; accept its terms on its page, or use \
                           another HF_TOKEN"
            .to_owned(),
        (Some(404), _) => "there is no such model or revision; check the name".to_owned(),
        (_, HFError::Request { source, .. }) if source.is_timeout() => {
            "no answer in time".to_owned()
        }
        (_, HFError::Request { source, .. }) => {
            // The innermost cause says what happened.
            let mut cause: &dyn std::error::Error = source;
            while let Some(inner) = cause.source() {
                cause = inner;
            }
            cause.to_string()
        }
        (_, other) => other.to_string(),
    };
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    line.chars().take(MAX_REASON_CHARS).collect()
}
