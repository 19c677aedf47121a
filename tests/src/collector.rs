//! A real OpenTelemetry collector, Rotel. It receives OTLP over HTTP and writes the spans as text,
//! which this module parses.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, TcpStream};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::leash::Leash;
use crate::s3::free_port;
use crate::{repository, wait};

const START_LIMIT: Duration = Duration::from_secs(30);
const GRACE_TENTHS: u32 = 0;

/// A running collector. It ends when this is dropped.
#[derive(Debug)]
pub struct Collector {
    // Fields are dropped in order: the process first, then its directory.
    leash: Leash,
    port: u16,
    _directory: TempDir,
}

/// A span as the collector received it.
#[derive(Clone, Debug, Default)]
pub struct ReceivedSpan {
    /// `service.name` of the program that sent it.
    pub service: String,
    /// Its trace's id.
    pub trace: String,
    /// Its own id.
    pub id: String,
    /// Its parent's id; empty if it has none.
    pub parent: String,
    /// Its name.
    pub name: String,
    /// `INTERNAL`, `PRODUCER`, `CONSUMER`, …
    pub kind: String,
    /// When it began and ended, in nanoseconds since 1970.
    pub times: (u64, u64),
    /// The error message of its status, if it has one.
    pub error: Option<String>,
    /// Its attributes, as text.
    pub attributes: BTreeMap<String, String>,
    /// The ids of the traces that it links to.
    pub links: Vec<String>,
}

impl Collector {
    /// Starts a collector.
    ///
    /// # Panics
    /// If it does not start.
    #[must_use]
    pub fn start() -> Self {
        let directory = tempfile::Builder::new().prefix("camshaft-collector-").tempdir();
        let directory = directory.expect("a temporary folder");
        let (port, unused) = (free_port(), free_port());
        let mut command = Command::new(repository::tool("rotel/rotel-agent"));
        command.args(["start", "--exporter=blackhole", "--disable-batching"]);
        command.args(["--debug-log=traces", "--debug-log-verbosity=detailed"]);
        command.arg(format!("--otlp-http-endpoint=127.0.0.1:{port}"));
        command.arg(format!("--otlp-grpc-endpoint=127.0.0.1:{unused}"));
        command.arg("--pid-file").arg(directory.path().join("pid"));
        let log = directory.path().join("log");
        let leash = Leash::start(&command, &log, GRACE_TENTHS, Some(directory.path()))
            .expect("the collector starts");
        wait::until("the collector listens", START_LIMIT, || {
            TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
        });
        Self { leash, port, _directory: directory }
    }

    /// The environment variables that make a program send its traces here.
    #[must_use]
    pub fn variables(&self) -> [(&'static str, String); 1] {
        [("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://127.0.0.1:{}", self.port))]
    }

    /// Every span received so far.
    #[must_use]
    pub fn spans(&self) -> Vec<ReceivedSpan> {
        let text = self.leash.output();
        let mut spans: Vec<ReceivedSpan> = Vec::new();
        let (mut service, mut section) = (String::new(), Section::Other);
        for line in text.lines() {
            let known = spans.last_mut();
            match (line.split_once(": "), known) {
                _ if line.starts_with("Resource attributes:") => section = Section::Resource,
                _ if line.starts_with("ScopeSpans #") => section = Section::Other,
                _ if line.starts_with("Span #") => {
                    section = Section::Span;
                    spans.push(ReceivedSpan { service: service.clone(), ..Default::default() });
                }
                _ if line.starts_with("Attributes:") => section = Section::Attributes,
                _ if line.starts_with("Links:") => section = Section::Links,
                (Some((name, value)), known) => {
                    let name = name.trim().trim_start_matches("-> ");
                    match (section, known) {
                        (Section::Resource, _) if name == "service.name" => {
                            service = plain(value).to_owned();
                        }
                        (Section::Span, Some(span)) => span.note(name, value),
                        (Section::Attributes, Some(span)) => {
                            span.attributes.insert(name.to_owned(), plain(value).to_owned());
                        }
                        (Section::Links, Some(span)) if name == "Trace ID" => {
                            span.links.push(value.to_owned());
                        }
                        _ => {}
                    }
                }
                _ => {}
            }
        }
        spans
    }
}

#[derive(Clone, Copy)]
enum Section {
    Resource,
    Span,
    Attributes,
    Links,
    Other,
}

impl ReceivedSpan {
    /// The attribute's value; empty if it is absent.
    #[must_use]
    pub fn attribute(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", String::as_str)
    }

    fn note(&mut self, name: &str, value: &str) {
        let value = value.trim();
        match name.trim() {
            "Trace ID" => self.trace = value.to_owned(),
            "Parent ID" => self.parent = value.to_owned(),
            "ID" => self.id = value.to_owned(),
            "Name" => self.name = value.to_owned(),
            "Kind" => self.kind = value.trim_start_matches("SPAN_KIND_").to_owned(),
            "Start time" => self.times.0 = value.parse().expect("nanoseconds"),
            "End time" => self.times.1 = value.parse().expect("nanoseconds"),
            "Status message" if !value.is_empty() => self.error = Some(value.to_owned()),
            _ => {}
        }
    }
}

/// The value in `Str(value)`, `Int(3)`, ….
fn plain(value: &str) -> &str {
    let inner = value.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
    inner.unwrap_or(value)
}
