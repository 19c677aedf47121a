//! Folders and buckets as people have them: with names that are no text, links to nowhere, notes
//! beside the images, and the results of earlier runs. No entry may end more than itself, and
//! everything that is left out is counted.

mod buckets;
mod choice;
mod names;
mod runs;

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use camshaft_tests::programs::Ended;
use camshaft_tests::small_run::SmallRun;
use serde_json::Value;

/// Copies the first image to a file with this name below SOURCE.
fn copy_to(small: &SmallRun, name: &[u8]) -> PathBuf {
    let path = small.source.join(std::ffi::OsStr::from_bytes(name));
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::copy(small.source.join(&small.keys[0]), &path).unwrap();
    path
}

fn write(small: &SmallRun, name: &str, content: &[u8]) {
    let path = small.source.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

fn run_record(out: &Path) -> Value {
    serde_json::from_slice(&fs::read(out.join("run.json")).unwrap()).unwrap()
}

/// Asserts that nothing that was printed could move the cursor of a terminal.
fn assert_printable(ended: &Ended) {
    for text in [&ended.stdout, &ended.stderr] {
        let harmless = |c: char| !c.is_control() || matches!(c, '\n' | '\t');
        assert!(text.chars().all(harmless), "{text:?}");
    }
}

/// Asserts that SOURCE's images and those with an odd key each have a result, and no others.
fn assert_all_done(small: &SmallRun, odd: &[&str]) {
    let odd = odd.iter().map(|key| (*key).to_owned());
    let keys: Vec<_> = small.keys.iter().cloned().chain(odd).collect();
    small.results().assert_exactly(&keys);
}
