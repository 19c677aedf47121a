//! A client of a worker's health and metrics endpoints.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};

use crate::metrics::Scrape;
use crate::s3::free_port;

/// The address at which a worker answers health checks.
#[derive(Debug)]
pub struct Health {
    port: u16,
}

impl Health {
    /// A free port, for a worker that will be started.
    #[must_use]
    pub fn at_free_port() -> Self {
        Self { port: free_port() }
    }

    /// The arguments that make a worker answer there.
    #[must_use]
    pub fn arguments(&self) -> [String; 2] {
        ["--health".to_owned(), format!("127.0.0.1:{}", self.port)]
    }

    /// The status of `GET /readyz`; 0 if there is no answer.
    #[must_use]
    pub fn status(&self) -> u16 {
        let answer = self.ask("/readyz");
        answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
    }

    /// The problems that `GET /readyz` lists, as JSON text; empty if there is no answer.
    ///
    /// # Panics
    /// If the answer is not a report.
    #[must_use]
    pub fn problems(&self) -> String {
        let answer = self.ask("/readyz");
        let Some((_, body)) = answer.split_once("\r\n\r\n") else { return String::new() };
        let report: serde_json::Value = serde_json::from_str(body).expect("the report is JSON");
        report["problems"].to_string()
    }

    /// The metrics of `GET /metrics`; `None` if there is no answer.
    #[must_use]
    pub fn scrape(&self) -> Option<Scrape> {
        let answer = self.ask("/metrics");
        let (head, body) = answer.split_once("\r\n\r\n")?;
        assert!(head.contains("text/plain; version=0.0.4"), "{head}");
        Some(Scrape::parse(body))
    }

    /// True if `GET path` answers 200.
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
