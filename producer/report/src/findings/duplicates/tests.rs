//! Copies and their groups, on tables made by hand.

use camshaft_common::measure::{ImageMeasures, PerceptualHash, SKETCH_NUMBERS};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64;

use super::find;
use crate::findings::finding::{Problem, RowFinding};
use crate::predictions::{
    COLUMNS, ImageClasses, ImageRow, LabelMeaning, RowPrediction, SketchBytes, usual_measures,
};
use crate::similarity::orientation::Orientation;
use crate::table::table_of;

/// An image with a picture of its own; `noise` moves its embedding away from that of its seed.
fn image(seed: u64, noise: i8) -> ImageRow {
    let mut random = Pcg64::seed_from_u64(seed);
    let hash = PerceptualHash(random.random::<u64>() >> 1);
    let mut numbers: Vec<u8> = (0..SKETCH_NUMBERS)
        .map(|_| random.random_range(-70_i8..70).saturating_add(20).cast_unsigned())
        .collect();
    let mut random = Pcg64::seed_from_u64(!seed);
    for number in numbers.iter_mut().filter(|_| noise > 0) {
        let moved = number.cast_signed().saturating_add(random.random_range(-noise..=noise));
        *number = moved.cast_unsigned();
    }
    let measures = ImageMeasures { perceptual_hash: hash, ..usual_measures() };
    let sketch = Some(SketchBytes { scale: 0.01, numbers });
    let row = ImageRow {
        key: format!("{seed}.jpg"),
        digest: Some(format!("sha256:{:032x}{:032x}", u128::from(seed) * 256 + noise as u128, 0)),
        measures: Some(measures),
        label: Some("cat".to_owned()),
        meaning: LabelMeaning::Class(0, "cat".to_owned()),
        bytes: Some(9000),
        width: Some(400),
        height: Some(300),
        predicted: Some(RowPrediction { sketch, ..RowPrediction::default() }),
        ..ImageRow::default()
    };
    with_hash(row, hash.0)
}

fn with_hash(row: ImageRow, hash: u64) -> ImageRow {
    ImageRow { perceptual_hash: Some(format!("{hash:016x}")), ..row }
}

fn hash_of(row: &ImageRow) -> u64 {
    row.measures.unwrap().perceptual_hash.0
}

/// The findings among these images and forty others, which come first.
fn found(rows: Vec<ImageRow>) -> Vec<RowFinding> {
    let table = table_of((1000..1040).map(|seed| image(seed, 0)).chain(rows), COLUMNS);
    let classes = ImageClasses::read(&table).unwrap();
    let mut notes = Vec::new();
    let mut found = find(&table, &classes, &mut notes).unwrap();
    assert!(notes.is_empty(), "{notes:?}");
    found.iter_mut().for_each(|finding| {
        finding.row -= 40;
        finding.other = finding.other.map(|other| other - 40);
    });
    found
}

#[test]
fn mirrored_and_turned_copies_are_told_apart() {
    let original = image(1, 0);
    let hash = hash_of(&original);
    let copy = |orientation: Orientation| with_hash(image(1, 9), orientation.of_hash(hash) ^ 4);
    for (orientation, what) in [
        (Orientation::Same, "Nearly the same picture is"),
        (Orientation::Mirrored, "mirrored, is"),
        (Orientation::UpsideDown, "upside down, is"),
        (Orientation::Turned90, "by 90°, is"),
        (Orientation::Turned180, "by 180°, is"),
        (Orientation::Turned270, "by 270°, is"),
        (Orientation::MirroredTurned90, "mirrored and turned, is"),
        (Orientation::MirroredTurned270, "mirrored and turned, is"),
    ] {
        let found = found(vec![image(1, 0), copy(orientation)]);
        let [finding] = &found[..] else { panic!("{orientation:?}: {found:?}") };
        assert_eq!((finding.row, finding.other), (1, Some(0)));
        assert_eq!(finding.problem, Some(Problem::Near));
        assert!(finding.reason.contains(what), "{}", finding.reason);
    }
}

#[test]
fn a_part_of_a_picture_is_found_by_its_embedding() {
    let original = image(2, 0);
    let crop = |noise| with_hash(image(2, noise), hash_of(&original) ^ 0x0804_8102_4081_0420);
    let found_near = found(vec![image(2, 0), crop(20)]);
    let [finding] = &found_near[..] else { panic!("{found_near:?}") };
    assert!(finding.reason.contains("cropped or edited"), "{}", finding.reason);
    assert!(found(vec![image(2, 0), crop(90)]).is_empty());
}

