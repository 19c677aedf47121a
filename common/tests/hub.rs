//! Models on the hub, against a small server on this machine that answers as the hub's listing,
//! revision and download addresses do, and a redirect to another host, as large files have.

#![expect(clippy::unwrap_used, reason = "a test that can't go on has to fail")]

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use camshaft_common::model::{
    HubModel, ModelFilesError, ModelOptions, ModelReference, StoredModel,
};
use camshaft_common::store::StoreOptions;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const TOKEN: &str = "hf_a_secret_of_this_test";

/// Files of `owner/net`, and what was asked for.
#[derive(Default)]
struct Hub {
    files: HashMap<&'static str, &'static str>,
    /// The host that has the weights, if it is another.
    weights_host: Option<String>,
    /// The size of files as they are listed, if it is not theirs.
    listed_size: Option<usize>,
    requests: Mutex<Vec<String>>,
    with_token: AtomicUsize,
}

impl Hub {
    fn new(files: &[(&'static str, &'static str)]) -> Arc<Self> {
        Arc::new(Self { files: files.iter().copied().collect(), ..Self::default() })
    }

    /// Serves until the test's runtime ends; returns its address.
    async fn serve(self: &Arc<Self>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let hub = Arc::clone(self);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(Arc::clone(&hub).answer(stream));
            }
        });
        address
    }

    async fn answer(self: Arc<Self>, mut stream: TcpStream) {
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            let Ok(byte) = stream.read_u8().await else { return };
            request.push(byte);
        }
        let request = String::from_utf8(request).unwrap();
        let mut words = request.split_whitespace();
        let (method, path) = (words.next().unwrap(), words.next().unwrap());
        self.requests.lock().unwrap().push(format!("{method} {path}"));
        if request.contains(TOKEN) {
            self.with_token.fetch_add(1, Relaxed);
        }
        let (status, headers, body) = self.response(path);
        let length = body.len();
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n{headers}\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap_or_default();
        if method != "HEAD" {
            stream.write_all(body.as_bytes()).await.unwrap_or_default();
        }
        stream.shutdown().await.unwrap_or_default();
    }

    fn response(&self, path: &str) -> (&'static str, String, String) {
        let path = path.split('?').next().unwrap();
        if path.starts_with("/api/models/owner/gated/") {
            return ("401 Unauthorized", "X-Error-Code: GatedRepo\r\n".into(), String::new());
        }
        if let Some(rest) = path.strip_prefix("/api/models/owner/net/") {
            let revision = rest.rsplit('/').next().unwrap();
            if ![COMMIT, "main", "v1"].contains(&revision) {
                return (
                    "404 Not Found",
                    "X-Error-Code: RevisionNotFound\r\n".into(),
                    String::new(),
                );
            }
            let files: Vec<_> = self
                .files
                .iter()
                .map(|(name, content)| {
                    let size = self.listed_size.unwrap_or(content.len());
                    serde_json::json!({"type": "file", "oid": "1", "size": size, "path": name})
                })
                .collect();
            let json = match rest.starts_with("tree/") {
                true => serde_json::json!(files),
                false => serde_json::json!({"id": "owner/net", "sha": COMMIT}),
            };
            return ("200 OK", "Content-Type: application/json\r\n".into(), json.to_string());
        }
        let file = path.strip_prefix(&format!("/owner/net/resolve/{COMMIT}/"));
        if let (Some(host), Some("pytorch_model.bin")) = (&self.weights_host, file) {
            let to = format!("Location: {host}/content/pytorch_model.bin\r\n");
            return ("302 Found", to + "X-Linked-ETag: \"0a1b\"\r\n", String::new());
        }
        let file = file.or(path.strip_prefix("/content/"));
        match file.and_then(|file| Some((file, self.files.get(file)?))) {
            Some((file, content)) => {
                let headers = format!("ETag: \"tag-{file}\"\r\nX-Repo-Commit: {COMMIT}\r\n");
                ("200 OK", headers, (*content).to_owned())
            }
            None => ("404 Not Found", String::new(), String::new()),
        }
    }
}

