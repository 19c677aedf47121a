//! AWS's own files, `~/.aws/credentials` and `~/.aws/config`, as AWS's tools read them:
//! <https://docs.aws.amazon.com/sdkref/latest/guide/file-format.html>.
//!
//! Owns which files and which profile count, and what a profile says: a key, an identity token's file
//! with its role, a [program](super::credential_process), the region and the endpoint. Other ways to
//! credentials (single sign-on, a role to assume) are told and not followed. Upstream:
//! [`clouds`](super::clouds).

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use object_store::CredentialProvider;
use object_store::aws::AwsCredential;
use tokio::sync::Mutex;

use super::StoreOptions;
use super::credential_process::ProcessCredentials;
use super::settings::{self, SettingsError};

const DEFAULT_PROFILE: &str = "default";

/// Keys with a session token last for hours. Programs that renew them write the file anew.
const READ_AGAIN_AFTER: Duration = Duration::from_secs(60);

/// The settings of a profile whose value leads to credentials in a way that is not followed here.
const ELSEWHERE: [&str; 3] = ["sso_session", "sso_start_url", "login_session"];

/// The two files, and the profile to read there.
#[derive(Clone, Debug)]
pub(super) struct AwsFiles {
    credentials: Option<PathBuf>,
    config: Option<PathBuf>,
    profile: String,
    /// True if a variable names the profile.
    is_named: bool,
}

/// A profile, as the two files together have it.
#[derive(Default)]
pub(super) struct Profile {
    settings: HashMap<String, String>,
    exists: bool,
}

/// The credentials that a profile has.
#[derive(Debug)]
pub(super) enum ProfileCredentials {
    /// None. AWS's tools look elsewhere then.
    None,
    /// A key.
    Key(AwsCredential),
    /// A role that is given for the token in a file.
    IdentityToken {
        /// The file.
        file: String,
        /// The role.
        role: String,
        /// The name of the session, if the profile has one.
        session: Option<String>,
    },
    /// Those that a program prints.
    Process(ProcessCredentials),
}

impl AwsFiles {
    /// The files and the profile that the variables name, else the usual ones.
    pub(super) fn of(options: &StoreOptions) -> Self {
        let home = options.variable("HOME").map(Path::new);
        let file = |variable: &str, usual: &str| match (options.variable(variable), home) {
            (Some(path), home) => Some(match (path.strip_prefix("~/"), home) {
                (Some(rest), Some(home)) => home.join(rest),
                _ => PathBuf::from(path),
            }),
            (None, home) => home.map(|home| home.join(".aws").join(usual)),
        };
        let variables = ["AWS_PROFILE", "AWS_DEFAULT_PROFILE"];
        let named = variables.into_iter().find_map(|name| options.variable(name));
        Self {
            credentials: file("AWS_SHARED_CREDENTIALS_FILE", "credentials"),
            config: file("AWS_CONFIG_FILE", "config"),
            profile: named.unwrap_or(DEFAULT_PROFILE).to_owned(),
            is_named: named.is_some(),
        }
    }

    /// Reads the profile. It is empty if there is none.
    ///
    /// # Errors
    /// If a file is there and can't be read.
    pub(super) fn read(&self) -> Result<Profile, SettingsError> {
        let in_config = match self.profile.as_str() {
            DEFAULT_PROFILE => vec![DEFAULT_PROFILE.to_owned(), "profile default".to_owned()],
            named => vec![format!("profile {named}")],
        };
        let in_credentials = vec![self.profile.clone()];
        let mut profile = Profile::default();
        // What is read later counts.
        for (file, sections) in [(&self.config, in_config), (&self.credentials, in_credentials)] {
            let Some(text) = file.as_deref().map(read_file).transpose()?.flatten() else {
                continue;
            };
            for section in sections {
                if let Some(settings) = settings_in(&text, &section) {
                    profile.exists = true;
                    profile.settings.extend(settings);
                }
            }
        }
        Ok(profile)
    }

