//! Tests the list files that people have: other column names, delimiters, JSON Lines, paths and URLs.

use std::collections::BTreeMap;
use std::fs;

use camshaft_tests::programs::{Ended, camshaft, run};
use camshaft_tests::small_run::SmallRun;

/// Audits a list of this content, in a file of this name.
fn audit(small: &SmallRun, name: &str, content: &str, more: &[&str]) -> Ended {
    let list = small.directory.path().join(name);
    fs::write(&list, content).unwrap();
    let mut command = camshaft(["audit", &format!("list:{}", list.display())]);
    command.arg("--base").arg(&small.source).arg("--out").arg(&small.out);
    run(command.arg("--model").arg(&small.model).args(more))
}

/// The given labels by key, of all predictions.
fn labels(small: &SmallRun) -> BTreeMap<String, Option<String>> {
    let results = small.results();
    assert!(results.failures.is_empty(), "{:?}", results.failures.keys());
    results.predictions.into_iter().map(|(key, record)| (key, record.image.label)).collect()
}

#[test]
fn lists_are_read_as_people_write_them() {
    let mut small = SmallRun::new(2);
    let [a, b] = [&small.keys[0], &small.keys[1]].map(Clone::clone);
    let source = small.source.display().to_string();
    let two = |a_label: &str, b_label: &str| {
        BTreeMap::from([
            (a.clone(), Some(a_label.to_owned())),
            (b.clone(), Some(b_label.to_owned())),
        ])
    };
    let json = format!(
        "{{\"file_name\": \"./{a}\", \"label\": \"cat\"}}\n\n{{\"label\": 1, \"file_name\": \"{b}\"}}\n"
    );
    for (at, (name, content, more, expected)) in [
        ("l.csv", format!("key, label\n{a}, cat\n {b} ,dog\n"), &[][..], two("cat", "dog")),
        (
            "l.csv",
            format!("\u{feff}Filename;Class\r\n{a};cat\r\n{b};\"dog; big\"\r\n"),
            &[],
            two("cat", "dog; big"),
        ),
        (
            "l.tsv",
            format!("target\timage_path\tid\ncat\t{a}\t1\ndog\t{b}\t2\n"),
            &[],
            two("cat", "dog"),
        ),
        (
            "l.csv",
            format!("path,category\n{source}/{a},cat\nfile://{source}/{b},\"two\nlines\"\n"),
            &[],
            two("cat", "two\nlines"),
        ),
        (
            "l.csv",
            format!("photo,breed,label\n{a},cat,x\n{b},dog,y\n"),
            &["--key-column", "photo", "--label-column", "breed"],
            two("cat", "dog"),
        ),
        (
            "l.csv",
            format!("cat,{a}\ndog,{b}\n"),
            &["--key-column", "2", "--label-column", "1"],
            two("cat", "dog"),
        ),
        ("l.csv", format!("key,label\n{a},cat\n{b},dog\n./{a},cat\n"), &[], two("cat", "dog")),
        ("l.txt", json.clone(), &[], two("cat", "1")),
        ("l.jsonl", json, &[], two("cat", "1")),
    ]
    .into_iter()
    .enumerate()
    {
        small.out = small.directory.path().join(format!("out{at}"));
        let _ended = audit(&small, name, &content, more).expect(0);
        assert_eq!(labels(&small), expected, "{content}");
        let mut status = camshaft(["status", "--json"]);
        let status = run(status.arg(&small.out)).expect(0).stdout;
        assert!(status.contains("\"remaining\":0"), "{content}: {status}");
    }
}

#[test]
fn a_list_that_is_not_understood_is_refused_before_anything_is_done() {
    let small = SmallRun::new(2);
    let [a, b] = [&small.keys[0], &small.keys[1]];
    for (content, parts) in [
        (format!("photo,breed\n{a},cat\n{b},dog\n"), ["photo,breed", "--key-column"]),
        (format!("{a},cat\n{b},dog\n"), [a.as_str(), "--key-column"]),
        (format!("photo_name\n{a}\n{b}\n"), ["photo_name", "key"]),
        (format!("key,label\n{a},cat\n{b},dog\n{a},dog\n"), ["lines 2 and 4", a.as_str()]),
        (format!("key,label\n{a},\"cat\n{b},dog\n"), ["line 2", "not closed"]),
        (format!("key,label\n{a},big, cat\n"), ["line 2", "quotes"]),
        (format!("key,label\n/elsewhere/{a},cat\n"), ["line 2", "not below --base"]),
        (format!("{{\"key\": \"{a}\"}}\n{{\"key\": \"{b}\"\n"), ["line 2", "JSON"]),
    ] {
        audit(&small, "list.csv", &content, &[]).expect_one_line(&parts);
        assert_eq!(small.predictions(), 0, "{content}");
    }
    audit(&small, "list.csv", "key,label\n", &["--key-column", "path"])
        .expect_one_line(&["no column \"path\"", "key, label"]);
    let _ended = small.audit(&["--key-column", "path"]).expect(2);
}

#[test]
fn a_plain_list_keeps_commas_and_spaces() {
    let small = SmallRun::new(1);
    let odd = ["a, b.jpg", "c d.jpg", "e;f, g.jpg"];
    for name in odd {
        fs::copy(small.source.join(&small.keys[0]), small.source.join(name)).unwrap();
    }
    let _ended = audit(&small, "list.txt", &odd.join("\n"), &[]).expect(0);
    let keys: Vec<_> = labels(&small).into_keys().collect();
    assert_eq!(keys, odd);
}
