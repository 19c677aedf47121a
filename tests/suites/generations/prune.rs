//! `--prune` removes results of images that have gone, and `--dry-run` tells what a command would do.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use camshaft_common::store::Listed;
use camshaft_tests::broker::Broker;
use camshaft_tests::images::files_below;
use camshaft_tests::jobs::Jobs;
use camshaft_tests::programs::{Running, camshaft, run, worker};
use camshaft_tests::results::Results;
use camshaft_tests::s3::S3Server;
use camshaft_tests::s3_relay::{PathFault, S3Relay};
use camshaft_tests::small_run::SmallRun;
use camshaft_tests::wait;
use futures::TryStreamExt;
use tokio::runtime::Runtime;

use super::{LIMIT, numbers, report, work};

/// All files below a folder, with their content and time.
fn files(folder: &Path) -> BTreeMap<PathBuf, (Vec<u8>, SystemTime)> {
    let file = |path: PathBuf| {
        let modified = fs::metadata(&path).unwrap().modified().unwrap();
        let content = fs::read(&path).unwrap();
        (path, (content, modified))
    };
    files_below(folder).into_iter().map(file).collect()
}

/// All objects below a place, with their entity tags and times.
fn objects(server: &S3Server, place: &str) -> Vec<Listed> {
    let objects = server.folder(place).list("");
    Runtime::new().unwrap().block_on(objects.try_collect()).unwrap()
}

fn predictions(server: &S3Server, out: &str) -> usize {
    let objects = objects(server, out);
    objects.iter().filter(|object| object.path.starts_with("predictions/")).count()
}

/// An audit of a local SOURCE to a bucket.
fn audit_to_bucket(small: &SmallRun, out: &str, more: &[&str]) -> Command {
    let mut command = camshaft(["audit", "--out", out]);
    command.arg(&small.source).arg("--model").arg(&small.model).args(more);
    command
}

#[test]
fn results_of_images_that_have_gone_are_removed_as_the_dry_run_tells() {
    let mut small = SmallRun::new(8);
    let picture = fs::read(small.source.join(&small.keys[2])).unwrap();
    let [long, other_long] = ["x", "y"].map(|letter| format!("{}.jpg", letter.repeat(249)));
    for name in ["even/é 100%.jpg", "tab\t.jpg", &long, &other_long] {
        fs::write(small.source.join(name), &picture).unwrap();
    }
    fs::write(small.source.join("bad.jpg"), "no image").unwrap();
    let audit = |small: &SmallRun, more: &[&str]| {
        let options = ["--method", "grad-cam,layer-cam", "--overlay", "png"];
        let options = [&options[..], &["--max-failure-rate", "1"], more].concat();
        small.audit(&options).expect(0)
    };
    let _ended = audit(&small, &[]);
    // An overlay of another format that nobody has removed, and what is no overlay.
    let overlays = small.out.join("overlays");
    fs::write(overlays.join(format!("{}.webp", small.keys[0])), "x").unwrap();
    fs::write(overlays.join("notes.txt"), "x").unwrap();

    fs::remove_file(small.source.join(&small.keys[0])).unwrap();
    let moved = small.source.join("odd/moved.jpg");
    fs::rename(small.source.join(&small.keys[1]), moved).unwrap();
    for name in ["tab\t.jpg", "bad.jpg", &long] {
        fs::remove_file(small.source.join(name)).unwrap();
    }
    small.keys.drain(..2);
    small.keys.extend(["odd/moved.jpg", "even/é 100%.jpg", &other_long].map(str::to_owned));

    let before = [&small.source, &small.out].map(|folder| files(folder));
    let gone = "the results of images that have gone: 4 predictions, 1 failure, 9 overlays";
    let told = audit(&small, &["--prune", "--dry-run"]).stdout;
    for line in [
        "Would audit 1 of 9 images (8 have results already)",
        "  1 without a result",
        &format!("Would remove {gone}"),
        "  and 4 more; --list-skipped names them",
        "Dry run: nothing was done",
    ] {
        assert!(told.lines().any(|told| told == line), "no {line:?} in {told}");
    }
    let all_named = audit(&small, &["--prune", "--dry-run", "--list-skipped"]).stdout;
    let named: Vec<_> = all_named.lines().filter_map(|line| line.strip_prefix("gone\t")).collect();
    assert_eq!(named.len(), 14, "{all_named}");
    assert!(named.contains(&"predictions/%=tab%09.jpg.json"), "{all_named}");
    let after = [&small.source, &small.out].map(|folder| files(folder));
    assert!(after == before, "a dry run writes nothing");

    let done = audit(&small, &["--prune"]).stdout;
    for part in ["Audited 1 image ", "8 had results already", &format!("Removed {gone}\n")] {
        assert!(done.contains(part), "no {part:?} in {done}");
    }
    let results = small.results();
    results.assert_exactly(&small.keys);
    assert_eq!(results.overlays.len(), 2 * 9 + 1, "{:?}", results.overlays);
    assert_eq!(numbers(&small), [9, 9, 0, 0]);
    let reported = report(&small);
    assert_eq!(reported["images"], 9, "{reported}");
    assert!(!reported["notes"].to_string().contains("no longer in SOURCE"), "{reported}");
    let again = audit(&small, &["--prune"]).stdout;
    assert!(again.contains("Removed no results: no image has gone\n"), "{again}");
}

