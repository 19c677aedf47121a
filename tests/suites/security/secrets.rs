//! Runs all commands, with and without faults, and asserts that no output, object or message shows
//! a secret.

use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine;
use base64::prelude::BASE64_STANDARD_NO_PAD;
use camshaft_tests::broker::Broker;
use camshaft_tests::images::files_below;
use camshaft_tests::programs::{camshaft, run, worker};
use camshaft_tests::s3::{ACCESS_KEY, S3Server, SECRET_KEY};
use camshaft_tests::small_run::SmallRun;
use camshaft_tests::tls::Identity;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::messages::{Raw, with};

const WRONG_PASSWORD: &str = "wr0ng/p@ssword";
const WRONG_SECRET_KEY: &str = "wr0ng/s3cret+k3y";
const SESSION_TOKEN: &str = "s3ssion/t0ken+value";
const HUB_TOKEN: &str = "hf_t0ken_that_must_n0t_show";
const ENDPOINT_PASSWORD: &str = "endp0int-passw0rd";

/// The texts as which a secret may appear.
fn forms(secret: &str) -> Vec<String> {
    let encoded = utf8_percent_encode(secret, NON_ALPHANUMERIC).to_string();
    let bytes: Vec<_> = secret.bytes().map(|byte| byte.to_string()).collect();
    let mut forms = vec![
        secret.to_owned(),
        encoded.to_lowercase(),
        encoded,
        secret.replace('/', "%2F").replace('@', "%40"),
        bytes.join(", "),
    ];
    // Base64 of a longer text that contains the secret, for each offset modulo 3. The first and
    // last characters are cut off: they depend on the text around the secret.
    for before in 0..3 {
        let encoded = BASE64_STANDARD_NO_PAD.encode(format!("{}{secret}", "-".repeat(before)));
        forms.push(encoded[4..encoded.len() - 4].to_owned());
    }
    forms
}

/// A line for each secret that a text shows, with the text before it.
fn shown(secrets: &[String], what: &str, text: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(text);
    let mut found = Vec::new();
    for secret in secrets {
        for form in forms(secret) {
            if let Some(at) = text.find(&form) {
                let line: String =
                    text[..at].rsplit('\n').next().unwrap_or_default().chars().take(200).collect();
                found.push(format!("{what} shows {secret:?} as {form:?}: {line}"));
            }
        }
    }
    found
}

/// The programs' output, with the command of each.
#[derive(Default)]
struct Printed(Vec<(String, String)>);

impl Printed {
    /// Runs a command once with each log format, and keeps its output.
    fn run(&mut self, status: i32, mut command: impl FnMut() -> Command) {
        for format in ["human", "json"] {
            let mut command = command();
            let name = format!("{:?}", command.get_args().next());
            command.args(["--log", "trace", "--log-format", format]);
            let ended = run(&mut command).expect(status);
            self.0.push((name, format!("{}\n{}", ended.stdout, ended.stderr)));
        }
    }
}

/// A run over TLS to the broker and with keys to the store.
struct Run {
    url: String,
    wrong_url: String,
    ca: PathBuf,
    client: Identity,
    small: SmallRun,
}

const SOURCE: &str = "s3://secrets/images";
const OUT: &str = "s3://secrets/out";

impl Run {
    fn new(broker: &Broker, server: &S3Server, plain_url: &str) -> Self {
        let wrong = broker.url_of(broker.user(), WRONG_PASSWORD, "test-0");
        let small = SmallRun::new(3);
        server.upload(&small.source, SOURCE);
        Self {
            url: broker.with_tls(plain_url),
            wrong_url: broker.with_tls(&wrong),
            ca: broker.authority().file(),
            client: broker.client(),
            small,
        }
    }

    fn with_broker(&self, command: Command, url: &str) -> Command {
        let mut command = with_stores(command);
        command.env("CAMSHAFT_BROKER", url).arg("--broker-ca").arg(&self.ca);
        command.arg("--broker-cert").arg(&self.client.certificate);
        command.arg("--broker-key").arg(&self.client.key);
        command
    }

    fn enqueue(&self, url: &str, model: &Path) -> Command {
        let mut command = camshaft(["enqueue", SOURCE, "--out", OUT, "--only", "all"]);
        command.arg("--model").arg(model);
        self.with_broker(command, url)
    }

    fn work(&self, url: &str) -> Command {
        self.with_broker(worker(["--exit-when-idle", "1"]), url)
    }

