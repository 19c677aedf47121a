//! What is answered: the report's page and files, overlays, results, the images that have one, which are
//! alike, and decisions.
//!
//! Owns which paths there are. Nothing else of OUT can be had, and of SOURCE only images of the run: a
//! folder of images may lie beside what is nobody's business.

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use camshaft_common::key::ImageKey;
use camshaft_common::layout::{FAILURES, Layout, OVERLAYS, PREDICTIONS, REPORT};
use camshaft_common::run::RunRecord;
use camshaft_common::store::{Folder, JSON, JSON_LINES, StoreError, StoreErrorKind, StoreOptions};
use camshaft_decisions::{Decision, Sample};
use camshaft_report::ThumbnailMaker;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::header::{HeaderName, HeaderValue, LOCATION, SET_COOKIE};
use hyper::{Method, Request, StatusCode};
use percent_encoding::percent_decode_str;
use tokio::sync::Mutex;
use tracing::warn;

use super::access::{Access, Refusal};
use super::answers::{Answer, HTML, answer, media_type, refuse};
use super::board::DecisionBoard;
use super::similar::{SimilarError, SimilarImages};

/// The page below OUT.
pub(super) const PAGE: &str = "report/index.html";
/// How often it is printed that files can't be served.
const WARNED_EVERY: Duration = Duration::from_secs(30);
/// Where thumbnails of images are, below OUT.
const THUMBNAILS: &str = "report/thumbnails/image/";
/// The largest file that is answered with: the page of a million images has some 30 MB, its tables more.
const MAX_FILE_BYTES: u64 = 2 << 30;
/// The largest image of SOURCE.
const MAX_IMAGE_BYTES: u64 = 256 << 20;
/// The most bytes of decisions in one request: those of some 200,000 images.
const MAX_BODY_BYTES: usize = 64 << 20;
/// Tells the page that a program serves it: where decisions go, where samples and images are, and
/// who knows which are alike.
const SERVED: &str = "<meta name=\"camshaft-served\" content=\"\" data-decisions=\"../decisions\" \
                      data-samples=\"../samples\" data-originals=\"../originals/\" data-similar=\"../similar\">";
/// The number of lines that the page knows after an answer.
const KNOWN: HeaderName = HeaderName::from_static("camshaft-known");

/// The report of one run, and the decisions about it.
#[derive(Debug)]
pub(super) struct Site {
    out: Folder,
    layout: Layout,
    source: Option<Folder>,
    thumbnails: ThumbnailMaker,
    access: Access,
    board: Mutex<DecisionBoard>,
    /// One question at a time: they read one file.
    similar: Mutex<SimilarImages>,
    /// When it was last printed that a file can't be served.
    warned: std::sync::Mutex<Option<Instant>>,
}

impl Site {
    /// The site of a run. Without a SOURCE that can be opened, there are no images.
    pub(super) fn new(
        out: Folder,
        run: &RunRecord,
        stores: &StoreOptions,
        access: Access,
        board: DecisionBoard,
    ) -> Self {
        let source = run.open_images(stores);
        let layout = Layout::of(out.location());
        let thumbnails = ThumbnailMaker::new(out.clone(), source.clone());
        let similar = Mutex::new(SimilarImages::new(out.clone()));
        Self {
            out,
            layout,
            source,
            thumbnails,
            access,
            board: Mutex::new(board),
            similar,
            warned: std::sync::Mutex::default(),
        }
    }

    /// Answers a request.
    pub(super) async fn answer(&self, request: Request<Incoming>) -> Answer {
        if self.access.check_site(request.headers()).is_err() {
            return refuse_access(Refusal::OtherSite);
        }
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        if path == "/" && method == Method::GET {
            return self.first(&request);
        }
        if let Err(refusal) = self.access.check_token(request.headers()) {
            return refuse_access(refusal);
        }
        let Some(path) = plain_path(&path) else { return not_found() };
        match (method, path.split_once('/')) {
            (Method::GET, None) if path == "decisions" => {
                self.decisions(request.uri().query()).await
            }
            (Method::GET, None) if path == "samples" => self.samples().await,
            (Method::POST, None) if path == "decisions" => self.decide(request.into_body()).await,
            (Method::GET, None) if path == "similar" => self.similar(request.uri().query()).await,
            (Method::GET, Some(_)) if path == PAGE => self.page().await,
            (Method::GET, Some(_)) if path.starts_with(THUMBNAILS) => self.thumbnail(&path).await,
            (Method::GET, Some((REPORT | OVERLAYS | PREDICTIONS | FAILURES, _))) => {
                self.file(&path).await
            }
            (Method::GET, Some(("originals", key))) => self.image(key).await,
            (Method::GET, _) => not_found(),
            _ => refuse(StatusCode::METHOD_NOT_ALLOWED, "there is nothing to send here"),
        }
    }

