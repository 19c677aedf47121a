//! Opens buckets and containers, with the settings in variables. S3 also has AWS's own files.
//!
//! No request is made yet. Does not open local folders. Upstream: [`Folder::open`](super::Folder::open).

use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{MicrosoftAzure, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorage, GoogleCloudStorageBuilder};
use url::Url;

use super::aws_files::{AwsFiles, FileCredentials, Profile, ProfileCredentials};
use super::connector::{CredentialsSearch, StoreConnector};
use super::settings::{self, SettingsError};
use super::{StoreOptions, client_options, retry};

/// Opens a bucket of Google Cloud Storage.
///
/// # Errors
/// If the settings are incomplete or contradictory.
pub(super) fn google(
    url: &Url,
    options: &StoreOptions,
) -> object_store::Result<GoogleCloudStorage> {
    settings::check(options, "GOOGLE_")?;
    let search = CredentialsSearch {
        looked_at: "none of GOOGLE_APPLICATION_CREDENTIALS, GOOGLE_SERVICE_ACCOUNT and \
                    GOOGLE_SERVICE_ACCOUNT_KEY is set, there is no \
                    ~/.config/gcloud/application_default_credentials.json"
            .to_owned(),
        advice: "set GOOGLE_APPLICATION_CREDENTIALS; for a public bucket, \
                 GOOGLE_SKIP_SIGNATURE=true",
        forbidden_by: None,
        // Google's Kubernetes gives credentials to a container some seconds after its start.
        patience: Duration::from_secs(3),
    };
    let mut builder = GoogleCloudStorageBuilder::new()
        .with_url(url.as_str())
        .with_client_options(options.authorities.beside_the_systems(client_options()))
        .with_http_connector(StoreConnector::new(search));
    for (key, value) in options.for_builder() {
        builder = builder.with_config(key, value);
    }
    builder.with_retry(retry()).build()
}

/// Opens a container of Azure's.
///
/// # Errors
/// If the settings are incomplete or contradictory.
pub(super) fn azure(url: &Url, options: &StoreOptions) -> object_store::Result<MicrosoftAzure> {
    settings::check(options, "AZURE_")?;
    let search = CredentialsSearch {
        looked_at: "neither AZURE_STORAGE_ACCOUNT_KEY nor AZURE_STORAGE_SAS_TOKEN is set, nor \
                    AZURE_CLIENT_ID and AZURE_TENANT_ID with AZURE_CLIENT_SECRET or \
                    AZURE_FEDERATED_TOKEN_FILE"
            .to_owned(),
        advice: "set AZURE_STORAGE_ACCOUNT_KEY, or AZURE_USE_AZURE_CLI=true; for a public \
                 container, AZURE_SKIP_SIGNATURE=true",
        forbidden_by: None,
        patience: Duration::from_secs(1),
    };
    let mut builder = MicrosoftAzureBuilder::new()
        .with_url(url.as_str())
        .with_client_options(options.authorities.beside_the_systems(client_options()))
        .with_http_connector(StoreConnector::new(search));
    for (key, value) in options.for_builder() {
        builder = builder.with_config(key, value);
    }
    builder.with_retry(retry()).build()
}

