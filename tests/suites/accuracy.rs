//! The bundled model's accuracy and maps on photographs that it was not trained on.

use std::fmt;

use camshaft_kernels::Kernel;
use camshaft_tests::programs::{camshaft, run};
use camshaft_tests::repository;
use camshaft_tests::results::{Results, local};
use tempfile::tempdir;

/// The model's card says 99.2 %. Other decoders and resizers may cost half a percentage point.
const LEAST_ACCURACY: f64 = 0.992 - 0.005;
/// Least cosine similarity between a photograph's map and that of PyTorch with Pillow's decoder and
/// resizer.
const LEAST_COSINE: f64 = 0.99;

#[test]
fn the_model_reaches_the_accuracy_of_its_card_and_its_maps_show_no_shortcut() {
    let Some(photographs) = repository::shared("data/pets/val") else { return };
    let out = tempdir().unwrap();
    let mut command = camshaft(["audit"]);
    let command = command.arg(photographs).arg("--out").arg(out.path()).args(["--overlay", "none"]);
    let _ended = run(command).expect(0);
    let results = Results::read(&local(out.path()));
    assert_eq!(results.predictions.len(), 400);
    let right = results.predictions.values().filter(|record| {
        record.image.label.as_deref() == Some(record.predictions[0].label.as_str())
    });
    let accuracy = right.count() as f64 / 400.0;
    println!("accuracy on 400 photographs: {accuracy}");
    assert!(accuracy >= LEAST_ACCURACY, "{accuracy}");

    let mut report = camshaft(["report", "--thumbnails", "0", "--json"]);
    let reported = run(report.arg(out.path())).expect(0);
    let reported: serde_json::Value = serde_json::from_str(&reported.stdout).unwrap();
    assert_eq!(reported["findings"]["shortcut"], 0, "{reported}");

    // Two of the reference images are among them.
    let golden = repository::shared("golden/cats-vs-dogs.json").unwrap();
    let golden: serde_json::Value =
        serde_json::from_slice(&std::fs::read(golden).unwrap()).unwrap();
    let mut compared = 0;
    for case in golden["cases"].as_array().unwrap() {
        let name = case["image"].as_str().unwrap();
        let Some((_, record)) = results.predictions.iter().find(|(key, _)| key.ends_with(name))
        else {
            continue;
        };
        let (class, theirs) = reference(case);
        assert_eq!(record.predictions[0].class, class, "{name}");
        let cosine = cosine(&record.explanations[0].map.values, &theirs);
        println!("{name}: cosine similarity of the layer4 map {cosine}");
        assert!(cosine >= LEAST_COSINE, "{name}: {cosine}");
        compared += 1;
    }
    assert_eq!(compared, 2);
}

#[test]
fn bf16_gives_the_classes_and_maps_of_f32() {
    let has_bf16 = Kernel::available().into_iter().any(Kernel::is_bf16);
    if !has_bf16 {
        eprintln!("skipped: this machine computes no bf16");
        return;
    }
    let Some(agreement) = agreement("bf16") else { return };
    println!("{agreement}");
    let Agreement { share, cosines, .. } = agreement;
    assert!(share >= 0.995, "{share}");
    assert!(cosines[0] >= 0.995, "{}", cosines[0]);
}

#[test]
fn int8_gives_the_classes_of_f32_and_nearly_its_maps() {
    let Some(agreement) = agreement("int8") else { return };
    println!("{agreement}");
    let Agreement { share, cosines, .. } = agreement;
    assert!(share >= 0.995, "{share}");
    assert!(cosines[cosines.len() / 2] >= 0.998, "{}", cosines[cosines.len() / 2]);
    assert!(cosines[cosines.len() / 100] >= 0.987, "{}", cosines[cosines.len() / 100]);
}

/// How far a precision is from f32 on the photographs.
struct Agreement {
    /// The share of images with the same top class.
    share: f64,
    /// Of the maps of those images, in their order.
    cosines: Vec<f64>,
    /// The other images, with the probabilities of both top classes.
    others: Vec<String>,
}

impl fmt::Display for Agreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { share, cosines, others } = self;
        let of = |part: usize| cosines[cosines.len() / part];
        let (median, hundredth, least) = (of(2), of(100), cosines[0]);
        let (percent, images) = (100.0 * share, cosines.len() + others.len());
        writeln!(f, "the same top class for {percent:.2} % of {images} images")?;
        writeln!(f, "cosine of maps: median {median}, hundredth {hundredth}, least {least}")?;
        write!(f, "others: {others:?}")
    }
}

/// None if there are no photographs.
fn agreement(precision: &str) -> Option<Agreement> {
    let (mut cosines, mut others) = (Vec::new(), Vec::new());
    // Photographs of cats and dogs, and of things that the model has no class for. Its answers for
    // those are uncertain.
    for folder in ["data/pets/val", "data/photos"] {
        let photographs = repository::shared(folder)?;
        let [f32, other] = ["f32", precision].map(|precision| {
            let out = tempdir().unwrap();
            let mut command = camshaft(["audit"]);
            let command = command.arg(&photographs).arg("--out").arg(out.path());
            let command = command.args(["--precision", precision, "--overlay", "none"]);
            let _ended = run(command).expect(0);
            Results::read(&local(out.path())).predictions
        });
        for (key, f32) in &f32 {
            let other = &other[key];
            assert_eq!((&*f32.model.precision, &*other.model.precision), ("f32", precision));
            let [one, another] = [f32, other].map(|record| &record.predictions[0]);
            if one.class == another.class {
                let [f32, other] = [f32, other].map(|record| &record.explanations[0].map.values);
                cosines.push(cosine(f32, other));
            } else {
                others.push(format!("{key}: {} and {}", one.probability, another.probability));
            }
        }
    }
    cosines.sort_by(f64::total_cmp);
    let share = cosines.len() as f64 / (cosines.len() + others.len()) as f64;
    Some(Agreement { share, cosines, others })
}

/// The top class of a reference case, and its Grad-CAM map at layer4.
fn reference(case: &serde_json::Value) -> (usize, Vec<f32>) {
    let logits: Vec<f64> = serde_json::from_value(case["logits"].clone()).unwrap();
    let class = usize::from(logits[1] > logits[0]);
    let map = case["maps"].as_array().unwrap().iter().find(|map| {
        map["method"] == "grad-cam" && map["layer"] == "layer4" && map["class"] == class
    });
    (class, serde_json::from_value(map.unwrap()["values"].clone()).unwrap())
}

pub(super) fn cosine(ours: &[f32], theirs: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    };
    dot(ours, theirs) / (dot(ours, ours) * dot(theirs, theirs)).sqrt()
}
