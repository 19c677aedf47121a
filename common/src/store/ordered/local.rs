//! A local folder's files in the order of their names, as `object_store` would tell them.
//!
//! It follows symbolic links, and makes the same entity tags: workers compare them with those they
//! read by. Unlike `object_store` it takes any name, and one entry that can't be read stops nothing.

use std::fs::{self, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path as FilePath, PathBuf};
use std::time::SystemTime;

use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use object_store::{Error, Result};
use tokio::sync::mpsc;

use super::super::found::{FoundEntry, FoundObject, FoundOther};
use super::received;
use crate::skipped::SkipReason;

/// Files handed on together.
const BATCH_FILES: usize = 256;
const BATCHES_HELD: usize = 16;

/// Every file below `folder`, and whatever else lies there that is no folder with files. An error
/// only if `folder` itself can't be listed.
pub(crate) fn list(folder: PathBuf) -> BoxStream<'static, Result<FoundEntry>> {
    let batches = stream::once(async move {
        let (sender, receiver) = mpsc::channel(BATCHES_HELD);
        let walking = tokio::task::spawn_blocking(move || {
            let batch = Vec::with_capacity(BATCH_FILES);
            let mut walk = FolderWalk { sender, batch, above: Vec::new() };
            // An error means that the reader is gone.
            if walk.folder(&folder, &[]).is_ok() {
                walk.flush().unwrap_or_default();
            }
        });
        received(receiver, walking)
    });
    batches.flatten().map_ok(stream::iter).try_flatten().boxed()
}

/// The reader of the stream is gone.
struct ReaderGone;

struct FolderWalk {
    sender: mpsc::Sender<Vec<Result<FoundEntry>>>,
    batch: Vec<Result<FoundEntry>>,
    /// Device and inode of the folders above, to notice links that lead back to one.
    above: Vec<(u64, u64)>,
}

impl FolderWalk {
    /// `below` is the folder's name below the first one, a `/` at its end; empty for the first.
    fn folder(&mut self, folder: &FilePath, below: &[u8]) -> std::result::Result<(), ReaderGone> {
        let read = fs::metadata(folder).and_then(|facts| {
            let here = (facts.dev(), facts.ino());
            if self.above.contains(&here) {
                return Ok(None);
            }
            Ok(Some((here, FolderNames::read(folder)?)))
        });
        let (here, names) = match read {
            Ok(Some(read)) => read,
            Ok(None) => return self.skip(below, SkipReason::LinkLoop, None),
            // It was deleted meanwhile, or never existed. A store has no empty folders either.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) if below.is_empty() || !concerns_one_entry(&error) => {
                return self.push(Err(failed(folder, error)));
            }
            Err(error) => return self.skip(below, SkipReason::Unreadable, Some(&error)),
        };
        self.above.push(here);
        for name in names.iter() {
            let path = folder.join(std::ffi::OsStr::from_bytes(name));
            let whole = [below, name].concat();
            if name.ends_with(b"/") {
                self.folder(&path, &whole)?;
            } else {
                self.file(&path, whole)?;
            }
        }
        self.above.pop();
        match names.cut_short {
            Some(error) if below.is_empty() || !concerns_one_entry(&error) => {
                self.push(Err(failed(folder, error)))
            }
            Some(error) => self.skip(below, SkipReason::Unreadable, Some(&error)),
            None => Ok(()),
        }
    }

    fn file(&mut self, path: &FilePath, name: Vec<u8>) -> std::result::Result<(), ReaderGone> {
        let error = match fs::metadata(path) {
            Ok(facts) if facts.is_file() => {
                let object = FoundObject {
                    name,
                    etag: Some(etag(&facts)),
                    size_bytes: facts.len(),
                    last_modified: modified(&facts).into(),
                };
                return self.push(Ok(FoundEntry::Object(object)));
            }
            Ok(_) => return self.skip(&name, SkipReason::NotAFile, None),
            Err(error) => error,
        };
        if error.raw_os_error() == Some(libc::ELOOP) {
            self.skip(&name, SkipReason::LinkLoop, None)
        } else if concerns_one_entry(&error) {
            self.skip(&name, SkipReason::Unreadable, Some(&error))
        } else if error.kind() != ErrorKind::NotFound {
            self.push(Err(failed(path, error)))
        } else if fs::symlink_metadata(path).is_ok() {
            self.skip(&name, SkipReason::BrokenLink, None)
        } else {
            // It was deleted meanwhile.
            Ok(())
        }
    }

    fn skip(
        &mut self,
        name: &[u8],
        reason: SkipReason,
        error: Option<&io::Error>,
    ) -> std::result::Result<(), ReaderGone> {
        let detail = error.map(ToString::to_string);
        self.push(Ok(FoundEntry::Skipped(FoundOther { name: name.to_owned(), reason, detail })))
    }

    fn push(&mut self, item: Result<FoundEntry>) -> std::result::Result<(), ReaderGone> {
        self.batch.push(item);
        if self.batch.len() >= BATCH_FILES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> std::result::Result<(), ReaderGone> {
        let batch = std::mem::replace(&mut self.batch, Vec::with_capacity(BATCH_FILES));
        self.sender.blocking_send(batch).map_err(|_| ReaderGone)
    }
}

