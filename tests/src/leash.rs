//! A service that ends with the test process, however that ends.
//!
//! Between the two stands a small shell whose standard input is a pipe that only this process
//! holds. When the pipe closes (dropped, panicked, exited or killed) the shell ends the
//! service's whole process group. It shares no group with the tests, so a Ctrl-C at the
//! terminal can't take it away before it has done so.

use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// `$1` is how many tenths of a second the service has to end by itself, `$2` a directory to
/// remove after it, or nothing (others may still be writing there); the rest is its command.
/// `setsid` makes it the leader of a group of its own.
const SUPERVISOR: &str = r#"
trap '' INT TERM HUP
grace=$1
leftovers=$2
shift 2
setsid "$@" </dev/null &
service=$!
cat >/dev/null
kill -TERM -"$service" 2>/dev/null
while [ "$grace" -gt 0 ] && kill -0 -"$service" 2>/dev/null; do
  sleep 0.1
  grace=$((grace - 1))
done
kill -KILL -"$service" 2>/dev/null
wait
for try in 1 2 3 4 5; do
  [ -z "$leftovers" ] || rm -rf "$leftovers" && break
  sleep 0.2
done
"#;

/// What holds a service.
#[derive(Debug)]
pub struct Leash {
    supervisor: Child,
    log: PathBuf,
}

impl Leash {
    /// Starts `command` with its output in the file `log`. At the end it has
    /// `grace_tenths` tenths of a second to end by itself. Afterwards the directory
    /// `leftovers` is removed: a killed test process can't do that.
    ///
    /// # Errors
    /// Where `sh` can't be started or the log can't be written.
    pub fn start(
        command: &Command,
        log: &Path,
        grace_tenths: u32,
        leftovers: Option<&Path>,
    ) -> io::Result<Self> {
        let output = File::create(log)?;
        let mut supervisor = Command::new("sh");
        supervisor
            .args(["-c", SUPERVISOR, "leash", &grace_tenths.to_string()])
            .arg(leftovers.unwrap_or(Path::new("")))
            .arg(command.get_program())
            .args(command.get_args())
            .stdin(Stdio::piped())
            .stdout(output.try_clone()?)
            .stderr(output)
            .process_group(0);
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => supervisor.env(name, value),
                None => supervisor.env_remove(name),
            };
        }
        if let Some(directory) = command.get_current_dir() {
            supervisor.current_dir(directory);
        }
        Ok(Self { supervisor: supervisor.spawn()?, log: log.to_owned() })
    }

    /// What the service has written so far.
    #[must_use]
    pub fn output(&self) -> String {
        let bytes = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Ends the service and waits until it has.
    pub fn end(&mut self) {
        drop(self.supervisor.stdin.take());
        self.supervisor.wait().expect("the supervisor is this process's child");
    }
}

impl Drop for Leash {
    fn drop(&mut self) {
        self.end();
    }
}
