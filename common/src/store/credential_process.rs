//! Credentials that a program prints: `credential_process` of a profile, as AWS's tools run it:
//! <https://docs.aws.amazon.com/sdkref/latest/guide/feature-process-credentials.html>.
//!
//! Owns running it, and for how long its answer is used. Which profile counts is known by
//! [`aws_files`](super::aws_files). Nothing that it prints is shown, but its error output if it fails.

use std::fmt;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use object_store::CredentialProvider;
use object_store::aws::AwsCredential;
use serde::Deserialize;
use tokio::process::Command;
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::settings::{self, SettingsError};
use crate::printable::{printable, shortened};

/// How long the program may take. It may ask other services.
const TIME_LIMIT: Duration = Duration::from_secs(60);
/// Credentials are renewed this long before they expire, or when a quarter of their time is left.
const RENEWED_BEFORE: TimeDelta = TimeDelta::minutes(5);
/// When a failed renewal is tried again, while the last credentials can be used.
const RENEWED_AGAIN: TimeDelta = TimeDelta::seconds(30);
/// Most characters of the program's error output in an error.
const MAX_REASON_CHARS: usize = 200;

/// The credentials that a profile's program prints.
pub(super) struct ProcessCredentials {
    profile: String,
    command: String,
    time_limit: Duration,
    latest: Mutex<Option<GivenKey>>,
}

/// What the program last gave.
struct GivenKey {
    key: Arc<AwsCredential>,
    /// When to renew it and when it expires, unless it lasts.
    ends: Option<(DateTime<Utc>, DateTime<Utc>)>,
}

/// What the program prints.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    version: u32,
    access_key_id: String,
    secret_access_key: String,
    session_token: Option<String>,
    expiration: Option<DateTime<Utc>>,
}

impl ProcessCredentials {
    /// Of a profile that names this command. It is not run yet.
    pub(super) fn new(profile: String, command: String) -> Self {
        Self { profile, command, time_limit: TIME_LIMIT, latest: Mutex::default() }
    }

    async fn run(&self) -> Result<GivenKey, SettingsError> {
        let mut command = Command::new("sh");
        command.arg("-c").arg(&self.command).stdin(Stdio::null()).kill_on_drop(true);
        let output = match timeout(self.time_limit, command.output()).await {
            Ok(output) => output.map_err(|error| self.failed(&error.to_string()))?,
            Err(_elapsed) => {
                let seconds = self.time_limit.as_secs();
                return Err(self.failed(&format!("it has not ended after {seconds} s")));
            }
        };
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
            let said = shortened(&printable(&said), MAX_REASON_CHARS).into_owned();
            return Err(self.failed(&format!("{}; it said: {said}", output.status)));
        }
        self.read(&output.stdout)
    }

    fn read(&self, printed: &[u8]) -> Result<GivenKey, SettingsError> {
        let answer: Answer = serde_json::from_slice(printed).map_err(|error| {
            // Its own text may quote a secret.
            let (line, column) = (error.line(), error.column());
            self.failed(&format!(
                "it did not print Version, AccessKeyId and SecretAccessKey as JSON (line {line}, \
                 column {column})"
            ))
        })?;
        let Answer { version, access_key_id, secret_access_key, session_token, expiration } =
            answer;
        if version != 1 {
            return Err(self.failed(&format!("it printed Version {version}, and 1 is known")));
        }
        let sent =
            [("AccessKeyId", Some(&access_key_id)), ("SessionToken", session_token.as_ref())];
        for (name, value) in sent {
            let setting = format!("{name} of the credential_process of {:?}", self.profile);
            settings::check_sendable(&setting, value.map_or("", String::as_str))?;
        }
        let now = Utc::now();
        if expiration.is_some_and(|expiration| expiration <= now) {
            return Err(self.failed("the credentials that it printed have expired"));
        }
        let ends = expiration.map(|expiration| {
            let before = RENEWED_BEFORE.min((expiration - now) / 4);
            (expiration - before, expiration)
        });
        let key = AwsCredential {
            key_id: access_key_id,
            secret_key: secret_access_key,
            token: session_token,
        };
        Ok(GivenKey { key: Arc::new(key), ends })
    }

    fn failed(&self, reason: &str) -> SettingsError {
        let (profile, reason) = (self.profile.clone(), reason.to_owned());
        SettingsError::CredentialProcess { profile, reason }
    }
}

#[async_trait]
impl CredentialProvider for ProcessCredentials {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let mut latest = self.latest.lock().await;
        if let Some(given) = &*latest
            && given.ends.is_none_or(|(renewed, _)| Utc::now() < renewed)
        {
            return Ok(Arc::clone(&given.key));
        }
        match (self.run().await, &mut *latest) {
            (Ok(given), latest) => Ok(Arc::clone(&latest.insert(given).key)),
            (Err(error), Some(GivenKey { key, ends: Some((renewed, expires)) }))
                if Utc::now() < *expires =>
            {
                tracing::warn!(%error, "the last credentials are used until they expire");
                *renewed = Utc::now() + RENEWED_AGAIN;
                Ok(Arc::clone(key))
            }
            (Err(error), _) => Err(error.into()),
        }
    }
}

