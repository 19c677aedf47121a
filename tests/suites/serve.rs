//! Tests `camshaft serve`: what it answers and to whom, and that decisions of several browsers are in OUT.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use camshaft_tests::programs::{Running, camshaft, camshaft_with_report, run};
use camshaft_tests::repository;
use camshaft_tests::s3::S3Server;
use camshaft_tests::small_run::SmallRun;
use camshaft_tests::wait::until;
use serde_json::Value;
use tempfile::tempdir;

use crate::report::duckdb;

/// A report that is served.
pub(crate) struct Served {
    pub(crate) program: Running,
    pub(crate) url: String,
    host: String,
    cookie: String,
}

impl Served {
    pub(crate) fn start(out: &str, variables: &[(String, String)]) -> Self {
        let mut command = camshaft(["serve", "--no-open", out]);
        let program = Running::start(command.envs(variables.iter().cloned()));
        let url = || {
            let [printed, _] = program.output();
            let word = printed.split_whitespace().find(|word| word.starts_with("http://"))?;
            Some(word.to_owned())
        };
        until("the address is printed", Duration::from_secs(20), || url().is_some());
        let url = url().unwrap();
        let (host, token) = url.strip_prefix("http://").unwrap().split_once("/?token=").unwrap();
        let port = host.split_once(':').unwrap().1;
        let cookie = format!("camshaft-{port}={token}");
        Self { program, host: host.to_owned(), cookie, url }
    }

    /// The status and the rest of the answer to a request with these lines in its head.
    fn ask(&self, line: &str, head: &[(&str, &str)], body: &str) -> (u16, String) {
        let mut request = format!("{line} HTTP/1.1\r\nconnection: close\r\n");
        for (name, value) in head {
            request += &format!("{name}: {value}\r\n");
        }
        request += &format!("content-length: {}\r\n\r\n{body}", body.len());
        let port = self.host.split_once(':').unwrap().1.parse().unwrap();
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
        (status.unwrap_or_else(|| panic!("no status: {answer}")), answer)
    }

    /// As [`Self::ask`], as the page asks.
    fn get(&self, path: &str) -> (u16, String) {
        let head = [("host", &*self.host), ("cookie", &*self.cookie)];
        self.ask(&format!("GET {path}"), &head, "")
    }

    fn post(&self, body: &str) -> (u16, String) {
        let origin = format!("http://{}", self.host);
        let head = [("host", &*self.host), ("cookie", &*self.cookie), ("origin", &*origin)];
        self.ask("POST /decisions", &head, body)
    }
}

/// A run with a report, its images apart from OUT and beside a secret.
fn small_report() -> SmallRun {
    let small = SmallRun::new(4);
    let _audited = small.audit(&[]).expect(0);
    let _reported = run(camshaft(["report"]).arg(&small.out)).expect(0);
    std::fs::write(small.source.join("secret.txt"), "secret").unwrap();
    std::fs::write(small.out.join("secret.txt"), "secret").unwrap();
    small
}