    /// The address with the token leads to the page, which then has the token in a cookie.
    fn first(&self, request: &Request<Incoming>) -> Answer {
        let is_known = self.access.check_token(request.headers()).is_ok();
        if !is_known && !self.access.is_in_query(request.uri().query()) {
            return refuse_access(Refusal::NoToken);
        }
        let mut answer = refuse(StatusCode::SEE_OTHER, "the report is at /report/index.html");
        let headers = answer.headers_mut();
        headers.insert(LOCATION, HeaderValue::from_static("/report/index.html"));
        if let Ok(cookie) = HeaderValue::from_str(&self.access.cookie()) {
            headers.insert(SET_COOKIE, cookie);
        }
        answer
    }

    async fn page(&self) -> Answer {
        match self.out.get(PAGE, MAX_FILE_BYTES).await {
            Ok(page) => answer(StatusCode::OK, HTML, served(&page.bytes)),
            Err(error) => self.refuse_store(&error),
        }
    }

    async fn file(&self, path: &str) -> Answer {
        match self.out.get(path, MAX_FILE_BYTES).await {
            Ok(file) => answer(StatusCode::OK, media_type(path), file.bytes),
            Err(error) => self.refuse_store(&error),
        }
    }

    /// The thumbnail of an image. Those that the report has not made are made now.
    async fn thumbnail(&self, path: &str) -> Answer {
        match self.out.get(path, MAX_FILE_BYTES).await {
            Ok(file) => return answer(StatusCode::OK, media_type(path), file.bytes),
            Err(error) if error.kind() == StoreErrorKind::NotFound => {}
            Err(error) => return self.refuse_store(&error),
        }
        let key = path.strip_prefix(THUMBNAILS).and_then(|name| name.strip_suffix(".jpg"));
        let Some(Ok(key)) = key.map(ImageKey::parse) else { return not_found() };
        match self.has_result(&key).await {
            Ok(true) => {}
            Ok(false) => return not_found(),
            Err(error) => return self.refuse_store(&error),
        }
        match self.thumbnails.of_image(&key).await {
            Ok(Ok(small)) => answer(StatusCode::OK, media_type(path), small),
            Ok(Err(reason)) => refuse(StatusCode::NOT_FOUND, &reason),
            Err(error) => refuse(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
        }
    }

    /// Whether the image is of the run.
    async fn has_result(&self, key: &ImageKey) -> Result<bool, StoreError> {
        Ok(self.out.exists(&self.layout.prediction(key)).await?
            || self.out.exists(&self.layout.failure(key)).await?)
    }

    /// An image of SOURCE that has a result.
    async fn image(&self, key: &str) -> Answer {
        let (Ok(key), Some(source)) = (ImageKey::parse(key), &self.source) else {
            return not_found();
        };
        match self.has_result(&key).await {
            Ok(true) => {}
            Ok(false) => return not_found(),
            Err(error) => return self.refuse_store(&error),
        }
        match source.get_image(&key, MAX_IMAGE_BYTES).await {
            Ok(image) => {
                let shown = Some(media_type(key.as_str())).filter(|it| it.starts_with("image/"));
                // Whatever its name says: nothing but a picture is shown.
                answer(StatusCode::OK, shown.unwrap_or("image/x-unknown"), image.bytes)
            }
            Err(error) => self.refuse_store(&error),
        }
    }

    /// The samples drawn so far, of which the page may be older.
    async fn samples(&self) -> Answer {
        match Sample::read_all(&self.out).await {
            Ok((samples, broken)) => {
                for error in broken {
                    warn!("{error}");
                }
                let json =
                    serde_json::to_vec(&samples).expect("samples have only texts and numbers");
                answer(StatusCode::OK, JSON, json)
            }
            Err(error) => self.refuse_store(&error),
        }
    }

    /// The images that are most like the one with the key in the query.
    async fn similar(&self, query: Option<&str>) -> Answer {
        let key = query.and_then(|query| query.strip_prefix("key="));
        let key = key.and_then(|key| percent_decode_str(key).decode_utf8().ok());
        let Some(key) = key else { return refuse(StatusCode::BAD_REQUEST, "ask with ?key=") };
        match self.similar.lock().await.like(&key).await {
            Ok(Some(images)) => answer(StatusCode::OK, JSON, images),
            Ok(None) => refuse(StatusCode::NOT_FOUND, "the report has no image of this name"),
            Err(SimilarError::Store(error)) => self.refuse_store(&error),
            Err(error) => {
                warn!("images can't be compared: {error}");
                refuse(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string())
            }
        }
    }

    /// What was decided since the lines that the page knows.
    async fn decisions(&self, query: Option<&str>) -> Answer {
        let known = query.and_then(|query| query.strip_prefix("known=")?.parse().ok()).unwrap_or(0);
        match self.board.lock().await.since(known).await {
            Ok((lines, known)) => {
                let mut answer = answer(StatusCode::OK, JSON_LINES, lines);
                answer.headers_mut().insert(KNOWN, HeaderValue::from(known as u64));
                answer
            }
            Err(error) => {
                let reason = crate::advice::describe_merge_error(&error);
                warn!("decisions can't be read: {reason}");
                refuse(StatusCode::INTERNAL_SERVER_ERROR, &reason)
            }
        }
    }

    /// Writes the lines of a request. All or none of them are taken.
    async fn decide(&self, body: Incoming) -> Answer {
        let Ok(body) = Limited::new(body, MAX_BODY_BYTES).collect().await else {
            return refuse(StatusCode::PAYLOAD_TOO_LARGE, "too many decisions at once; send fewer");
        };
        let body = body.to_bytes();
        let Ok(text) = std::str::from_utf8(&body) else {
            return refuse(StatusCode::BAD_REQUEST, "decisions are not UTF-8");
        };
        let mut decisions = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            match Decision::parse(line) {
                Ok(decision) => decisions.push(decision),
                Err(error) => {
                    let reason = format!("line {number} is no decision: {error}");
                    return refuse(StatusCode::BAD_REQUEST, &reason);
                }
            }
        }
        match self.board.lock().await.write(&decisions).await {
            Ok(()) => answer(StatusCode::NO_CONTENT, JSON_LINES, ""),
            Err(error) => {
                let reason = crate::advice::describe_store_error(&error);
                warn!("decisions can't be written: {reason}");
                refuse(StatusCode::INTERNAL_SERVER_ERROR, &reason)
            }
        }
    }

