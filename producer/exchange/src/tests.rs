use chrono::{DateTime, Utc};
use proptest::prelude::*;

use super::*;

const FORMATS: [ExportFormat; 4] =
    [ExportFormat::LabelStudio, ExportFormat::Cvat, ExportFormat::Coco, ExportFormat::Csv];

fn head() -> ExportHead {
    ExportHead {
        run: "0190".to_owned(),
        model: "pets".to_owned(),
        model_digest: "sha256:0123456789abcdef".to_owned(),
        labels: ["big <dog>", "cat"].map(str::to_owned).to_vec(),
        has_overlays: true,
        has_given_overlays: true,
    }
}

fn image(number: u64, key: &str, label: Option<&str>) -> ExportImage {
    ExportImage {
        number,
        key: key.to_owned(),
        address: format!("/pets/{key}"),
        label: label.map(str::to_owned),
        predicted: Some("big <dog>".to_owned()),
        probability: Some(0.98),
        suggested: Some("big <dog>".to_owned()),
        suggested_probability: Some(0.9),
        findings: vec![ExportFinding {
            kind: "duplicate".to_owned(),
            problem: Some("exact".to_owned()),
            score: 0.5,
            reason: "it is \"b.jpg\" & again".to_owned(),
        }],
        size: Some([30, 20]),
        ..ExportImage::default()
    }
}

fn written(format: ExportFormat, images: &[ExportImage]) -> String {
    let mut out = Vec::new();
    let mut writer = ExportWriter::new(format, head(), &mut out).unwrap();
    images.iter().for_each(|image| writer.push(image).unwrap());
    writer.finish().unwrap();
    String::from_utf8(out).unwrap()
}

fn answers(text: &str) -> Result<Vec<Answer>, ReadError> {
    let FileFormat::Exchanged(format) = recognise(text.as_bytes())? else {
        panic!("it is of a format: {text}");
    };
    let mut answers = Vec::new();
    read(format, text.as_bytes(), &mut |answer| answers.push(answer))?;
    Ok(answers)
}

fn error(text: &str) -> String {
    answers(text).unwrap_err().to_string()
}

fn labels(labels: &[&str], chosen: bool) -> Verdict {
    Verdict::Labels { labels: labels.iter().map(|label| (*label).to_owned()).collect(), chosen }
}

