use camshaft_common::explain::ExplainOptions;
use camshaft_common::job::JOB_VERSION;
use camshaft_common::model::ModelIdentity;
use camshaft_common::run::RunId;
use proptest::prelude::*;

use super::*;

fn job(source: &str, key: &str, out: &str, model: &str) -> Job {
    Job {
        v: JOB_VERSION,
        run: RunId::generate(),
        generation: None,
        key: ImageKey::parse(key).unwrap(),
        etag: None,
        size: None,
        label: None,
        given_label: None,
        source: source.parse().unwrap(),
        out: out.parse().unwrap(),
        model: ModelIdentity { reference: model.parse().unwrap(), ..ModelIdentity::bundled() },
        explain: ExplainOptions::default(),
        replaces: false,
        changed: false,
        again: false,
    }
}

fn only(allowed: &[&str]) -> AllowedPlaces {
    AllowedPlaces::only(allowed.iter().map(|text| text.parse().unwrap()).collect())
}

fn admits(allowed: &[&str], place: &str) -> bool {
    only(allowed).check(&job(place, "a.jpg", place, "cats-vs-dogs")).is_ok()
}

#[test]
fn a_place_allows_itself_and_all_below() {
    for place in ["s3://bucket/data", "s3://bucket/data/", "s3://bucket/data/x/y"] {
        assert!(admits(&["s3://bucket/data"], place), "{place}");
        assert!(admits(&["s3://other", "s3://bucket/data/"], place), "{place}");
        assert!(admits(&["s3://bucket"], place), "{place}");
        assert!(admits(&[], place), "{place}");
    }
}

#[test]
fn what_only_looks_like_a_place_is_outside() {
    for place in [
        "s3://bucket",
        "s3://bucket/database",
        "s3://bucket/data.old/x",
        "s3://bucket/Data/x",
        "s3://bucket/x/data",
        "s3://bucket-2/data",
        "s3://bucket/data/../x",
        "s3://bucket/data/%2e%2e/x",
        "s3://bucket/data/.%2E/x",
        "s3://bucket/%64ata/%2e%2e",
        "s3://bucket/data\\..\\x",
        "s3://bucket/data%5cx",
        "s3://bucket/data%252fx",
        "gs://bucket/data/x",
        "az://bucket/data/x",
        "file:///data/x",
        "/bucket/data",
    ] {
        assert!(!admits(&["s3://bucket/data"], place), "{place}");
    }
}

#[test]
fn odd_spellings_of_a_place_below_are_below() {
    for place in ["s3://bucket/d%61ta/x", "s3://bucket/data%2fx", "s3://bucket/x/../data"] {
        assert!(admits(&["s3://bucket/data"], place), "{place}");
    }
    // A store takes these names literally, so they do not lead to a parent.
    for place in ["s3://bucket/data/%252e%252e/x", "s3://bucket/data/..%5cx"] {
        assert!(admits(&["s3://bucket/data"], place), "{place}");
    }
}

#[test]
fn each_place_of_a_job_is_looked_at() {
    let places = only(&["s3://in", "s3://out", "s3://models", "hf:owner/name"]);
    let check = |source, out, model| {
        let checked = places.check(&job(source, "a.jpg", out, model));
        checked.map_err(|refused| refused.to_string())
    };
    for model in ["cats-vs-dogs", "s3://models/a", "hf:owner/name", "hf:owner/name@v1"] {
        assert_eq!(check("s3://in/a", "s3://out/a", model), Ok(()), "{model}");
    }
    for (source, out, model, told) in [
        ("s3://elsewhere", "s3://out", "cats-vs-dogs", "SOURCE s3://elsewhere"),
        ("s3://in", "s3://elsewhere", "cats-vs-dogs", "OUT s3://elsewhere"),
        ("s3://in", "s3://out", "s3://elsewhere", "model s3://elsewhere"),
        ("s3://in", "s3://out", "hf:owner/other", "model hf:owner/other"),
        ("s3://in", "s3://out", "hf:other/name", "model hf:other/name"),
    ] {
        let refused = check(source, out, model).unwrap_err();
        assert!(refused.contains(told) && refused.contains("--allow"), "{refused}");
    }
    let any = only(&["s3://in", "s3://out", "hf:*"]);
    assert!(any.check(&job("s3://in", "a.jpg", "s3://out", "hf:any/one")).is_ok());
    let own = only(&["s3://in", "s3://out"]).with_any_model();
    assert!(own.check(&job("s3://in", "a.jpg", "s3://out", "s3://elsewhere")).is_ok());
}

#[test]
fn a_file_of_weights_and_class_names_are_looked_at() {
    let places = only(&["s3://in", "s3://out", "s3://models", "s3://lone/w.pth"]);
    let check = |model: &str, names: Option<&str>| {
        let mut job = job("s3://in", "a.jpg", "s3://out", model);
        job.model.options.classes = names.map(|names| names.parse().unwrap());
        places.check(&job).map_err(|refused| refused.to_string())
    };
    assert_eq!(check("s3://models/w.pth", Some("s3://models/names.txt")), Ok(()));
    assert_eq!(check("s3://models/w.pth", Some("imagenet-1k")), Ok(()));
    // config.json beside it would be read too.
    assert!(check("s3://lone/w.pth", None).unwrap_err().contains("model s3://lone"));
    for names in ["s3://elsewhere/names.txt", "/etc/passwd"] {
        assert!(check("s3://models/w.pth", Some(names)).unwrap_err().contains(names));
        assert!(check("cats-vs-dogs", Some(names)).unwrap_err().contains(names));
    }
}

