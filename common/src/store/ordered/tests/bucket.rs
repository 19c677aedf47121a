//! A bucket on a server that answers within a test. Its listings are XML, as those of real servers,
//! and reach Camshaft through `object_store`'s own client.

use std::cmp::Ordering;
use std::collections::{BTreeSet, HashMap};
use std::fmt::Write;
use std::sync::Arc;

use async_trait::async_trait;
use object_store::ClientOptions;
use object_store::aws::AmazonS3Builder;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpRequest, HttpResponse, HttpService,
};
use object_store::path::Path;

use crate::store::listed_names::client_of;
use crate::store::{Folder, Listing};

/// What a bucket has, and how its server lists it.
#[derive(Clone, Debug)]
pub(super) struct Bucket {
    /// In the server's order.
    names: Vec<String>,
    habits: Habits,
}

/// What servers do differently.
#[derive(Clone, Copy, Debug)]
pub(super) struct Habits {
    pub(super) page_entries: usize,
    /// As `page_entries`, of a listing with folders.
    pub(super) page_folders: usize,
    pub(super) order: NameOrder,
    pub(super) writing: Writing,
    pub(super) tokens: Tokens,
    /// Lists from the first object, wherever it is asked to start.
    pub(super) ignores_offset: bool,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum NameOrder {
    Utf8,
    Utf16,
}

/// How control characters are written.
#[derive(Clone, Copy, Debug)]
pub(super) enum Writing {
    /// As they are.
    Raw,
    /// As references, in XML 1.1.
    References,
    /// As Go does: those that XML 1.0 can't have become U+FFFD.
    Replaced,
}

/// The token of a page.
#[derive(Clone, Copy, Debug)]
pub(super) enum Tokens {
    /// Only if others follow.
    Usual,
    /// An empty one at the end.
    EmptyAtEnd,
    /// None, though others follow: as servers do that know the first version of listings only.
    Never,
}

enum Entry<'b> {
    Object(&'b str),
    Folder(String),
}

impl NameOrder {
    fn compare(self, one: &str, other: &str) -> Ordering {
        match self {
            Self::Utf8 => one.cmp(other),
            Self::Utf16 => one.encode_utf16().cmp(other.encode_utf16()),
        }
    }
}

impl Writing {
    /// A name as clients understand it.
    fn listed(self, name: &str) -> String {
        let can_be_written = |c: char| match c {
            '\t' | '\n' | '\r' => true,
            _ => c >= ' ' && !matches!(c, '\u{fffe}' | '\u{ffff}'),
        };
        let character = |c| match self {
            Self::Replaced if !can_be_written(c) => '\u{fffd}',
            Self::Raw | Self::References | Self::Replaced => c,
        };
        name.chars().map(character).collect()
    }

    fn xml(self, name: &str) -> String {
        let mut xml = String::new();
        for character in self.listed(name).chars() {
            match (character, self) {
                ('&', _) => xml.push_str("&amp;"),
                ('<', _) => xml.push_str("&lt;"),
                ('>', _) => xml.push_str("&gt;"),
                (c, Self::References | Self::Replaced) if c.is_control() => {
                    write!(xml, "&#x{:X};", u32::from(c)).unwrap();
                }
                (c, _) => xml.push(c),
            }
        }
        xml
    }
}

impl Bucket {
    pub(super) fn new(names: impl IntoIterator<Item = String>, habits: Habits) -> Self {
        let names: BTreeSet<_> = names.into_iter().collect();
        let mut names: Vec<_> = names.into_iter().collect();
        names.sort_by(|one, other| habits.order.compare(one, other));
        Self { names, habits }
    }

    /// What a listing without cuts finds below a folder, in the server's order.
    pub(super) fn names_below(&self, folder: &str) -> Vec<String> {
        let prefix = if folder.is_empty() { String::new() } else { format!("{folder}/") };
        let below = self.names.iter().filter_map(|name| name.strip_prefix(&prefix));
        below.map(|name| self.habits.writing.listed(name)).collect()
    }

