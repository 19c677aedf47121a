//! Names in a store's listing that `object_store` can't take: with an empty segment, `.`, `..` or a
//! control character, or with a `/` or a space at an end, which it drops. One of them makes it fail
//! the whole page.
//!
//! So they are changed before `object_store` reads the answer, and changed back when an object leaves
//! this folder. The listing's order and cuts are those of the real names.
//!
//! Also refuses a page that is not the last one and does not say how to ask for the next:
//! `object_store` would take it for the last.

use std::borrow::Cow;

use async_trait::async_trait;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
    ReqwestConnector,
};
use object_store::path::Path;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// The start of a changed name.
const CHANGED: &str = "%=";
/// What stays in a changed name.
const KEPT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_');

/// Whether there are more pages, in a listing of S3.
const IS_TRUNCATED: (&str, &str) = ("<IsTruncated>", "</IsTruncated>");
/// What the next page is asked for with.
const CONTINUATION_TOKEN: (&str, &str) = ("<NextContinuationToken>", "</NextContinuationToken>");

/// A name as `object_store` can take it.
fn changed(name: &str) -> Option<String> {
    let is_kept = !name.starts_with(CHANGED)
        && name.trim() == name
        && !name.is_empty()
        // In XML 1.1 they are ends of lines, which are read as `\n`.
        && !name.contains(['\u{85}', '\u{2028}'])
        && Path::parse(name).is_ok_and(|path| path.as_ref() == name);
    (!is_kept).then(|| encoded(name))
}

fn encoded(name: &str) -> String {
    format!("{CHANGED}{}", utf8_percent_encode(name, KEPT))
}

/// The real name of a listed object.
pub(super) fn name_of(location: &Path) -> Cow<'_, str> {
    match location.as_ref().strip_prefix(CHANGED) {
        Some(changed) => percent_decode_str(changed).decode_utf8_lossy(),
        None => Cow::Borrowed(location.as_ref()),
    }
}

/// A client of a server that answers within a test.
#[cfg(test)]
pub(super) fn client_of(server: impl HttpService) -> HttpClient {
    HttpClient::new(ListingClient(HttpClient::new(server)))
}

/// Connects to a store, and changes the names in its listings.
#[derive(Debug, Default)]
pub(super) struct ListingConnector(ReqwestConnector);

impl HttpConnector for ListingConnector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        self.0.connect(options).map(|client| HttpClient::new(ListingClient(client)))
    }
}

#[derive(Debug)]
struct ListingClient(HttpClient);

#[async_trait]
impl HttpService for ListingClient {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let listing = Listing::asked_by(&request);
        let response = self.0.execute(request).await?;
        let Some(listing) = listing.filter(|_| response.status().is_success()) else {
            return Ok(response);
        };
        let (mut parts, body) = response.into_parts();
        let body = body.bytes().await?;
        // One key that is no UTF-8 must not end the listing, either.
        let xml = String::from_utf8_lossy(&body);
        if listing.breaks_off(&xml) {
            return Err(HttpError::new(HttpErrorKind::Decode, BrokenOff));
        }
        let changed = match listing.change(&xml) {
            Some(changed) => Some(changed),
            None => matches!(xml, Cow::Owned(_)).then(|| xml.into_owned()),
        };
        let Some(changed) = changed else {
            return Ok(HttpResponse::from_parts(parts, body.into()));
        };
        parts.headers.remove("content-length");
        Ok(HttpResponse::from_parts(parts, changed.into()))
    }
}

/// A page of a listing has only the first of the objects, and the others can't be asked for.
#[derive(Debug, thiserror::Error)]
#[error(
    "the store has more objects than it listed, and does not say how to go on (no continuation \
     token); it must support ListObjectsV2"
)]
struct BrokenOff;

/// Whose listing it is: they name objects in different elements.
#[derive(Clone, Copy, Debug)]
enum Listing {
    /// S3's second version, which Google has too.
    S3,
    /// Azure's.
    Azure,
}

impl Listing {
    fn asked_by(request: &HttpRequest) -> Option<Self> {
        if request.method() != "GET" {
            return None;
        }
        let asks = |wanted: &str| {
            let query = request.uri().query().unwrap_or_default();
            query.split('&').any(|parameter| parameter == wanted)
        };
        if asks("list-type=2") { Some(Self::S3) } else { asks("comp=list").then_some(Self::Azure) }
    }

