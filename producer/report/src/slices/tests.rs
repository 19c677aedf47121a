//! Both searches on tables made by hand, with planted slices and without.

use camshaft_common::measure::ImageMeasures;
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64;

use super::{Question, Slice, Slices, find};
use crate::predictions::{
    COLUMNS, ImageClasses, ImageRow, LabelMeaning, RowPrediction, usual_measures,
};
use crate::table::table_of;

/// An image of a data set of wolves and dogs.
struct Photo {
    key: String,
    label: &'static str,
    predicted: &'static str,
    brightness: f32,
    chroma: f32,
    is_known: bool,
    digest: Option<String>,
}

fn search(photos: &[Photo]) -> Slices {
    let table = table_of(photos.iter().map(row), COLUMNS);
    let classes = ImageClasses::read(&table).unwrap();
    find(&table, classes).unwrap()
}

fn row(photo: &Photo) -> ImageRow {
    let measures =
        ImageMeasures { brightness: photo.brightness, chroma: photo.chroma, ..usual_measures() };
    let predicted = RowPrediction {
        labels: vec![photo.predicted.to_owned()],
        probabilities: vec![0.9],
        ..RowPrediction::default()
    };
    let meaning = match photo.is_known {
        true => LabelMeaning::Class(0, photo.label.to_owned()),
        false => LabelMeaning::NoClass,
    };
    ImageRow {
        key: photo.key.clone(),
        label: Some(photo.label.to_owned()),
        meaning,
        digest: photo.digest.clone(),
        measures: Some(measures),
        width: Some(200),
        height: Some(200),
        predicted: Some(predicted),
        ..ImageRow::default()
    }
}

/// Photographs with random measures, one in ten of them wrong.
fn photos(count: usize, seed: u64) -> Vec<Photo> {
    let mut random = Pcg64::seed_from_u64(seed);
    let photo = |index: usize| {
        let label = if index.is_multiple_of(3) { "wolf" } else { "dog" };
        let other = if label == "wolf" { "dog" } else { "wolf" };
        Photo {
            key: format!("{}/{label}/{index}.jpg", if index % 4 < 3 { "train" } else { "val" }),
            label,
            predicted: if random.random::<f32>() < 0.1 { other } else { label },
            brightness: random.random(),
            chroma: random.random(),
            is_known: true,
            digest: None,
        }
    };
    (0..count).map(photo).collect()
}

fn of(slices: &Slices, question: Question) -> Vec<&Slice> {
    slices.list.iter().filter(|slice| slice.question == question).collect()
}

#[test]
fn random_data_have_no_slices() {
    let found: usize = (0..30).map(|seed| search(&photos(1500, seed)).list.len()).sum();
    // At a false discovery rate of 1 % less than one of 30 has one.
    assert!(found <= 1, "{found} in 30 data sets");
}

#[test]
fn a_class_whose_dark_images_are_wrong_is_one_slice() {
    let mut photos = photos(1500, 1);
    for photo in photos.iter_mut().filter(|photo| photo.label == "wolf" && photo.brightness < 0.1) {
        photo.predicted = "dog";
    }
    let found = search(&photos);
    let slices = of(&found, Question::Accuracy);
    let [slice] = &slices[..] else { panic!("one slice was planted: {:#?}", found.list) };
    assert_eq!((slice.class.as_deref(), &*slice.feature), (Some("wolf"), "brightness"));
    assert_eq!(slice.from, None);
    assert!((0.05..0.12).contains(&slice.to.unwrap()), "{slice:?}");
    assert!(slice.accuracy.unwrap() < 0.1 && slice.rest_accuracy.unwrap() > 0.8, "{slice:?}");
    assert!(slice.reason.starts_with("Images labelled wolf with brightness below 0."), "{slice:?}");
    assert_eq!(slice.examples.len(), 6);
    assert_eq!(slice.example_keys[0], slice.examples[0].key);
    assert!(of(&found, Question::Nuisance).is_empty(), "{:#?}", found.list);
}

#[test]
fn a_split_and_a_folder_of_more_mistakes_are_slices() {
    let mut photos = photos(1500, 2);
    for (index, photo) in photos.iter_mut().enumerate() {
        photo.key = format!("site-{}/{}", index % 5, photo.key);
        if index % 5 == 2 && index % 2 == 0 {
            photo.predicted = "cow";
        }
    }
    let found = search(&photos);
    let slices = of(&found, Question::Accuracy);
    let [slice] = &slices[..] else { panic!("one slice was planted: {:#?}", found.list) };
    assert_eq!((&*slice.feature, slice.value.as_deref()), ("folder", Some("site-2")));
    assert!(of(&found, Question::Nuisance).is_empty(), "{:#?}", found.list);
}

