//! Requests to a store and their answers, on the way between `object_store` and the HTTP client: what
//! `object_store` leaves out.
//!
//! - Without credentials, `object_store` asks the machine's metadata service for them. Most machines
//!   have none, and asking for a minute tells nobody what is missing.
//! - S3 names a bucket's region in a header, beside answers whose text is lost.
//!
//! Names in listings are changed below this, in [`listed_names`](super::listed_names). Upstream:
//! [`clouds`](super::clouds).

use std::error::Error;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
};
use tokio::sync::Mutex;
use tokio::time::{sleep, timeout};

use super::listed_names::ListingConnector;
use super::settings::SettingsError;

/// How long to wait before a metadata service that has never answered is asked again.
const METADATA_PAUSE: Duration = Duration::from_millis(200);
/// How long it counts as absent if it did not answer. Many requests may wait for credentials.
const ABSENCE_LASTS: Duration = Duration::from_secs(10);

/// The header in which S3 names a bucket's region.
const BUCKET_REGION: &str = "x-amz-bucket-region";

/// Where credentials were looked for before the metadata service is asked.
#[derive(Clone, Debug)]
pub(super) struct CredentialsSearch {
    /// What was found nowhere, for a sentence.
    pub(super) looked_at: String,
    /// What to set.
    pub(super) advice: &'static str,
    /// The variable that forbids to ask the metadata service, if one does.
    pub(super) forbidden_by: Option<&'static str>,
    /// How long a metadata service that has never answered may take.
    pub(super) patience: Duration,
}

/// Connects to a store.
#[derive(Debug)]
pub(super) struct StoreConnector {
    listing: ListingConnector,
    search: CredentialsSearch,
}

impl StoreConnector {
    pub(super) fn new(search: CredentialsSearch) -> Self {
        Self { listing: ListingConnector::default(), search }
    }
}

impl HttpConnector for StoreConnector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let client = self.listing.connect(options)?;
        Ok(HttpClient::new(StoreClient::new(client, self.search.clone())))
    }
}

#[derive(Debug)]
struct StoreClient {
    client: HttpClient,
    metadata: MetadataService,
}

impl StoreClient {
    fn new(client: HttpClient, search: CredentialsSearch) -> Self {
        let metadata = MetadataService {
            search,
            has_answered: AtomicBool::new(false),
            absent: Mutex::default(),
        };
        Self { client, metadata }
    }
}

#[async_trait]
impl HttpService for StoreClient {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        if is_about_metadata(&request) {
            return self.metadata.ask(&self.client, request).await;
        }
        let asked = region_asked(&request);
        let response = self.client.execute(request).await?;
        match wrong_region(&response, asked.as_deref()) {
            Some(error) => Err(lasting(error)),
            None => Ok(response),
        }
    }
}

/// An error after which `object_store` does not repeat the request.
fn lasting(error: SettingsError) -> HttpError {
    HttpError::new(HttpErrorKind::Unknown, error)
}

/// True for a question to a machine's metadata service. Amazon, Microsoft and Google want a header that
/// nobody sends by accident: the first two are Amazon's.
fn is_about_metadata(request: &HttpRequest) -> bool {
    const HEADERS: [&str; 4] = [
        "x-aws-ec2-metadata-token-ttl-seconds",
        "x-aws-ec2-metadata-token",
        "metadata",
        "metadata-flavor",
    ];
    HEADERS.into_iter().any(|name| request.headers().contains_key(name))
}

/// The service that gives a machine's credentials to its programs.
#[derive(Debug)]
struct MetadataService {
    search: CredentialsSearch,
    /// Once it has answered, it is there, and `object_store` may repeat what fails.
    has_answered: AtomicBool,
    /// The host that did not answer, and when.
    absent: Mutex<Option<(String, Instant)>>,
}

impl MetadataService {
    async fn ask(
        &self,
        client: &HttpClient,
        request: HttpRequest,
    ) -> Result<HttpResponse, HttpError> {
        if let Some(variable) = self.search.forbidden_by {
            return Err(
                self.no_credentials(&format!("{variable} forbids to ask for the machine's"))
            );
        }
        let host = request.uri().host().unwrap_or_default().to_owned();
        let response = if self.has_answered.load(Relaxed) {
            client.execute(request).await?
        } else if self.is_absent(&host).await {
            return Err(self.no_answer(&host, "it did not a moment ago"));
        } else {
            match self.first_answer(client, &request).await {
                Ok(response) => response,
                Err(reason) => {
                    *self.absent.lock().await = Some((host.clone(), Instant::now()));
                    return Err(self.no_answer(&host, &reason));
                }
            }
        };
        self.has_answered.store(true, Relaxed);
        match response.status().as_u16() {
            // As it answers if the machine has no role, and as other services at its address do.
            status @ (400 | 404 | 405) => {
                let answer =
                    format!("{host} (machine metadata) has none for this machine ({status})");
                Err(self.no_credentials(&answer))
            }
            _ => Ok(response),
        }
    }

