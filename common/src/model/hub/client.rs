//! The three requests that downloading a model takes: the commit of a revision, the list of its
//! files, and a file's content. <https://huggingface.co/docs/hub/api>
//!
//! Owns the HTTP client, the token and the retries. Does not write to the cache: that is
//! [`hub`](super).

use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::header::{AUTHORIZATION, ETAG, HeaderMap, LINK, LOCATION};
use reqwest::{Client, Response, StatusCode, redirect};
use serde::Deserialize;
use url::Url;

use super::super::HubModel;
use super::cache;
use crate::backoff::Backoff;
use crate::secret::Secret;
use crate::store::StoreOptions;
use crate::tls;

const DEFAULT_ENDPOINT: &str = "https://huggingface.co";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection that sends no byte for this time is closed.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// Further tries of a request after temporary errors.
const RETRIES: u32 = 4;
const MAX_REDIRECTS: u32 = 10;
/// Longest answer of the API. A page of its lists has 1,000 files.
const MAX_ANSWER_BYTES: usize = 8 << 20;
/// Most files at the top of a repository. A model has a few.
const MAX_FILES: usize = 100_000;

/// Characters to escape in one segment of a URL's path.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A request failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum RequestError {
    /// No complete answer arrived.
    #[error(transparent)]
    Transport(#[from] reqwest::Error),
    /// The hub refused.
    #[error("the hub answered {status}{message}")]
    Status { status: StatusCode, message: String },
    /// The hub's answer is not of the API's form.
    #[error("the hub's answer can't be read: {0}")]
    Malformed(String),
    /// The client can't be set up.
    #[error("HF_ENDPOINT or HF_TOKEN can't be used: {0}")]
    Settings(String),
}

/// A file of a repository.
#[derive(Debug)]
pub(super) struct RemoteFile {
    pub(super) name: String,
    pub(super) size_bytes: u64,
}

/// A file whose content is still to come.
pub(super) struct OpenedFile {
    /// The name of its content in the cache.
    pub(super) etag: String,
    pub(super) response: Response,
}

/// Asks one hub about one model.
pub(super) struct HubClient {
    http: Client,
    endpoint: Url,
    token: Option<Secret>,
    /// `OWNER/NAME`.
    repository: String,
}

