//! TLS to the broker and to the store, with a private certificate authority, and the messages if it
//! fails.

use std::ffi::OsStr;
use std::process::Command;

use camshaft_tests::broker::Broker;
use camshaft_tests::programs::{Ended, camshaft, run, worker};
use camshaft_tests::s3::S3Server;
use camshaft_tests::small_run::SmallRun;
use camshaft_tests::tls::{Authority, Identity, TlsRelay};
use camshaft_tests::{repository, results};
use tempfile::tempdir;

fn trusting<'c>(command: &'c mut Command, authority: &Authority) -> &'c mut Command {
    command.arg("--broker-ca").arg(authority.file())
}

fn with_identity<'c>(command: &'c mut Command, identity: &Identity) -> &'c mut Command {
    command.arg("--broker-cert").arg(&identity.certificate).arg("--broker-key").arg(&identity.key)
}

#[test]
fn a_run_over_tls_with_a_private_authority_and_a_client_certificate_succeeds() {
    let (broker, server) = (Broker::shared(), S3Server::s3s_fs());
    let url = broker.with_tls(&broker.url());
    let stores = Authority::new();
    let relay = TlsRelay::start(&stores.issue("store"), server.port());
    let (client, authority) = (broker.client(), broker.authority());
    let small = SmallRun::new(6);
    server.make_bucket("over-tls");
    server.upload(&small.source, "s3://over-tls/images");
    let with_tls = |command: &mut Command| {
        command.envs(server.tls_variables(relay.port(), &stores.file())).args(["--broker", &url]);
        run(with_identity(trusting(command, authority), &client)).expect(0)
    };

    let mut enqueue = camshaft(["enqueue", "s3://over-tls/images", "--out", "s3://over-tls/out"]);
    let ended = with_tls(enqueue.arg("--model").arg(&small.model));
    assert!(ended.stdout.starts_with("Enqueued 6 of 6"), "{}", ended.stdout);
    let _ended = with_tls(&mut worker(["--exit-when-idle", "1"]));
    let ended = with_tls(&mut camshaft(["status", "s3://over-tls/out", "--json"]));
    let status: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!((&status["done"], &status["queued"]), (&6.into(), &0.into()), "{status}");
    results::Results::read(&server.folder("s3://over-tls/out")).assert_exactly(&small.keys);
    let redriven = with_tls(&mut camshaft(["redrive"]));
    assert!(redriven.stdout.starts_with("Moved 0"), "{}", redriven.stdout);
}

/// Asserts that `enqueue`, a worker and `status` fail with the same one line and do not try again,
/// given a broker URL and flags.
fn each_says(url: &str, flags: &[&OsStr], parts: &[&str]) {
    let small = SmallRun::new(1);
    let _audited = small.audit(&[]).expect(0);
    let (source, out) = (small.source.to_str().unwrap(), small.out.to_str().unwrap());
    let said: Vec<Ended> = [
        camshaft(["enqueue", source, "--out", out]),
        worker::<&str>([]),
        camshaft(["status", out]),
    ]
    .iter_mut()
    .map(|command| run(command.args(["--broker", url]).args(flags)))
    .collect();
    for ended in said {
        assert!(!ended.stderr.contains(Broker::shared().password()), "{}", ended.stderr);
        ended.expect_one_line(parts);
    }
}

#[test]
fn a_broker_that_cannot_be_trusted_is_refused_in_one_line() {
    let broker = Broker::shared();
    let (ours, theirs) = (broker.authority(), Authority::new());
    let (ca, other_ca) = (ours.file(), theirs.file());
    let plain = broker.url();
    let url = broker.with_tls(&plain);
    let address = broker.tls_address();
    let wrong = [OsStr::new("--broker-ca"), other_ca.as_os_str()];
    each_says(&url, &wrong, &["no TLS", &address, "authority", "--broker-ca"]);

    let right = [OsStr::new("--broker-ca"), ca.as_os_str()];
    for (identity, parts) in [
        (ours.issue_for_host("broker.example"), ["for another host name", "--broker"]),
        (ours.issue_expired("expired"), ["has expired", "renew"]),
    ] {
        let relay = TlsRelay::start(&identity, broker.port());
        let address = format!("127.0.0.1:{}", relay.port());
        let url = url.replace(&broker.tls_address(), &address);
        each_says(&url, &right, &[&address, parts[0], parts[1]]);
    }
    let not_tls = plain.replace("amqp://", "amqps://");
    each_says(&not_tls, &right, &["doesn't speak TLS", "port"]);
}