    /// The answer of a service that has never answered; else why there is none. It may need a moment
    /// until it knows a machine that has just started.
    async fn first_answer(
        &self,
        client: &HttpClient,
        request: &HttpRequest,
    ) -> Result<HttpResponse, String> {
        let patience = self.search.patience;
        let mut reason = None;
        let asking = async {
            loop {
                match client.execute(request.clone()).await {
                    Ok(response) => return response,
                    Err(error) => reason = Some(innermost(&error)),
                }
                sleep(METADATA_PAUSE).await;
            }
        };
        let answered = timeout(patience, asking).await;
        answered.map_err(|_elapsed| reason.unwrap_or_else(|| format!("not within {patience:?}")))
    }

    async fn is_absent(&self, host: &str) -> bool {
        let absent = self.absent.lock().await;
        absent.as_ref().is_some_and(|(absent, at)| absent == host && at.elapsed() < ABSENCE_LASTS)
    }

    fn no_answer(&self, host: &str, reason: &str) -> HttpError {
        self.no_credentials(&format!("{host} (machine metadata) doesn't answer ({reason})"))
    }

    fn no_credentials(&self, metadata: &str) -> HttpError {
        let CredentialsSearch { looked_at, advice, .. } = &self.search;
        lasting(SettingsError::NoCredentials(format!("{looked_at}, and {metadata}; {advice}")))
    }
}

/// The text of the last cause. Those above it repeat the request.
fn innermost(error: &HttpError) -> String {
    let mut innermost: &dyn Error = error;
    while let Some(cause) = innermost.source() {
        innermost = cause;
    }
    innermost.to_string()
}

/// The region that a request is signed for; `None` if it is not signed.
fn region_asked(request: &HttpRequest) -> Option<String> {
    // AWS4-HMAC-SHA256 Credential=KEY/DATE/REGION/s3/aws4_request, SignedHeaders=…, Signature=…
    let signed = request.headers().get("authorization")?.to_str().ok()?;
    let (_, credential) = signed.split_once("Credential=")?;
    let scope = credential.split(',').next()?;
    scope.rsplit('/').nth(2).map(str::to_owned)
}

