//! Where credentials come from; what is said if they, the endpoint, the region or a queue's name are
//! wrong; and what is warned of if others share the broker.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use camshaft_tests::broker::Broker;
use camshaft_tests::jobs::Jobs;
use camshaft_tests::programs::{Running, camshaft, run, worker};
use camshaft_tests::relay::{Network, Relay};
use camshaft_tests::results::Results;
use camshaft_tests::s3::{ACCESS_KEY, S3Server, SECRET_KEY, free_port};
use camshaft_tests::s3_relay::S3Relay;
use camshaft_tests::small_run::SmallRun;
use camshaft_tests::wait;
use serde_json::json;

const LIMIT: Duration = Duration::from_secs(60);
/// What is told without waiting takes no longer, on a machine that is busy with other tests.
const AT_ONCE: Duration = Duration::from_secs(10);

/// No host has this name: RFC 2606.
const REMOTE_BROKER: &str = "amqp://user:s3cr3t@broker.invalid:5672/%2f";

/// `camshaft audit` of a folder into a bucket. Its home has no files of AWS's, unless the test writes
/// them, and no metadata service is asked.
fn audit(small: &SmallRun, out: &str) -> Command {
    let mut command = camshaft(["audit", "--out", out]);
    command.arg(&small.source).arg("--model").arg(&small.model);
    command.env("HOME", small.directory.path()).env("AWS_EC2_METADATA_DISABLED", "true");
    command
}

fn write_aws_file(small: &SmallRun, name: &str, content: &str) {
    let folder = small.directory.path().join(".aws");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join(name), content).unwrap();
}

fn local(port: u16) -> String {
    format!("http://127.0.0.1:{port}")
}

/// Runs an audit that has to succeed, and looks at its results.
fn assert_audits(small: &SmallRun, server: &S3Server, out: &str, command: &mut Command) {
    let _ended = run(command.env("AWS_ALLOW_HTTP", "true")).expect(0);
    Results::read(&server.folder(out)).assert_exactly(&small.keys);
}

#[test]
fn an_endpoint_without_a_scheme_is_told_with_the_right_one() {
    let small = SmallRun::new(1);
    for variable in ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"] {
        let mut command = audit(&small, "s3://bucket/out");
        command.env("AWS_ACCESS_KEY_ID", "x").env("AWS_SECRET_ACCESS_KEY", "y");
        run(command.env(variable, "minio:9000")).expect_one_line(&[variable, "http://minio:9000"]);
        let ended = run(command.env(variable, "user:hunter2@minio:9000"));
        assert!(!ended.stderr.contains("hunter2"), "{}", ended.stderr);
        assert!(ended.stderr.contains("write https://minio:9000"), "{}", ended.stderr);
    }
}

#[test]
fn missing_credentials_are_told_at_once_with_the_places_that_were_looked_at() {
    let small = SmallRun::new(1);
    let silent = Relay::to(free_port());
    silent.set(Network::Silent);
    let nowhere = [local(silent.port()), local(free_port())];
    let places = ["no credentials", "AWS_ACCESS_KEY_ID", "/.aws/credentials", "/.aws/config"];
    for metadata in nowhere {
        let mut command = audit(&small, "s3://bucket/out");
        command.env_remove("AWS_EC2_METADATA_DISABLED").env("AWS_METADATA_ENDPOINT", &metadata);
        let started = Instant::now();
        let parts = [&places[..], &["127.0.0.1 (machine metadata) doesn't answer"]].concat();
        run(&mut command).expect_one_line(&parts);
        assert!(started.elapsed() < AT_ONCE, "{:?}", started.elapsed());
    }
    let started = Instant::now();
    let parts = [&places[..], &["AWS_EC2_METADATA_DISABLED"]].concat();
    run(&mut audit(&small, "s3://bucket/out")).expect_one_line(&parts);
    // A listing repeats what may pass.
    let mut listing = camshaft(["audit", "s3://bucket/images", "--out"]);
    listing.arg(&small.out).arg("--model").arg(&small.model);
    listing.env("HOME", small.directory.path()).env("AWS_EC2_METADATA_DISABLED", "true");
    run(&mut listing).expect_one_line(&["s3://bucket/images", "no credentials"]);
    assert!(started.elapsed() < AT_ONCE, "{:?}", started.elapsed());
}