#[test]
fn nothing_is_removed_if_source_may_be_the_wrong_one() {
    let small = SmallRun::new(6);
    let _ended = small.audit(&[]).expect(0);
    for key in &small.keys[..4] {
        fs::remove_file(small.source.join(key)).unwrap();
    }
    for more in [&["--prune", "--dry-run"][..], &["--prune"], &["--prune=half"]] {
        let refused = small.audit(more);
        assert!(
            refused.stdout.contains("0 of 2 images") || refused.stdout.contains("2 had results")
        );
        refused.expect_one_line(&["4 of 6 images with results", "--prune=all"]);
    }
    let usage = small.audit(&["--prune", "--limit", "1"]).expect(2);
    assert!(usage.stderr.contains("--limit"), "{}", usage.stderr);
    // There may be images behind it.
    let link = small.source.join("broken");
    std::os::unix::fs::symlink("nowhere", &link).unwrap();
    small.audit(&["--prune"]).expect_one_line(&["1 broken link", "--list-skipped"]);
    assert_eq!(small.predictions(), 6);
    let done = small.audit(&["--prune=all"]).expect(0).stdout;
    assert!(done.contains("4 predictions, 0 failures, 4 overlays"), "{done}");
    assert_eq!(small.predictions(), 2);
    for key in &small.keys[4..] {
        fs::remove_file(small.source.join(key)).unwrap();
    }
    small.audit(&["--prune=all"]).expect_one_line(&["no images"]);
    assert_eq!(small.predictions(), 2);
}

#[test]
fn nothing_is_removed_without_a_manifest_or_by_a_user_who_may_not() {
    let small = SmallRun::new(4);
    let server = S3Server::moto();
    server.make_bucket("prune-refused");
    let out = "s3://prune-refused/out";
    let _ended = run(audit_to_bucket(&small, out, &[]).envs(server.variables())).expect(0);
    fs::remove_file(small.source.join(&small.keys[0])).unwrap();
    for (requests, part) in [
        ("PUT /prune-refused/out/manifest/", "--prune removed nothing: the manifest"),
        ("POST /prune-refused?delete", "cannot delete"),
    ] {
        let relay = S3Relay::to(server);
        relay.answer_error(requests, 403, "AccessDenied", "not for you");
        let mut command = audit_to_bucket(&small, out, &["--prune"]);
        let refused = run(command.envs(relay.variables(server))).expect(1);
        let last = refused.stderr.lines().last().unwrap();
        assert!(last.contains(part), "{}", refused.stderr);
        assert_eq!(predictions(server, out), 4);
    }
}