    fn status(&self, url: &str) -> Command {
        self.with_broker(camshaft(["status", OUT]), url)
    }

    /// The secrets that must not appear.
    fn secrets(&self, broker: &Broker) -> Vec<String> {
        let known = [broker.password(), WRONG_PASSWORD, SECRET_KEY, WRONG_SECRET_KEY];
        let known = known.into_iter().chain([SESSION_TOKEN, HUB_TOKEN, ENDPOINT_PASSWORD]);
        let mut secrets: Vec<_> = known.map(str::to_owned).collect();
        let key = std::fs::read_to_string(&self.client.key).unwrap();
        secrets.extend(key.lines().filter(|line| !line.starts_with("---")).map(str::to_owned));
        secrets
    }
}

fn with_stores(mut command: Command) -> Command {
    command.envs(S3Server::s3s_fs().variables()).env("HF_TOKEN", HUB_TOKEN);
    command.env("AWS_SESSION_TOKEN", SESSION_TOKEN);
    command
}

fn audit() -> Command {
    with_stores(camshaft(["audit", SOURCE, "--out", "s3://secrets/audit"]))
}

/// Runs each command with and without faults. Dead letters are left in the queue.
fn print_all(run: &Run, raw: &Raw) -> Printed {
    let Run { url, wrong_url, small, .. } = run;
    let mut printed = Printed::default();
    printed.run(0, || run.enqueue(url, &small.model));
    let jobs = raw.take_jobs();
    for job in &jobs {
        raw.publish(job);
    }
    raw.publish(&with(&jobs[0], "out", "s3://secrets-elsewhere/out"));
    raw.publish(&with(&jobs[0], "key", "../x"));
    printed.run(0, || run.work(url));
    printed.run(0, || run.status(url));
    printed.run(0, || run.with_broker(camshaft(["redrive"]), url));
    printed.run(1, || run.enqueue(wrong_url, &small.model));
    printed.run(1, || run.enqueue(url, Path::new("hf:no/such-model")));
    printed.run(1, || run.work(wrong_url));
    printed.run(1, || run.status(wrong_url));
    printed.run(0, audit);
    printed.run(1, || {
        let mut command = audit();
        command.env("AWS_SECRET_ACCESS_KEY", WRONG_SECRET_KEY);
        command
    });
    printed.run(0, || {
        let port = S3Server::s3s_fs().port();
        let mut command = audit();
        command.env("AWS_ENDPOINT_URL", format!("http://me:{ENDPOINT_PASSWORD}@127.0.0.1:{port}"));
        command
    });
    let home = small.directory.path();
    let keys = format!(
        "[default]\naws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {SECRET_KEY}\n\
         aws_session_token = {SESSION_TOKEN}\n"
    );
    std::fs::create_dir(home.join(".aws")).unwrap();
    std::fs::write(home.join(".aws/credentials"), keys).unwrap();
    printed.run(0, || {
        let mut command = audit();
        for variable in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"] {
            command.env_remove(variable);
        }
        command.env("HOME", home);
        command
    });
    printed
}

#[test]
fn no_output_object_or_message_shows_a_secret() {
    let (broker, server) = (Broker::shared(), S3Server::s3s_fs());
    server.make_bucket("secrets");
    let plain_url = broker.url();
    let run = Run::new(broker, server, &plain_url);
    let raw = Raw::connect(&plain_url);
    let printed = print_all(&run, &raw);

    let secrets = run.secrets(broker);
    let mut found = Vec::new();
    for (what, text) in &printed.0 {
        assert!(text.contains("TRACE"), "{what} traced nothing");
        found.extend(shown(&secrets, what, text.as_bytes()));
    }
    let objects = files_below(&server.bucket_folder("secrets"));
    assert!(objects.iter().any(|object| object.ends_with("run.json")));
    for object in objects {
        let content = std::fs::read(&object).unwrap();
        found.extend(shown(&secrets, &object.display().to_string(), &content));
    }
    let mut messages = 0;
    for queue in ["jobs", "dead", "retry.2", "retry.10"] {
        for message in raw.take(queue) {
            messages += 1;
            let properties = format!("{:?}", message.delivery.properties);
            found.extend(shown(&secrets, "a message's properties", properties.as_bytes()));
            found.extend(shown(&secrets, "a message", &message.delivery.data));
        }
    }
    assert!(messages > 0, "there was no message to look at");
    assert!(found.is_empty(), "{found:#?}");
}