    /// The credentials in a profile of these files.
    ///
    /// # Errors
    /// If the variables name a profile that is not there, or if it has a half of a key, or none and a
    /// way to credentials that is not followed here.
    pub(super) fn credentials(
        &self,
        profile: &Profile,
    ) -> Result<ProfileCredentials, SettingsError> {
        if self.is_named && !profile.exists {
            let (profile, files) = (self.profile.clone(), self.places());
            return Err(SettingsError::NoProfile { profile, files });
        }
        let elsewhere =
            |setting| SettingsError::ProfileElsewhere { profile: self.profile.clone(), setting };
        // With a role, a key beside it is only the way to the role.
        if let Some(role) = profile.setting("role_arn") {
            let Some(file) = profile.setting("web_identity_token_file") else {
                return Err(elsewhere("role_arn"));
            };
            let session = profile.setting("role_session_name").map(str::to_owned);
            let (file, role) = (file.to_owned(), role.to_owned());
            return Ok(ProfileCredentials::IdentityToken { file, role, session });
        }
        let names = ["aws_access_key_id", "aws_secret_access_key"];
        match names.map(|name| profile.setting(name)) {
            [Some(key_id), Some(secret_key)] => {
                let token = profile.setting("aws_session_token");
                for (name, value) in [(names[0], Some(key_id)), ("aws_session_token", token)] {
                    let setting = format!("{name} of the profile {:?}", self.profile);
                    settings::check_sendable(&setting, value.unwrap_or_default())?;
                }
                let (key_id, secret_key) = (key_id.to_owned(), secret_key.to_owned());
                let token = token.map(str::to_owned);
                Ok(ProfileCredentials::Key(AwsCredential { key_id, secret_key, token }))
            }
            [None, None] => {
                if let Some(command) = profile.setting("credential_process") {
                    let (profile, command) = (self.profile.clone(), command.to_owned());
                    let process = ProcessCredentials::new(profile, command);
                    return Ok(ProfileCredentials::Process(process));
                }
                let setting = ELSEWHERE.into_iter().find(|name| profile.setting(name).is_some());
                setting.map_or(Ok(ProfileCredentials::None), |setting| Err(elsewhere(setting)))
            }
            [key_id, _] => {
                let missing = if key_id.is_some() { names[1] } else { names[0] };
                let (profile, files) = (self.profile.clone(), self.places());
                Err(SettingsError::HalfKey { profile, missing, files })
            }
        }
    }

    /// The name of the profile.
    pub(super) fn profile(&self) -> &str {
        &self.profile
    }

    /// The files' names, for a sentence.
    pub(super) fn places(&self) -> String {
        let files: Vec<_> = [&self.credentials, &self.config]
            .into_iter()
            .flatten()
            .map(|file| file.display().to_string())
            .collect();
        if files.is_empty() {
            "~/.aws, since HOME is not set".to_owned()
        } else {
            files.join(" and ")
        }
    }

    /// The key in the files as they are now, if there is one.
    fn key(&self) -> Option<AwsCredential> {
        match self.read().and_then(|profile| self.credentials(&profile)) {
            Ok(ProfileCredentials::Key(key)) => Some(key),
            Ok(
                ProfileCredentials::None
                | ProfileCredentials::IdentityToken { .. }
                | ProfileCredentials::Process(_),
            )
            | Err(_) => None,
        }
    }
}

impl Profile {
    /// The region to ask.
    pub(super) fn region(&self) -> Option<&str> {
        self.setting("region")
    }

    /// The address to ask at.
    pub(super) fn endpoint(&self) -> Option<&str> {
        self.setting("endpoint_url")
    }

    fn setting(&self, name: &str) -> Option<&str> {
        self.settings.get(name).map(String::as_str)
    }
}

impl fmt::Debug for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.settings.keys().collect();
        write!(f, "Profile({names:?}, values hidden)")
    }
}

/// The text of a file; `None` if there is no such file, or if its folder is closed to this user.
fn read_file(path: &Path) -> Result<Option<String>, SettingsError> {
    if !path.is_file() {
        return Ok(None);
    }
    std::fs::read_to_string(path).map(Some).map_err(|error| SettingsError::UnreadableFile {
        path: path.display().to_string(),
        reason: error.to_string(),
    })
}

/// The settings in a section; `None` if there is no such section.
fn settings_in(text: &str, section: &str) -> Option<HashMap<String, String>> {
    let mut found: Option<HashMap<String, String>> = None;
    let mut is_inside = false;
    let mut setting_indent = None;
    for line in text.lines() {
        let content = line.trim();
        let indent = line.len() - line.trim_start().len();
        if content.is_empty() || content.starts_with(['#', ';']) {
            continue;
        }
        if let Some(header) = content.strip_prefix('[') {
            is_inside = section_name(header.split(']').next().unwrap_or(header)) == section;
            setting_indent = None;
            if is_inside {
                found.get_or_insert_default();
            }
            continue;
        }
        // A part of the setting above it, such as those of one service.
        if setting_indent.is_some_and(|setting| indent > setting) {
            continue;
        }
        setting_indent = Some(indent);
        let Some((name, value)) = content.split_once('=') else { continue };
        let value = without_comment(value).trim();
        if let Some(settings) = found.as_mut().filter(|_| is_inside && !value.is_empty()) {
            settings.insert(name.trim().to_ascii_lowercase(), value.to_owned());
        }
    }
    found
}