fn options(endpoint: &str, cache: &Path, offline: bool) -> StoreOptions {
    let cache = cache.to_str().unwrap();
    let mut variables =
        vec![("HF_ENDPOINT", endpoint), ("HF_HUB_CACHE", cache), ("HF_TOKEN", TOKEN)];
    variables.extend(offline.then_some(("HF_HUB_OFFLINE", "1")));
    StoreOptions::from_variables(variables.into_iter().map(|(n, v)| (n.into(), v.into())))
}

fn model(text: &str) -> HubModel {
    match text.parse().unwrap() {
        ModelReference::Hub(model) => model,
        other => panic!("{other:?}"),
    }
}

async fn read(model: &HubModel, stores: &StoreOptions) -> Result<StoredModel, ModelFilesError> {
    StoredModel::from_hub(model, &ModelOptions::default(), stores).await
}

const FILES: [(&str, &str); 5] = [
    ("config.json", "{\"a\": 1}"),
    ("preprocessor_config.json", "{}"),
    ("pytorch_model.bin", "the weights"),
    ("optimizer.pt", "much"),
    ("README.md", "words"),
];

#[tokio::test]
async fn a_model_is_downloaded_once_and_then_had_without_the_hub() {
    let (hub, cache) = (Hub::new(&FILES), tempfile::tempdir().unwrap());
    let endpoint = hub.serve().await;
    let there = options(&endpoint, cache.path(), false);
    let first = read(&model("hf:owner/net"), &there).await.unwrap();
    assert_eq!(first.weights, ["the weights"]);
    assert_eq!(first.preprocessor.as_deref(), Some(&b"{}"[..]));
    assert_eq!(first.identity.name, "net");
    assert_eq!(first.identity.reference.to_string(), format!("hf:owner/net@{COMMIT}"));
    let downloads = |hub: &Hub| {
        let requests = hub.requests.lock().unwrap();
        requests.iter().filter(|r| r.starts_with("GET /owner/net/resolve")).cloned().collect()
    };
    let mut downloaded: Vec<String> = downloads(&hub);
    downloaded.sort();
    let names: Vec<_> = downloaded.iter().map(|r| r.rsplit('/').next().unwrap()).collect();
    assert_eq!(names, ["config.json", "preprocessor_config.json", "pytorch_model.bin"]);
    assert!(hub.with_token.load(Relaxed) > 0, "the token opens gated models");

    // Again, at the commit, offline, and with nobody there: the same, and nothing downloaded.
    let nobody = options("http://127.0.0.1:9", cache.path(), false);
    let offline = options(&endpoint, cache.path(), true);
    let at_commit = format!("hf:owner/net@{COMMIT}");
    for (reference, options) in [
        ("hf:owner/net", &there),
        ("hf:owner/net", &offline),
        ("hf:owner/net", &nobody),
        (&at_commit, &nobody),
    ] {
        let again = read(&model(reference), options).await.unwrap();
        assert_eq!(again.identity, first.identity);
    }
    assert_eq!(downloads(&hub).len(), 3);
}

#[tokio::test]
async fn what_the_hub_refuses_is_told_in_a_line_without_the_token() {
    let (hub, cache) = (Hub::new(&FILES), tempfile::tempdir().unwrap());
    let endpoint = hub.serve().await;
    let there = options(&endpoint, cache.path(), false);
    for (reference, options, part) in [
        ("hf:owner/gated", &there, "private or gated"),
        ("hf:owner/other", &there, "no such model"),
        ("hf:owner/net@v9", &there, "no such model or revision"),
        ("hf:owner/net", &options("http://127.0.0.1:9", cache.path(), false), "out of reach"),
        ("hf:owner/net", &options(&endpoint, cache.path(), true), "HF_HUB_OFFLINE is set"),
    ] {
        let error = read(&model(reference), options).await.unwrap_err();
        let text = format!("{error} {error:?}");
        assert!(error.to_string().contains(part), "{reference}: {error}");
        assert!(!text.contains(TOKEN) && !error.to_string().contains('\n'), "{text}");
    }
}