impl HubClient {
    pub(super) fn new(model: &HubModel, options: &StoreOptions) -> Result<Self, RequestError> {
        let endpoint = options.variable("HF_ENDPOINT").unwrap_or(DEFAULT_ENDPOINT);
        let endpoint: Url = endpoint
            .parse()
            .map_err(|error: url::ParseError| RequestError::Settings(error.to_string()))?;
        if !matches!(endpoint.scheme(), "http" | "https") {
            let reason = "the endpoint doesn't start with http:// or https://".to_owned();
            return Err(RequestError::Settings(reason));
        }
        tls::install_crypto_provider();
        let http = Client::builder()
            .user_agent(concat!("camshaft/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            // `get` follows redirects itself: other hosts must not get the token.
            .redirect(redirect::Policy::none())
            .build()?;
        let repository = format!("{}/{}", model.owner(), model.name());
        Ok(Self { http, endpoint, token: token(options), repository })
    }

    /// The commit that a branch, a tag or a commit stands for.
    pub(super) async fn commit(&self, revision: &str) -> Result<String, RequestError> {
        #[derive(Deserialize)]
        struct Info {
            sha: String,
        }
        if cache::is_commit(revision) {
            return Ok(revision.to_owned());
        }
        let url =
            self.url(&format!("api/models/{}/revision/{}", self.repository, encoded(revision)))?;
        let Info { sha } = read_json(self.get(url).await?.response).await?;
        // It becomes part of paths, so it is checked.
        if cache::is_commit(&sha) { Ok(sha) } else { Err(malformed("it names no commit")) }
    }

    /// The files at the top of a commit's tree.
    pub(super) async fn files(&self, commit: &str) -> Result<Vec<RemoteFile>, RequestError> {
        #[derive(Deserialize)]
        struct Entry {
            r#type: String,
            path: String,
            #[serde(default)]
            size: u64,
        }
        let mut next = Some(self.url(&format!("api/models/{}/tree/{commit}", self.repository))?);
        let mut files = Vec::new();
        while let Some(url) = next {
            let response = self.get(url).await?.response;
            next = next_page(&response);
            let entries: Vec<Entry> = read_json(response).await?;
            // A name becomes a path in the cache, so it must not lead elsewhere.
            let is_file = |entry: &Entry| entry.r#type == "file" && !entry.path.contains('/');
            let entries = entries.into_iter().filter(is_file);
            files.extend(
                entries.map(|entry| RemoteFile { name: entry.path, size_bytes: entry.size }),
            );
            if files.len() > MAX_FILES {
                return Err(malformed(&format!("it lists more than {MAX_FILES} files")));
            }
        }
        Ok(files)
    }

    /// Asks for a file's content.
    pub(super) async fn open(&self, commit: &str, file: &str) -> Result<OpenedFile, RequestError> {
        let path = format!("{}/resolve/{commit}/{}", self.repository, encoded(file));
        let HubAnswer { response, headers } = self.get(self.url(&path)?).await?;
        let etag = ["x-linked-etag", ETAG.as_str()].into_iter().find_map(|name| headers.get(name));
        let etag = etag.and_then(|etag| etag.to_str().ok()).unwrap_or_default();
        let etag = etag.strip_prefix("W/").unwrap_or(etag).trim_matches('"');
        // It becomes a file's name, so it is checked.
        let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        if etag.is_empty() || etag.starts_with('.') || !etag.bytes().all(fits) {
            return Err(malformed(&format!("{file} has no entity tag")));
        }
        Ok(OpenedFile { etag: etag.to_owned(), response })
    }

    fn url(&self, path: &str) -> Result<Url, RequestError> {
        let endpoint = self.endpoint.as_str().trim_end_matches('/');
        Url::parse(&format!("{endpoint}/{path}"))
            .map_err(|error| RequestError::Settings(error.to_string()))
    }

    /// Sends a request and follows redirects: large files are on other hosts.
    async fn get(&self, mut url: Url) -> Result<HubAnswer, RequestError> {
        let mut headers = HeaderMap::new();
        for _ in 0..=MAX_REDIRECTS {
            let is_hub = url.origin() == self.endpoint.origin();
            let response = self.get_once(&url, is_hub).await?;
            if is_hub {
                headers = response.headers().clone();
            }
            let status = response.status();
            if status.is_success() {
                return Ok(HubAnswer { response, headers });
            }
            let target = response.headers().get(LOCATION).and_then(|to| to.to_str().ok());
            match target {
                Some(target) if status.is_redirection() => {
                    let joined = url.join(target).ok();
                    let joined = joined.filter(|url| matches!(url.scheme(), "http" | "https"));
                    url = joined.ok_or_else(|| malformed("a redirect has no address"))?;
                }
                _ => return Err(refusal(response).await),
            }
        }
        Err(malformed("it redirects too often"))
    }

    /// One answer, after retries. Only the hub gets the token.
    async fn get_once(&self, url: &Url, is_hub: bool) -> Result<Response, RequestError> {
        let mut backoff = Backoff::default();
        for retries_left in (0..=RETRIES).rev() {
            let mut request = self.http.get(url.clone());
            if let Some(token) = self.token.as_ref().filter(|_| is_hub) {
                request = request.header(AUTHORIZATION, format!("Bearer {}", token.expose()));
            }
            let result = request.send().await;
            let may_pass = match &result {
                Ok(response) => is_transient(response.status()),
                Err(error) => !error.is_builder(),
            };
            if !may_pass || retries_left == 0 {
                return Ok(result?);
            }
            tokio::time::sleep(backoff.next_delay()).await;
        }
        unreachable!("the last try returns")
    }
}

/// The answer at the end of all redirects.
struct HubAnswer {
    response: Response,
    /// Headers of the last answer that the hub itself gave.
    headers: HeaderMap,
}

/// Finds the token as Hugging Face's programs do: in `HF_TOKEN`, else in the file that
/// `hf auth login` writes.
fn token(options: &StoreOptions) -> Option<Secret> {
    if let Some(token) = options.variable("HF_TOKEN") {
        return Some(token.to_owned().into());
    }
    if options.variable("HF_HUB_DISABLE_IMPLICIT_TOKEN").is_some() {
        return None;
    }
    let named = options.variable("HF_TOKEN_PATH").map(Into::into);
    let files = named.into_iter().chain([cache::hugging_face_home(options).join("token")]);
    let mut tokens = files.filter_map(|file| std::fs::read_to_string(file).ok());
    tokens.find_map(|token| {
        let token = token.trim();
        (!token.is_empty()).then(|| token.to_owned().into())
    })
}

fn is_transient(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 429 | 500 | 502 | 503 | 504)
}

/// The error for an answer that is no success.
async fn refusal(response: Response) -> RequestError {
    #[derive(Deserialize)]
    struct Body {
        error: String,
    }
    let status = response.status();
    let header = response.headers().get("x-error-message").and_then(|text| text.to_str().ok());
    let message = match header {
        Some(message) => Some(message.to_owned()),
        None => read_json::<Body>(response).await.ok().map(|body| body.error),
    };
    let message = message.filter(|message| !message.is_empty());
    RequestError::Status { status, message: message.map(|m| format!(": {m}")).unwrap_or_default() }
}

async fn read_json<T: serde::de::DeserializeOwned>(
    mut response: Response,
) -> Result<T, RequestError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > MAX_ANSWER_BYTES {
            return Err(malformed(&format!("it has more than {MAX_ANSWER_BYTES} bytes")));
        }
        body.extend_from_slice(&chunk);
    }
    serde_json::from_slice(&body).map_err(|error| malformed(&error.to_string()))
}

/// The URL in a header `Link: <URL>; rel="next"`.
fn next_page(response: &Response) -> Option<Url> {
    let links = response.headers().get(LINK)?.to_str().ok()?;
    let next = links.split(',').find(|link| link.contains("rel=\"next\""))?;
    let (_, rest) = next.split_once('<')?;
    response.url().join(rest.split_once('>')?.0).ok()
}

fn encoded(segment: &str) -> String {
    utf8_percent_encode(segment, SEGMENT).to_string()
}

fn malformed(reason: &str) -> RequestError {
    RequestError::Malformed(reason.to_owned())
}