    /// What cannot be had from a store. A page asks for many pictures at once, and what is wrong with one is
    /// mostly wrong with all: it is printed now and then only.
    fn refuse_store(&self, error: &StoreError) -> Answer {
        match error.kind() {
            StoreErrorKind::NotFound | StoreErrorKind::Unusable => not_found(),
            _ => {
                let reason = crate::advice::describe_store_error(error);
                let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
                if warned.is_none_or(|at: Instant| at.elapsed() >= WARNED_EVERY) {
                    *warned = Some(Instant::now());
                    warn!("a file can't be served: {reason}");
                }
                refuse(StatusCode::BAD_GATEWAY, &reason)
            }
        }
    }
}

/// The page with the mark that tells it who serves it.
fn served(page: &[u8]) -> Vec<u8> {
    const HEAD: &[u8] = b"<head>";
    let at = page.windows(HEAD.len()).position(|part| part.eq_ignore_ascii_case(HEAD));
    let at = at.map_or(0, |at| at + HEAD.len());
    [&page[..at], SERVED.as_bytes(), &page[at..]].concat()
}

/// The path of a request, decoded; `None` if it may lead elsewhere.
fn plain_path(path: &str) -> Option<String> {
    let path = percent_decode_str(path.strip_prefix('/')?).decode_utf8().ok()?;
    let is_plain =
        |part: &str| !["", ".", ".."].contains(&part) && !part.contains(char::is_control);
    path.split('/').all(is_plain).then(|| path.into_owned())
}

fn not_found() -> Answer {
    refuse(StatusCode::NOT_FOUND, "there is nothing here")
}

fn refuse_access(refusal: Refusal) -> Answer {
    match refusal {
        Refusal::OtherSite => {
            refuse(StatusCode::FORBIDDEN, "this is not the address that camshaft serve printed")
        }
        Refusal::NoToken => refuse(
            StatusCode::FORBIDDEN,
            "open the address with the token, which camshaft serve printed",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_below_out() {
        assert_eq!(plain_path("/overlays/a%20b.jpg").as_deref(), Some("overlays/a b.jpg"));
        // A name like any other, where names are parted by slashes.
        assert_eq!(plain_path("/overlays/a%5Cb.jpg").as_deref(), Some("overlays/a\\b.jpg"));
        for path in [
            "",
            "/",
            "report",
            "/../run.json",
            "/report/../run.json",
            "/report/%2e%2e/run.json",
            "/report//etc/passwd",
            "/report/%2Fetc",
            "/report/a%00",
            "/report/%ff",
            "/./report/index.html",
        ] {
            assert_eq!(plain_path(path), None, "{path}");
        }
    }

    #[test]
    fn the_page_is_told_who_serves_it() {
        let page = served(b"<!doctype html><html><head><title>x</title>");
        let page = String::from_utf8(page).unwrap();
        assert!(
            page.starts_with("<!doctype html><html><head><meta name=\"camshaft-served\""),
            "{page}"
        );
        assert!(page.ends_with("<title>x</title>"));
    }
}
