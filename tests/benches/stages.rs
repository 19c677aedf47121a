//! Measures the steps of a worker that need no network: decoding, input, measures and overlay, on one
//! thread.
//!
//! `cargo bench -p camshaft-tests --bench stages` reads the photographs in
//! `../shared/data/photos`, or those in `tests/data/photos/cat` if that folder does not exist.

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::error::Error;
use std::fs;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use camshaft_common::explain::{Colormap, OverlayFormat, OverlayOpacity};
use camshaft_common::transparency::Transparency;
use camshaft_decoding::{ImageLimits, decode};
use camshaft_model::ModelFiles;
use camshaft_vision::heat_map::HeatMap;
use camshaft_vision::input::to_input;
use camshaft_vision::measures::measure;
use camshaft_vision::overlay::{OverlayStyle, draw};

/// Number of passes over all photographs. Each figure is that of the fastest pass.
const ROUNDS: usize = 7;

fn main() -> Result<(), Box<dyn Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let shared = root.join("../../shared/data/photos");
    let folder = if shared.exists() { shared } else { root.join("data/photos/cat") };
    let mut paths: Vec<PathBuf> = fs::read_dir(&folder)?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_, Box<dyn Error>>>()?;
    paths.sort();
    let files: Vec<Vec<u8>> = paths.iter().map(fs::read).collect::<Result<_, _>>()?;
    let bytes: usize = files.iter().map(Vec::len).sum();
    println!(
        "{} images, {} KiB each, from {}",
        files.len(),
        bytes / files.len() / 1024,
        folder.display()
    );

    let limits = ImageLimits::default();
    let pictures: Vec<_> = files
        .iter()
        .map(|file| decode(file, &limits, Transparency::OverWhite))
        .collect::<Result<_, _>>()?;
    let model = ModelFiles::bundled();
    let rule = &model.config().input;
    let values = (0..49).map(|cell| (cell as f32 * 0.7).sin().max(0.0)).collect();
    let map = HeatMap { height: 7, width: 7, values };

    let line = |name: &str, work: &mut dyn FnMut(usize)| {
        let time = best(|| (0..files.len()).for_each(&mut *work));
        let ms = time.as_secs_f64() * 1e3 / files.len() as f64;
        println!("{name:28} {ms:6.2} ms");
    };
    line("decode", &mut |at| drop(decode(&files[at], &limits, Transparency::OverWhite)));
    line("input", &mut |at| drop(to_input(&pictures[at], rule)));
    line("measures", &mut |at| {
        black_box(measure(&pictures[at]));
    });
    for format in [OverlayFormat::Jpeg, OverlayFormat::Png, OverlayFormat::Webp] {
        line(&format!("overlay as {format}"), &mut |at| {
            let style = OverlayStyle {
                colormap: Colormap::Jet,
                alpha: 0.4,
                opacity: OverlayOpacity::Constant,
                format,
            };
            drop(draw(&pictures[at], None, &map, style));
        });
    }
    Ok(())
}

fn best(mut work: impl FnMut()) -> Duration {
    work();
    let time = |_| {
        let started = Instant::now();
        work();
        started.elapsed()
    };
    (0..ROUNDS).map(time).min().unwrap_or_default()
}