#[tokio::test]
async fn a_repository_that_is_no_model_is_refused_before_anything_is_downloaded() {
    let (hub, cache) = (Hub::new(&[("config.json", "{}")]), tempfile::tempdir().unwrap());
    let there = options(&hub.serve().await, cache.path(), false);
    let error = read(&model("hf:owner/net"), &there).await.unwrap_err();
    assert!(error.to_string().contains("hf:owner/net has no weights"), "{error}");
    assert!(hub.requests.lock().unwrap().iter().all(|request| !request.contains("/resolve/")));
}

#[tokio::test]
async fn another_host_gives_the_weights_and_gets_no_token() {
    let (content, cache) = (Hub::new(&FILES), tempfile::tempdir().unwrap());
    let weights_host = Some(content.serve().await);
    let files = FILES.into_iter().collect();
    let hub = Arc::new(Hub { files, weights_host, ..Hub::default() });
    let there = options(&hub.serve().await, cache.path(), false);
    let stored = read(&model("hf:owner/net"), &there).await.unwrap();
    assert_eq!(stored.weights, ["the weights"]);
    assert_eq!(*content.requests.lock().unwrap(), ["GET /content/pytorch_model.bin"]);
    assert_eq!(content.with_token.load(Relaxed), 0);
    // As Hugging Face's own programs lay it out.
    let repository = cache.path().join("models--owner--net");
    let link = repository.join(format!("snapshots/{COMMIT}/pytorch_model.bin"));
    assert_eq!(std::fs::read_link(link).unwrap(), Path::new("../../blobs/0a1b"));
    assert_eq!(std::fs::read(repository.join("blobs/0a1b")).unwrap(), b"the weights");
    assert_eq!(std::fs::read_to_string(repository.join("refs/main")).unwrap(), COMMIT);
}

#[tokio::test]
async fn the_shards_that_an_index_names_are_downloaded_and_no_others() {
    let index = r#"{"weight_map": {"a": "m-1-of-2.safetensors", "b": "m-2-of-2.safetensors"}}"#;
    let files = [
        ("config.json", "{}"),
        ("model.safetensors.index.json", index),
        ("m-1-of-2.safetensors", "one"),
        ("m-2-of-2.safetensors", "two"),
        ("other.safetensors", "much"),
    ];
    let (hub, cache) = (Hub::new(&files), tempfile::tempdir().unwrap());
    let there = options(&hub.serve().await, cache.path(), false);
    let stored = read(&model("hf:owner/net"), &there).await.unwrap();
    assert_eq!(stored.weights, ["one", "two"]);
    assert!(hub.requests.lock().unwrap().iter().all(|request| !request.contains("other.")));

    let (hub, cache) = (Hub::new(&files[..3]), tempfile::tempdir().unwrap());
    let there = options(&hub.serve().await, cache.path(), false);
    let error = read(&model("hf:owner/net"), &there).await.unwrap_err();
    assert!(
        error.to_string().contains("no m-2-of-2.safetensors, which its index names"),
        "{error}"
    );
}

#[tokio::test]
async fn a_file_that_is_not_whole_is_not_kept() {
    let cache = tempfile::tempdir().unwrap();
    let files = FILES.into_iter().collect();
    let hub = Arc::new(Hub { files, listed_size: Some(9), ..Hub::default() });
    let there = options(&hub.serve().await, cache.path(), false);
    let error = read(&model("hf:owner/net"), &there).await.unwrap_err();
    assert!(error.to_string().contains("bytes instead of 9"), "{error}");
    let offline = options("http://127.0.0.1:9", cache.path(), true);
    assert!(read(&model("hf:owner/net"), &offline).await.is_err());
}