#[test]
fn nothing_but_the_report_is_served_and_to_nobody_without_the_token() {
    let small = small_report();
    let served = Served::start(small.out.to_str().unwrap(), &[]);
    let (host, cookie) = (&*served.host, &*served.cookie);
    let (status, page) = served.get("/report/index.html");
    assert_eq!(status, 200);
    assert!(page.contains("camshaft-served") && page.contains("frame-ancestors 'none'"), "{page}");
    let key = &small.keys[0];
    let (status, image) = served.get(&format!("/originals/{key}"));
    assert!(status == 200 && image.contains("content-type: image/"), "{image}");
    assert_eq!(served.get(&format!("/predictions/{key}.json")).0, 200);

    for path in [
        "/run.json",
        "/secret.txt",
        "/decisions/../run.json",
        "/report/../secret.txt",
        "/report/%2e%2e/secret.txt",
        "/report/..%2fsecret.txt",
        "/overlays/..%5c..%5csecret.txt",
        "/overlays//etc/passwd",
        "/originals/secret.txt",
        "/originals/../out/secret.txt",
        "/originals/%2e%2e/out/secret.txt",
        "/originals/%2Fetc%2Fpasswd",
        "/originals/",
        "/report",
        "/report/%00",
        "//etc/passwd",
    ] {
        let (status, answer) = served.get(path);
        assert!(status == 404 && !answer.ends_with("secret"), "{path}: {answer}");
    }

    let page = "GET /report/index.html";
    let stale = format!("{}0", &cookie[..cookie.len() - 1]);
    let origin = format!("http://{host}");
    let refused: &[&[(&str, &str)]] = &[
        &[("host", host)],
        &[("host", host), ("cookie", "camshaft=1")],
        &[("host", "evil.example"), ("cookie", cookie)],
        &[("host", "evil.example:80"), ("cookie", cookie)],
        &[("cookie", cookie)],
        &[("host", host), ("cookie", cookie), ("origin", "http://evil.example")],
        &[("host", host), ("cookie", cookie), ("sec-fetch-site", "cross-site")],
    ];
    for head in refused {
        let (status, answer) = served.ask(page, head, "");
        assert!([400, 403].contains(&status), "{head:?}: {answer}");
    }
    if stale != cookie {
        assert_eq!(served.ask(page, &[("host", host), ("cookie", &stale)], "").0, 403);
    }
    let line = decision(key, "drop", None);
    for head in [
        &[("host", host), ("origin", &*origin)][..],
        &[("host", host), ("cookie", cookie), ("origin", "null")],
        &[("host", host), ("cookie", cookie), ("origin", "https://evil.example")],
    ] {
        assert_eq!(served.ask("POST /decisions", head, &line).0, 403, "{head:?}");
    }
    assert_eq!(served.ask("GET /?token=1", &[("host", host)], "").0, 403);
    let (status, first) = served.ask(
        &format!("GET /{}", &served.url[served.url.find('?').unwrap()..]),
        &[("host", host)],
        "",
    );
    assert!(status == 303 && first.contains("HttpOnly; SameSite=Strict"), "{first}");
    assert_eq!(served.ask("DELETE /decisions", &[("host", host), ("cookie", cookie)], "").0, 405);
    assert!(!small.out.join("decisions").exists(), "nothing was decided");
}

#[test]
fn similar_images_are_told_to_the_page_alone() {
    let small = small_report();
    let served = Served::start(small.out.to_str().unwrap(), &[]);
    let key = &small.keys[0];
    let (status, answer) = served.get(&format!("/similar?key={key}"));
    assert!(status == 200 && answer.contains("content-type: application/json"), "{answer}");
    let body = answer.split_once("\r\n\r\n").unwrap().1;
    let similar: Vec<Value> = serde_json::from_str(body).unwrap();
    let mut keys: Vec<_> = similar.iter().map(|image| image["key"].as_str().unwrap()).collect();
    keys.sort_unstable();
    let mut others: Vec<_> = small.keys[1..].iter().map(String::as_str).collect();
    others.sort_unstable();
    assert_eq!(keys, others, "all other images, and not itself");
    let cosines: Vec<_> = similar.iter().map(|one| one["similarity"].as_f64().unwrap()).collect();
    assert!(cosines.is_sorted_by(|a, b| a >= b), "{cosines:?}");
    assert!(cosines.iter().all(|cosine| cosine.abs() <= 1.0 + 1e-6), "{cosines:?}");

    assert_eq!(served.get("/similar?key=no/such.jpg").0, 404);
    assert_eq!(served.get("/similar").0, 400);
    let (host, cookie) = (&*served.host, &*served.cookie);
    let question = format!("GET /similar?key={key}");
    for head in [
        &[("host", host)][..],
        &[("host", "evil.example"), ("cookie", cookie)],
        &[("host", host), ("cookie", cookie), ("origin", "http://evil.example")],
        &[("host", host), ("cookie", cookie), ("sec-fetch-site", "cross-site")],
    ] {
        assert_eq!(served.ask(&question, head, "").0, 403, "{head:?}");
    }
}