#[test]
fn a_broker_that_wants_a_client_certificate_says_so_in_one_line() {
    let broker = Broker::shared();
    let url = broker.with_tls(&broker.url());
    let ca = broker.authority().file();
    let right = [OsStr::new("--broker-ca"), ca.as_os_str()];
    each_says(&url, &right, &["client certificate", "--broker-cert and --broker-key"]);

    let strangers = Authority::new();
    let stranger = strangers.issue("stranger");
    let flags = ["--broker-cert", "--broker-key"].map(OsStr::new);
    let flags = [flags[0], stranger.certificate.as_os_str(), flags[1], stranger.key.as_os_str()];
    let flags = [&right[..], &flags].concat();
    each_says(&url, &flags, &["refused our certificate", "--broker-cert and --broker-key"]);
}

#[test]
fn files_for_tls_that_cannot_be_used_are_reported_before_connecting() {
    let broker = Broker::shared();
    let authority = broker.authority();
    let client = broker.client();
    let other = authority.issue("other");
    // No process listens there.
    let url = "amqps://user:pass@127.0.0.1:1/%2f";
    let text = |path: &std::path::Path| path.to_str().unwrap().to_owned();
    let (ca, certificate, key) =
        (text(&authority.file()), text(&client.certificate), text(&client.key));
    let other_key = text(&other.key);
    let junk = tempdir().unwrap();
    let junk = junk.path().join("junk.pem");
    std::fs::write(&junk, "-----BEGIN PRIVATE KEY-----\nh0rse-battery\n").unwrap();
    let junk = text(&junk);
    let says = |url: &str, flags: &[&str], parts: &[&str]| {
        let flags: Vec<_> = flags.iter().map(OsStr::new).collect();
        let ended = run(worker(["--broker", url]).args(&flags));
        assert!(!ended.stderr.contains("h0rse"), "{}", ended.stderr);
        ended.expect_one_line(parts);
    };
    says(url, &["--broker-ca", "/no/such.pem"], &["cannot read", " /no/such.pem: ", "--broker-ca"]);
    says(url, &["--broker-ca", &junk], &["--broker-ca", &junk, "no certificate"]);
    says(url, &["--broker-ca", &key], &["--broker-ca", &key, "no certificate"]);
    let pair = |certificate, key| ["--broker-cert", certificate, "--broker-key", key];
    says(url, &pair(&certificate, &junk), &["--broker-key", &junk, "no unencrypted private key"]);
    let ca_flag = ["--broker-ca", &ca];
    let mismatch = [&ca_flag[..], &pair(&certificate, &other_key)].concat();
    says(url, &mismatch, &[&other_key, "doesn't belong to", &certificate]);
    let plain = url.replace("amqps", "amqp");
    says(&plain, &ca_flag, &["is for amqps://", "says amqp://", "--broker-ca"]);

    // A flag without its other half is wrong usage.
    let ended = run(&mut worker(["--broker", url, "--broker-cert", &certificate])).expect(2);
    assert!(ended.stderr.contains("--broker-key"), "{}", ended.stderr);
}

#[test]
fn a_store_that_cannot_be_trusted_is_refused_in_one_line() {
    let server = S3Server::s3s_fs();
    server.make_bucket("no-trust");
    let authority = Authority::new();
    let ca = authority.file();
    let good = TlsRelay::start(&authority.issue("store"), server.port());
    let audit = |variables: [(String, String); 5]| {
        let mut command = camshaft(["audit"]);
        command.arg(repository::photos()).args(["--out", "s3://no-trust/out", "--limit", "1"]);
        run(command.envs(variables))
    };
    let _ended = audit(server.tls_variables(good.port(), &ca)).expect(0);

    let stranger = Authority::new();
    audit(server.tls_variables(good.port(), &stranger.file())).expect_one_line(&[
        "s3://no-trust/out",
        "no TLS",
        "authority",
        "AWS_CA_BUNDLE",
    ]);
    for (identity, parts) in [
        (authority.issue_for_host("s3.example"), ["for another host name", "AWS_ENDPOINT_URL"]),
        (authority.issue_expired("expired"), ["no TLS", "has expired"]),
    ] {
        let relay = TlsRelay::start(&identity, server.port());
        audit(server.tls_variables(relay.port(), &ca)).expect_one_line(&parts);
    }
    for bundle in ["/no/such.pem", "/etc/hostname"] {
        audit(server.tls_variables(good.port(), bundle.as_ref()))
            .expect_one_line(&["AWS_CA_BUNDLE", bundle]);
    }
    let mut plain = server.variables();
    plain[1].1 = "false".to_owned();
    audit(plain).expect_one_line(&["http://", "AWS_ALLOW_HTTP"]);
}
