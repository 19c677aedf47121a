//! timm's `config.json`, as `timm.models.push_to_hf_hub` and older versions of it write it.
//!
//! It has `architecture` and `num_classes`, and in `pretrained_cfg` how
//! `timm.data.create_transform` prepares an image for evaluation.

use std::collections::HashMap;

use camshaft_vision::input::{ChannelOrder, InputRule, Interpolation, Resize, Scale};
use serde_json::Value;

use super::architecture::{Architecture, HeadKind};
use super::classes::{IMAGENET_CLASSES, imagenet_1k};
use super::fields::{Refusal, field, pixels, transparency, triple};
use super::model_config::ModelConfig;

/// `timm.data.constants`: `IMAGENET_DEFAULT_MEAN`, `IMAGENET_DEFAULT_STD`, `DEFAULT_CROP_PCT`.
const DEFAULT_MEAN: [f32; 3] = [0.485, 0.456, 0.406];
const DEFAULT_STD: [f32; 3] = [0.229, 0.224, 0.225];
const DEFAULT_CROP_PCT: f64 = 0.875;
/// `timm.models.resnet._cfg`.
const DEFAULT_SIDE: usize = 224;

/// True if a configuration is timm's. New ones have `pretrained_cfg`; old ones have its fields at
/// the top.
pub(super) fn is_timm(config: &Value) -> bool {
    let old = config.get("architecture").is_some()
        && ["num_classes", "num_features", "input_size"].iter().any(|f| config.get(f).is_some());
    config.get("pretrained_cfg").is_some() || old
}

/// Converts it to our format, with the classes in `names` if there are some.
pub(super) fn read(config: &Value, names: Option<Vec<String>>) -> Result<ModelConfig, Refusal> {
    let pretrained = config.get("pretrained_cfg").unwrap_or(config);
    let pool = field(config, &["global_pool"]).and_then(Value::as_str);
    if let Some(other) = pool.filter(|&pool| pool != "avg") {
        return Err(format!("\"global_pool\" is {other:?}; only \"avg\" can be run"));
    }
    // Arguments that change the architecture.
    if let Some(arguments) = config.get("model_args").and_then(Value::as_object) {
        let harmless = ["num_classes", "in_chans", "global_pool"];
        if let Some(argument) = arguments.keys().find(|name| !harmless.contains(&name.as_str())) {
            return Err(format!(
                "\"model_args\" has {argument:?}, which this version doesn't know"
            ));
        }
    }
    let (classes, aliases) = match names {
        Some(names) => (names, Vec::new()),
        None => classes(config, pretrained)?,
    };
    Ok(ModelConfig {
        architecture: architecture(config)?,
        head: HeadKind::AveragePool,
        classes,
        aliases,
        input: input(pretrained)?,
        transparency: transparency(config)?,
        trained_layers: None,
    })
}

fn architecture(config: &Value) -> Result<Architecture, Refusal> {
    let name = field(config, &["architecture"]).and_then(Value::as_str).unwrap_or_default();
    // Some names say where the weights of the same network came from.
    let plain = name
        .strip_prefix("tv_")
        .or_else(|| name.strip_prefix("gluon_").and_then(|name| name.strip_suffix("_v1b")))
        .unwrap_or(name);
    let known = [
        Architecture::ResNet18,
        Architecture::ResNet34,
        Architecture::ResNet50,
        Architecture::ResNet101,
        Architecture::ResNet152,
    ];
    known.into_iter().find(|known| known.name() == plain).ok_or_else(|| {
        let names = known.map(Architecture::name).join(", ");
        format!("\"architecture\" is {name:?}; of timm's networks {names} can be run")
    })
}

/// The names of the classes, and their further names if they have any.
type NamesAndAliases = (Vec<String>, Vec<Vec<String>>);

fn classes(config: &Value, pretrained: &Value) -> Result<NamesAndAliases, Refusal> {
    let count = field(config, &["num_classes"]).or_else(|| field(pretrained, &["num_classes"]));
    let count = count.and_then(Value::as_u64).map(|count| count as usize);
    let either = |names: &[&str]| field(config, names).or_else(|| field(pretrained, names));
    if let Some(names) = either(&["label_names", "labels"]) {
        let names = names.as_array().ok_or("\"label_names\" is not a list of class names")?;
        let names: Option<Vec<_>> = names.iter().map(Value::as_str).collect();
        let names = names.ok_or("\"label_names\" has entries that are no names")?;
        return Ok(described(&names, either(&["label_descriptions"])));
    }
    match count {
        None | Some(IMAGENET_CLASSES) => Ok((imagenet_1k(), Vec::new())),
        Some(0) => Err("\"num_classes\" is 0: a backbone without classes; use a classifier".into()),
        Some(count) => Err(format!(
            "\"num_classes\" is {count} and nothing names them; add \"label_names\", a list of \
             class names in order"
        )),
    }
}

