//! A whole run, with everything that can fail failing, shows no secret anywhere.

use std::path::PathBuf;
use std::process::Command;

use base64::Engine;
use base64::prelude::BASE64_STANDARD_NO_PAD;
use camshaft_tests::broker::Broker;
use camshaft_tests::images::files_below;
use camshaft_tests::programs::{camshaft, run, worker};
use camshaft_tests::s3::{S3Server, SECRET_KEY};
use camshaft_tests::small_run::SmallRun;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::messages::{Raw, with};

const WRONG_PASSWORD: &str = "wr0ng/p@ssword";
const WRONG_SECRET_KEY: &str = "wr0ng/s3cret+k3y";
const SESSION_TOKEN: &str = "s3ssion/t0ken+value";
const HUB_TOKEN: &str = "hf_t0ken_that_must_n0t_show";

/// The ways a secret may be written down.
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
    // Wherever in a longer text it stands when that is encoded, less what its neighbours change.
    for before in 0..3 {
        let encoded = BASE64_STANDARD_NO_PAD.encode(format!("{}{secret}", "-".repeat(before)));
        forms.push(encoded[4..encoded.len() - 4].to_owned());
    }
    forms
}

fn assert_shows_none(secrets: &[String], what: &str, shown: &[u8]) {
    let shown = String::from_utf8_lossy(shown);
    for secret in secrets {
        for form in forms(secret) {
            if let Some(at) = shown.find(&form) {
                let line = shown[..at].rsplit('\n').next().unwrap_or_default();
                panic!("{what} shows {secret:?} as {form:?}, after: {line}");
            }
        }
    }
}

/// Everything the programs print, and what they were run for.
#[derive(Default)]
struct Printed(Vec<(String, String)>);

impl Printed {
    /// Runs a command once for each log format.
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

#[test]
fn no_output_object_or_message_shows_a_secret() {
    let (broker, server) = (Broker::shared(), S3Server::s3s_fs());
    server.make_bucket("secrets");
    let small = SmallRun::new(3);
    let (source, out) = ("s3://secrets/images", "s3://secrets/out");
    server.upload(&small.source, source);
    let plain = broker.url();
    let url = broker.with_tls(&plain);
    let (ca, client) = (broker.authority().file(), broker.client());
    let wrong_url = broker.with_tls(&broker.url_of(broker.user(), WRONG_PASSWORD, "test-0"));
    let with_stores = |mut command: Command| {
        command.envs(server.variables()).env("HF_TOKEN", HUB_TOKEN);
        command.env("AWS_SESSION_TOKEN", SESSION_TOKEN);
        command
    };
    let with_broker = |command: Command, url: &str| {
        let mut command = with_stores(command);
        command.env("CAMSHAFT_BROKER", url).arg("--broker-ca").arg(&ca);
        command.arg("--broker-cert").arg(&client.certificate).arg("--broker-key").arg(&client.key);
        command
    };
    let enqueue = |url: &str, model: PathBuf| {
        let mut command = camshaft(["enqueue", source, "--out", out, "--only", "all"]);
        command.arg("--model").arg(model);
        with_broker(command, url)
    };
    let work = |url: &str| with_broker(worker(["--exit-when-idle", "1"]), url);

    let mut printed = Printed::default();
    printed.run(0, || enqueue(&url, small.model.clone()));
    let raw = Raw::connect(&plain);
    let jobs = raw.take_jobs();
    for job in &jobs {
        raw.publish(job);
    }
    raw.publish(&with(&jobs[0], "out", "s3://no-such-bucket/out"));
    raw.publish(&with(&jobs[0], "key", "../x"));
    printed.run(0, || work(&url));
    printed.run(0, || with_broker(camshaft(["status", out]), &url));
    printed.run(0, || with_broker(camshaft(["redrive"]), &url));
    printed.run(1, || enqueue(&wrong_url, small.model.clone()));
    printed.run(1, || enqueue(&url, "hf:no/such-model".into()));
    printed.run(1, || work(&wrong_url));
    printed.run(1, || with_broker(camshaft(["status", out]), &wrong_url));
    let audit = || with_stores(camshaft(["audit", source, "--out", "s3://secrets/audit"]));
    printed.run(0, audit);
    printed.run(1, || {
        let mut command = audit();
        command.env("AWS_SECRET_ACCESS_KEY", WRONG_SECRET_KEY);
        command
    });

    let key = std::fs::read_to_string(&client.key).unwrap();
    let mut secrets: Vec<_> = [broker.password(), WRONG_PASSWORD, SECRET_KEY, WRONG_SECRET_KEY]
        .into_iter()
        .chain([SESSION_TOKEN, HUB_TOKEN])
        .map(str::to_owned)
        .collect();
    secrets.extend(key.lines().filter(|line| !line.starts_with("---")).map(str::to_owned));
    for (what, text) in &printed.0 {
        assert!(text.contains("TRACE"), "{what} traced nothing");
        assert_shows_none(&secrets, what, text.as_bytes());
    }
    let objects = files_below(&server.bucket_folder("secrets"));
    assert!(objects.iter().any(|object| object.ends_with("run.json")));
    for object in objects {
        assert_shows_none(
            &secrets,
            &object.display().to_string(),
            &std::fs::read(&object).unwrap(),
        );
    }
    let mut messages = 0;
    for queue in ["jobs", "dead", "retry.2", "retry.10"] {
        for message in raw.take(queue) {
            messages += 1;
            let properties = format!("{:?}", message.delivery.properties);
            assert_shows_none(&secrets, "a message's properties", properties.as_bytes());
            assert_shows_none(&secrets, "a message", &message.delivery.data);
        }
    }
    assert!(messages > 0, "there was no message to look at");
}