impl fmt::Debug for ProcessCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ProcessCredentials({:?}, command hidden)", self.profile)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use tempfile::TempDir;

    use super::*;

    fn process(command: String) -> ProcessCredentials {
        ProcessCredentials::new("team".to_owned(), command)
    }

    /// A program that prints what a file has, and notes each run in another.
    fn printing(directory: &TempDir, answer: &str) -> ProcessCredentials {
        let [printed, runs] = ["printed", "runs"].map(|name| directory.path().join(name));
        fs::write(&printed, answer).unwrap();
        process(format!("echo x >> '{}'; cat '{}'", runs.display(), printed.display()))
    }

    fn runs(directory: &Path) -> usize {
        fs::read_to_string(directory.join("runs")).unwrap().lines().count()
    }

    fn answer(key: &str, expires_in: Option<TimeDelta>) -> String {
        let expiration = expires_in.map(|time| (Utc::now() + time).to_rfc3339());
        serde_json::json!({
            "Version": 1, "AccessKeyId": key, "SecretAccessKey": "hunter2", "SessionToken": "t",
            "Expiration": expiration, "AccountId": "1",
        })
        .to_string()
    }

    async fn error_of(process: &ProcessCredentials) -> String {
        let error = process.get_credential().await.unwrap_err();
        let text = SettingsError::behind(&error).unwrap().to_string();
        assert!(!text.contains("hunter2"), "{text}");
        text
    }

    #[tokio::test]
    async fn what_a_program_prints_is_used_until_it_is_to_be_renewed() {
        let directory = tempfile::tempdir().unwrap();
        for (expires_in, ran) in [(None, 1), (Some(TimeDelta::hours(1)), 2)] {
            let process = printing(&directory, &answer("AKIA1", expires_in));
            for _ in 0..3 {
                let key = process.get_credential().await.unwrap();
                let AwsCredential { key_id, secret_key, token } = &*key;
                let found = (key_id.as_str(), secret_key.as_str(), token.as_deref());
                assert_eq!(found, ("AKIA1", "hunter2", Some("t")));
            }
            assert_eq!(runs(directory.path()), ran, "{expires_in:?}");
        }
    }

    #[tokio::test]
    async fn credentials_are_renewed_before_they_expire_and_kept_if_that_fails() {
        let directory = tempfile::tempdir().unwrap();
        let process = printing(&directory, &answer("AKIA1", Some(TimeDelta::hours(1))));
        process.get_credential().await.unwrap();
        let make_due = async || {
            let mut latest = process.latest.lock().await;
            latest.as_mut().unwrap().ends.as_mut().unwrap().0 = Utc::now();
        };
        make_due().await;
        let printed = directory.path().join("printed");
        fs::remove_file(&printed).unwrap();
        assert_eq!(process.get_credential().await.unwrap().key_id, "AKIA1");
        assert_eq!(process.get_credential().await.unwrap().key_id, "AKIA1");
        assert_eq!(runs(directory.path()), 2, "it is not run for each request");
        fs::write(&printed, answer("AKIA2", Some(TimeDelta::hours(1)))).unwrap();
        make_due().await;
        assert_eq!(process.get_credential().await.unwrap().key_id, "AKIA2");
        process.latest.lock().await.as_mut().unwrap().ends = Some((Utc::now(), Utc::now()));
        fs::remove_file(&printed).unwrap();
        assert!(error_of(&process).await.contains("credential_process"));
    }

    #[tokio::test]
    async fn a_program_that_gives_no_credentials_is_told_without_what_it_printed() {
        let directory = tempfile::tempdir().unwrap();
        let failing = process("echo hunter2; echo 'not logged in\n  run x' >&2; exit 3".to_owned());
        let text = error_of(&failing).await;
        assert!(text.contains("\"team\"") && text.contains("not logged in run x"), "{text}");
        for (printed, part) in [
            ("{\"Version\": \"hunter2\"}", "AccessKeyId"),
            ("hunter2", "as JSON (line 1"),
            (&*answer("AKIA1", None).replace("\"Version\":1", "\"Version\":2"), "Version 2"),
            (&*answer("AK IA", None), "AccessKeyId of the credential_process"),
            (&*answer("AKIA1", Some(TimeDelta::minutes(-1))), "have expired"),
        ] {
            let text = error_of(&printing(&directory, printed)).await;
            assert!(text.contains(part), "{printed}: {text}");
        }
        let mut slow = process("sleep 60".to_owned());
        slow.time_limit = Duration::from_millis(50);
        assert!(error_of(&slow).await.contains("has not ended"));
        assert!(!format!("{slow:?}").contains("sleep"), "{slow:?}");
    }
}
