//! A run on small images with the small model: what most suites start from.

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::images::{write_small_images, write_small_model};
use crate::programs::{Ended, camshaft, run};
use crate::results::{Results, local};

/// Images, a model and a place for results, in a directory of their own.
#[derive(Debug)]
pub struct SmallRun {
    /// SOURCE.
    pub source: PathBuf,
    /// OUT.
    pub out: PathBuf,
    /// The model's folder.
    pub model: PathBuf,
    /// The images' keys.
    pub keys: Vec<String>,
    /// Where all that lies.
    pub directory: TempDir,
}

impl SmallRun {
    /// Writes so many images, and the model.
    ///
    /// # Panics
    /// Where they can't be written.
    #[must_use]
    pub fn new(images: usize) -> Self {
        let directory = tempfile::tempdir().expect("a temporary folder");
        let path = |name: &str| directory.path().join(name);
        let (source, out, model) = (path("images"), path("out"), path("model"));
        let keys = write_small_images(&source, images);
        write_small_model(&model);
        Self { source, out, model, keys, directory }
    }

    /// Runs `camshaft audit` with more arguments.
    #[must_use]
    pub fn audit(&self, more: &[&str]) -> Ended {
        let mut command = camshaft(["audit"]);
        command.arg(&self.source).arg("--out").arg(&self.out).arg("--model").arg(&self.model);
        run(command.args(more))
    }

    /// Runs `camshaft enqueue` with more arguments, and returns what it prints.
    ///
    /// # Panics
    /// Where it fails.
    pub fn enqueue(&self, broker: &str, more: &[&str]) -> String {
        let mut command = camshaft(["enqueue", "--broker", broker]);
        command.arg(&self.source).arg("--out").arg(&self.out).arg("--model").arg(&self.model);
        run(command.args(more)).expect(0).stdout
    }

    /// `camshaft enqueue` of a list that comes bit by bit, not yet run: its file is a named pipe,
    /// to be opened for writing once it runs.
    ///
    /// # Panics
    /// Where there are no named pipes.
    #[must_use]
    pub fn enqueue_from_pipe(&self, broker: &str) -> (Command, PathBuf) {
        let list = self.directory.path().join("keys");
        let made = Command::new("mkfifo").arg(&list).status();
        assert!(made.is_ok_and(|status| status.success()), "mkfifo is on every Debian");
        let mut command = camshaft(["enqueue", "--broker", broker, "--base"]);
        command.arg(&self.source).arg("--out").arg(&self.out).arg("--model").arg(&self.model);
        command.arg(format!("list:{}", list.display()));
        (command, list)
    }

    /// What `camshaft status --json` says.
    ///
    /// # Panics
    /// Where it fails.
    #[must_use]
    pub fn status(&self, broker: &str) -> Value {
        let mut command = camshaft(["status", "--broker", broker, "--json"]);
        let ended = run(command.arg(&self.out)).expect(0);
        serde_json::from_str(&ended.stdout).expect("it prints JSON")
    }

    /// Asserts that every image has its result, and no queue anything left.
    ///
    /// # Panics
    /// Where that is not so.
    pub fn assert_adds_up(&self, broker: &str) {
        let status = self.status(broker);
        assert_eq!(status["images"], self.keys.len(), "{status}");
        for none in ["remaining", "queued", "retrying", "dead", "unaccounted"] {
            assert_eq!(status[none], 0, "{none} in {status}");
        }
        assert_eq!(status["doubled_keys"], Value::Array(Vec::new()), "{status}");
    }

    /// What lies in OUT.
    #[must_use]
    pub fn results(&self) -> Results {
        Results::read(&local(&self.out))
    }

    /// How many predictions lie in OUT, without reading them.
    #[must_use]
    pub fn predictions(&self) -> usize {
        let folder = self.out.join("predictions");
        if folder.exists() { crate::images::files_below(&folder).len() } else { 0 }
    }
}