fn decision(key: &str, decision: &str, label: Option<&str>) -> String {
    let label = label.map_or_else(String::new, |label| format!(r#""label":"{label}","#));
    format!(
        r#"{{"schema":1,"key":"{key}","decision":"{decision}",{label}"by":"ana","at":"2026-11-29T07:00:00.123Z"}}"#
    ) + "\n"
}

#[test]
fn decisions_are_written_at_once_and_those_of_others_are_told() {
    let small = small_report();
    let served = Served::start(small.out.to_str().unwrap(), &[]);
    let [first, second] = [&small.keys[0], &small.keys[1]];
    assert_eq!(served.post(&decision(first, "drop", None)).0, 204);
    let parts = || camshaft_tests::images::files_below(&small.out.join("decisions")).len();
    assert_eq!(parts(), 1);
    let (status, answer) =
        served.post(&(decision(second, "keep", None) + "{\"schema\":1,\"key\":\"\"}\n"));
    assert!(status == 400 && answer.contains("line 2"), "{answer}");
    assert_eq!(parts(), 1, "all or none");
    let (_, told) = served.get("/decisions?known=0");
    assert!(told.contains(first.as_str()) && told.contains("camshaft-known: 1"), "{told}");
    let (_, told) = served.get("/decisions?known=1");
    assert!(!told.contains(first.as_str()), "{told}");

    // Another program decides.
    let file = small.directory.path().join("decisions.jsonl");
    std::fs::write(&file, decision(second, "relabel", Some("even"))).unwrap();
    let _decided = run(camshaft(["decide"]).arg(&small.out).arg("--import").arg(&file)).expect(0);
    until("it is told", Duration::from_secs(10), || {
        served.get("/decisions?known=1").1.contains(second.as_str())
    });
    served.program.signal("TERM");
    until("it has ended", Duration::from_secs(10), || {
        served.program.output()[0].contains("2 images decided")
    });
    let rows = duckdb(&small.out, "SELECT key, decision FROM '{out}/decisions.parquet'");
    assert_eq!(rows.len(), 2);
}

#[test]
fn thumbnails_and_samples_are_there_when_they_are_asked_for() {
    let small = SmallRun::new(4);
    let _audited = small.audit(&[]).expect(0);
    let _reported = run(camshaft(["report", "--thumbnails", "0"]).arg(&small.out)).expect(0);
    let served = Served::start(small.out.to_str().unwrap(), &[]);
    let path = format!("report/thumbnails/image/{}.jpg", small.keys[0]);
    assert!(!small.out.join(&path).exists());
    let (status, thumbnail) = served.get(&format!("/{path}"));
    assert!(status == 200 && thumbnail.contains("content-type: image/jpeg"), "{thumbnail}");
    assert!(image::open(small.out.join(&path)).unwrap().width() <= 320);
    for path in ["secret.txt.jpg", "absent.jpg", "../../../run.json.jpg", ".jpg"] {
        let (status, answer) = served.get(&format!("/report/thumbnails/image/{path}"));
        assert_eq!(status, 404, "{path}: {answer}");
    }
    assert!(served.get("/samples").1.ends_with("[]"));
    let sample = ["--sample", "3", "--of", "no-outlier"];
    let drawn = run(camshaft(["decide"]).arg(&small.out).args(sample)).expect(0);
    assert!(drawn.stdout.contains("#images?sample=no-outlier"), "{}", drawn.stdout);
    let samples = served.get("/samples").1;
    assert!(samples.contains(r#""kind":"no-outlier""#), "{samples}");
}

#[test]
fn what_cannot_be_served_is_said() {
    let small = SmallRun::new(2);
    let nothing = run(camshaft(["serve", "--no-open"]).arg(&small.out));
    nothing.expect_one_line(&["holds no run"]);
    let _audited = small.audit(&[]).expect(0);
    let nothing = run(camshaft(["serve", "--no-open"]).arg(&small.out));
    nothing.expect_one_line(&["has no report", "camshaft report"]);
    let _reported = run(camshaft(["report"]).arg(&small.out)).expect(0);
    let served = Served::start(small.out.to_str().unwrap(), &[]);
    let port = served.host.split_once(':').unwrap().1;
    let taken = run(camshaft(["serve", "--no-open", "--port", port]).arg(&small.out));
    taken.expect_one_line(&["cannot listen on port", "--port"]);
}

#[test]
fn two_browsers_clean_the_sample_photos_and_the_list_has_what_they_left() {
    let directory = tempdir().unwrap();
    let out = directory.path().join("out");
    let mut audit = camshaft_with_report(["audit"]);
    let _audited = run(audit.arg(repository::photos()).arg("--out").arg(&out)).expect(0);
    let begun = Instant::now();
    let served = Served::start(out.to_str().unwrap(), &[]);
    assert!(begun.elapsed() < Duration::from_secs(2), "it starts at once: {:?}", begun.elapsed());
    let mut browser = Command::new(repository::tool("venv/bin/python"));
    let script = repository::root().join("tests/browser/served_page.py");
    let sample = ["--sample", "7", "--of", "no-label-error"];
    let _drawn = run(camshaft(["decide"]).arg(&out).args(sample)).expect(0);
    let sizes = ["no-label-error=7"];
    let seen = run(browser.arg(script).arg(&served.url).args(sizes)).expect(0);
    let wanted: Value = serde_json::from_str(seen.stdout.trim()).unwrap();
    let wanted = wanted.as_object().unwrap();
    assert_eq!(wanted.len(), 3);
    served.program.signal("INT");
    until("it has ended", Duration::from_secs(10), || {
        served.program.output()[0].contains("3 images decided")
    });

    let list = directory.path().join("clean.csv");
    let _applied = run(camshaft(["apply"]).arg(&out).arg("--to").arg(&list)).expect(0);
    let list = std::fs::read_to_string(&list).unwrap();
    for (key, choice) in wanted {
        let line = list.lines().find(|line| line.starts_with(&format!("{key},")));
        match choice[0].as_str().unwrap() {
            "drop" => assert_eq!(line, None, "{key}"),
            "keep" => assert!(line.is_some(), "{key}"),
            _ => {
                let label = choice[1].as_str().unwrap();
                assert!(line.is_some_and(|line| line.contains(&format!(",{label}"))), "{line:?}");
            }
        }
    }
    let rows = duckdb(&out, r#"SELECT DISTINCT "by" FROM '{out}/decisions.parquet' ORDER BY "by""#);
    let by: Vec<_> = rows.iter().map(|row| row["by"].as_str().unwrap()).collect();
    assert_eq!(by, ["ana", "ben"]);
}

#[test]
fn a_report_in_a_private_bucket_is_served_and_decisions_go_there() {
    let small = small_report();
    let server = S3Server::s3s_fs();
    server.make_bucket("served");
    let out = "s3://served/audit";
    let variables = server.variables();
    let of = |mut command: Command| run(command.envs(variables.clone())).expect(0);
    let mut audit = camshaft_with_report(["audit", "--out", out]);
    audit.arg(&small.source).arg("--model").arg(&small.model);
    let _audited = of(audit);
    let served = Served::start(out, &variables);
    assert_eq!(served.get("/report/index.html").0, 200);
    assert_eq!(served.get(&format!("/originals/{}", small.keys[0])).0, 200);
    assert_eq!(served.post(&decision(&small.keys[0], "drop", None)).0, 204);
    until("it is told", Duration::from_secs(10), || {
        served.get("/decisions").1.contains(small.keys[0].as_str())
    });
    for printed in served.program.output() {
        for (_, secret) in variables.iter().filter(|(name, _)| name.ends_with("_KEY")) {
            assert!(!printed.contains(secret.as_str()));
        }
    }
}
