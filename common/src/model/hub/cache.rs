//! The Hugging Face cache on disk, in the layout that Hugging Face's own programs share:
//! `models--OWNER--NAME/` holds `blobs/ETAG`, `snapshots/COMMIT/FILE` as links to blobs, and
//! `refs/REVISION` with the commit a branch or tag stood for.
//!
//! Owns paths, links and locks. Does not ask the hub: [`client`](super::client) does.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::super::HubModel;
use crate::store::StoreOptions;

/// Pause between two tries of a lock that another program holds.
const LOCK_INTERVAL: Duration = Duration::from_millis(100);

/// One model's part of the cache.
pub(super) struct Cache {
    /// Folder of all repositories.
    root: PathBuf,
    /// This repository's name in `root`.
    repository: String,
}

impl Cache {
    /// The cache in `HF_HUB_CACHE`, else in `hub/` of [`hugging_face_home`].
    pub(super) fn open(model: &HubModel, options: &StoreOptions) -> Self {
        let root = ["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"]
            .into_iter()
            .find_map(|name| options.variable(name).map(PathBuf::from))
            .unwrap_or_else(|| hugging_face_home(options).join("hub"));
        Self { root, repository: format!("models--{}--{}", model.owner(), model.name()) }
    }

    /// The folder with a revision's files, if it was downloaded before.
    pub(super) fn find(&self, revision: &str) -> io::Result<Option<PathBuf>> {
        let commit = if is_commit(revision) {
            revision.to_owned()
        } else {
            match std::fs::read_to_string(self.reference(revision)) {
                Ok(commit) => commit.trim().to_owned(),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(error),
            }
        };
        let snapshot = self.snapshot(&commit);
        Ok(snapshot.exists().then_some(snapshot))
    }

    /// The folder of a commit's files.
    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.folder().join("snapshots").join(commit)
    }

    /// The path of a file's content, which is named after its entity tag.
    pub(super) fn blob(&self, etag: &str) -> PathBuf {
        self.folder().join("blobs").join(etag)
    }

    /// Puts a blob into a commit's folder under a file's name.
    pub(super) fn link(&self, commit: &str, file: &str, etag: &str) -> io::Result<()> {
        let folder = self.snapshot(commit);
        std::fs::create_dir_all(&folder)?;
        let link = folder.join(file);
        match std::fs::remove_file(&link) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // Relative, so that the cache can be moved and mounted elsewhere.
        let target = Path::new("../../blobs").join(etag);
        match std::os::unix::fs::symlink(target, &link) {
            // Another program has linked it at the same time.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            linked => linked,
        }
    }

    /// Writes down which commit a branch or tag stands for now.
    pub(super) fn remember(&self, revision: &str, commit: &str) -> io::Result<()> {
        if is_commit(revision) {
            return Ok(());
        }
        let path = self.reference(revision);
        std::fs::create_dir_all(path.parent().expect("it lies in refs/"))?;
        std::fs::write(path, commit)
    }

    /// Waits until no other program downloads this blob. The lock ends when the file is dropped.
    pub(super) async fn lock(&self, etag: &str) -> io::Result<File> {
        let folder = self.root.join(".locks").join(&self.repository);
        std::fs::create_dir_all(&folder)?;
        let file = File::create(folder.join(format!("{etag}.lock")))?;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) => tokio::time::sleep(LOCK_INTERVAL).await,
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
    }

    fn folder(&self) -> PathBuf {
        self.root.join(&self.repository)
    }

    fn reference(&self, revision: &str) -> PathBuf {
        self.folder().join("refs").join(revision)
    }
}

/// The folder in which Hugging Face's programs keep the cache and the token.
pub(super) fn hugging_face_home(options: &StoreOptions) -> PathBuf {
    if let Some(home) = options.variable("HF_HOME") {
        return home.into();
    }
    if let Some(caches) = options.variable("XDG_CACHE_HOME") {
        return Path::new(caches).join("huggingface");
    }
    Path::new(options.variable("HOME").unwrap_or("/tmp")).join(".cache/huggingface")
}

/// True if a revision is a commit. Branches and tags can move, commits can't.
pub(super) fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.bytes().all(|b| b.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_lies_where_hugging_face_programs_look() {
        let home = ("HOME", "/home/me");
        for (variables, expected) in [
            (vec![home], "/home/me/.cache/huggingface/hub"),
            (vec![home, ("XDG_CACHE_HOME", "/caches")], "/caches/huggingface/hub"),
            (vec![home, ("HF_HOME", "/hf")], "/hf/hub"),
            (vec![("HF_HOME", "/hf"), ("HUGGINGFACE_HUB_CACHE", "/old")], "/old"),
            (vec![("HUGGINGFACE_HUB_CACHE", "/old"), ("HF_HUB_CACHE", "/hub")], "/hub"),
        ] {
            let variables = variables.into_iter().map(|(n, v)| (n.to_owned(), v.to_owned()));
            let options = StoreOptions::from_variables(variables);
            let crate::model::ModelReference::Hub(model) = "hf:owner/net".parse().unwrap() else {
                panic!("it is a model on the hub");
            };
            let cache = Cache::open(&model, &options);
            assert_eq!(cache.root, Path::new(expected));
            assert!(cache.blob("tag").ends_with("models--owner--net/blobs/tag"));
        }
    }
}