/// The name between the brackets of a section's first line. A profile's may be in quotation marks.
fn section_name(header: &str) -> String {
    let unquoted = |text: &str| text.trim().trim_matches(['"', '\'']).to_owned();
    match header.trim().split_once(char::is_whitespace) {
        Some(("profile", name)) => format!("profile {}", unquoted(name)),
        _ => unquoted(header),
    }
}

/// A comment behind a value has a space before it.
fn without_comment(value: &str) -> &str {
    let marks = [" #", " ;", "\t#", "\t;"];
    let end = marks.into_iter().filter_map(|mark| value.find(mark)).min();
    &value[..end.unwrap_or(value.len())]
}

/// The key in the files. It is read again now and then.
#[derive(Debug)]
pub(super) struct FileCredentials {
    files: AwsFiles,
    latest: Mutex<ReadKey>,
    read_again_after: Duration,
}

#[derive(Debug)]
struct ReadKey {
    key: Arc<AwsCredential>,
    read_at: Instant,
}

impl FileCredentials {
    /// Begins with the key that was just read.
    pub(super) fn new(files: AwsFiles, key: AwsCredential) -> Self {
        let latest = ReadKey { key: Arc::new(key), read_at: Instant::now() };
        Self { files, latest: Mutex::new(latest), read_again_after: READ_AGAIN_AFTER }
    }
}

#[async_trait]
impl CredentialProvider for FileCredentials {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let mut latest = self.latest.lock().await;
        if latest.read_at.elapsed() >= self.read_again_after {
            let files = self.files.clone();
            let read = tokio::task::spawn_blocking(move || files.key()).await;
            // A file that is being written may have no key for a moment. The last one serves then.
            if let Ok(Some(key)) = read {
                latest.key = Arc::new(key);
            }
            latest.read_at = Instant::now();
        }
        Ok(Arc::clone(&latest.key))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;

