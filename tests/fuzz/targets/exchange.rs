//! Reads files of other labelling programs: by the format that they seem to have, and by every other one.
#![no_main]

use camshaft_exchange::{
    Answer, ExportFormat, ExportHead, ExportImage, ExportWriter, FileFormat, Verdict, read,
    recognise,
};
use libfuzzer_sys::fuzz_target;

const FORMATS: [ExportFormat; 4] =
    [ExportFormat::LabelStudio, ExportFormat::Cvat, ExportFormat::Coco, ExportFormat::Csv];

fuzz_target!(|file: &[u8]| {
    if let Ok(FileFormat::Exchanged(format)) = recognise(file) {
        assert!(FORMATS.contains(&format));
    }
    for format in FORMATS {
        let mut answers = Vec::new();
        // An error is an answer, too.
        if read(format, file, &mut |answer| answers.push(answer)).is_ok() {
            answers.iter().for_each(check);
        }
    }
});

/// Checks that labels are labels, and that an image with such a key and label survives each format.
fn check(answer: &Answer) {
    let Verdict::Labels { labels, .. } = &answer.verdict else { return };
    assert!(
        !labels.is_empty() && labels.iter().all(|label| !label.is_empty() && label.trim() == label)
    );
    let label = &labels[0];
    let image = ExportImage {
        key: answer.key.clone(),
        address: answer.key.clone(),
        label: Some(label.clone()),
        size: Some([1, 1]),
        ..ExportImage::default()
    };
    for format in [ExportFormat::Cvat, ExportFormat::Coco] {
        let head = ExportHead { labels: vec![label.clone()], ..ExportHead::default() };
        let mut file = Vec::new();
        // XML can't hold every text, and says so.
        let Ok(mut writer) = ExportWriter::new(format, head, &mut file) else { continue };
        if writer.push(&image).is_err() {
            continue;
        }
        writer.finish().expect("a file in memory takes everything");
        let mut again = Vec::new();
        read(format, &*file, &mut |answer| again.push((answer.key, answer.verdict)))
            .expect("what is written can be read");
        let expected = Verdict::Labels { labels: vec![label.clone()], chosen: false };
        assert_eq!(again, [(answer.key.clone(), expected)]);
    }
}
