//! Paths that tests need: the repository's own data, the tools that `tests/run.sh` installs, and
//! `../shared`. It starts nothing: services are in modules of their own.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::{env, io};

/// Names the file that gets a line for each check that a test skipped. `tests/run.sh` sets it and
/// counts the lines.
const SKIPPED_FILE: &str = "CAMSHAFT_TESTS_SKIPPED";

/// The repository's root.
#[must_use]
pub fn root() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().expect("tests/ lies in the repository").to_owned()
}

/// A tool that `tests/run.sh` installs.
///
/// # Panics
/// If it is not installed.
#[must_use]
pub fn tool(path: &str) -> PathBuf {
    let tool = root().join("target/tools").join(path);
    assert!(tool.exists(), "{} is missing: run tests/run.sh, which installs it", tool.display());
    tool
}

/// A tool that `tests/run.sh` doesn't install, because it is large. If it is not there, this reports a skipped
/// check and returns `None`.
///
/// # Panics
/// If the skipped check cannot be recorded.
#[must_use]
pub fn large_tool(path: &str, how_to_install: &str) -> Option<PathBuf> {
    let tool = root().join("target/tools").join(path);
    if !tool.exists() {
        skip(&format!("there is no target/tools/{path}; to run the check: {how_to_install}"));
        return None;
    }
    Some(tool)
}

/// The blocks of code in a language, such as `python`, below a heading of a file in `docs/`.
///
/// # Panics
/// If there is no such file or heading.
#[must_use]
pub fn documented_code(page: &str, heading: &str, language: &str) -> Vec<String> {
    let text = std::fs::read_to_string(root().join("docs").join(page)).expect("the page exists");
    let (_, below) = text.split_once(&format!("\n{heading}\n")).expect("the page has this heading");
    let level = heading.split(' ').next().unwrap_or_default();
    let end = format!("\n{level} ");
    let section = below.split(&*end).next().unwrap_or_default();
    let start = format!("```{language}\n");
    let blocks = section.split(&*start).skip(1);
    blocks.map(|block| block.split("```").next().unwrap_or_default().to_owned()).collect()
}

/// The sample data set of the README's first command: `cat` and `dog`, with planted faults. One of
/// its files cannot be decoded.
#[must_use]
pub fn photos() -> PathBuf {
    root().join("tests/data/photos")
}

/// Nine photographs without faults, in the folders `cat` and `other`. All seven in `cat` show the
/// cat Chelsea.
#[must_use]
pub fn chelsea() -> PathBuf {
    root().join("tests/data/chelsea")
}

/// A path in `../shared`: data that is too large for the repository, or not ours. If it does not
/// exist, this reports a skipped check and returns `None`.
///
/// # Panics
/// If the skipped check cannot be recorded.
#[must_use]
pub fn shared(path: &str) -> Option<PathBuf> {
    let found = root().join("../shared").join(path);
    if !found.exists() {
        skip(&format!("there is no ../shared/{path} on this machine"));
        return None;
    }
    Some(found)
}

/// Prints that the current test skips a check, and appends a line to the file that `SKIPPED_FILE`
/// names.
///
/// # Panics
/// If the skipped check cannot be recorded.
#[expect(clippy::print_stderr, reason = "a skipped check must be seen")]
pub fn skip(reason: &str) {
    eprintln!("SKIPPED: {reason}");
    record_skip(reason).expect("a skipped check can be recorded");
}

fn record_skip(reason: &str) -> io::Result<()> {
    let Some(file) = env::var_os(SKIPPED_FILE) else { return Ok(()) };
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    let line = format!("{test}: {reason}\n");
    // One write to the end of the file, so that lines of parallel tests do not mix.
    OpenOptions::new().create(true).append(true).open(file)?.write_all(line.as_bytes())
}
