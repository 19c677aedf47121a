//! Tests that `--prove-shortcuts` acquits: a model that was trained without a tag is not turned by it.
//! That it convicts, `report` tests, on a model that was trained to rely on the tag.

use std::path::Path;

use camshaft_common::shortcuts::{ProofVerdict, ShortcutsRecord};
use camshaft_model::{ComputeDevice, ComputeSettings, KernelChoice, ModelFiles, Precision};
use camshaft_tests::images::files_below;
use camshaft_tests::planted::tag;
use camshaft_tests::repository;
use camshaft_tests::small_run::SmallRun;
use camshaft_trust::examination::ExaminationProgress;
use camshaft_trust::patches::TrialImages;
use camshaft_trust::shortcut_proof::{ClusterProof, PatchTrial, measure_trials};
use image::RgbImage;

/// Images of other classes for each proof.
const IMAGES: usize = 40;
/// Where the tag is: it has 0.3 of the shorter side, and these photographs are square.
const TAG_PLACE: [f32; 4] = [0.7, 0.7, 1.0, 1.0];

fn pictures(folder: &Path) -> Vec<RgbImage> {
    let mut files = files_below(folder);
    files.sort();
    files.iter().map(|file| image::open(file).unwrap().to_rgb8()).collect()
}

#[test]
fn a_tag_that_the_model_has_not_learnt_is_innocent() {
    let Some(photos) = repository::shared("data/pets/val") else { return };
    let [cats, dogs] = ["cat", "dog"].map(|class| pictures(&photos.join(class)));
    let files = ModelFiles::bundled();
    let rule = &files.config().input;
    let class = files.config().classes.iter().position(|name| name == "cat").unwrap();
    let (precision, kernel) = (Precision::Auto, KernelChoice::Auto);
    let compute = ComputeSettings { precision, kernel, largest_batch: 16 };
    let trial = |at: usize, set: usize| {
        let typical = tag(cats[set * 5 + at % 5].clone());
        let images = TrialImages {
            target: &dogs[set * IMAGES + at],
            typical: &typical,
            region: TAG_PLACE,
            control: &cats[20 + set * 20 + at % 20],
            hottest: [0.5, 0.5],
            seed: at as u64,
        };
        PatchTrial { cluster: set, class, inputs: images.inputs(rule) }
    };
    let sets = dogs.len().min(3 * IMAGES) / IMAGES;
    let trials = (0..sets).flat_map(|set| (0..IMAGES).map(move |at| (at, set)));
    let trials = trials.map(|(at, set)| trial(at, set));
    let progress = ExaminationProgress::default();
    let measured =
        measure_trials(&files, &ComputeDevice::Cpu, compute, sets, trials, &progress).unwrap();
    assert!(sets > 0 && measured.outcomes.len() == sets);
    for outcomes in &measured.outcomes {
        let proof = ClusterProof::of(outcomes);
        println!(
            "{} dogs: the tag turns {}, random places {}, usual places {}: {}",
            proof.measured,
            proof.patch.flips,
            proof.random_place.effect.flips,
            proof.usual_place.effect.flips,
            proof.verdict.name()
        );
        assert_eq!(proof.verdict, ProofVerdict::Refuted, "{proof:?}");
    }
}

#[test]
fn a_run_without_a_suspect_says_that_there_is_nothing_to_prove() {
    let small = SmallRun::new(6);
    let ended = small.audit(&["--prove-shortcuts", "20"]).expect(0);
    assert!(ended.stdout.contains("nothing to prove"), "{}", ended.stdout);
    let json = std::fs::read(small.out.join("shortcuts.json")).unwrap();
    let record: ShortcutsRecord = serde_json::from_slice(&json).unwrap();
    assert!(record.proofs.is_empty() && record.left_out.is_empty() && record.model.is_none());
    for wrong in ["0", "1001", "many"] {
        let _refused = small.audit(&["--prove-shortcuts", wrong]).expect(2);
    }
}
