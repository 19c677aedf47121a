//! Reads a model's `config.json`, and its `preprocessor_config.json`, which the input has after a
//! zero byte.
#![no_main]

use camshaft_model::ModelConfig;
use camshaft_vision::input::Resize;
use libfuzzer_sys::fuzz_target;

/// The sides of an input that the documentation promises. A ResNet halves its input five times, and
/// a larger side would not fit into memory.
const SIDES: std::ops::RangeInclusive<usize> = 32..=4096;

fuzz_target!(|files: &[u8]| {
    let mut files = files.splitn(2, |&byte| byte == 0);
    let config = files.next().unwrap_or_default();
    let Ok(config) = ModelConfig::read("model", config, files.next()) else { return };
    let input = &config.input;
    assert!(SIDES.contains(&input.height) && SIDES.contains(&input.width), "{input:?}");
    match input.resize {
        Resize::Stretch => {}
        Resize::ShorterSide(side) => {
            assert!(SIDES.contains(&side) && side >= input.height.max(input.width), "{input:?}");
        }
        Resize::StretchTo { height, width } => {
            assert!(SIDES.contains(&height) && SIDES.contains(&width), "{input:?}");
            assert!(height >= input.height && width >= input.width, "{input:?}");
        }
    }
    assert!(!config.classes.is_empty() && config.classes.iter().all(|name| !name.is_empty()));
    // Scaling gives every pixel a finite value.
    for (mean, std) in input.mean.into_iter().zip(input.std) {
        assert!(((255.0 - mean) / std).is_finite() && (-mean / std).is_finite(), "{input:?}");
    }
    // Our own format can hold every config that was read from another format.
    let ours = serde_json::to_vec(&config).expect("a config can be written");
    assert_eq!(ModelConfig::parse("model", &ours).expect("it is our own format"), config);
});