    const CREDENTIALS: &str = "\
# Written by a program.
[default]
aws_access_key_id = AKIADEFAULT
aws_secret_access_key=hunter2/+= ; not this
[team]
  AWS_ACCESS_KEY_ID = AKIATEAM
  aws_secret_access_key = hunter3
  aws_session_token = token
[half]
aws_access_key_id = AKIAHALF
";
    const CONFIG: &str = "\
[default]
region = us-west-2
s3 =
  endpoint_url = http://not-this-one
endpoint_url = http://minio:9000 # ours
[profile team]
region = eu-west-1
[profile \"sign on\"]
sso_session = company
[profile role]
role_arn = arn:aws:iam::1:role/x
source_profile = default
[profile token]
role_arn = arn:aws:iam::1:role/x
web_identity_token_file = /run/token
[profile program]
credential_process = cat ~/key # of the team
[sso-session company]
sso_region = us-east-1
";

    fn home() -> TempDir {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir(home.path().join(".aws")).unwrap();
        fs::write(home.path().join(".aws/credentials"), CREDENTIALS).unwrap();
        fs::write(home.path().join(".aws/config"), CONFIG).unwrap();
        home
    }

    fn files(home: &Path, more: &[(&str, &str)]) -> AwsFiles {
        let home = [("HOME", home.to_str().unwrap())];
        let variables = home.iter().chain(more).map(|(n, v)| ((*n).to_owned(), (*v).to_owned()));
        AwsFiles::of(&StoreOptions::from_variables(variables))
    }

    fn key_of(files: &AwsFiles) -> (String, String, Option<String>) {
        let AwsCredential { key_id, secret_key, token } = files.key().unwrap();
        (key_id, secret_key, token)
    }

    #[test]
    fn the_profile_that_a_variable_names_is_read_else_the_default_one() {
        let home = home();
        let default = files(home.path(), &[]);
        assert_eq!(key_of(&default), ("AKIADEFAULT".into(), "hunter2/+=".into(), None));
        let profile = default.read().unwrap();
        assert_eq!(profile.region(), Some("us-west-2"));
        assert_eq!(profile.endpoint(), Some("http://minio:9000"));

        for variable in ["AWS_PROFILE", "AWS_DEFAULT_PROFILE"] {
            let team = files(home.path(), &[(variable, "team")]);
            let expected = ("AKIATEAM".into(), "hunter3".into(), Some("token".to_owned()));
            assert_eq!(key_of(&team), expected);
            let profile = team.read().unwrap();
            assert_eq!((profile.region(), profile.endpoint()), (Some("eu-west-1"), None));
        }
        let token = files(home.path(), &[("AWS_PROFILE", "token")]);
        let read = token.credentials(&token.read().unwrap()).unwrap();
        let ProfileCredentials::IdentityToken { file, role, session } = read else {
            panic!("{read:?}")
        };
        assert_eq!((&*file, &*role, session), ("/run/token", "arn:aws:iam::1:role/x", None));
        let program = files(home.path(), &[("AWS_PROFILE", "program")]);
        let read = program.credentials(&program.read().unwrap()).unwrap();
        assert!(matches!(read, ProfileCredentials::Process(_)), "{read:?}");
    }

    #[test]
    fn variables_name_other_files() {
        let (home, other) = (home(), tempfile::tempdir().unwrap());
        let path = other.path().join("keys");
        let key = "[default]\naws_access_key_id = AKIAOTHER\naws_secret_access_key = x\n";
        fs::write(&path, key).unwrap();
        let named = ("AWS_SHARED_CREDENTIALS_FILE", path.to_str().unwrap());
        assert_eq!(key_of(&files(home.path(), &[named])).0, "AKIAOTHER");
        fs::copy(&path, home.path().join("keys")).unwrap();
        let below_home = ("AWS_SHARED_CREDENTIALS_FILE", "~/keys");
        let files = files(home.path(), &[below_home, ("AWS_CONFIG_FILE", "/nowhere")]);
        assert_eq!(key_of(&files).0, "AKIAOTHER");
        assert_eq!(files.read().unwrap().region(), None);
    }

    #[test]
    fn what_a_profile_lacks_is_told_without_its_secrets() {
        let home = home();
        for (profile, parts) in [
            ("typo", ["no profile \"typo\"", "AWS_PROFILE"]),
            ("half", ["no aws_secret_access_key", ".aws/credentials"]),
            ("sign on", ["(sso_session)", "export-credentials --profile \"sign on\""]),
            ("role", ["(role_arn)", "aws configure export-credentials"]),
        ] {
            let files = files(home.path(), &[("AWS_PROFILE", profile)]);
            let error = files.credentials(&files.read().unwrap()).unwrap_err();
            let text = error.to_string();
            assert!(parts.iter().all(|part| text.contains(part)), "{text}");
        }
        let profile = files(home.path(), &[]).read().unwrap();
        let shown = format!("{profile:?} {:?}", files(home.path(), &[]).credentials(&profile));
        assert!(!shown.contains("hunter"), "{shown}");
    }

    #[test]
    fn without_files_there_are_no_credentials_and_no_error() {
        let home = tempfile::tempdir().unwrap();
        let files = files(home.path(), &[]);
        let profile = files.read().unwrap();
        assert!(matches!(files.credentials(&profile), Ok(ProfileCredentials::None)));
        let nowhere = AwsFiles::of(&StoreOptions::default());
        assert!(nowhere.read().unwrap().settings.is_empty());
        assert!(nowhere.places().contains("HOME"), "{}", nowhere.places());
    }

    #[tokio::test]
    async fn a_key_that_is_renewed_in_the_file_is_used_soon() {
        let home = home();
        let files = files(home.path(), &[]);
        let first = files.key().unwrap();
        let mut credentials = FileCredentials::new(files, first);
        let path = home.path().join(".aws/credentials");
        let renewed = "[default]\naws_access_key_id = AKIANEW\naws_secret_access_key = x\n";
        fs::write(&path, renewed).unwrap();
        assert_eq!(credentials.get_credential().await.unwrap().key_id, "AKIADEFAULT");
        credentials.read_again_after = Duration::ZERO;
        assert_eq!(credentials.get_credential().await.unwrap().key_id, "AKIANEW");
        // In the middle of being written.
        fs::write(&path, "[default]\naws_acc").unwrap();
        assert_eq!(credentials.get_credential().await.unwrap().key_id, "AKIANEW");
    }
}
