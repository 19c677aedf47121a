//! Tests the command line itself: help, completions, units, and the status of wrong usage.

use std::fs;

use camshaft_tests::programs::{Ended, camshaft, command, run, worker};
use camshaft_tests::small_run::SmallRun;
use tempfile::tempdir;

const COMMANDS: [&str; 9] =
    ["audit", "train", "enqueue", "report", "status", "cancel", "runs", "redrive", "completions"];

/// The help texts of both programs and all commands, on a terminal of a width.
fn help_texts(columns: &str) -> Vec<(String, String)> {
    let mut commands = vec![("worker".to_owned(), worker(["--help"]))];
    commands.push(("camshaft".to_owned(), camshaft(["--help"])));
    commands.extend(COMMANDS.map(|name| (name.to_owned(), camshaft([name, "--help"]))));
    let texts = commands.into_iter().map(|(name, mut command)| {
        let ended = run(command.env("COLUMNS", columns)).expect(0);
        (name, ended.stdout)
    });
    texts.collect()
}

#[test]
fn help_is_at_most_100_columns_wide_and_has_examples() {
    for columns in ["200", "1000", ""] {
        for (name, text) in help_texts(columns) {
            for line in text.lines() {
                assert!(line.chars().count() <= 100, "{name}: {line}");
            }
            assert!(text.contains("Examples:") && !text.contains("[env:"), "{name}: {text}");
        }
    }
}

#[test]
fn an_option_can_be_given_in_the_environment_and_help_names_its_variable() {
    let help = run(&mut camshaft(["audit", "--help"])).expect(0).stdout;
    assert!(help.contains("CAMSHAFT_MAX_IMAGE_BYTES"), "{help}");
    let small = SmallRun::new(1);
    let mut command = camshaft(["audit"]);
    command.arg(&small.source).env("CAMSHAFT_OUT", &small.out).env("CAMSHAFT_MODEL", &small.model);
    let ended = run(command.env("CAMSHAFT_MAX_IMAGE_BYTES", "10 B")).expect(3);
    assert!(ended.stdout.contains("1 too-large"), "{}", ended.stdout);
}

#[test]
fn sizes_have_units() {
    for (size, status) in [("10MB", 0), ("1.5GiB", 0), ("67108864", 0), ("0.05kB", 3)] {
        let small = SmallRun::new(1);
        let ended = small.audit(&["--max-image-bytes", size, "--max-image-pixels", "1M"]);
        let _ended = ended.expect(status);
    }
    let small = SmallRun::new(1);
    for size in ["10XB", "-1", "0", "lots"] {
        let ended = small.audit(&["--max-image-bytes", size]).expect(2);
        assert!(ended.stderr.contains("such as 10MB, 64MiB"), "{}", ended.stderr);
    }
}

fn wrong(arguments: &[&str]) -> Ended {
    run(camshaft(arguments).env_remove("CAMSHAFT_NO_REPORT")).expect(2)
}

#[test]
fn wrong_values_are_wrong_usage_and_say_what_is_right() {
    let out = tempdir().unwrap();
    let place = out.path().to_str().unwrap();
    for (arguments, part) in [
        (&["--alpha", "-1"][..], "use a number from 0 to 1"),
        (&["--overlay", "tiff"], "is not an overlay format; use jpeg"),
        (&["--log", "loud"], "use error, warn, info"),
        (&["--fail-on", "broken>0"], "camshaft report and --against"),
        (&["--limit", "-5"], "invalid value '-5' for '--limit"),
    ] {
        let ended = wrong(&[&["audit", place, "--out", "/tmp/x"], arguments].concat());
        assert!(ended.stderr.contains(part), "{arguments:?}: {}", ended.stderr);
    }
    for arguments in [
        vec!["redrive", "--broker", "http://rabbit"],
        vec!["status", place, "--broker", "rabbit:5672"],
        vec!["enqueue", place, "--out", "/tmp/x", "--broker", ""],
    ] {
        let ended = wrong(&arguments);
        assert!(ended.stderr.contains("--broker"), "{arguments:?}: {}", ended.stderr);
    }
    let ended = run(&mut worker(["--broker", "http://rabbit"])).expect(2);
    assert!(ended.stderr.contains("amqp://USER"), "{}", ended.stderr);
    let list = out.path().join("keys.csv");
    fs::write(&list, "a.jpg\n").unwrap();
    let list = format!("list:{}", list.display());
    run(&mut camshaft(["audit", &list, "--base", "/nonexistent", "--out", "/tmp/x"]))
        .expect_one_line(&["--base /nonexistent doesn't exist"]);
}

#[test]
fn another_option_is_refused_with_both_values_and_the_way_back() {
    let small = SmallRun::new(1);
    let _first = small.audit(&["--colormap", "turbo"]).expect(0);
    small.audit(&["--colormap", "magma", "--embeddings"]).expect_one_line(&[
        "--colormap was turbo and is magma now",
        "--embeddings was off and is on now",
        "give --colormap turbo",
    ]);
}

#[test]
fn predictions_of_runs_without_a_common_image_are_not_compared() {
    let [small, other] = [SmallRun::new(2), SmallRun::new(2)];
    let _audited = small.audit(&[]).expect(0);
    // The same images under other keys.
    let above = other.source.parent().unwrap();
    let mut command = camshaft(["audit"]);
    command.arg(above).arg("--out").arg(&other.out).arg("--model").arg(&other.model);
    let _audited = run(command.args(["--max-failure-rate", "1"])).expect(0);
    let mut command = camshaft(["report"]);
    command.arg(&small.out).arg("--against").arg(&other.out).args(["--fail-on", "broken>0"]);
    run(&mut command).expect_one_line(&["broken>0", "no image is predicted in both runs"]);
    let page = fs::read_to_string(small.out.join("report/index.html")).unwrap();
    assert!(page.contains(&format!("2 here, such as {}", small.keys[0])));
}

#[test]
fn a_complete_run_has_no_rate() {
    let small = SmallRun::new(2);
    let _audited = small.audit(&[]).expect(0);
    let again = small.audit(&[]).expect(0);
    assert!(!again.stdout.contains("images/s"), "{}", again.stdout);
    let mut status = camshaft(["status"]);
    let status = run(status.arg(&small.out)).expect(0).stdout;
    assert!(!status.contains("rate") && status.contains("ended    "), "{status}");
}

#[test]
fn shells_and_manuals_know_every_command() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = run(&mut camshaft(["completions", shell])).expect(0).stdout;
        for command in COMMANDS {
            assert!(script.contains(command), "{shell}: {command}");
        }
        assert!(script.contains("max-image-bytes"), "{shell}");
    }
    let mut check = std::process::Command::new("bash");
    let script = run(&mut camshaft(["completions", "bash"])).expect(0).stdout;
    let _checked = run(check.args(["-n", "-c", &script])).expect(0);
    let _unknown = run(&mut camshaft(["completions", "cmd"])).expect(2);

    let folder = tempdir().unwrap();
    let mut pages = command("camshaft");
    let _written = run(pages.arg("man").arg(folder.path())).expect(0);
    for page in ["camshaft.1", "camshaft-audit.1", "camshaft-completions.1", "camshaft-worker.1"] {
        assert!(fs::read_to_string(folder.path().join(page)).unwrap().starts_with(".ie"), "{page}");
    }
}