#[test]
fn pictures_with_other_light_or_few_shades_are_no_crops() {
    let crop = with_hash(image(2, 20), hash_of(&image(2, 0)) ^ 0x0804_8102_4081_0420);
    let changed = |change: fn(&mut ImageMeasures)| {
        let mut rows = vec![image(2, 0), ImageRow { measures: crop.measures, ..image(2, 20) }];
        rows[1].perceptual_hash.clone_from(&crop.perceptual_hash);
        rows[1].measures.iter_mut().for_each(change);
        found(rows).len()
    };
    assert_eq!(changed(|_| ()), 1);
    assert_eq!(changed(|measures| measures.brightness = 0.65), 0);
    assert_eq!(changed(|measures| measures.contrast = 0.15), 0);
    assert_eq!(changed(|measures| measures.chroma = 0.1), 0);
    assert_eq!(changed(|measures| measures.information = 0.45), 0);
}

#[test]
fn the_best_copy_has_the_usual_label_most_pixels_and_most_bytes() {
    let copy = |noise, label: &str, width, bytes| ImageRow {
        label: Some(label.to_owned()),
        meaning: LabelMeaning::Class(usize::from(label != "cat"), label.to_owned()),
        width: Some(width),
        bytes: Some(bytes),
        ..image(3, noise)
    };
    let rows = vec![
        copy(0, "cat", 200, 9000),
        copy(1, "cat", 800, 7000),
        copy(2, "cat", 800, 8000),
        copy(3, "dog", 1600, 9000),
    ];
    let found = found(rows);
    let rows: Vec<_> = found.iter().map(|finding| (finding.row, finding.other)).collect();
    assert_eq!(rows, [(0, Some(2)), (1, Some(2)), (3, Some(2))]);
    assert_eq!(found[2].problem, Some(Problem::Conflict));
    let group = found[0].group.unwrap();
    assert_eq!((group.id, group.images), (1, 4));
    assert!(found.iter().all(|finding| finding.group == Some(group)));
}

#[test]
fn a_chain_of_copies_is_no_group() {
    let hash = hash_of(&image(4, 0));
    // Each nine bits from the one before; the last is a copy of the one before it alone.
    let rows = [0, 0x1ff, 0x3_ffff, 0x7ff_ffff].map(|bits| (bits, hash ^ bits));
    let rows = rows.into_iter().zip(0..).map(|((_, hash), noise)| with_hash(image(4, noise), hash));
    let found = found(rows.collect());
    let rows: Vec<_> = found.iter().map(|finding| (finding.row, finding.other)).collect();
    assert_eq!(rows, [(1, Some(0)), (2, Some(0))]);
}

#[test]
fn many_copies_of_one_file_are_one_group() {
    let mut rows: Vec<_> = (0..300).map(|_| image(5, 0)).collect();
    rows.extend((0..300).map(|_| image(6, 0)));
    let found = found(rows);
    assert_eq!(found.len(), 598);
    assert!(found.iter().all(|finding| finding.problem == Some(Problem::Exact)));
    let ids: Vec<_> = found.iter().map(|finding| finding.group.unwrap().id).collect();
    assert!(ids[..299].iter().all(|id| *id == 1) && ids[299..].iter().all(|id| *id == 2));
    assert_eq!(found[0].group.unwrap().images, 300);
}

#[test]
fn a_leak_and_a_conflict_between_any_two_copies_are_found() {
    let at = |key: &str, label: &str| ImageRow {
        key: key.to_owned(),
        label: Some(label.to_owned()),
        meaning: LabelMeaning::Class(u8::from(label == "dog").into(), label.to_owned()),
        ..image(1, 0)
    };
    let problems = |rows: Vec<ImageRow>| -> Vec<(u32, Problem)> {
        let found = found(rows).into_iter().map(|found| (found.row, found.problem.unwrap()));
        let mut found: Vec<_> = found.collect();
        found.sort_unstable();
        found
    };
    // The best copy, the first, is in no split.
    let rows = ["all/a.jpg", "test/a.jpg", "train/a.jpg"].map(|key| at(key, "cat"));
    assert_eq!(problems(rows.into()), [(1, Problem::Leak), (2, Problem::Leak)]);
    let rows = vec![at("train/a.jpg", "cat"), at("test/a.jpg", "dog")];
    assert_eq!(problems(rows), [(1, Problem::Leak), (1, Problem::Conflict)]);
}