/// Opens a bucket of S3's, or of a server that speaks its protocol.
///
/// # Errors
/// If the settings are incomplete or contradictory.
pub(super) fn s3(url: &Url, options: &StoreOptions) -> object_store::Result<AmazonS3> {
    settings::check(options, "AWS_")?;
    let files = AwsFiles::of(options);
    let mut builder = AmazonS3Builder::new()
        .with_url(url.as_str())
        .with_client_options(options.authorities.instead_of_the_systems(client_options()))
        .with_http_connector(StoreConnector::new(search_for_s3(&files, options)));
    if !is_any_set(options, &["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]) {
        builder = with_files(builder, &files, options)?;
    }
    for (key, value) in options.for_builder() {
        builder = builder.with_config(key, value);
    }
    builder.with_retry(retry()).build()
}

fn search_for_s3(files: &AwsFiles, options: &StoreOptions) -> CredentialsSearch {
    /// Forbids AWS's tools to ask the metadata service, too.
    const METADATA_OFF: &str = "AWS_EC2_METADATA_DISABLED";
    CredentialsSearch {
        looked_at: format!(
            "none of AWS_ACCESS_KEY_ID, AWS_WEB_IDENTITY_TOKEN_FILE (with AWS_ROLE_ARN) and \
             AWS_CONTAINER_CREDENTIALS_RELATIVE_URI is set, the profile {:?} has no key in {}",
            files.profile(),
            files.places(),
        ),
        advice: "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE; for a public \
                 bucket, AWS_SKIP_SIGNATURE=true",
        forbidden_by: is_on(options, METADATA_OFF).then_some(METADATA_OFF),
        // As AWS's tools.
        patience: Duration::from_secs(1),
    }
}

/// Takes the region, the endpoint and the credentials from AWS's own files, unless variables set them.
fn with_files(
    mut builder: AmazonS3Builder,
    files: &AwsFiles,
    options: &StoreOptions,
) -> Result<AmazonS3Builder, SettingsError> {
    let role = ["AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN"];
    let has_role = role.into_iter().all(|name| options.variable(name).is_some());
    // AWS's tools look for a role in variables before they look into the files.
    let needs_credentials = !has_role && !is_on(options, "AWS_SKIP_SIGNATURE");
    let profile = match files.read() {
        Ok(profile) => profile,
        Err(error) if needs_credentials => return Err(error),
        Err(_) => Profile::default(),
    };
    if let Some(region) = profile.region()
        && !is_any_set(options, &["AWS_REGION", "AWS_DEFAULT_REGION"])
    {
        settings::check_sendable("region of the profile", region)?;
        builder = builder.with_region(region);
    }
    let endpoints = ["AWS_ENDPOINT", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"];
    if let Some(endpoint) = profile.endpoint()
        && !is_any_set(options, &endpoints)
    {
        let endpoint = settings::without_user(endpoint).unwrap_or_else(|| endpoint.to_owned());
        settings::check_address("endpoint_url of the profile", &endpoint)?;
        builder = builder.with_endpoint(endpoint);
    }
    if !needs_credentials {
        return Ok(builder);
    }
    Ok(match files.credentials(&profile)? {
        ProfileCredentials::None => builder,
        ProfileCredentials::Key(key) => {
            builder.with_credentials(Arc::new(FileCredentials::new(files.clone(), key)))
        }
        ProfileCredentials::Process(process) => builder.with_credentials(Arc::new(process)),
        ProfileCredentials::IdentityToken { file, role, session } => {
            let session = session.map(|name| (AmazonS3ConfigKey::RoleSessionName, name));
            let role = [
                (AmazonS3ConfigKey::WebIdentityTokenFile, file),
                (AmazonS3ConfigKey::RoleArn, role),
            ];
            let settings = role.into_iter().chain(session);
            settings.fold(builder, |builder, (key, value)| builder.with_config(key, value))
        }
    })
}

fn is_any_set(options: &StoreOptions, names: &[&str]) -> bool {
    names.iter().any(|name| options.variable(name).is_some())
}

fn is_on(options: &StoreOptions, name: &str) -> bool {
    options.variable(name).is_some_and(settings::is_on)
}

#[cfg(test)]
mod tests {

    use super::*;

    fn open(home: &str, more: &[(&str, &str)]) -> object_store::Result<AmazonS3> {
        let home = [("HOME", home)];
        let variables = home.iter().chain(more).map(|(n, v)| ((*n).to_owned(), (*v).to_owned()));
        s3(&"s3://bucket/x".parse().unwrap(), &StoreOptions::from_variables(variables))
    }

    fn home_with_profile() -> tempfile::TempDir {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join(".aws")).unwrap();
        let key = "[default]\naws_access_key_id = AKIAFILE\naws_secret_access_key = x\n\
                   region = eu-west-1\nendpoint_url = http://user:hunter2@minio:9000\n";
        std::fs::write(home.path().join(".aws/credentials"), key).unwrap();
        home
    }

    #[tokio::test]
    async fn a_key_in_variables_counts_before_one_in_the_files() {
        let home = home_with_profile();
        let home = home.path().to_str().unwrap();
        let key_of = async |store: AmazonS3| {
            store.credentials().get_credential().await.unwrap().key_id.clone()
        };
        let from_file = open(home, &[]).unwrap();
        let shown = format!("{from_file:?}");
        assert!(shown.contains("http://minio:9000") && shown.contains("eu-west-1"), "{shown}");
        assert!(!shown.contains("hunter2"), "{shown}");
        assert_eq!(key_of(from_file).await, "AKIAFILE");

        let variables = [("AWS_ACCESS_KEY_ID", "AKIAENV\n"), ("AWS_SECRET_ACCESS_KEY", "y")];
        let from_variables = open(home, &variables).unwrap();
        let shown = format!("{from_variables:?}");
        assert!(!shown.contains("minio") && !shown.contains("eu-west-1"), "{shown}");
        assert_eq!(key_of(from_variables).await, "AKIAENV");
        // Empty is as not set.
        let empty = open(home, &[("AWS_ACCESS_KEY_ID", ""), ("AWS_ENDPOINT_URL", "")]).unwrap();
        assert_eq!(key_of(empty).await, "AKIAFILE");
    }

    #[test]
    fn variables_for_a_role_or_no_signature_need_no_profile() {
        let typo = ("AWS_PROFILE", "typo");
        let role = [("AWS_WEB_IDENTITY_TOKEN_FILE", "/run/token"), ("AWS_ROLE_ARN", "arn:x")];
        let error = open("/nowhere", &[typo]).unwrap_err();
        assert!(matches!(
            SettingsError::behind(&error),
            Some(SettingsError::NoProfile { profile, .. }) if profile == "typo"
        ));
        open("/nowhere", &[typo, role[0], role[1]]).unwrap();
        open("/nowhere", &[typo, ("AWS_SKIP_SIGNATURE", "true")]).unwrap();
    }
}
