//! Compares rules that make scales for 8 bits: `cargo bench -p camshaft-tests --bench calibration`.
//!
//! Calibrates the bundled model on 200 photographs of cats and dogs by each rule, and prints how far it is
//! from f32 on 400 others and 150 photographs of other things. Needs `../shared/data`.

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::error::Error;
use std::fs;
use std::path::Path;

use camshaft_common::transparency::Transparency;
use camshaft_decoding::{ImageLimits, decode};
use camshaft_kernels::RangeRule;
use camshaft_model::{CalibrationImages, CalibrationProgress, ModelFiles, calibrate_by};
use camshaft_tests::images::files_below;
use camshaft_vision::input::to_pixels;

fn main() -> Result<(), Box<dyn Error>> {
    let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    if !shared.exists() {
        println!("there is no {}: nothing was compared", shared.display());
        return Ok(());
    }
    let files = ModelFiles::bundled();
    let read = |folder: &str, step: usize| -> Result<Vec<_>, Box<dyn Error>> {
        let mut pixels = Vec::new();
        for path in files_below(&shared.join(folder)).iter().step_by(step) {
            let limits = ImageLimits::default();
            let picture = decode(&fs::read(path)?, &limits, Transparency::OverWhite)?;
            pixels.push(to_pixels(&picture, &files.config().input));
        }
        Ok(pixels)
    };
    let calibrating = read("pets/train", 5)?;
    let compared = [read("pets/val", 1)?, read("photos", 1)?].concat();
    println!("{} images calibrate, {} are compared", calibrating.len(), compared.len());
    for rule in RangeRule::ALL {
        let images = CalibrationImages { calibrating: &calibrating, compared: &compared };
        let progress = CalibrationProgress::default();
        let calibration = calibrate_by(rule, &files, images, &progress)?;
        println!("{:16} {}", rule.name(), calibration.agreement());
    }
    Ok(())
}
