//! An OUT that fills up, cannot be written, or goes away during a run.

use std::fs;
use std::path::Path;
use std::process::Command;

use camshaft_tests::programs::{Ended, Running, camshaft, program, run};
use camshaft_tests::repository;
use camshaft_tests::results::Results;
use camshaft_tests::s3::S3Server;
use camshaft_tests::s3_relay::S3Relay;
use camshaft_tests::small_run::SmallRun;
use camshaft_tests::wait;

use super::LIMIT;

/// Runs a script in a mount namespace of its own. It may mount file systems there, which end with
/// the script. Its `$1` is `camshaft`.
fn with_mounts(script: &str, arguments: &[&Path]) -> Ended {
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--mount", "sh", "-ec", script, "test"]);
    run(command.arg(program("camshaft")).args(arguments))
}

fn last_line(ended: &Ended) -> &str {
    ended.stderr.lines().last().unwrap_or_default()
}

#[test]
fn a_full_disk_is_reported_in_one_line_and_the_rest_is_done_later() {
    let small = SmallRun::new(300);
    fs::create_dir(&small.out).unwrap();
    let script = r#"
        mount -t tmpfs -o size=1m none "$4"
        if "$1" audit "$2" --model "$3" --out "$4"; then exit 9; else test $? = 1; fi
        echo ---- >&2
        mount -o remount,size=64m "$4"
        "$1" audit "$2" --model "$3" --out "$4"
        cp -r "$4/." "$5"
    "#;
    let kept = small.directory.path().join("kept");
    fs::create_dir(&kept).unwrap();
    let arguments = [&small.source, &small.model, &small.out, &kept].map(|path| path.as_path());
    let ended = with_mounts(script, &arguments).expect(0);
    let (full, rest) = ended.stderr.split_once("----\n").unwrap();
    let line = full.lines().last().unwrap();
    assert!(line.contains("no space is left") && line.contains("run the same command"), "{full}");
    assert!(!rest.contains("no space"), "{rest}");
    Results::read(&camshaft_tests::results::local(&kept)).assert_exactly(&small.keys);
}

#[test]
fn a_read_only_out_is_reported_in_one_line() {
    let small = SmallRun::new(3);
    fs::create_dir(&small.out).unwrap();
    let script = r#"
        mount -t tmpfs -o size=1m none "$4"
        mount -o remount,ro "$4"
        exec "$1" audit "$2" --model "$3" --out "$4"
    "#;
    let arguments = [&small.source, &small.model, &small.out].map(|path| path.as_path());
    with_mounts(script, &arguments).expect_one_line(&["run.json", "access denied"]);
}

#[test]
fn an_out_that_becomes_read_only_is_reported_and_the_rest_is_done_later() {
    let small = SmallRun::new(3000);
    fs::create_dir(&small.out).unwrap();
    let script = r#"
        mount -t tmpfs -o size=512m none "$4"
        "$1" audit "$2" --model "$3" --out "$4" & audit=$!
        until [ -d "$4/predictions/even" ]; do sleep 0.05; done
        # Not while a file is open for writing: tried until it takes.
        until mount -o remount,ro "$4" 2>/dev/null; do :; done
        if wait $audit; then exit 9; else test $? = 1; fi
        echo ---- >&2
        mount -o remount,rw "$4"
        "$1" audit "$2" --model "$3" --out "$4"
    "#;
    let arguments = [&small.source, &small.model, &small.out].map(|path| path.as_path());
    let ended = with_mounts(script, &arguments).expect(0);
    let (broken, _) = ended.stderr.split_once("----\n").unwrap();
    assert!(broken.lines().last().unwrap().contains("access denied"), "{broken}");
    assert!(ended.stdout.contains("had results already"), "{}", ended.stdout);
}

#[test]
fn a_bucket_deleted_during_a_run_is_reported_and_the_rest_is_done_later() {
    let small = SmallRun::new(600);
    // Not s3s-fs: it would make the bucket again.
    let server = S3Server::moto();
    server.make_bucket("vanishes");
    let relay = S3Relay::to(server);
    let audit = || {
        let mut command = camshaft(["audit", "--out", "s3://vanishes/out"]);
        command.arg(&small.source).arg("--model").arg(&small.model);
        command.envs(relay.variables(server));
        command
    };
    let running = Running::start(&mut audit());
    let out = server.folder("s3://vanishes/out");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let first = format!("predictions/{}.json", small.keys[0]);
    wait::until("the first predictions", LIMIT, || {
        runtime.block_on(out.exists(&first)).unwrap_or(false)
    });
    // Without its store the audit cannot end before the bucket is deleted.
    relay.set_down(true);
    let script = "import boto3,sys\n\
        s3=boto3.resource('s3',endpoint_url=sys.argv[1])\n\
        b=s3.Bucket('vanishes')\n\
        while True:\n    \
            try:\n        \
                b.objects.all().delete(); b.delete(); break\n    \
            except s3.meta.client.exceptions.ClientError as e:\n        \
                if 'BucketNotEmpty' not in str(e): raise\n";
    let [endpoint, ..] = server.variables();
    let deleted = Command::new(repository::tool("venv/bin/python"))
        .args(["-c", script, &endpoint.1])
        .envs(server.variables())
        .status();
    assert!(deleted.unwrap().success());
    relay.set_down(false);
    let ended = running.end(LIMIT).expect(1);
    let line = last_line(&ended);
    assert!(line.contains("bucket doesn't exist") && line.contains("same command"), "{line}");

    server.make_bucket("vanishes");
    let _ended = run(&mut audit()).expect(0);
    Results::read(&server.folder("s3://vanishes/out")).assert_exactly(&small.keys);
}
