//! A run on small images with a small model. Most suites start from it.

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::images::{write_small_images, write_small_model};
use crate::programs::{Ended, camshaft, run};
use crate::results::{Results, local};

/// Images, a model and an OUT, in a temporary directory.
#[derive(Debug)]
pub struct SmallRun {
    /// The SOURCE, a folder.
    pub source: PathBuf,
    /// The OUT, a folder.
    pub out: PathBuf,
    /// The model's folder.
    pub model: PathBuf,
    /// The images' keys.
    pub keys: Vec<String>,
    /// The directory that holds all of them.
    pub directory: TempDir,
}

impl SmallRun {
    /// Writes *n* `images`, and the model.
    ///
    /// # Panics
    /// If they cannot be written.
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
    /// If it fails.
    pub fn enqueue(&self, broker: &str, more: &[&str]) -> String {
        let mut command = camshaft(["enqueue", "--broker", broker]);
        command.arg(&self.source).arg("--out").arg(&self.out).arg("--model").arg(&self.model);
        run(command.args(more)).expect(0).stdout
    }

    /// A command, not yet run, that enqueues a list from a named pipe; and the pipe's path. The
    /// test opens the pipe after it has started the command, and writes the list bit by bit.
    ///
    /// # Panics
    /// If the system cannot make a named pipe.
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

    /// The output of `camshaft status --json`.
    ///
    /// # Panics
    /// If it fails.
    #[must_use]
    pub fn status(&self, broker: &str) -> Value {
        let mut command = camshaft(["status", "--broker", broker, "--json"]);
        let ended = run(command.arg(&self.out)).expect(0);
        serde_json::from_str(&ended.stdout).expect("it prints JSON")
    }

    /// True once the run has begun and this many jobs wait.
    #[must_use]
    pub fn has_queued(&self, broker: &str, jobs: usize) -> bool {
        self.out.join("run.json").exists() && self.status(broker)["queued"] == jobs
    }

    /// Asserts that every image has one result, and that all queues are empty.
    ///
    /// # Panics
    /// If that is not the case.
    pub fn assert_adds_up(&self, broker: &str) {
        let status = self.status(broker);
        assert_eq!(status["images"], self.keys.len(), "{status}");
        for none in ["remaining", "queued", "retrying", "dead", "unaccounted"] {
            assert_eq!(status[none], 0, "{none} in {status}");
        }
        assert_eq!(status["doubled_keys"], Value::Array(Vec::new()), "{status}");
    }

    /// The results in OUT.
    #[must_use]
    pub fn results(&self) -> Results {
        Results::read(&local(&self.out))
    }

    /// The number of predictions in OUT. It does not read them.
    #[must_use]
    pub fn predictions(&self) -> usize {
        let folder = self.out.join("predictions");
        if folder.exists() { crate::images::files_below(&folder).len() } else { 0 }
    }
}
