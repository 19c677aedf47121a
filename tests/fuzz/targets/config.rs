//! A model's `config.json`, and the `preprocessor_config.json` after a zero byte.
#![no_main]

use camshaft_model::ModelConfig;
use camshaft_vision::input::Resize;
use libfuzzer_sys::fuzz_target;

/// ResNet halves its input five times; a side beyond 4096 fits no memory. The documentation
/// promises both.
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
    // Every pixel has a finite value.
    for (mean, std) in input.mean.into_iter().zip(input.std) {
        assert!(((255.0 - mean) / std).is_finite() && (-mean / std).is_finite(), "{input:?}");
    }
    // Whosever format it was: ours says all of it.
    let ours = serde_json::to_vec(&config).expect("a config can be written");
    assert_eq!(ModelConfig::parse("model", &ours).expect("it is our own format"), config);
});
