//! A relay in front of a real S3 server that makes some requests fail: it answers 500 or 503, with
//! or without passing the request on, cuts answers in the middle, or delays them. To chosen requests it
//! gives chosen answers, such as those that only Amazon's S3 gives. It can also spoil every request below
//! one path.
//!
//! Each connection carries one request, so that the relay need not parse answers.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

use crate::relay::{reset, runtime};
use crate::s3::S3Server;

const LATE: Duration = Duration::from_secs(5);
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// A relay with faults. It ends when this is dropped.
#[derive(Debug)]
pub struct S3Relay {
    port: u16,
    control: Arc<Control>,
    _runtime: Runtime,
}

#[derive(Debug)]
struct Control {
    target: u16,
    /// The number of requests in a hundred that go wrong.
    faults_in_100: AtomicU64,
    down: AtomicBool,
    below: Mutex<Option<(String, PathFault)>>,
    requests: AtomicU64,
    faulty: AtomicU64,
    random: AtomicU64,
    answers: Mutex<Vec<ChosenAnswer>>,
}

/// An answer to some requests, instead of the server's.
#[derive(Clone, Debug)]
struct ChosenAnswer {
    /// A part of the requests' first line.
    requests: String,
    status: u16,
    /// Lines of the head.
    headers: String,
    body: String,
}

/// What becomes of every request below a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathFault {
    /// It is answered with 503.
    Refused,
    /// It gets no answer until this is over.
    Held,
}

/// How often to look whether requests are still held.
const HELD_POLL: Duration = Duration::from_millis(20);

#[derive(Clone, Copy, Debug)]
enum Fault {
    /// Answers 500 or 503, and does not pass the request on.
    Refused(u16),
    /// Passes the request on, and answers 500.
    DoneAndDenied,
    /// Cuts the answer in its middle.
    Cut,
    /// Delays the answer by [`LATE`].
    Late,
}

impl S3Relay {
    /// Starts a relay in front of a server, with no faults yet.
    ///
    /// # Panics
    /// If it cannot listen.
    #[must_use]
    pub fn to(server: &S3Server) -> Self {
        let runtime = runtime();
        let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
        let listener = listener.expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let control = Arc::new(Control {
            target: server.port(),
            faults_in_100: AtomicU64::new(0),
            down: AtomicBool::new(false),
            below: Mutex::new(None),
            requests: AtomicU64::new(0),
            faulty: AtomicU64::new(0),
            random: AtomicU64::new(1),
            answers: Mutex::default(),
        });
        let shared = Arc::clone(&control);
        runtime.spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, Arc::clone(&shared)));
            }
        });
        Self { port, control, _runtime: runtime }
    }

    /// From now on `faults` in a hundred requests go wrong.
    pub fn set_faults_in_100(&self, faults: u64) {
        self.control.faults_in_100.store(faults, Relaxed);
    }

    /// From now on, every request whose first line (`GET /bucket/key HTTP/1.1`) contains `requests` is
    /// answered with this, and not passed on. What was chosen last counts. `headers` are lines of the
    /// head. An answer to `HEAD` has no body.
    ///
    /// # Panics
    /// If another thread panicked here.
    pub fn answer(&self, requests: &str, status: u16, headers: &[&str], body: &str) {
        let headers = headers.iter().map(|header| format!("{header}\r\n")).collect();
        let (requests, body) = (requests.to_owned(), body.to_owned());
        let answer = ChosenAnswer { requests, status, headers, body };
        self.control.answers.lock().unwrap_or_else(PoisonError::into_inner).push(answer);
    }

    /// As [`Self::answer`], with an error as S3 answers it.
    ///
    /// # Panics
    /// As [`Self::answer`].
    pub fn answer_error(&self, requests: &str, status: u16, code: &str, message: &str) {
        let error = format!("<Error><Code>{code}</Code><Message>{message}</Message></Error>");
        self.answer(requests, status, &["content-type: application/xml"], &error);
    }

    /// Its port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// While it is down, every connection is reset.
    pub fn set_down(&self, down: bool) {
        self.control.down.store(down, Relaxed);
    }

    /// From now on spoils every request below `path`, which begins with `/BUCKET`.
    pub fn spoil(&self, path: &str, fault: PathFault) {
        *self.control.below() = Some((path.to_owned(), fault));
    }

    /// From now on spoils no path.
    pub fn mend(&self) {
        *self.control.below() = None;
    }

    /// The number of requests so far, and how many of them went wrong.
    #[must_use]
    pub fn requests(&self) -> (u64, u64) {
        (self.control.requests.load(Relaxed), self.control.faulty.load(Relaxed))
    }

    /// The environment variables for a client that connects to the server through this relay.
    #[must_use]
    pub fn variables(&self, server: &S3Server) -> Vec<(String, String)> {
        let mut variables = server.variables().to_vec();
        variables[0].1 = format!("http://127.0.0.1:{}", self.port);
        variables
    }
}