/// The classes called by their descriptions, if they have any. Names may be WordNet's ids, such as
/// n02121808; descriptions are words. WordNet has words for several things, such as the two cranes:
/// these keep their id too.
fn described(names: &[&str], descriptions: Option<&Value>) -> NamesAndAliases {
    let description =
        |name: &&str| descriptions.and_then(|all| all.get(name)).and_then(Value::as_str);
    let mut uses = HashMap::new();
    names.iter().filter_map(description).for_each(|word| *uses.entry(word).or_insert(0) += 1);
    let class = |name: &&str| match description(name) {
        Some(word) if uses[word] > 1 => format!("{word} ({name})"),
        Some(word) => word.to_owned(),
        None => (*name).to_owned(),
    };
    let alias = |name: &&str| description(name).map(|_| (*name).to_owned());
    let aliases: Vec<Vec<_>> = names.iter().map(|name| alias(name).into_iter().collect()).collect();
    let has_aliases = aliases.iter().any(|aliases| !aliases.is_empty());
    (names.iter().map(class).collect(), if has_aliases { aliases } else { Vec::new() })
}

fn input(config: &Value) -> Result<InputRule, Refusal> {
    let [height, width] = match field(config, &["input_size"]) {
        None => [DEFAULT_SIDE; 2],
        Some(size) => match size.as_array().map(Vec::as_slice) {
            Some([channels, height, width]) if channels.as_u64() == Some(3) => {
                [pixels("input_size", height)?, pixels("input_size", width)?]
            }
            _ => {
                return Err(format!(
                    "\"input_size\" is {size}; only [3, height, width] can be run"
                ));
            }
        },
    };
    let statistics = |name: &str, default| match field(config, &[name]) {
        Some(value) => triple(name, value),
        None => Ok(default),
    };
    Ok(InputRule {
        height,
        width,
        resize: resize(config, height, width)?,
        interpolation: interpolation(config)?,
        scale: Scale::ByteToUnit,
        mean: statistics("mean", DEFAULT_MEAN)?,
        std: statistics("std", DEFAULT_STD)?,
        color: ChannelOrder::Rgb,
    })
}

/// As in `timm.data.transforms_factory.transforms_imagenet_eval`.
fn resize(config: &Value, height: usize, width: usize) -> Result<Resize, Refusal> {
    let share = match field(config, &["crop_pct"]) {
        None => DEFAULT_CROP_PCT,
        Some(value) => value
            .as_f64()
            .filter(|share| *share > 0.0 && *share <= 1.0)
            .ok_or_else(|| format!("\"crop_pct\" is {value}; only 0 to 1 can be done"))?,
    };
    let whole = |side: usize| (side as f64 / share).floor() as usize;
    let (high, wide) = (whole(height), whole(width));
    match field(config, &["crop_mode"]).and_then(Value::as_str).unwrap_or("center") {
        "squash" if (high, wide) == (height, width) => Ok(Resize::Stretch),
        "squash" => Ok(Resize::StretchTo { height: high, width: wide }),
        "center" if height == width => Ok(Resize::ShorterSide(high)),
        "center" => Err(format!(
            "\"crop_mode\" is \"center\" for an input of {height}×{width}; only square ones can \
             be cut so"
        )),
        other => {
            Err(format!("\"crop_mode\" is {other:?}; only \"center\" and \"squash\" can be done"))
        }
    }
}