#[test]
fn the_credentials_of_a_machine_and_of_a_container_are_used() {
    let (small, server) = (SmallRun::new(2), S3Server::s3s_fs());
    server.make_bucket("machine-role");
    let relay = S3Relay::to(server);
    let key = json!({
        "AccessKeyId": ACCESS_KEY,
        "SecretAccessKey": SECRET_KEY,
        "Token": "t",
        "Expiration": "2099-01-01T00:00:00Z",
    });
    relay.answer("PUT /latest/api/token ", 200, &[], "token");
    relay.answer("/latest/meta-data/iam/security-credentials/ ", 200, &[], "role");
    relay.answer("/security-credentials/role ", 200, &[], &key.to_string());
    relay.answer("GET /of-container ", 200, &[], &key.to_string());

    let mut command = audit(&small, "s3://machine-role/out");
    command.env_remove("AWS_EC2_METADATA_DISABLED").env("AWS_ENDPOINT_URL", local(server.port()));
    command.env("AWS_METADATA_ENDPOINT", local(relay.port()));
    assert_audits(&small, server, "s3://machine-role/out", &mut command);

    let token = small.directory.path().join("token");
    fs::write(&token, "x").unwrap();
    let mut command = audit(&small, "s3://machine-role/container");
    command.env("AWS_ENDPOINT_URL", local(server.port()));
    let key = format!("{}/of-container", local(relay.port()));
    command.env("AWS_CONTAINER_CREDENTIALS_FULL_URI", key);
    command.env("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", token);
    assert_audits(&small, server, "s3://machine-role/container", &mut command);
}

#[test]
fn a_profile_in_the_files_of_aws_is_used() {
    let (small, server) = (SmallRun::new(2), S3Server::s3s_fs());
    server.make_bucket("profiles");
    let key = format!("aws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {SECRET_KEY}\n");
    write_aws_file(&small, "credentials", &format!("[default]\n{key}[team]\n{key}"));
    let config = format!(
        "[profile team]\nregion = us-east-1\nendpoint_url = {}\n[profile sign-on]\n\
         sso_session = company\n",
        local(server.port())
    );
    write_aws_file(&small, "config", &config);

    let mut command = audit(&small, "s3://profiles/team");
    command.env("AWS_PROFILE", "team");
    assert_audits(&small, server, "s3://profiles/team", &mut command);

    let mut command = audit(&small, "s3://profiles/default");
    command.env("AWS_ENDPOINT_URL", local(server.port()));
    assert_audits(&small, server, "s3://profiles/default", &mut command);

    let elsewhere = small.directory.path().join("keys");
    fs::rename(small.directory.path().join(".aws/credentials"), &elsewhere).unwrap();
    let mut command = audit(&small, "s3://profiles/elsewhere");
    command.env("AWS_SHARED_CREDENTIALS_FILE", &elsewhere);
    command.env("AWS_ENDPOINT_URL", local(server.port()));
    assert_audits(&small, server, "s3://profiles/elsewhere", &mut command);

    for (profile, parts) in [
        ("typo", ["no profile \"typo\"", "AWS_PROFILE"]),
        ("sign-on", ["sso_session", "aws configure export-credentials --profile \"sign-on\""]),
    ] {
        let mut command = audit(&small, "s3://profiles/none");
        let ended = run(command.env("AWS_PROFILE", profile));
        assert!(!ended.stderr.contains(SECRET_KEY), "{}", ended.stderr);
        ended.expect_one_line(&parts);
    }
}

#[test]
fn the_program_of_a_profile_gives_credentials() {
    let (small, server) = (SmallRun::new(2), S3Server::s3s_fs());
    server.make_bucket("programs");
    let key = json!({"Version": 1, "AccessKeyId": ACCESS_KEY, "SecretAccessKey": SECRET_KEY});
    fs::write(small.directory.path().join("key"), key.to_string()).unwrap();
    let config = "[profile team]\ncredential_process = cat ~/key\n[profile broken]\n\
                  credential_process = cat ~/key; echo 'log in first' >&2; exit 1\n";
    write_aws_file(&small, "config", config);
    let mut command = audit(&small, "s3://programs/out");
    command.env("AWS_PROFILE", "team").env("AWS_ENDPOINT_URL", local(server.port()));
    assert_audits(&small, server, "s3://programs/out", &mut command);

    let ended = run(audit(&small, "s3://programs/none").env("AWS_PROFILE", "broken"));
    assert!(!ended.stderr.contains(SECRET_KEY), "{}", ended.stderr);
    ended.expect_one_line(&["credential_process", "\"broken\"", "log in first"]);
}

