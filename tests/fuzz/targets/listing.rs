//! Reads places, list files and keys, and decisions and rules as lines of text.
//!
//! The first line of the input is read as a place, the rest as a list file.
#![no_main]

use std::path::Component;

use camshaft_common::explain::{ExplainOptions, OverlayFormat};
use camshaft_common::job::{JOB_VERSION, Job};
use camshaft_common::key::ImageKey;
use camshaft_common::label::{LabelMatcher, NamedClass, fold};
use camshaft_common::layout::{self, Layout, OverlayDifference};
use camshaft_common::location::Location;
use camshaft_common::model::ModelIdentity;
use camshaft_common::run::RunId;
use camshaft_decisions::{Decision, Rule};
use camshaft_producer::list_lines::{KeyBase, ListColumns, ListFormat, ListLines, ListedImage};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &str| {
    let (place, list) = input.split_once('\n').unwrap_or((input, ""));
    check_place(place);
    list.lines().for_each(check_decision);
    let base: Location =
        place.parse().unwrap_or_else(|_| "s3://bucket/prefix".parse().expect("it is a place"));
    let columns = ListColumns::default();
    let Ok(format) = ListFormat::recognise(list, false, &columns) else { return };
    let mut lines = ListLines::new(format, KeyBase::new(&base));
    for line in list.split_inclusive('\n') {
        check_name(line.as_bytes());
        // An error ends the reading of a list.
        let Ok(listed) = lines.read(line) else { return };
        if let Some(ListedImage { key, label, .. }) = listed {
            check_key(&key);
            if let Some(label) = &label {
                check_label(label);
            }
            check_message(key, label);
        }
    }
    // An open quote is an error; nothing else is left to read.
    lines.end().unwrap_or_default();
});

/// Checks that no label is without its class, or in two, by however little labels differ.
fn check_label(label: &str) {
    let folded = fold(label);
    assert_eq!(fold(&folded), folded, "{label:?}");
    let named = [NamedClass { index: 7, name: label, aliases: &[] }];
    assert_eq!(LabelMatcher::new(named).find(label), Ok(7), "{label:?}");
    let twice = [named[0], NamedClass { index: 9, ..named[0] }];
    assert!(LabelMatcher::new(twice).find(label).is_err(), "{label:?}");
}

/// Checks that a decision survives its line, and that a rule is read again as it was.
fn check_decision(line: &str) {
    if let Ok(decision) = Decision::parse(line) {
        assert_eq!(Decision::parse(&decision.to_line()).ok().as_ref(), Some(&decision));
    }
    match line.parse::<Rule>() {
        Ok(rule) => assert!(rule.to_string().parse::<Rule>().is_ok(), "{rule}"),
        Err(error) => assert!(error.character <= line.chars().count() + 1, "{error}"),
    }
}

fn check_place(text: &str) {
    let Ok(place) = text.parse::<Location>() else { return };
    let url = place.as_url();
    assert!(matches!(url.scheme(), "file" | "s3" | "s3a" | "gs" | "az" | "abfs" | "abfss"));
    assert!(url.password().is_none(), "{url} has a password");
    let azure = matches!(url.scheme(), "az" | "abfs" | "abfss");
    assert!(url.username().is_empty() || azure, "{url} has a user");
    assert!(url.query().is_none() && url.fragment().is_none(), "{url} has more than a path");
    let climbs = |segments: &str| segments.split('/').any(|segment| segment == "..");
    assert!(!climbs(url.path()), "{url} climbs");
    match place.local_path() {
        Some(path) => {
            assert!(path.is_absolute(), "{} is relative", path.display());
            assert!(!climbs(path.to_str().expect("a place is text")), "{} climbs", path.display());
        }
        None => assert!(url.host_str().is_some_and(|host| !host.is_empty()), "{url} has no bucket"),
    }
    assert_eq!(place.below(&place).as_deref(), Some(""));
    let again: Location = url.as_str().parse().expect("a place's URL is a place");
    assert_eq!(again, place);
}

/// Checks that a name has one key, and that the key leads to nothing else.
fn check_name(name: &[u8]) {
    let Ok(key) = ImageKey::from_name(name) else { return };
    assert_eq!(&*key.name(), name);
    check_key(&key);
    let Some(path) = key.local_path() else { return };
    let is_plain = |part: Component<'_>| matches!(part, Component::Normal(_));
    assert!(path.components().all(is_plain), "{} leads elsewhere", path.display());
}

fn check_key(key: &ImageKey) {
    let text = key.as_str();
    assert!(!text.starts_with('/') && !text.chars().any(char::is_control), "{text:?}");
    assert!(text.split('/').all(|segment| !matches!(segment, "" | "." | "..")), "{text:?}");
    assert_eq!(ImageKey::parse(text).as_ref(), Ok(key));
    for out in ["s3://bucket", "s3://bucket/some/prefix", "/out"] {
        let layout = Layout::of(&out.parse().expect("it is a place"));
        let overlay = layout.overlay(key, OverlayDifference::default(), OverlayFormat::Jpeg);
        for (folder, path) in [
            (layout::PREDICTIONS, layout.prediction(key)),
            (layout::FAILURES, layout.failure(key)),
            (layout::OVERLAYS, overlay.expect("a format was given")),
        ] {
            let below = path.strip_prefix(folder).and_then(|rest| rest.strip_prefix('/'));
            let below = below.expect("it is in its folder");
            assert!(below.starts_with(text) || below.starts_with("%~"), "{path:?} left {folder}");
            let prefix =
                out.strip_prefix("s3://bucket").map(|prefix| prefix.trim_start_matches('/'));
            let length =
                path.len() + prefix.filter(|prefix| !prefix.is_empty()).map_or(0, |p| p.len() + 1);
            // The limits of S3, which other stores share, and of Linux.
            let limit = if prefix.is_some() { 1024 } else { 4096 };
            assert!(length <= limit, "{length} bytes are too long for {out}");
            let is_local = out.starts_with('/');
            assert!(!is_local || path.split('/').all(|name| name.len() <= 255), "{path:?}");
        }
    }
}

/// Checks that a listed image fits into a message and comes out of it unchanged.
fn check_message(key: ImageKey, label: Option<String>) {
    let place: Location = "s3://bucket/prefix".parse().expect("it is a place");
    let job = Job {
        v: JOB_VERSION,
        run: RunId::generate(),
        generation: None,
        key,
        etag: None,
        size: None,
        label,
        given_label: None,
        source: place.clone(),
        out: place,
        model: ModelIdentity::bundled(),
        explain: ExplainOptions::default(),
        replaces: false,
        changed: false,
        again: false,
    };
    assert_eq!(Job::parse(&job.to_json()).expect("a listed image makes a message"), job);
}