fn utc(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

#[test]
fn an_untouched_file_chooses_nothing_and_its_format_is_recognised() {
    let images = [
        image(0, "cat/=a.jpg", Some("cat")),
        image(1, "b/'x, y.jpg", None),
        image(2, "ü.jpg", Some("big <dog>")),
    ];
    for format in FORMATS {
        for images in [&images[..], &images[..1], &[]] {
            let text = written(format, images);
            assert_eq!(recognise(text.as_bytes()).unwrap(), FileFormat::Exchanged(format));
            for Answer { verdict, key, .. } in answers(&text).unwrap() {
                let given = images.iter().find(|image| image.key == key).unwrap().label.clone();
                assert_eq!(verdict, labels(&[given.as_deref().unwrap()], false), "{format:?}");
            }
        }
    }
}

#[test]
fn label_studio_has_predictions_and_every_variable_of_its_configuration() {
    let text = written(ExportFormat::LabelStudio, &[image(0, "cat/a.jpg", Some("cat"))]);
    let tasks: serde_json::Value = serde_json::from_str(&text).unwrap();
    let (data, predictions) = (&tasks[0]["data"], &tasks[0]["predictions"]);
    assert_eq!(data["camshaft_key"], "cat/a.jpg");
    assert_eq!(predictions[0]["model_version"], "pets 0123456789ab");
    assert_eq!(predictions[0]["result"][0]["value"]["choices"][0], "big <dog>");
    assert_eq!(predictions[1]["model_version"], "suggested label");
    assert!(
        data["summary"].as_str().unwrap().contains("duplicate (exact): it is \"b.jpg\" & again")
    );
    let config = ExportFormat::LabelStudio.companion(&head()).unwrap().unwrap();
    for variable in config.split("value=\"$").skip(1) {
        let (name, _) = variable.split_once('"').unwrap();
        assert!(data[name].is_string(), "{name} is not in {data}");
    }
    assert!(config.contains("<Choice value=\"big &lt;dog&gt;\"/>"), "{config}");
    assert!(config.contains("<Choice value=\"drop\""), "{config}");
}

#[test]
fn label_studio_is_read_whole_and_in_short() {
    let at = "2026-11-29T07:00:00.123456Z";
    let choice = |label: &str| {
        format!(
            r#"[{{"from_name":"new_label","to_name":"image","type":"choices","value":{{"choices":["{label}"]}}}}]"#
        )
    };
    let task = |annotations: &str| {
        format!(
            r#"[{{"id":7,"data":{{"camshaft_key":"a.jpg","image":"x"}},"annotations":[{annotations}]}}]"#
        )
    };
    let annotation = |by: &str, label: &str, more: &str| {
        format!(r#"{{"completed_by":{by},"result":{},"created_at":"{at}"{more}}}"#, choice(label))
    };
    let one = |text: &str| -> Option<Answer> {
        let mut found = answers(text).unwrap();
        assert!(found.len() < 2, "{found:?}");
        found.pop()
    };
    let expected = Answer {
        key: "a.jpg".to_owned(),
        verdict: labels(&["dog"], true),
        by: Some("ana@example.org".to_owned()),
        at: Some(utc(at)),
        item: "task 1".to_owned(),
    };
    let ana = r#"{"id":1,"email":"ana@example.org"}"#;
    assert_eq!(one(&task(&annotation(ana, "dog", ""))).as_ref(), Some(&expected));
    let numbered = one(&task(&annotation("4", "dog", ""))).unwrap();
    assert_eq!(numbered.by.as_deref(), Some("label-studio user 4"));
    // Nothing was chosen: cancelled, skipped, submitted empty, or not annotated.
    for nothing in [
        &annotation(ana, "dog", r#","was_cancelled":true"#)[..],
        r#"{"completed_by":1,"result":[]}"#,
        "",
    ] {
        assert_eq!(one(&task(nothing)), None, "{nothing}");
    }
    // The last of two annotations counts, in either order.
    let later = annotation("4", "cow", r#","updated_at":"2026-11-29T08:00:00Z""#);
    let earlier = annotation(ana, "dog", "");
    for both in [[&later, &earlier], [&earlier, &later]] {
        let both = format!("{},{}", both[0], both[1]);
        assert_eq!(one(&task(&both)).unwrap().verdict, labels(&["cow"], true));
    }
    let short = format!(
        r#"[{{"id":7,"camshaft_key":"a.jpg","new_label":"dog","annotator":"ana@example.org","updated_at":"{at}"}}]"#
    );
    assert_eq!(one(&short).as_ref(), Some(&expected));

    let other = task(&annotation(ana, "dog", "")).replace("new_label", "quality");
    assert!(error(&other).contains("named \"quality\""), "{}", error(&other));
    let keyless = task(&annotation(ana, "dog", "")).replace("camshaft_key", "key");
    assert!(error(&keyless).contains("task 1: its data have no camshaft_key"));
    let cut = &task(&annotation(ana, "dog", ""))[..60];
    assert!(error(cut).contains("line 1"), "{}", error(cut));
    // An annotation of the same time may choose otherwise: whoever takes both compares them.
    let same = format!("{},{}", annotation(ana, "dog", ""), annotation("4", "cow", ""));
    assert_eq!(answers(&task(&same)).unwrap().len(), 2);
    // A list of something else.
    let min = r#"{"id":7,"image":"x","annotation_id":3,"annotator":1}"#;
    assert_eq!(answers(&format!("[{min}]")).unwrap(), []);
    let decision = r#"{"schema":1,"key":"a","decision":"drop"}"#;
    for (items, place, reason) in [
        ("1", "item 1:", "Label Studio"),
        ("{}", "item 1:", "JSON or JSON-MIN"),
        (&format!("{min},{{\"id\":3,\"data\":null}}"), "item 2:", "JSON or JSON-MIN"),
        (&format!("{min},{min},{decision}"), "item 3:", "one a line, and no list"),
    ] {
        let error = error(&format!("[{items}]"));
        assert!(error.starts_with(place) && error.contains(reason), "{error}");
    }
}

#[test]
fn cvat_is_read_with_its_assignee_and_time() {
    let text = written(
        ExportFormat::Cvat,
        &[image(0, "a & b.jpg", Some("cat")), image(1, "c.jpg", Some("cat"))],
    );
    let meta = "<meta><dumped>2026-11-29 07:00:00.5+00:00</dumped>\
                <job><assignee><username>ana</username><email></email></assignee></job>";
    let edited = text.replacen("<meta>", meta, 1).replacen(
        "<tag label=\"cat\"",
        "<tag label=\"big &lt;dog&gt;\"",
        1,
    );
    let (start, end) = edited.rsplit_once(">none<").unwrap();
    let edited = format!("{start}>Keep<{end}");
    let found = answers(&edited).unwrap();
    let at = Some(utc("2026-11-29T07:00:00.5Z"));
    let of = |key: &str, verdict| Answer {
        key: key.to_owned(),
        verdict,
        by: Some("ana".to_owned()),
        at,
        item: format!("image {key:?}"),
    };
    let expected = [of("a & b.jpg", labels(&["big <dog>"], false)), of("c.jpg", Verdict::Keep)];
    assert_eq!(found, expected, "{edited}");

    for (broken, reason) in [
        (text.rsplit_once(" </image>").unwrap().0, "ends too early"),
        (&text[..text.len() - 5], "no XML of CVAT"),
        ("<?xml version=\"1.0\"?><dataset/>", "CVAT for images 1.1"),
        ("<annotations><image id=\"0\"/></annotations>", "an image has no name"),
        ("<annotations><version>&nbsp;</version></annotations>", "&nbsp; is unknown"),
        ("<annotations><a></b></annotations>", "no XML of CVAT"),
    ] {
        assert!(error(broken).contains(reason), "{broken}: {}", error(broken));
    }
    let control = ExportHead { labels: vec!["two\nlines".to_owned()], ..head() };
    let refused = ExportWriter::new(ExportFormat::Cvat, control, Vec::new()).err().unwrap();
    assert!(refused.to_string().contains("--as csv") || refused.to_string().contains("as csv"));
}

#[test]
fn coco_is_read_by_names_of_categories() {
    let text =
        written(ExportFormat::Coco, &[image(0, "a.jpg", Some("cat")), image(1, "b.jpg", None)]);
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["annotations"][0]["bbox"], serde_json::json!([0, 0, 30, 20]));
    assert_eq!(json["images"][1]["camshaft"]["predicted"], "big <dog>");
    let edited = text.replace("\"category_id\":2", "\"category_id\":1").replacen(
        "\"decision\":null",
        "\"decision\":\"drop\"",
        1,
    );
    let found: Vec<_> =
        answers(&edited).unwrap().into_iter().map(|answer| (answer.key, answer.verdict)).collect();
    let expected =
        [("a.jpg".to_owned(), labels(&["big <dog>"], false)), ("b.jpg".to_owned(), Verdict::Drop)];
    assert_eq!(found, expected);
    for (from, to, reason) in [
        ("\"id\":2,\"name\"", "\"id\":1,\"name\"", "category \"big <dog>\" has the same id, 1"),
        ("\"category_id\":2", "\"category_id\":9", "there is no category 9"),
        ("\"image_id\":1", "\"image_id\":7", "annotation 1: there is no image"),
        ("\"decision\":null", "\"decision\":\"x\"", "use keep, drop or undecided"),
        ("\"images\"", "\"pictures\"", "no COCO file"),
    ] {
        let broken = text.replace(from, to);
        assert!(error(&broken).contains(reason), "{to}: {}", error(&broken));
    }
}

#[test]
fn spreadsheets_may_have_other_delimiters_and_miss_columns() {
    let read = |text: &str| {
        answers(text).unwrap().into_iter().map(|a| (a.key, a.verdict)).collect::<Vec<_>>()
    };
    let one = |key: &str, verdict| vec![(key.to_owned(), verdict)];
    for text in [
        "key,new_label\na.jpg, dog \nb.jpg,\n",
        "\u{feff}key;label;new_label\r\na.jpg;cat;dog\r\n",
        "new_label\tkey\ndog\ta.jpg\n",
        "camshaft_key,id,new_label\na.jpg,3,\"{\"\"choices\"\": [\"\"dog\"\"]}\"\n",
        "key,decision,new_label\na.jpg,relabel,dog\n",
        "key,image,image,new_label\na.jpg,x,y,dog\n",
        "sep=;\nkey;new_label\na.jpg;dog\n",
        "\u{feff}SEP=\t\r\nkey\tnew_label\r\na.jpg\tdog\r\n",
        "\"sep=|\"\nkey|new_label\na.jpg|dog\n",
    ] {
        assert_eq!(read(text), one("a.jpg", labels(&["dog"], true)), "{text}");
    }
    assert_eq!(read("key,decision\n'=a.jpg,DROP\n"), one("=a.jpg", Verdict::Drop));
    for (text, reason) in [
        ("key,decision\na.jpg,drop\nb.jpg,dorp\n", "line 3: its decision is \"dorp\""),
        ("key,decision,new_label\na.jpg,drop,dog\n", "leave one of them empty"),
        ("key,decision,new_label\na.jpg,relabel,\n", "fill it in"),
        ("key,decision\na.jpg\n", "line 2: its number of cells is 1, and that of the columns 2"),
        ("key,decision,decision\na.jpg,drop,keep\n", "line 1: it names two columns decision"),
        ("Key,KEY,decision\na.jpg,b.jpg,keep\n", "line 1: it names two columns key"),
        ("key,decision,at\na.jpg,drop,soon\n", "its time \"soon\""),
    ] {
        assert!(error(text).contains(reason), "{text}: {}", error(text));
    }
    let latin = b"key,decision\ncaf\xe9.jpg,drop\n";
    let failed = read_bytes(latin).unwrap_err().to_string();
    assert!(failed.contains("line 2: it is not UTF-8"), "{failed}");
}

#[test]
fn lines_of_spreadsheets_have_numbers_whatever_ends_them() {
    for end in ["\n", "\r\n", "\r"] {
        for (lines, expected) in [
            (&["key,decision", "a,dorp"][..], 2),
            (&["key,decision", "a,drop", "b,dorp"], 3),
            (&["key,decision", "a,drop", "", "", "b,dorp"], 5),
            (&["sep=;", "key;decision", "a;drop", "b;dorp"], 4),
            (&["key,reasons,decision", "a,\"one", "", "two\",drop", "b,,dorp", "c,,"], 5),
            (&["key,decision", "a,drop", "b"], 3),
        ] {
            for last in ["", end] {
                let text = lines.join(end) + last;
                let error = error(&text);
                assert!(error.starts_with(&format!("line {expected}: ")), "{text:?}: {error}");
            }
        }
        // Longer than what is read at a time.
        let mut text = format!("key,decision{end}");
        (0..20_000).for_each(|number| text += &format!("{number},drop{end}"));
        text += "b,dorp";
        assert!(error(&text).starts_with("line 20002: "), "{}", error(&text));
    }
}

fn read_bytes(bytes: &[u8]) -> Result<(), ReadError> {
    read(ExportFormat::Csv, bytes, &mut |_| {})
}

#[test]
fn other_files_are_decisions_or_refused() {
    for text in ["", " \n", "{\"schema\":1,\"key\":\"a\"}", "{", "\u{feff} {\"key\""] {
        assert_eq!(recognise(text.as_bytes()).unwrap(), FileFormat::Decisions, "{text}");
    }
    let refused = |head: &[u8]| recognise(head).unwrap_err().to_string();
    for table in ["a.jpg,drop\n", "key;label\na;b\n", "sep=;\nkey\n", "name\tdecision\n"] {
        let error = refused(table.as_bytes());
        assert!(
            error.contains("looks like a table")
                && error.contains("key, and decision or new_label"),
            "{error}"
        );
    }
    for other in [&b"hello"[..], b"\xe9,key", b"-----", b"key\n"] {
        let error = refused(other);
        assert!(error.contains("Label Studio's JSON") && error.contains("columns key"), "{error}");
    }
    for utf16 in [&b"\xff\xfek\0e\0y\0"[..], b"\xfe\xff\0k\0e"] {
        assert!(refused(utf16).contains("save it as UTF-8"));
    }
    assert!(refused(b"PK\x03\x04...").contains("unzip"));
}

proptest! {
    #[test]
    fn keys_and_labels_survive_each_format(
        key in "[^\\p{Cc}\u{fffe}\u{ffff}/]{1,12}",
        label in "[^\\p{Cc}\u{fffe}\u{ffff} ][^\\p{Cc}\u{fffe}\u{ffff}]{0,8}[^\\p{Cc}\u{fffe}\u{ffff} ]",
    ) {
        prop_assume!(label.trim() == label);
        for format in [ExportFormat::Cvat, ExportFormat::Coco] {
            let mut out = Vec::new();
            let head = ExportHead { labels: vec![label.clone()], ..ExportHead::default() };
            let mut writer = ExportWriter::new(format, head, &mut out).unwrap();
            writer.push(&image(0, &key, Some(&label))).unwrap();
            writer.finish().unwrap();
            let mut found = Vec::new();
            read(format, &*out, &mut |answer| found.push((answer.key, answer.verdict))).unwrap();
            prop_assert_eq!(&found, &vec![(key.clone(), labels(&[&label], false))]);
        }
        // A person fills in the column.
        let sheet = written(ExportFormat::Csv, &[image(0, &key, Some("cat"))]);
        let filled = sheet.strip_suffix(",,\n").unwrap().to_owned() + ",drop,\n";
        let found = answers(&filled).unwrap();
        prop_assert_eq!((&found[0].key, &found[0].verdict), (&key, &Verdict::Drop));
    }

    #[test]
    fn nothing_makes_a_reader_panic(text in ".{0,200}", format in 0_usize..4) {
        drop(read(FORMATS[format], text.as_bytes(), &mut |_| {}));
        drop(recognise(text.as_bytes()));
    }
}