    /// Opens a folder of it, to be listed in ranges or not.
    pub(super) fn open(&self, folder: &str, in_ranges: bool) -> Folder {
        let store = AmazonS3Builder::new()
            .with_bucket_name("bucket")
            .with_endpoint("http://server")
            .with_allow_http(true)
            .with_skip_signature(true)
            .with_http_connector(Connector(self.clone()))
            .build();
        let store = Arc::new(store.unwrap());
        Folder {
            store: store.clone(),
            root: Path::parse(folder).unwrap(),
            location: "s3://bucket".parse().unwrap(),
            takes_attributes: true,
            listing: if in_ranges { Listing::Seekable(store) } else { Listing::Plain },
        }
    }

    fn entries(&self, prefix: &str, delimited: bool, offset: &str) -> Vec<Entry<'_>> {
        let mut entries = Vec::new();
        let mut last_folder = String::new();
        for name in &self.names {
            let Some(below) = name.strip_prefix(prefix) else { continue };
            if self.habits.order.compare(name, offset).is_le() {
                continue;
            }
            match below.split_once('/').filter(|_| delimited) {
                None => entries.push(Entry::Object(name)),
                Some((folder, _)) => {
                    let folder = format!("{prefix}{folder}/");
                    if folder != last_folder {
                        last_folder.clone_from(&folder);
                        entries.push(Entry::Folder(folder));
                    }
                }
            }
        }
        entries
    }

    fn answer(&self, query: &str) -> String {
        let Habits { writing, tokens, ignores_offset, .. } = self.habits;
        let asked: HashMap<String, String> =
            url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        let value = |name: &str| asked.get(name).map_or("", String::as_str);
        let offset = if ignores_offset { "" } else { value("start-after") };
        let delimited = asked.contains_key("delimiter");
        let most = if delimited { self.habits.page_folders } else { self.habits.page_entries };
        let entries = self.entries(value("prefix"), delimited, offset);
        let start = asked.get("continuation-token").map_or(0, |token| token.parse().unwrap());
        let end = entries.len().min(start + most);
        let (mut objects, mut folders) = (String::new(), String::new());
        for entry in &entries[start..end] {
            let written = match entry {
                Entry::Object(name) => write!(
                    objects,
                    "<Contents><Key>{}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>\
                     <ETag>&quot;1&quot;</ETag><Size>0</Size></Contents>",
                    writing.xml(name)
                ),
                Entry::Folder(name) => write!(
                    folders,
                    "<CommonPrefixes><Prefix>{}</Prefix></CommonPrefixes>",
                    writing.xml(name)
                ),
            };
            written.unwrap();
        }
        let is_truncated = end < entries.len();
        let token = match tokens {
            Tokens::Usual | Tokens::EmptyAtEnd if is_truncated => {
                format!("<NextContinuationToken>{end}</NextContinuationToken>")
            }
            Tokens::EmptyAtEnd => "<NextContinuationToken></NextContinuationToken>".to_owned(),
            Tokens::Usual | Tokens::Never => String::new(),
        };
        let version = if matches!(writing, Writing::References) { "1.1" } else { "1.0" };
        format!(
            "<?xml version=\"{version}\" encoding=\"UTF-8\"?><ListBucketResult><Name>bucket</Name>\
             <IsTruncated>{is_truncated}</IsTruncated>{objects}{folders}{token}</ListBucketResult>"
        )
    }
}

#[async_trait]
impl HttpService for Bucket {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let answer = self.answer(request.uri().query().unwrap_or_default());
        Ok(HttpResponse::new(answer.into()))
    }
}

#[derive(Debug)]
struct Connector(Bucket);

impl HttpConnector for Connector {
    fn connect(&self, _options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(client_of(self.0.clone()))
    }
}