/// True for an error that this file or folder always gives. After any other error the listing fails,
/// for instance if a network's file system is away or too many files are open: images that are there
/// would be missing, and nobody would know.
fn concerns_one_entry(error: &io::Error) -> bool {
    let code = error.raw_os_error();
    [libc::EACCES, libc::EPERM, libc::ELOOP, libc::ENAMETOOLONG, libc::EINVAL, libc::ENOTDIR]
        .into_iter()
        .any(|lasting| code == Some(lasting))
}

/// The names in one folder, sorted as whole paths are: the name of a folder ends in `/`, so that
/// `a-b` and `a.jpg` come before `a/…`. All names are in one text, since there may be a million.
struct FolderNames {
    text: Vec<u8>,
    /// Start and length of each name.
    spans: Vec<(usize, u16)>,
    /// Why there may be more names that could not be read.
    cut_short: Option<io::Error>,
}

impl FolderNames {
    fn read(folder: &FilePath) -> io::Result<Self> {
        let mut names = Self { text: Vec::new(), spans: Vec::new(), cut_short: None };
        for entry in fs::read_dir(folder)? {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => {
                    names.cut_short = Some(error);
                    break;
                }
            };
            let is_folder = match entry.file_type() {
                Ok(kind) if !kind.is_symlink() => kind.is_dir(),
                // A link that leads nowhere is noticed when its file is looked at.
                _ => fs::metadata(entry.path()).is_ok_and(|target| target.is_dir()),
            };
            let start = names.text.len();
            names.text.extend_from_slice(entry.file_name().as_bytes());
            if is_folder {
                names.text.push(b'/');
            }
            let length = u16::try_from(names.text.len() - start).map_err(io::Error::other)?;
            names.spans.push((start, length));
        }
        let Self { text, spans, .. } = &mut names;
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

/// The entity tag that `object_store` makes for a local file.
pub(crate) fn etag(facts: &Metadata) -> String {
    let since = modified(facts).duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let (inode, micros, size) = (facts.ino(), since.as_micros(), facts.len());
    format!("\"{inode:x}-{micros:x}-{size:x}\"")
}

/// The time of the last change. Every file system of Linux has it.
fn modified(facts: &Metadata) -> SystemTime {
    facts.modified().unwrap_or(SystemTime::UNIX_EPOCH)
}

fn failed(path: &FilePath, error: io::Error) -> Error {
    let source = io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    Error::Generic { store: "file", source: source.into() }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::ffi::OsStr;

    use object_store::ObjectStore;
    use object_store::local::LocalFileSystem;
    use object_store::path::Path;
    use proptest::collection::{btree_set, vec};
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    fn write(directory: &FilePath, names: &[&[u8]]) {
        for name in names {
            let path = directory.join(OsStr::from_bytes(name));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, name).unwrap();
        }
    }

    fn text(name: &[u8]) -> String {
        name.escape_ascii().to_string()
    }