    /// True if the page is not the last one, and does not say how to ask for the next.
    fn breaks_off(self, xml: &str) -> bool {
        match self {
            Self::S3 => {
                let is_truncated = element(xml, IS_TRUNCATED).map(str::trim) == Some("true");
                let token = element(xml, CONTINUATION_TOKEN).map(str::trim);
                is_truncated && token.is_none_or(str::is_empty)
            }
            // Its page is the last one if it has no marker.
            Self::Azure => false,
        }
    }

    /// The listing with its names changed; `None` if there is nothing to change.
    fn change(self, xml: &str) -> Option<String> {
        let mut changed_xml = None;
        let mut change_each = |element, change: &dyn Fn(&str) -> Option<String>| {
            let replaced = replace_each(changed_xml.as_deref().unwrap_or(xml), element, change);
            if replaced.is_some() {
                changed_xml = replaced;
            }
        };
        let in_name = |name: &str| changed(&unescape(name)?);
        match self {
            Self::S3 => change_each(("<Key>", "</Key>"), &in_name),
            Self::Azure => {
                change_each(("<Name>", "</Name>"), &in_name);
                // A name with characters that XML can't have.
                change_each(("<Name Encoded=\"true\">", "</Name>"), &|name| {
                    let name = unescape(name)?;
                    Some(encoded(&percent_decode_str(&name).decode_utf8().ok()?))
                });
            }
        }
        // A folder is only a place to cut the listing: without a name it is none.
        change_each(("<CommonPrefixes>", "</CommonPrefixes>"), &|folder| {
            replace_each(folder, ("<Prefix>", "</Prefix>"), |prefix| {
                let prefix = unescape(prefix)?;
                let name = prefix.strip_suffix('/').unwrap_or(&prefix);
                changed(name).map(|_| String::new())
            })
        });
        changed_xml
    }
}

/// The content of the first such element.
fn element<'x>(xml: &'x str, (start, end): (&str, &str)) -> Option<&'x str> {
    let (_, rest) = xml.split_once(start)?;
    Some(rest.split_once(end)?.0)
}

/// Replaces the content of each element for which `replacement` returns one. `None` if it never does.
fn replace_each(
    xml: &str,
    (start, end): (&str, &str),
    replacement: impl Fn(&str) -> Option<String>,
) -> Option<String> {
    let mut replaced: Option<String> = None;
    let mut copied = 0;
    let mut at = 0;
    while let Some(found) = xml[at..].find(start) {
        let from = at + found + start.len();
        let Some(length) = xml[from..].find(end) else { break };
        at = from + length;
        if let Some(content) = replacement(&xml[from..at]) {
            let text = replaced.get_or_insert_default();
            text.push_str(&xml[copied..from]);
            text.push_str(&content);
            copied = at;
        }
    }
    replaced.map(|text| text + &xml[copied..])
}

/// The text of an element; `None` if it is more than text, or has unknown entities.
fn unescape(xml: &str) -> Option<Cow<'_, str>> {
    if xml.contains('<') {
        return None;
    }
    if !xml.contains('&') {
        return Some(Cow::Borrowed(xml));
    }
    let mut text = String::with_capacity(xml.len());
    let mut rest = xml;
    while let Some((before, entity)) = rest.split_once('&') {
        text.push_str(before);
        let (entity, after) = entity.split_once(';')?;
        text.push(match entity {
            "amp" => '&',
            "lt" => '<',
            "gt" => '>',
            "quot" => '"',
            "apos" => '\'',
            _ => {
                let number = entity.strip_prefix('#')?;
                let code = match number.strip_prefix(['x', 'X']) {
                    Some(hex) => u32::from_str_radix(hex, 16).ok()?,
                    None => number.parse().ok()?,
                };
                char::from_u32(code)?
            }
        });
        rest = after;
    }
    text.push_str(rest);
    Some(Cow::Owned(text))
}

#[cfg(test)]
mod tests {
    use object_store::client::HttpRequestBody;

    use super::*;