/// What is wrong if S3 answers that the bucket is elsewhere: with 301, or with 400 to a signature for
/// another region. The text of the first is not read, and an answer to `HEAD` has none.
fn wrong_region(response: &HttpResponse, asked: Option<&str>) -> Option<SettingsError> {
    let status = response.status().as_u16();
    let right = response.headers().get(BUCKET_REGION)?.to_str().ok()?.to_owned();
    match status {
        301 | 307 if asked == Some(&*right) => Some(SettingsError::WrongEndpoint { right }),
        301 | 307 => Some(SettingsError::WrongRegion { right }),
        400 if asked.is_some_and(|asked| asked != right) => {
            Some(SettingsError::WrongRegion { right })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;

    use object_store::client::HttpRequestBody;

    use super::*;

    /// What a service under test does with each request.
    #[derive(Clone, Copy, Debug)]
    enum Answer {
        Status(u16),
        Region(u16, &'static str),
        Refuse,
        Silence,
    }

    #[derive(Clone, Debug)]
    struct Service {
        answer: Arc<std::sync::Mutex<Answer>>,
        requests: Arc<AtomicUsize>,
    }

    #[async_trait]
    impl HttpService for Service {
        async fn call(&self, _request: HttpRequest) -> Result<HttpResponse, HttpError> {
            self.requests.fetch_add(1, Relaxed);
            let answer = *self.answer.lock().unwrap();
            let mut response = HttpResponse::new(String::new().into());
            match answer {
                Answer::Status(status) | Answer::Region(status, _) => {
                    *response.status_mut() = status.try_into().unwrap();
                }
                Answer::Refuse => {
                    let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
                    return Err(HttpError::new(HttpErrorKind::Connect, refused));
                }
                Answer::Silence => std::future::pending().await,
            }
            if let Answer::Region(_, region) = answer {
                response.headers_mut().insert(BUCKET_REGION, region.parse().unwrap());
            }
            Ok(response)
        }
    }

    impl Service {
        fn new(answer: Answer) -> Self {
            Self { answer: Arc::new(answer.into()), requests: Arc::default() }
        }

        fn client(&self, forbidden_by: Option<&'static str>) -> StoreClient {
            let (looked_at, advice) = ("AWS_X is not set".to_owned(), "set AWS_X");
            let patience = METADATA_PAUSE * 2;
            let search = CredentialsSearch { looked_at, advice, forbidden_by, patience };
            StoreClient::new(HttpClient::new(self.clone()), search)
        }
    }

    fn request(header: &'static str, value: &str) -> HttpRequest {
        let mut request = HttpRequest::new(HttpRequestBody::empty());
        *request.uri_mut() = "http://169.254.169.254/x".parse().unwrap();
        request.headers_mut().insert(header, value.parse().unwrap());
        request
    }

    async fn ask(client: &StoreClient) -> Result<HttpResponse, String> {
        let asked = client.call(request("x-aws-ec2-metadata-token", "t")).await;
        asked.map_err(|error| error.source().unwrap().to_string())
    }

    #[tokio::test]
    async fn a_metadata_service_that_is_not_there_is_asked_shortly_and_not_for_each_request() {
        for answer in [Answer::Refuse, Answer::Silence] {
            let service = Service::new(answer);
            let client = service.client(None);
            ask(&client).await.unwrap_err();
            let requests = service.requests.load(Relaxed);
            assert!((1..=3).contains(&requests), "{requests}");
            for _ in 0..3 {
                let error = ask(&client).await.unwrap_err();
                for part in ["no credentials", "AWS_X is not set", "169.254.169.254", "set AWS_X"] {
                    assert!(error.contains(part), "{error}");
                }
            }
            assert_eq!(service.requests.load(Relaxed), requests);
        }
        let service = Service::new(Answer::Status(200));
        let error = ask(&service.client(Some("AWS_EC2_METADATA_DISABLED"))).await.unwrap_err();
        assert!(error.contains("AWS_EC2_METADATA_DISABLED"), "{error}");
        assert_eq!(service.requests.load(Relaxed), 0);
    }

    #[tokio::test]
    async fn a_metadata_service_that_has_answered_may_fail_later() {
        let service = Service::new(Answer::Status(200));
        let client = service.client(None);
        ask(&client).await.unwrap();
        // Repeated by `object_store`.
        *service.answer.lock().unwrap() = Answer::Refuse;
        let error = client.call(request("x-aws-ec2-metadata-token", "t")).await.unwrap_err();
        assert_eq!(error.kind(), HttpErrorKind::Connect);
        *service.answer.lock().unwrap() = Answer::Status(503);
        assert_eq!(ask(&client).await.unwrap().status().as_u16(), 503);
        // The machine has no role.
        *service.answer.lock().unwrap() = Answer::Status(404);
        assert!(ask(&client).await.unwrap_err().contains("(404)"));
    }

    #[tokio::test]
    async fn the_region_of_a_bucket_is_named() {
        let signed = "AWS4-HMAC-SHA256 Credential=AK/IA/20260101/us-east-1/s3/aws4_request, \
                      SignedHeaders=host, Signature=0";
        let right = || "eu-west-1".to_owned();
        let region = SettingsError::WrongRegion { right: right() };
        let here = SettingsError::WrongEndpoint { right: "us-east-1".to_owned() };
        for (answer, expected) in [
            (Answer::Region(301, "eu-west-1"), Some(region.clone())),
            (Answer::Region(400, "eu-west-1"), Some(region)),
            (Answer::Region(301, "us-east-1"), Some(here)),
            (Answer::Region(400, "us-east-1"), None),
            (Answer::Region(403, "eu-west-1"), None),
            (Answer::Region(200, "eu-west-1"), None),
            (Answer::Status(301), None),
        ] {
            let client = Service::new(answer).client(None);
            let answered = client.call(request("authorization", signed)).await;
            let found = answered.err().map(|error| {
                assert_eq!(error.kind(), HttpErrorKind::Unknown);
                error.source().unwrap().downcast_ref::<SettingsError>().unwrap().clone()
            });
            assert_eq!(found, expected, "{answer:?}");
        }
    }
}