    #[tokio::test]
    async fn the_order_is_that_of_whole_names_and_the_facts_are_the_stores() {
        let directory = tempfile::tempdir().unwrap();
        let names = [
            "a/x.jpg",
            "a/b/y.jpg",
            "a-b/x.jpg",
            "a.jpg",
            "a/b.jpg",
            "A.jpg",
            "a0/x.jpg",
            "é/猫.jpg",
            "z#1x",
            ".hidden/x",
            "sp ace%20.jpg",
        ];
        write(directory.path(), &names.map(str::as_bytes));
        fs::create_dir(directory.path().join("empty")).unwrap();
        for (target, link) in [("a", "linked"), ("a.jpg", "link.jpg")] {
            std::os::unix::fs::symlink(target, directory.path().join(link)).unwrap();
        }
        let prefix = Path::from_absolute_path(directory.path()).unwrap();
        let store = LocalFileSystem::new();
        let expected: Vec<_> = store.list(Some(&prefix)).try_collect().await.unwrap();
        let prefix_bytes = prefix.as_ref().len() + 1;
        let in_store = |meta| FoundObject::in_store(meta, prefix_bytes);
        let mut expected: Vec<_> = expected.into_iter().filter_map(in_store).collect();
        expected.sort_by(|a, b| a.name.cmp(&b.name));
        let found: Vec<_> = list(directory.path().to_owned()).try_collect().await.unwrap();
        assert_eq!(found, expected.into_iter().map(FoundEntry::Object).collect::<Vec<_>>());
        assert!(found.len() > 10, "{found:?}");
    }

    #[tokio::test]
    async fn what_is_no_file_is_told_and_the_rest_still_comes() {
        use std::os::unix::fs::symlink;
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let odd: [&[u8]; 5] = [b"b\xff.jpg", b"c\n.jpg", b"d\xfe/e.jpg", b"photo#1", b"z.jpg"];
        write(directory.path(), &odd);
        fs::create_dir(at("a")).unwrap();
        symlink("..", at("a/back")).unwrap();
        symlink("self", at("self")).unwrap();
        symlink("nowhere", at("broken")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        let found: Vec<_> = list(directory.path().to_owned()).try_collect().await.unwrap();
        let found: Vec<_> = found
            .into_iter()
            .map(|entry| match entry {
                FoundEntry::Object(object) => text(&object.name),
                FoundEntry::Skipped(other) => format!("{} {}", text(&other.name), other.reason),
            })
            .collect();
        let expected = [
            "a/back/ link-loop",
            "broken broken-link",
            "b\\xff.jpg",
            "c\\n.jpg",
            "d\\xfe/e.jpg",
            "photo#1",
            "self link-loop",
            "socket not-a-file",
            "z.jpg",
        ];
        assert_eq!(found, expected);
        assert_eq!(list(at("not-there")).count().await, 0);
        let no_folder: Vec<_> = list(at("z.jpg")).collect().await;
        assert!(matches!(no_folder.as_slice(), [Err(_)]), "{no_folder:?}");
    }

    fn hostile_name() -> impl Strategy<Value = Vec<u8>> {
        let pieces: [&[u8]; 12] =
            [b"a", b"b", b"/", b".", b"!", b"-", b"%=", b" ", b"\n", b"\xff", b"\xc3\xa9", b"0"];
        vec(select(pieces.to_vec()), 1..7).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn every_file_is_listed_once_in_the_order_of_names(
            names in btree_set(hostile_name(), 0..30),
        ) {
            let directory = tempfile::tempdir().unwrap();
            let mut written = BTreeSet::new();
            for name in names {
                let can_be_written = |segment: &[u8]| !matches!(segment, b"" | b"." | b"..");
                if !name.split(|byte| *byte == b'/').all(can_be_written) {
                    continue;
                }
                let path = directory.path().join(OsStr::from_bytes(&name));
                // A file may lie where this one needs a folder, or the other way round.
                let folder = fs::create_dir_all(path.parent().unwrap());
                if folder.and_then(|()| fs::write(&path, "")).is_ok() {
                    written.insert(name);
                }
            }
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let found = list(directory.path().to_owned()).try_collect::<Vec<_>>();
            let found = runtime.block_on(found).unwrap().into_iter().map(|entry| match entry {
                FoundEntry::Object(object) => object.name,
                FoundEntry::Skipped(other) => panic!("{other:?}"),
            });
            prop_assert_eq!(found.collect::<Vec<_>>(), written.into_iter().collect::<Vec<_>>());
        }
    }
}