    #[test]
    fn only_names_that_object_store_cannot_take_are_changed_and_they_come_back() {
        for name in ["a/b.jpg", "a b%2e.jpg", "é#?.jpg", "%20", "a&b"] {
            assert_eq!(changed(name), None, "{name:?}");
        }
        for name in [
            "a//b",
            "/a",
            "a/",
            "a/../b",
            "./a",
            "a\tb",
            "\u{1}",
            " a",
            "a\n",
            "%=a",
            "",
            "//",
            "a\u{2028}b",
        ] {
            let path = Path::parse(changed(name).expect(name)).unwrap();
            assert_eq!(name_of(&path), name);
        }
    }

    #[test]
    fn a_listing_with_odd_names_is_changed_where_they_are() {
        let xml = "<ListBucketResult><Prefix>p//</Prefix>\
            <Contents><Key>p/a.jpg</Key><Size>1</Size></Contents>\
            <Contents><Key>p//b&amp;.jpg</Key></Contents><Contents><Key>p/c&#9;.jpg</Key></Contents>\
            <CommonPrefixes><Prefix>p/d/</Prefix></CommonPrefixes>\
            <CommonPrefixes><Prefix>p//</Prefix></CommonPrefixes></ListBucketResult>";
        let expected = "<ListBucketResult><Prefix>p//</Prefix>\
            <Contents><Key>p/a.jpg</Key><Size>1</Size></Contents>\
            <Contents><Key>%=p%2F%2Fb%26.jpg</Key></Contents><Contents><Key>%=p%2Fc%09.jpg</Key></Contents>\
            <CommonPrefixes><Prefix>p/d/</Prefix></CommonPrefixes>\
            <CommonPrefixes><Prefix></Prefix></CommonPrefixes></ListBucketResult>";
        assert_eq!(Listing::S3.change(xml).as_deref(), Some(expected));
        assert_eq!(Listing::S3.change("<Key>a.jpg</Key><Key>b</Key>"), None);
        let xml = "<Blobs><Blob><Name>a//b</Name></Blob></Blobs>";
        let changed = Listing::Azure.change(xml).unwrap();
        assert_eq!(changed, "<Blobs><Blob><Name>%=a%2F%2Fb</Name></Blob></Blobs>");
        let xml = "<Name>a</Name><Name Encoded=\"true\">a%EF%BF%BF%25</Name>";
        let changed = Listing::Azure.change(xml).unwrap();
        assert_eq!(changed, "<Name>a</Name><Name Encoded=\"true\">%=a%EF%BF%BF%25</Name>");
        for broken in ["<Key>a//b", "<Key>&what;//</Key>", "<Key><x/>//</Key>", "<Key>a&//</Key>"] {
            assert_eq!(Listing::S3.change(broken), None, "{broken}");
        }
    }

    #[test]
    fn a_page_that_has_others_after_it_says_how_to_ask_for_them() {
        let truncated = "<IsTruncated>true</IsTruncated>";
        for (breaks_off, xml) in [
            (false, "<IsTruncated>false</IsTruncated>".to_owned()),
            (false, "<IsTruncated>false</IsTruncated><NextContinuationToken/>".to_owned()),
            (false, format!("{truncated}<NextContinuationToken>1/x==</NextContinuationToken>")),
            (true, format!("{truncated}<NextMarker>a</NextMarker>")),
            (true, format!("{truncated}<NextContinuationToken/>")),
            (true, format!("{truncated}<NextContinuationToken></NextContinuationToken>")),
        ] {
            assert_eq!(Listing::S3.breaks_off(&xml), breaks_off, "{xml}");
        }
    }

    #[test]
    fn only_questions_for_a_listing_are_looked_at() {
        let request = |method: &str, uri: &str| {
            let mut request = HttpRequest::new(HttpRequestBody::empty());
            *request.method_mut() = method.parse().unwrap();
            *request.uri_mut() = uri.parse().unwrap();
            request
        };
        let is_listing = |method, uri| Listing::asked_by(&request(method, uri)).is_some();
        assert!(is_listing("GET", "http://s3/bucket?delimiter=%2F&list-type=2&prefix=a"));
        assert!(is_listing("GET", "https://x.blob/container?restype=container&comp=list"));
        assert!(!is_listing("GET", "http://s3/bucket/list-type=2"));
        assert!(!is_listing("PUT", "http://s3/bucket?list-type=2"));
    }
}
