//! A service that ends with the test process, even if the test process is killed.
//!
//! A small shell supervises the service. Its standard input is a pipe that only the test process
//! holds. When the test process drops the pipe or ends, the shell ends the service's whole process
//! group. The shell is in a process group of its own, so that Ctrl-C at the terminal does not end
//! it first.

use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// The shell script that supervises a service. `$1` is the time in tenths of a second that the
/// service has to end by itself. `$2` is a directory to remove afterwards, or empty; the removal is
/// tried again, since other processes may still write there. The rest is the service's command.
/// `setsid` makes it the leader of a process group of its own.
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

/// A supervised service. It ends when this is dropped.
#[derive(Debug)]
pub struct Leash {
    supervisor: Child,
    log: PathBuf,
}

impl Leash {
    /// Starts `command` and writes its output to the file `log`. When the service has to end, it
    /// has `grace_tenths` tenths of a second to do so by itself. The shell then removes the
    /// directory `leftovers`, since a killed test process cannot.
    ///
    /// # Errors
    /// If `sh` cannot be started or the log cannot be written.
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

    /// The service's output so far.
    #[must_use]
    pub fn output(&self) -> String {
        let bytes = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Ends the service and waits until it has ended.
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
