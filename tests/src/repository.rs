//! Where things lie: the repository, what `tests/run.sh` installs, and `../shared`.

use std::path::{Path, PathBuf};

/// The repository's root.
#[must_use]
pub fn root() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().expect("tests/ lies in the repository").to_owned()
}

/// A tool that `tests/run.sh` installs.
///
/// # Panics
/// Where it is not installed.
#[must_use]
pub fn tool(path: &str) -> PathBuf {
    let tool = root().join("target/tools").join(path);
    assert!(tool.exists(), "{} is missing: run tests/run.sh, which installs it", tool.display());
    tool
}

/// The sample photos.
#[must_use]
pub fn photos() -> PathBuf {
    root().join("tests/data/photos")
}

/// Data that is too large, or not ours, to lie in the repository. Where it is absent the
/// test says what it skips.
#[must_use]
pub fn shared(path: &str) -> Option<PathBuf> {
    let found = root().join("../shared").join(path);
    if !found.exists() {
        report_skip(path);
        return None;
    }
    Some(found)
}

#[expect(clippy::print_stderr, reason = "a skipped check must be seen")]
fn report_skip(path: &str) {
    eprintln!("SKIPPED: there is no ../shared/{path} on this machine");
}