#[test]
fn items_that_promise_too_much_are_refused() {
    for text in ["", "hf:owner", "hf:owner/name@main", "hf:owner/*", "http://host", "s3://"] {
        assert!(text.parse::<AllowedPlace>().is_err(), "{text}");
    }
}

/// `inside` with an image, a model and OUT; `outside` with a secret; both in one folder.
fn folders() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let (inside, outside) = (directory.path().join("inside"), directory.path().join("outside"));
    for folder in ["images", "out", "model"] {
        std::fs::create_dir_all(inside.join(folder)).unwrap();
        std::fs::create_dir_all(outside.join(folder)).unwrap();
    }
    std::fs::write(inside.join("images/a.jpg"), "").unwrap();
    std::fs::write(outside.join("secret.jpg"), "").unwrap();
    (directory, inside, outside)
}

fn check_inside(inside: &Path) -> Result<(), PlaceRefused> {
    let text = |path: &str| inside.join(path).to_str().unwrap().to_owned();
    let job = job(&text("images"), "a.jpg", &text("out"), &text("model"));
    only(&[inside.to_str().unwrap()]).check(&job)
}

#[test]
fn links_that_lead_out_are_refused() {
    use std::os::unix::fs::symlink;
    let (_directory, inside, _) = folders();
    check_inside(&inside).unwrap();
    for (link, target) in [
        ("images/a.jpg", "../../outside/secret.jpg"),
        ("images", "../outside/images"),
        ("out", "../outside/out"),
        ("out/predictions", "../../outside/out"),
        ("out/overlays", "../../outside/out"),
        ("out/failures", "../../outside/out"),
        ("model", "../outside/model"),
        ("model/config.json", "../../outside/secret.jpg"),
        // The target does not exist yet.
        ("out/predictions", "../../outside/new"),
    ] {
        let (_directory, inside, _) = folders();
        let path = inside.join(link);
        if path.is_dir() {
            std::fs::remove_dir_all(&path).unwrap();
        } else {
            std::fs::remove_file(&path).unwrap_or_default();
        }
        symlink(target, &path).unwrap();
        let refused = check_inside(&inside).expect_err(link).to_string();
        assert!(refused.contains("--allow"), "{refused}");
    }
}

#[test]
fn links_within_and_an_allowed_place_that_is_one_are_followed() {
    use std::os::unix::fs::symlink;
    let (directory, inside, _) = folders();
    std::fs::create_dir(inside.join("elsewhere")).unwrap();
    symlink("../elsewhere", inside.join("out/predictions")).unwrap();
    check_inside(&inside).unwrap();
    let link = directory.path().join("link");
    symlink(&inside, &link).unwrap();
    check_inside(&link).unwrap();
    std::fs::remove_dir_all(inside.join("out")).unwrap();
    check_inside(&link).unwrap();
}

/// Paths that lead to a parent, hide that they do, or look like an allowed place.
fn hostile_path() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just(".."),
        Just("."),
        Just(""),
        Just("%2e%2e"),
        Just("%2E."),
        Just("%252e%252e"),
        Just("%2f"),
        Just("%252f"),
        Just("..%2f"),
        Just("..%2f.."),
        Just("\\"),
        Just("..\\"),
        Just("%5c"),
        Just("data"),
        Just("d%61ta"),
        Just("database"),
        Just("data%2f"),
        Just("x"),
        Just("%00"),
        Just("%ff"),
        Just("?a"),
        Just("#a"),
        Just(" "),
        Just("é"),
    ];
    proptest::collection::vec(piece, 0..8).prop_map(|pieces| pieces.join("/"))
}

/// The path that is opened in the file system or store in the end.
fn opened(place: &Location) -> String {
    match place.local_path() {
        Some(path) => path.to_str().unwrap().to_owned(),
        None => {
            let url = place.as_url();
            let path = percent_encoding::percent_decode_str(url.path()).decode_utf8().unwrap();
            format!("{}:/{}{path}", url.scheme(), url.host_str().unwrap())
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn whatever_is_admitted_opens_below_what_is_allowed(
        root in prop_oneof![
            Just("s3://bucket/"), Just("s3://bucket/data/"), Just("s3://bucket/data"),
            Just("gs://bucket/data/"), Just("file:///tmp/data/"), Just("/tmp/data/"), Just("/tmp/data"),
        ],
        path in hostile_path(),
    ) {
        let Ok(place) = format!("{root}{path}").parse::<Location>() else { return Ok(()) };
        let outer = if root.starts_with("s3") { "s3:/bucket/data" } else { "/tmp/data" };
        let places = only(&["s3://bucket/data", "/tmp/data"]);
        let admitted = places.check_place(PlaceRole::Source, &place).is_ok();
        let opened = opened(&place);
        let climbs = opened.split('/').any(|segment| segment == "..");
        let below = opened == outer || opened.starts_with(&format!("{outer}/"));
        prop_assert!(!climbs, "{opened}");
        prop_assert_eq!(admitted, below, "{}", opened);
    }
}