#[test]
fn hard_classes_are_no_slices() {
    let mut photos = photos(1500, 3);
    for (index, photo) in photos.iter_mut().enumerate().filter(|(_, photo)| photo.label == "wolf") {
        photo.brightness *= 0.5;
        if index / 12 % 2 == 0 {
            photo.predicted = "dog";
        }
    }
    let found = search(&photos);
    assert!(of(&found, Question::Accuracy).is_empty(), "{:#?}", found.list);
}

#[test]
fn bright_wolves_are_a_nuisance_whether_or_not_the_model_knows_them() {
    for is_known in [true, false] {
        let mut photos = photos(1500, 4);
        for photo in &mut photos {
            photo.is_known = is_known;
            if photo.label == "wolf" {
                photo.brightness = 0.9 + photo.brightness / 10.0;
            }
        }
        let found = search(&photos);
        let nuisances = of(&found, Question::Nuisance);
        let [slice] = &nuisances[..] else { panic!("one was planted: {:#?}", found.list) };
        assert_eq!((slice.class.as_deref(), &*slice.feature), (Some("wolf"), "brightness"));
        assert!(slice.effect > 0.9 && slice.information.unwrap() > 0.3, "{slice:?}");
        assert!(slice.reason.contains("labelled wolf are brighter than others in 9"), "{slice:?}");
        assert_eq!(found.compared_accuracy, is_known);
        assert_eq!(found.notes.len(), usize::from(!is_known));
    }
}

#[test]
fn folders_named_like_the_label_are_no_nuisance_and_others_are() {
    let mut photos = photos(1500, 5);
    for photo in &mut photos {
        photo.key = photo.key.replace("wolf", "WOLF").replace("/dog/", "/Dog/");
    }
    assert!(search(&photos).list.is_empty());
    for (index, photo) in photos.iter_mut().enumerate() {
        let site = if photo.label == "wolf" { 0 } else { index % 3 + 1 };
        photo.key = format!("site-{site}/{}/{index}.jpg", photo.label);
    }
    let found = search(&photos);
    let [slice] = &found.list[..] else { panic!("one was planted: {:#?}", found.list) };
    assert_eq!((&*slice.feature, slice.value.as_deref()), ("folder", Some("site-0")));
    assert!(
        slice.reason.starts_with("100 % of the images labelled wolf have folder site-0, 0 %"),
        "{slice:?}"
    );
}

#[test]
fn without_labels_there_is_nothing_to_compare() {
    let found = search(&[]);
    assert!(found.list.is_empty() && !found.compared_accuracy && !found.compared_labels);
    assert_eq!(found.notes, ["slices were not looked for: no image has a label"]);
    // Too few of them.
    let found = search(&photos(30, 6));
    assert!(found.list.is_empty() && !found.compared_labels, "{:#?}", found.list);
    assert_eq!(found.notes.len(), 2, "{:?}", found.notes);
}

#[test]
fn a_folder_or_split_that_every_label_has_its_own_of_is_a_nuisance() {
    for (folders, feature, value) in
        [(["siteA", "siteB"], "folder", "siteB"), (["train", "val"], "split", "val")]
    {
        let mut photos = photos(1500, 7);
        for (index, photo) in photos.iter_mut().enumerate() {
            let folder = folders[usize::from(photo.label == "wolf")];
            photo.key = format!("{folder}/{}/{index}.jpg", photo.label);
        }
        let found = search(&photos);
        let [slice] = &found.list[..] else { panic!("one was planted: {:#?}", found.list) };
        assert_eq!((slice.question, &*slice.feature), (Question::Nuisance, feature));
        let (label, named) = (slice.class.as_deref(), slice.value.as_deref());
        let other = (Some("dog"), Some(folders[0]));
        assert!((label, named) == (Some("wolf"), Some(value)) || (label, named) == other);
    }
}

#[test]
fn wrong_labels_in_the_folders_of_labels_are_no_nuisance() {
    let mut photos = photos(1500, 8);
    for (index, photo) in photos.iter_mut().enumerate() {
        let other = if photo.label == "wolf" { "dog" } else { "wolf" };
        let folder = if index % 10 == 0 { other } else { photo.label };
        photo.key = format!("{folder}/{index}.jpg");
    }
    let found = search(&photos);
    assert!(of(&found, Question::Nuisance).is_empty(), "{:#?}", found.list);
}

#[test]
fn copies_of_a_file_count_once() {
    let mut photos = photos(1500, 9);
    // One wolf under a hundred names: dark, in a folder of its own, and always wrong.
    for (index, photo) in photos.iter_mut().filter(|photo| photo.label == "wolf").enumerate() {
        let file = if index < 100 { 0 } else { index };
        photo.digest = Some(format!("sha256:{file:032x}{:032x}", 0));
        if index < 100 {
            photo.key = format!("copies/wolf/{index}.jpg");
            photo.predicted = "dog";
            photo.brightness = 0.0;
        }
    }
    let found = search(&photos);
    assert!(found.list.is_empty(), "{:#?}", found.list);
    photos.iter_mut().for_each(|photo| photo.digest = None);
    assert!(!of(&search(&photos), Question::Accuracy).is_empty());
}
