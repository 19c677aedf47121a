//! The rights on the broker that docs/SECURITY.md gives to users are enough. With fewer rights, a
//! program says what it lacks.

use camshaft_tests::broker::{
    Broker, LimitedUser, PRODUCER, PRODUCER_WITHOUT_BOOKMARK, VIEWER, WORKER,
};
use camshaft_tests::programs::{Ended, camshaft, run, worker};
use camshaft_tests::small_run::SmallRun;

use super::messages::{Raw, with};

struct Rights {
    host: String,
    small: SmallRun,
}

impl Rights {
    fn new() -> Self {
        Self { host: Broker::shared().rights_host(), small: SmallRun::new(3) }
    }

    fn url(&self, user: LimitedUser) -> String {
        Broker::shared().limited_url(user, &self.host)
    }

    fn enqueue(&self, user: LimitedUser) -> Ended {
        let mut command = camshaft(["enqueue", "--only", "all", "--retry-delays", "1"]);
        command.arg(&self.small.source).arg("--out").arg(&self.small.out);
        command.arg("--model").arg(&self.small.model);
        run(command.args(["--broker", &self.url(user)]))
    }

    fn work(&self, user: LimitedUser) -> Ended {
        let url = self.url(user);
        run(&mut worker(["--broker", &url, "--retry-delays", "1", "--exit-when-idle", "2"]))
    }

    fn status(&self, user: LimitedUser) -> Ended {
        let mut command = camshaft(["status", "--json", "--retry-delays", "1"]);
        run(command.arg(&self.small.out).args(["--broker", &self.url(user)]))
    }

    fn redrive(&self, user: LimitedUser) -> Ended {
        let url = self.url(user);
        run(&mut camshaft(["redrive", "--retry-delays", "1", "--broker", &url]))
    }
}

#[test]
fn each_user_can_do_its_part_with_the_rights_in_the_documentation() {
    let rights = Rights::new();
    let enqueued = rights.enqueue(PRODUCER).expect(0);
    assert!(enqueued.stdout.starts_with("Enqueued 3 of 3"), "{}", enqueued.stdout);
    assert_eq!(enqueued.stderr, "");
    // The first becomes a dead letter at once, the second after a retry.
    let raw = Raw::connect(&Broker::shared().url_of(
        Broker::shared().user(),
        Broker::shared().password(),
        &rights.host,
    ));
    let jobs = raw.take_jobs();
    for job in &jobs {
        raw.publish(job);
    }
    raw.publish(&with(&jobs[0], "key", "../x"));
    raw.publish(&with(&jobs[0], "out", "/dev/null/not-a-folder"));

    let _ended = rights.work(WORKER).expect(0);
    rights.small.results().assert_exactly(&rights.small.keys);
    let status = rights.status(VIEWER).expect(0).stdout;
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    assert_eq!((&status["queued"], &status["dead"]), (&0.into(), &2.into()), "{status}");
    let redriven = rights.redrive(PRODUCER).expect(0);
    assert!(redriven.stdout.starts_with("Moved 2 dead letters"), "{}", redriven.stdout);
}

#[test]
fn a_user_with_fewer_rights_gets_a_message_about_them() {
    let rights = Rights::new();
    // The queues do not exist yet, and these users may not create them.
    for user in [WORKER, VIEWER] {
        rights.work(user).expect_one_line(&[
            "refused access",
            user.name,
            "permissions",
            "camshaft.",
        ]);
    }
    let _ended = rights.enqueue(PRODUCER).expect(0);
    let enqueued = rights.enqueue(PRODUCER_WITHOUT_BOOKMARK).expect(0);
    assert!(enqueued.stdout.starts_with("Enqueued 3 of 3"), "{}", enqueued.stdout);
    assert!(enqueued.stderr.contains("keep no bookmark"), "{}", enqueued.stderr);
    rights.work(VIEWER).expect_one_line(&["refused access", VIEWER.name, "camshaft.jobs"]);
    rights.enqueue(VIEWER).expect_one_line(&["refused access", VIEWER.name, "permissions"]);
    // A worker's user may not read dead letters. This shows only if there are any.
    let raw = Raw::connect(&rights.url(PRODUCER));
    raw.publish(&with(&raw.take_jobs()[0], "key", "../x"));
    let _ended = rights.work(WORKER).expect(0);
    rights.redrive(WORKER).expect_one_line(&["refused access", WORKER.name, "camshaft.dead"]);
}