impl Control {
    /// The answer that was chosen for a request.
    fn chosen_answer(&self, request: &[u8]) -> Option<Vec<u8>> {
        let line = request.split(|byte| *byte == b'\r').next().unwrap_or_default();
        let line = String::from_utf8_lossy(line);
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = answers.iter().rev().find(|answer| line.contains(&answer.requests))?;
        let ChosenAnswer { status, headers, body, .. } = answer;
        let body = if line.starts_with("HEAD ") { "" } else { body.as_str() };
        let answer = format!(
            "HTTP/1.1 {status} Chosen\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        );
        Some(answer.into_bytes())
    }

    fn below(&self) -> std::sync::MutexGuard<'_, Option<(String, PathFault)>> {
        self.below.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The fault of the path that a request asks for.
    fn fault_of_path(&self, request: &[u8]) -> Option<PathFault> {
        let line = request.split(|&byte| byte == b'\r').next().unwrap_or_default();
        let path = line.split(|&byte| byte == b' ').nth(1).unwrap_or_default();
        let (below, fault) = self.below().clone()?;
        path.starts_with(below.as_bytes()).then_some(fault)
    }

    /// Chooses the fault of the next request; `None` if it goes well.
    fn next_fault(&self) -> Option<Fault> {
        self.requests.fetch_add(1, Relaxed);
        // xorshift64: the same order of faults in every run.
        let random = self.random.fetch_update(Relaxed, Relaxed, |mut x| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            Some(x.max(1))
        });
        let random = random.expect("the update always gives a number") >> 8;
        if random % 100 >= self.faults_in_100.load(Relaxed) {
            return None;
        }
        self.faulty.fetch_add(1, Relaxed);
        let kinds = [
            Fault::Refused(500),
            Fault::Refused(503),
            Fault::DoneAndDenied,
            Fault::Cut,
            Fault::Late,
        ];
        Some(kinds[(random / 100 % kinds.len() as u64) as usize])
    }
}

/// Relays one request. If anything fails on the way, it ends the connection, as a network would.
async fn carry(mut client: TcpStream, control: Arc<Control>) {
    if control.down.load(Relaxed) {
        return reset(client);
    }
    let Some(request) = read_request(&mut client).await else { return };
    if let Some(answer) = control.chosen_answer(&request) {
        if client.write_all(&answer).await.is_ok() {
            client.shutdown().await.unwrap_or_default();
        }
        return;
    }
    loop {
        match control.fault_of_path(&request) {
            Some(PathFault::Refused) => return answer_with(client, 503).await,
            Some(PathFault::Held) => tokio::time::sleep(HELD_POLL).await,
            None => break,
        }
    }
    let fault = control.next_fault();
    match fault {
        Some(Fault::Refused(status)) => return answer_with(client, status).await,
        Some(Fault::Late) => tokio::time::sleep(LATE).await,
        _ => {}
    }
    let Some(answer) = ask(control.target, &request).await else { return reset(client) };
    match fault {
        Some(Fault::DoneAndDenied) => answer_with(client, 500).await,
        Some(Fault::Cut) => {
            let half = &answer[..answer.len() / 2];
            if client.write_all(half).await.is_ok() && client.flush().await.is_ok() {
                reset(client);
            }
        }
        _ => {
            if client.write_all(&answer).await.is_ok() {
                // A failed shutdown does no harm: the client has the whole answer.
                client.shutdown().await.unwrap_or_default();
            }
        }
    }
}

/// Reads a request with its body, and adds `connection: close` to its head.
async fn read_request(client: &mut TcpStream) -> Option<Vec<u8>> {
    let mut request = Vec::new();
    let head_end = loop {
        if let Some(at) = request.windows(4).position(|four| four == b"\r\n\r\n") {
            break at;
        }
        if request.len() > MAX_HEAD_BYTES || client.read_buf(&mut request).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8_lossy(&request[..head_end]).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    let length: usize = length.map_or(Some(0), |length| length.trim().parse().ok())?;
    while request.len() < head_end + 4 + length {
        if client.read_buf(&mut request).await.ok()? == 0 {
            return None;
        }
    }
    request.splice(head_end..head_end, *b"\r\nconnection: close");
    Some(request)
}

async fn ask(target: u16, request: &[u8]) -> Option<Vec<u8>> {
    let mut server = TcpStream::connect((Ipv4Addr::LOCALHOST, target)).await.ok()?;
    server.write_all(request).await.ok()?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer).await.ok()?;
    Some(answer)
}

async fn answer_with(mut client: TcpStream, status: u16) {
    let (reason, code) = match status {
        503 => ("Service Unavailable", "SlowDown"),
        _ => ("Internal Server Error", "InternalError"),
    };
    let body = format!("<Error><Code>{code}</Code><Message>made for a test</Message></Error>");
    let answer = format!(
        "HTTP/1.1 {status} {reason}\r\ncontent-type: application/xml\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n{body}",
        body.len()
    );
    if client.write_all(answer.as_bytes()).await.is_ok() {
        client.shutdown().await.unwrap_or_default();
    }
}