#[test]
fn a_dry_run_of_enqueue_writes_nothing_and_has_the_numbers_of_the_run() {
    let (server, broker) = (S3Server::moto(), Broker::shared().url());
    let small = SmallRun::new(8);
    server.make_bucket("prune");
    server.upload(&small.source, "s3://prune/images");
    let (source, out) = ("s3://prune/images", "s3://prune/out");
    let enqueue = |more: &[&str]| {
        let mut command = camshaft(["enqueue", source, "--out", out, "--broker", &broker]);
        command.arg("--model").arg(&small.model).args(more).envs(server.variables());
        run(&mut command).expect(0).stdout
    };
    let work = || {
        let mut command = worker(["--broker", &broker, "--exit-when-idle", "1"]);
        let _ended = run(command.envs(server.variables())).expect(0);
    };
    let jobs = Jobs::at(&broker);
    let before = objects(server, "s3://prune");
    for more in [&["--dry-run"][..], &["--dry-run", "--only", "missing"]] {
        let told = enqueue(more);
        assert!(told.starts_with("Would enqueue 8 of 8 images"), "{told}");
        assert!(told.contains("8 for predictions or failures, 8 for overlays"), "{told}");
    }
    assert_eq!(objects(server, "s3://prune"), before);
    assert_eq!(jobs.count("camshaft.jobs"), None, "it creates no queues");
    enqueue(&[]);
    work();

    let images = server.folder(source);
    let content = |key: &String| fs::read(small.source.join(key)).unwrap();
    Runtime::new().unwrap().block_on(async {
        images.delete_all(&small.keys[..2]).await.unwrap();
        images.put(&small.keys[2], content(&small.keys[3]), "image/jpeg").await.unwrap();
        images.put("odd/new.jpg", content(&small.keys[4]), "image/jpeg").await.unwrap();
    });
    let before = objects(server, "s3://prune");
    let gone = "the results of images that have gone: 2 predictions, 0 failures, 2 overlays";
    for (more, expected) in [
        (
            &["--prune"][..],
            &[
                "Would enqueue 2 of 7 images (5 have results already)",
                "  1 without a result",
                "  1 changed since their result was written",
                &format!("Would remove {gone}"),
            ][..],
        ),
        (
            &["--only", "all"],
            &[
                "Would enqueue 7 of 7 images (0 have results already)",
                "  1 without a result",
                "  6 with a result that is to be replaced",
            ],
        ),
        (&["--only", "failed"], &["Would enqueue 0 of 7 images (7 left as they are)"]),
        (&["--only", "missing"], &["Would enqueue 1 of 7 images (6 left as they are)"]),
    ] {
        let told = enqueue(&[more, &["--dry-run"]].concat());
        for line in expected {
            assert!(told.lines().any(|told| told == *line), "{more:?}: no {line:?} in {told}");
        }
    }
    assert_eq!(objects(server, "s3://prune"), before);
    assert_eq!(jobs.count("camshaft.jobs"), Some(0));

    let done = enqueue(&["--prune"]);
    assert!(done.starts_with("Enqueued 2 of 7 images (5 have results already)"), "{done}");
    assert!(done.ends_with(&format!("Removed {gone}\n")), "{done}");
    let results = Results::read(&server.folder(out));
    assert_eq!((results.predictions.len(), results.overlays.len()), (6, 6));
    work();
    assert_eq!(predictions(server, out), 7);
}

#[test]
fn jobs_of_images_that_have_gone_make_no_results_after_the_prune() {
    let mut small = SmallRun::new(4);
    let broker = Broker::shared().url();
    small.enqueue(&broker, &[]);
    fs::remove_file(small.source.join(small.keys.remove(0))).unwrap();
    let said = small.enqueue(&broker, &["--prune"]);
    assert!(said.contains("Removed no results"), "{said}");
    work(&broker);
    small.results().assert_exactly(&small.keys);
    small.assert_adds_up(&broker);
}

#[test]
fn a_prune_that_is_killed_leaves_every_prediction_with_its_overlay_and_is_done_again() {
    let mut small = SmallRun::new(6);
    let server = S3Server::moto();
    server.make_bucket("prune-killed");
    let out = "s3://prune-killed/out";
    let _ended = run(audit_to_bucket(&small, out, &[]).envs(server.variables())).expect(0);
    for key in small.keys.drain(..2) {
        fs::remove_file(small.source.join(key)).unwrap();
    }
    let relay = S3Relay::to(server);
    let overlays = "/prune-killed?delimiter=%2F&list-type=2&prefix=out%2Foverlays";
    relay.spoil(overlays, PathFault::Held);
    let mut command = audit_to_bucket(&small, out, &["--prune"]);
    let running = Running::start(command.envs(relay.variables(server)));
    wait::until("the predictions have gone", LIMIT, || predictions(server, out) == 4);
    running.kill();
    let results = Results::read(&server.folder(out));
    results.assert_exactly(&small.keys);
    assert_eq!(results.overlays.len(), 6);
    let mut command = audit_to_bucket(&small, out, &["--prune"]);
    let done = run(command.envs(server.variables())).expect(0).stdout;
    assert!(done.contains("0 predictions, 0 failures, 2 overlays"), "{done}");
    let results = Results::read(&server.folder(out));
    results.assert_exactly(&small.keys);
    assert_eq!(results.overlays.len(), 4);
}
