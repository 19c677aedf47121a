//! A local folder's files in the order of their names, as `object_store` would tell them.
//!
//! It follows symbolic links, leaves out what is no file and the store's own unfinished uploads,
//! and makes the same entity tags: workers compare them with those they read by.

use std::fs::{self, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path as FilePath, PathBuf};
use std::time::SystemTime;

use futures::stream::{self, BoxStream, StreamExt};
use object_store::path::Path;
use object_store::{Error, ObjectMeta, Result};
use tokio::sync::mpsc;

/// Files handed on together.
const BATCH_FILES: usize = 256;
const BATCHES_HELD: usize = 16;

/// Every file below `folder`, which is at `prefix` in the store.
pub(crate) fn list(folder: PathBuf, prefix: Path) -> BoxStream<'static, Result<ObjectMeta>> {
    let batches = stream::once(async move {
        let (sender, receiver) = mpsc::channel(BATCHES_HELD);
        tokio::task::spawn_blocking(move || {
            let mut walk =
                FolderWalk { sender, batch: Vec::with_capacity(BATCH_FILES), above: Vec::new() };
            // An error means that the reader is gone.
            if walk.folder(&folder, &prefix).is_ok() {
                walk.flush().unwrap_or_default();
            }
        });
        stream::unfold(receiver, |mut receiver| async move {
            receiver.recv().await.map(|batch: Vec<_>| (batch, receiver))
        })
    });
    batches.flatten().flat_map(stream::iter).boxed()
}

/// The reader of the stream is gone.
struct ReaderGone;

struct FolderWalk {
    sender: mpsc::Sender<Vec<Result<ObjectMeta>>>,
    batch: Vec<Result<ObjectMeta>>,
    /// Device and inode of the folders above, to notice links that lead back to one.
    above: Vec<(u64, u64)>,
}

impl FolderWalk {
    fn folder(&mut self, folder: &FilePath, prefix: &Path) -> std::result::Result<(), ReaderGone> {
        let read = fs::metadata(folder).and_then(|facts| {
            let here = (facts.dev(), facts.ino());
            if self.above.contains(&here) {
                return Err(io::Error::other("a symbolic link leads back to a folder above it"));
            }
            Ok((here, FolderNames::read(folder)?))
        });
        let (here, names) = match read {
            Ok(read) => read,
            // It was deleted meanwhile, or never existed. A store has no empty folders either.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return self.push(Err(failed(folder, error))),
        };
        self.above.push(here);
        for name in names.iter() {
            let (name, is_folder) = match name.strip_suffix(b"/") {
                Some(name) => (name, true),
                None => (name, false),
            };
            let path = folder.join(std::ffi::OsStr::from_bytes(name));
            let location = match location(prefix, name) {
                Ok(location) => location,
                Err(error) => {
                    self.push(Err(error))?;
                    continue;
                }
            };
            if is_folder {
                self.folder(&path, &location)?;
            } else if !is_unfinished(name) {
                self.file(&path, location)?;
            }
        }
        self.above.pop();
        Ok(())
    }

    fn file(&mut self, path: &FilePath, location: Path) -> std::result::Result<(), ReaderGone> {
        match fs::metadata(path) {
            Ok(facts) if facts.is_file() => self.push(object(&facts, location)),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => self.push(Err(failed(path, error))),
        }
    }

    fn push(&mut self, item: Result<ObjectMeta>) -> std::result::Result<(), ReaderGone> {
        self.batch.push(item);
        if self.batch.len() >= BATCH_FILES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> std::result::Result<(), ReaderGone> {
        let batch = std::mem::replace(&mut self.batch, Vec::with_capacity(BATCH_FILES));
        self.sender.blocking_send(batch).map_err(|_| ReaderGone)
    }
}

/// The names in one folder, sorted as whole paths are: the name of a folder ends in `/`, so that
/// `a-b` and `a.jpg` come before `a/…`. All names are in one text, since there may be a million.
struct FolderNames {
    text: Vec<u8>,
    /// Start and length of each name.
    spans: Vec<(usize, u16)>,
}

impl FolderNames {
    fn read(folder: &FilePath) -> io::Result<Self> {
        let mut names = Self { text: Vec::new(), spans: Vec::new() };
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            let is_folder = if kind.is_symlink() {
                // A link that leads nowhere is left out when its file is looked at.
                fs::metadata(entry.path()).is_ok_and(|target| target.is_dir())
            } else {
                kind.is_dir()
            };
            let start = names.text.len();
            names.text.extend_from_slice(entry.file_name().as_bytes());
            if is_folder {
                names.text.push(b'/');
            }
            let length = u16::try_from(names.text.len() - start).map_err(io::Error::other)?;
            names.spans.push((start, length));
        }
        let Self { text, spans } = &mut names;
        spans.sort_unstable_by(|a, b| name(text, *a).cmp(name(text, *b)));
        Ok(names)
    }

    fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.spans.iter().map(|&span| name(&self.text, span))
    }
}

fn name(text: &[u8], (start, length): (usize, u16)) -> &[u8] {
    &text[start..start + usize::from(length)]
}

fn location(prefix: &Path, name: &[u8]) -> Result<Path> {
    let name = str::from_utf8(name).map_err(|source| {
        let path = format!("{prefix}/{}", String::from_utf8_lossy(name));
        object_store::path::Error::NonUnicode { path, source }
    })?;
    let whole =
        if prefix.as_ref().is_empty() { name.to_owned() } else { format!("{prefix}/{name}") };
    Ok(Path::parse(whole)?)
}

/// True for `name#123`: the store writes a file under such a name before it renames it.
fn is_unfinished(name: &[u8]) -> bool {
    let Some(at) = name.iter().position(|&byte| byte == b'#') else { return false };
    let suffix = &name[at + 1..];
    !suffix.is_empty() && suffix.iter().all(u8::is_ascii_digit)
}

fn object(facts: &Metadata, location: Path) -> Result<ObjectMeta> {
    let modified = facts.modified().map_err(|error| failed(FilePath::new(""), error))?;
    let since = modified.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let (inode, micros, size) = (facts.ino(), since.as_micros(), facts.len());
    Ok(ObjectMeta {
        location,
        last_modified: modified.into(),
        size,
        e_tag: Some(format!("\"{inode:x}-{micros:x}-{size:x}\"")),
        version: None,
    })
}

fn failed(path: &FilePath, error: io::Error) -> Error {
    let source = io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    Error::Generic { store: "file", source: source.into() }
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt;
    use object_store::ObjectStore;
    use object_store::local::LocalFileSystem;

    use super::*;

    #[tokio::test]
    async fn the_order_is_that_of_whole_names_and_the_facts_are_the_stores() {
        let directory = tempfile::tempdir().unwrap();
        for name in [
            "a/x.jpg",
            "a/b/y.jpg",
            "a-b/x.jpg",
            "a.jpg",
            "a/b.jpg",
            "A.jpg",
            "a0/x.jpg",
            "é/猫.jpg",
            "z#12",
            "z#1x",
            "half#7",
            ".hidden/x",
            "sp ace%20.jpg",
        ] {
            let path = directory.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, name).unwrap();
        }
        fs::create_dir(directory.path().join("empty")).unwrap();
        for (target, link) in [("a", "linked"), ("a.jpg", "link.jpg"), ("nowhere", "broken")] {
            std::os::unix::fs::symlink(target, directory.path().join(link)).unwrap();
        }
        let prefix = Path::from_absolute_path(directory.path()).unwrap();
        let store = LocalFileSystem::new();
        let mut expected: Vec<_> = store.list(Some(&prefix)).try_collect().await.unwrap();
        expected.sort_by(|a, b| a.location.as_ref().cmp(b.location.as_ref()));
        let found: Vec<_> = list(directory.path().to_owned(), prefix).try_collect().await.unwrap();
        assert_eq!(found, expected);
        assert!(found.len() > 10, "{found:?}");
    }

    #[tokio::test]
    async fn what_leads_back_or_has_no_name_is_an_error_and_the_rest_still_comes() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("a")).unwrap();
        std::os::unix::fs::symlink("..", directory.path().join("a/back")).unwrap();
        fs::write(directory.path().join(std::ffi::OsStr::from_bytes(b"b\xff.jpg")), "").unwrap();
        fs::write(directory.path().join("c.jpg"), "").unwrap();
        let prefix = Path::from_absolute_path(directory.path()).unwrap();
        let found: Vec<_> = list(directory.path().to_owned(), prefix).collect().await;
        assert!(matches!(found.as_slice(), [Err(_), Err(_), Ok(_)]), "{found:?}");
        let none = list(directory.path().join("not-there"), Path::default());
        assert_eq!(none.count().await, 0);
    }
}
