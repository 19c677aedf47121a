//! Asking a worker how it is, as whoever looks after it does: over HTTP.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};

use crate::metrics::Scrape;
use crate::s3::free_port;

/// Where a worker answers.
#[derive(Debug)]
pub struct Health {
    port: u16,
}

impl Health {
    /// A place for a worker that is to be started.
    #[must_use]
    pub fn at_free_port() -> Self {
        Self { port: free_port() }
    }

    /// Tells the worker.
    #[must_use]
    pub fn arguments(&self) -> [String; 2] {
        ["--health".to_owned(), format!("127.0.0.1:{}", self.port)]
    }

    /// The status of `GET /readyz`; 0 where nobody answers.
    #[must_use]
    pub fn status(&self) -> u16 {
        let answer = self.ask("/readyz");
        answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
    }

    /// What `GET /readyz` says is wrong, as one text; empty where nobody answers.
    ///
    /// # Panics
    /// Where the answer is no report.
    #[must_use]
    pub fn problems(&self) -> String {
        let answer = self.ask("/readyz");
        let Some((_, body)) = answer.split_once("\r\n\r\n") else { return String::new() };
        let report: serde_json::Value = serde_json::from_str(body).expect("the report is JSON");
        report["problems"].to_string()
    }

    /// What `GET /metrics` says; `None` where nobody answers.
    #[must_use]
    pub fn scrape(&self) -> Option<Scrape> {
        let answer = self.ask("/metrics");
        let (head, body) = answer.split_once("\r\n\r\n")?;
        assert!(head.contains("text/plain; version=0.0.4"), "{head}");
        Some(Scrape::parse(body))
    }

    /// Whether `GET path` answers 200.
    #[must_use]
    pub fn is_ok(&self, path: &str) -> bool {
        self.ask(path).starts_with("HTTP/1.1 200")
    }

    fn ask(&self, path: &str) -> String {
        let mut answer = Vec::new();
        let request = format!("GET {path} HTTP/1.1\r\nhost: worker\r\nconnection: close\r\n\r\n");
        let asked = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).and_then(|mut worker| {
            worker.write_all(request.as_bytes())?;
            worker.read_to_end(&mut answer)
        });
        if asked.is_err() {
            return String::new();
        }
        String::from_utf8_lossy(&answer).into_owned()
    }
}
