//! The built programs, run as a user runs them.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use crate::wait;

/// A program's exit status and output.
#[derive(Debug)]
pub struct Ended {
    /// Its exit status; `None` if a signal ended it.
    pub status: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Ended {
    /// Asserts the exit status. If it differs, the message shows the output.
    ///
    /// # Panics
    /// If it differs.
    #[must_use = "the output may say more"]
    pub fn expect(self, status: i32) -> Self {
        assert_eq!(self.status, Some(status), "\n{}\n{}", self.stdout, self.stderr);
        self
    }

    /// Asserts that it ended with status 1 and one line on standard error, which contains all
    /// `parts`.
    ///
    /// # Panics
    /// If it did not.
    pub fn expect_one_line(self, parts: &[&str]) {
        let this = self.expect(1);
        let lines: Vec<_> = this.stderr.lines().collect();
        assert_eq!(lines.len(), 1, "not one line:\n{}", this.stderr);
        for part in parts {
            assert!(lines[0].contains(part), "no {part:?} in: {}", lines[0]);
        }
    }
}

/// The path of a built program.
///
/// # Panics
/// If it is not built.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    let this = std::env::current_exe().expect("a test knows its own path");
    let profile = this.parent().and_then(|deps| deps.parent()).expect("target/PROFILE/deps/");
    let path = profile.join(name);
    assert!(
        path.exists(),
        "{} is not built: run tests/run.sh, or cargo build --workspace with the same profile",
        path.display()
    );
    path
}

/// A command for a built program, without the caller's settings in its environment.
#[must_use]
pub fn command(name: &str) -> Command {
    let mut command = Command::new(program(name));
    for (variable, _) in std::env::vars_os() {
        let text = variable.to_string_lossy();
        if ["CAMSHAFT_", "AWS_", "OTEL_"].iter().any(|prefix| text.starts_with(prefix)) {
            command.env_remove(&variable);
        }
    }
    command
}

/// `camshaft` with arguments, not yet run. Its audits write no report: the suite for reports uses
/// [`camshaft_with_report`].
#[must_use]
pub fn camshaft<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Command {
    let mut command = camshaft_with_report(arguments);
    command.env("CAMSHAFT_NO_REPORT", "true");
    command
}

/// `camshaft` with arguments, not yet run, as a user runs it.
#[must_use]
pub fn camshaft_with_report<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Command {
    let mut command = command("camshaft");
    command.args(arguments);
    command
}

/// `camshaft-worker` with arguments, not yet run.
#[must_use]
pub fn worker<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Command {
    let mut command = command("camshaft-worker");
    command.args(arguments);
    command
}

/// Runs a command to its end.
///
/// # Panics
/// If it cannot be started.
#[must_use]
pub fn run(command: &mut Command) -> Ended {
    let output = command.stdin(Stdio::null()).output().expect("the program starts");
    Ended {
        status: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// A program that runs beside the test. It is killed when this is dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    /// Standard output and error. They are files, since a full pipe would stop the program.
    outputs: [File; 2],
}

impl Running {
    /// Starts the program.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn start(command: &mut Command) -> Self {
        let outputs = [(); 2].map(|()| tempfile::tempfile().expect("a temporary file"));
        let [stdout, stderr] =
            outputs.each_ref().map(|file| file.try_clone().expect("a file can be shared"));
        let child = command
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(stderr)
            .spawn()
            .expect("the program starts");
        Self { child, outputs }
    }

    /// What it has printed so far: standard output and error.
    ///
    /// # Panics
    /// If the output is not UTF-8.
    #[must_use]
    pub fn output(&self) -> [String; 2] {
        self.outputs.each_ref().map(|file| {
            let mut bytes = vec![0; file.metadata().map_or(0, |m| m.len() as usize)];
            file.read_exact_at(&mut bytes, 0).expect("what was written can be read");
            String::from_utf8(bytes).expect("it prints text")
        })
    }

    /// Kills it with SIGKILL, and waits until it is gone.
    pub fn kill(mut self) {
        self.kill_now();
    }

    fn kill_now(&mut self) {
        // It may have ended by itself.
        self.child.kill().unwrap_or_default();
        self.child.wait().expect("it is this process's child");
    }

    /// Sends it a signal by name: `TERM`, `INT`, `STOP`, `CONT`.
    ///
    /// # Panics
    /// If it cannot be sent.
    pub fn signal(&self, name: &str) {
        let sent =
            Command::new("kill").args([format!("-{name}"), self.child.id().to_string()]).status();
        assert!(sent.is_ok_and(|status| status.success()), "SIG{name} was not sent");
    }

    /// The names of its threads, cut off at 15 characters by Linux.
    ///
    /// # Panics
    /// If it has ended.
    #[must_use]
    pub fn threads(&self) -> Vec<String> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id()));
        let tasks = tasks.expect("the process runs").flatten();
        // A thread may end meanwhile.
        tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok()).collect()
    }

    /// Its resident memory now.
    ///
    /// # Panics
    /// If it has ended.
    #[must_use]
    pub fn resident_bytes(&self) -> u64 {
        self.memory("VmRSS:").expect("the process runs")
    }

    /// Its largest resident memory so far; 0 if it has ended.
    #[must_use]
    pub fn peak_bytes(&self) -> u64 {
        self.memory("VmHWM:").unwrap_or(0)
    }

    fn memory(&self, field: &str) -> Option<u64> {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix(field))?;
        let kib = line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?;
        Some(kib * 1024)
    }

    /// Its exit status if it has ended.
    ///
    /// # Panics
    /// If the system cannot tell.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("it is this process's child")
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// If it does not end within `limit`.
    #[must_use]
    pub fn end(mut self, limit: Duration) -> Ended {
        wait::until("the program ends", limit, || self.ended().is_some());
        let [stdout, stderr] = self.output();
        Ended { status: self.ended().and_then(|status| status.code()), stdout, stderr }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill_now();
    }
}