#[test]
fn a_wrong_region_names_the_right_one() {
    let (small, server) = (SmallRun::new(1), S3Server::s3s_fs());
    let relay = S3Relay::to(server);
    let audit = || {
        let mut command = audit(&small, "s3://wrong-region/out");
        run(command.envs(relay.variables(server)))
    };
    let parts = ["in the region eu-central-1", "AWS_REGION=eu-central-1"];
    relay.answer("/wrong-region", 301, &["x-amz-bucket-region: eu-central-1"], "");
    audit().expect_one_line(&parts);
    let malformed = "<Error><Code>AuthorizationHeaderMalformed</Code><Message>the region \
                     'us-east-1' is wrong; expecting 'eu-central-1'</Message>\
                     <Region>eu-central-1</Region></Error>";
    relay.answer("/wrong-region", 400, &["content-type: application/xml"], malformed);
    audit().expect_one_line(&parts);
}

#[test]
fn a_password_in_a_place_is_not_quoted() {
    for place in ["s3://key:hunter2@bucket/x", "http://user:hunter2@host/x"] {
        for arguments in [["audit", place, "--out", "/tmp/x"], ["audit", "/tmp", "--out", place]] {
            let ended = run(&mut camshaft(arguments)).expect(2);
            assert!(!ended.stderr.contains("hunter2"), "{}", ended.stderr);
            assert!(ended.stderr.contains("://…@"), "{}", ended.stderr);
        }
    }
}

#[test]
fn a_queue_that_is_not_there_is_told_and_not_created() {
    let small = SmallRun::new(1);
    let broker = Broker::shared().url();
    small.enqueue(&broker, &[]);
    let status = |more: &[&str]| {
        let mut command = camshaft(["status", "--broker", &broker]);
        run(command.arg(&small.out).args(more))
    };
    let typo = ["--queue", "typo"];
    let said = ["no queue typo.jobs", "(--queue)"];
    status(&typo).expect_one_line(&said);
    run(camshaft(["redrive", "--broker", &broker]).args(typo)).expect_one_line(&said);
    // Other delays have other queues, in which nothing waits.
    let ended = status(&["--retry-delays", "7,8", "--json"]).expect(0);
    let numbers: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!((&numbers["queued"], &numbers["retrying"]), (&1.into(), &0.into()), "{numbers}");
    let redriven = run(&mut camshaft(["redrive", "--broker", &broker])).expect(0);
    assert!(redriven.stdout.starts_with("Moved 0"), "{}", redriven.stdout);

    let jobs = Jobs::at(&broker);
    for queue in ["typo.jobs", "typo.suspects", "typo.dead", "typo.retry.2", "camshaft.retry.7"] {
        assert_eq!(jobs.count(queue), None, "{queue}");
    }
    assert_eq!(jobs.count("camshaft.jobs"), Some(1));
}

/// What a program has written to standard error once it contains `part`.
fn warnings(command: &mut Command, part: &str) -> String {
    let running = Running::start(command);
    wait::until(part, LIMIT, || running.output()[1].contains(part));
    let [_, stderr] = running.output();
    assert!(!stderr.contains("s3cr3t"), "{stderr}");
    stderr
}

#[test]
fn a_worker_of_a_shared_broker_warns_that_jobs_may_name_any_place() {
    let warning = "jobs may name any place";
    let mut command = worker(["--broker", REMOTE_BROKER]);
    let warned = warnings(&mut command, warning);
    assert!(warned.contains("--allow"), "{warned}");
    let mut command = worker(["--broker", REMOTE_BROKER, "--allow", "/tmp"]);
    let other = warnings(&mut command, "broker not reachable");
    assert!(!other.contains(warning), "{other}");
    let here = format!("amqp://user:s3cr3t@127.0.0.1:{}/%2f", free_port());
    let other = warnings(&mut worker(["--broker", &here]), "broker not reachable");
    assert!(!other.contains(warning), "{other}");
}

#[test]
fn an_enqueue_of_files_to_a_shared_broker_warns_that_workers_need_the_same_paths() {
    let small = SmallRun::new(1);
    let enqueue = |source: &Path, out: &Path| {
        let mut command = camshaft(["enqueue", "--broker", REMOTE_BROKER, "--out"]);
        command.arg(out).arg(source).arg("--model").arg(&small.model);
        command
    };
    let warning = "must see the same paths";
    let warned = warnings(&mut enqueue(&small.source, &small.out), warning);
    assert!(warned.contains("SOURCE, OUT, model"), "{warned}");
    let out = Path::new("s3://bucket/out");
    let warned = warnings(&mut enqueue(&small.source, out), warning);
    assert!(warned.contains("SOURCE, model"), "{warned}");
}
