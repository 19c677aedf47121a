//! Images of a list that are replaced, go, or come later than their list.

use std::time::Instant;

use camshaft_common::prediction::FailureClass;

use super::*;

const HOUR: Duration = Duration::from_secs(3600);
const UNNOTICED: &str = "can't be looked at";

/// An audit of a list with all keys below `base`.
fn command(small: &SmallRun, base: &str) -> Command {
    let list = small.directory.path().join("keys.txt");
    fs::write(&list, small.keys.join("\n")).unwrap();
    let mut command = camshaft(["audit", "--max-failure-rate", "1", "--base", base]);
    command.arg(format!("list:{}", list.display())).arg("--out").arg(&small.out);
    command.arg("--model").arg(&small.model);
    command
}

/// Runs an audit. It has to predict images, to fail others, and to keep the results of the rest.
fn assert_does(small: &SmallRun, command: &mut Command, [predicted, failed]: [usize; 2]) -> Ended {
    let ended = run(command).expect(0);
    let kept = small.keys.len() - predicted - failed;
    let mut said = format!("{predicted} predicted, {failed} failed");
    if kept > 0 {
        let found = small.keys.len();
        said.push_str(&format!("; of the {found} found, {kept} had results already"));
    }
    assert!(ended.stdout.contains(&said), "no {said:?} in {}", ended.stdout);
    ended
}

fn assert_does_below_source(small: &SmallRun, expected: [usize; 2]) -> Ended {
    assert_does(small, &mut command(small, small.source.to_str().unwrap()), expected)
}

#[test]
fn a_replaced_image_of_a_list_is_audited_again() {
    let small = SmallRun::new(4);
    let before = SystemTime::now() - HOUR;
    let paths: Vec<_> = small.keys.iter().map(|key| small.source.join(key)).collect();
    paths.iter().for_each(|path| set_modified(path, before));
    assert_does_below_source(&small, [4, 0]);
    // By a newer one, which its time tells.
    fs::copy(&paths[0], &paths[1]).unwrap();
    set_modified(&paths[1], SystemTime::now());
    assert_does_below_source(&small, [1, 0]);
    // By an older one, which its entity tag tells.
    fs::copy(&paths[0], &paths[2]).unwrap();
    set_modified(&paths[2], before - HOUR);
    assert_does_below_source(&small, [1, 0]);
    assert_does_below_source(&small, [0, 0]);
    let results = small.results().predictions;
    let digests = [0, 1, 2, 3].map(|at| &results[&small.keys[at]].image.digest);
    assert!(digests[0] == digests[1] && digests[0] == digests[2], "{digests:?}");
}

#[test]
fn an_image_of_a_list_that_goes_fails_and_one_that_comes_is_audited() {
    let mut small = SmallRun::new(3);
    let before = SystemTime::now() - HOUR;
    small.keys.push("late.jpg".to_owned());
    let [goes, .., late] = &small.keys[..] else { panic!("there are four") };
    let (goes, late) = (small.source.join(goes), small.source.join(late));
    let away = small.directory.path().join("away.jpg");
    assert_does_below_source(&small, [3, 1]);
    // As `cp -p` and rsync do it.
    fs::copy(&goes, &late).unwrap();
    set_modified(&late, before);
    fs::rename(&goes, &away).unwrap();
    assert_does_below_source(&small, [1, 1]);
    let results = small.results();
    results.assert_exactly(&small.keys);
    assert_eq!(results.failures[&small.keys[0]].error.class, FailureClass::NotFound);
    assert_eq!(numbers(&small), [4, 3, 1, 0]);
    assert_does_below_source(&small, [0, 0]);
    fs::rename(away, goes).unwrap();
    assert_does_below_source(&small, [1, 0]);
    assert!(small.results().failures.is_empty());
    small.results().assert_exactly(&small.keys);
}

#[test]
fn nothing_of_a_list_has_gone_if_its_base_is_not_mounted() {
    let small = SmallRun::new(3);
    assert_does_below_source(&small, [3, 0]);
    fs::rename(&small.source, small.directory.path().join("away")).unwrap();
    fs::create_dir(&small.source).unwrap();
    let ended = assert_does_below_source(&small, [0, 0]);
    assert!(ended.stderr.contains("is it mounted"), "{}", ended.stderr);
    assert_eq!(ended.stderr.matches(UNNOTICED).count(), 1, "{}", ended.stderr);
    assert_eq!(small.predictions(), 3);
}

#[test]
fn objects_of_a_list_cost_a_request_each_once_they_have_a_result() {
    let (small, server) = (SmallRun::new(20), S3Server::moto());
    server.make_bucket("listed-objects");
    let base = "s3://listed-objects/images";
    server.upload(&small.source, base);
    let relay = S3Relay::to(server);
    let audit = |expected| {
        let mut command = command(&small, base);
        assert_does(&small, command.envs(relay.variables(server)), expected)
    };
    audit([20, 0]);
    let (before, _) = relay.requests();
    assert_eq!(before, 20, "a first run looks at none");
    audit([0, 0]);
    assert_eq!(relay.requests().0 - before, 20);
    let other = fs::read(small.source.join(&small.keys[0])).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let folder = server.folder(base);
        folder.put(&small.keys[1], other, "image/jpeg").await.unwrap();
        folder.delete(&small.keys[2]).await.unwrap();
    });
    audit([1, 1]);
    assert_eq!(numbers(&small), [20, 19, 1, 0]);
    let results = small.results();
    assert_eq!(results.failures[&small.keys[2]].error.class, FailureClass::NotFound);
    assert_eq!(
        results.predictions[&small.keys[0]].image.digest,
        results.predictions[&small.keys[1]].image.digest
    );
}

#[test]
fn a_list_whose_objects_may_not_be_looked_at_keeps_its_results_with_one_warning() {
    /// The client repeats what it gets no answer to.
    const SOON: Duration = Duration::from_secs(30);
    let (small, server) = (SmallRun::new(40), S3Server::s3s_fs());
    server.make_bucket("listed-closed");
    let base = "s3://listed-closed/images";
    server.upload(&small.source, base);
    let relay = S3Relay::to(server);
    let audit = |expected| {
        let started = Instant::now();
        let mut command = command(&small, base);
        let ended = assert_does(&small, command.envs(relay.variables(server)), expected);
        (ended.stderr, started.elapsed())
    };
    let (said, _) = audit([40, 0]);
    assert_eq!(said.matches(UNNOTICED).count(), 0, "{said}");
    relay.answer_error("/listed-closed/images/", 403, "AccessDenied", "Access Denied");
    let (forbidden, _) = audit([0, 0]);
    relay.set_down(true);
    let (unreachable, took) = audit([0, 0]);
    assert!(took < SOON, "{took:?}");
    for said in [forbidden, unreachable] {
        assert_eq!(said.matches(UNNOTICED).count(), 1, "{said}");
    }
}