fn interpolation(config: &Value) -> Result<Interpolation, Refusal> {
    match field(config, &["interpolation"]).and_then(Value::as_str).unwrap_or("bilinear") {
        // As timm's `str_to_pil_interp`. "random" is for training; otherwise it means bilinear.
        "bilinear" | "random" => Ok(Interpolation::BilinearAntialiased),
        "bicubic" => Ok(Interpolation::BicubicAntialiased),
        "lanczos" => Ok(Interpolation::LanczosAntialiased),
        other => Err(format!(
            "\"interpolation\" is {other:?}; only \"bilinear\", \"bicubic\" and \"lanczos\" can \
             be done"
        )),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The fields of `timm/resnet50.a1_in1k`'s configuration that are read.
    fn config() -> Value {
        json!({
            "architecture": "resnet50", "num_classes": 1000, "num_features": 2048,
            "pretrained_cfg": {
                "tag": "a1_in1k", "custom_load": false, "input_size": [3, 224, 224],
                "test_input_size": [3, 288, 288], "interpolation": "bicubic", "crop_pct": 0.95,
                "test_crop_pct": 1.0, "crop_mode": "center", "mean": [0.485, 0.456, 0.406],
                "std": [0.229, 0.224, 0.225], "num_classes": 1000, "pool_size": [7, 7],
                "first_conv": "conv1", "classifier": "fc"
            }
        })
    }

    #[test]
    fn a_config_of_the_hub_is_understood() {
        assert!(is_timm(&config()));
        let ModelConfig { architecture, classes, input, .. } = read(&config(), None).unwrap();
        assert_eq!(architecture, Architecture::ResNet50);
        assert_eq!(classes[281], "tabby");
        // floor(224 / 0.95)
        assert_eq!(input.resize, Resize::ShorterSide(235));
        assert_eq!(input.interpolation, Interpolation::BicubicAntialiased);
        assert_eq!(input.std, [0.229, 0.224, 0.225]);
    }

    #[test]
    fn an_older_config_has_everything_at_the_top() {
        let mut old = config()["pretrained_cfg"].take();
        old["architecture"] = "tv_resnet34".into();
        old["num_classes"] = 2.into();
        old["labels"] = json!(["n02121808", "dog"]);
        old["label_descriptions"] = json!({"n02121808": "domestic cat"});
        assert!(is_timm(&old));
        let read = read(&old, None).unwrap();
        assert_eq!(read.architecture, Architecture::ResNet34);
        assert_eq!(read.classes, ["domestic cat", "dog"]);
        let matcher = read.label_matcher();
        for (label, class) in [("n02121808", 0), ("Domestic_Cat", 0), ("dog", 1), ("1", 1)] {
            assert_eq!(matcher.find(label), Ok(class), "{label}");
        }
    }

    #[test]
    fn one_word_for_two_classes_keeps_their_numbers() {
        let mut config = config();
        config["label_names"] = json!(["n02012849", "n03126707", "n02121808"]);
        config["label_descriptions"] =
            json!({"n02012849": "crane", "n03126707": "crane", "n02121808": "domestic cat"});
        let classes = read(&config, None).unwrap().classes;
        assert_eq!(classes, ["crane (n02012849)", "crane (n03126707)", "domestic cat"]);
        let own = read(&config, Some(vec!["a".into(), "b".into()])).unwrap().classes;
        assert_eq!(own, ["a", "b"]);
    }

    #[test]
    fn what_cannot_be_honoured_is_refused_by_name() {
        for (field, value) in [
            ("architecture", json!("resnet50d")),
            ("global_pool", json!("max")),
            ("model_args", json!({"output_stride": 16})),
            ("num_classes", json!(7)),
            ("num_classes", json!(0)),
        ] {
            let mut config = config();
            config[field] = value;
            assert!(read(&config, None).unwrap_err().contains(&format!("\"{field}\"")), "{field}");
        }
        for (field, value) in [
            ("input_size", json!([1, 224, 224])),
            ("input_size", json!([3, 224, 192])),
            ("crop_pct", json!(1.1)),
            ("crop_mode", json!("border")),
            ("interpolation", json!("nearest")),
            ("mean", json!([0.5])),
        ] {
            let mut config = config();
            config["pretrained_cfg"][field] = value;
            let error = read(&config, None).unwrap_err();
            let known = error.contains(&format!("\"{field}\"")) || error.contains("crop_mode");
            assert!(known, "{field}: {error}");
        }
    }

    #[test]
    fn squashing_stretches_and_then_cuts() {
        let mut config = config();
        config["pretrained_cfg"]["crop_mode"] = "squash".into();
        config["pretrained_cfg"]["crop_pct"] = 0.875.into();
        let resize = read(&config, None).unwrap().input.resize;
        assert_eq!(resize, Resize::StretchTo { height: 256, width: 256 });
        config["pretrained_cfg"]["crop_pct"] = 1.into();
        assert_eq!(read(&config, None).unwrap().input.resize, Resize::Stretch);
    }
}
