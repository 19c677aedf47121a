//! transformers' `config.json` of a `ResNetForImageClassification`, and the
//! `preprocessor_config.json` of the image processors that go with it.

use camshaft_vision::input::{ChannelOrder, InputRule, Interpolation, Resize, Scale};
use serde_json::Value;

use super::architecture::{Architecture, HeadKind};
use super::classes::{IMAGENET_CLASSES, imagenet_1k};
use super::fields::{Refusal, field, pixels, transparency, triple};
use super::model_config::ModelConfig;

/// Defaults of `ConvNextImageProcessor`.
const CONVNEXT_SIDE: usize = 384;
const CONVNEXT_CROP_PCT: f64 = 224.0 / 256.0;
/// Smaller inputs are cut out; inputs of this size or larger are stretched. As in
/// `ConvNextImageProcessor.resize`.
const CONVNEXT_CROPS_BELOW: usize = 384;
/// Processors with the same steps as ViT's: resize, crop the centre if asked, rescale, normalise.
const PLAIN: [&str; 5] = ["ViT", "DeiT", "Bit", "CLIP", "Beit"];
/// `PIL.Image.Resampling`.
const RESAMPLE_LANCZOS: u64 = 1;
const RESAMPLE_BILINEAR: u64 = 2;
const RESAMPLE_BICUBIC: u64 = 3;

/// True if a configuration is transformers'.
pub(super) fn is_transformers(config: &Value) -> bool {
    config.get("model_type").is_some()
}

/// Converts both files to our format, with the classes in `names` if there are some.
pub(super) fn read(
    config: &Value,
    preprocessor: Option<&Value>,
    names: Option<Vec<String>>,
) -> Result<ModelConfig, Refusal> {
    let architecture = architecture(config)?;
    let classes = names.map_or_else(|| classes(config), Ok)?;
    let preprocessor = preprocessor.ok_or(
        "it is transformers', which says how an image becomes the input in \
         preprocessor_config.json; put that beside it",
    )?;
    let input =
        input(preprocessor).map_err(|what| format!("in preprocessor_config.json {what}"))?;
    Ok(ModelConfig {
        architecture,
        head: HeadKind::AveragePool,
        classes,
        aliases: Vec::new(),
        input,
        transparency: transparency(config)?,
        trained_layers: None,
    })
}

fn architecture(config: &Value) -> Result<Architecture, Refusal> {
    let wanted = |name: &str, wanted: Value| match field(config, &[name]) {
        Some(value) if *value != wanted => {
            Err(format!("\"{name}\" is {value}; only {wanted} can be run"))
        }
        _ => Ok(()),
    };
    wanted("model_type", "resnet".into())?;
    wanted("num_channels", 3.into())?;
    wanted("embedding_size", 64.into())?;
    wanted("hidden_act", "relu".into())?;
    wanted("downsample_in_first_stage", false.into())?;
    let layer = field(config, &["layer_type"]).and_then(Value::as_str).unwrap_or("bottleneck");
    let width = match layer {
        "basic" => 1,
        "bottleneck" => 4,
        other => {
            return Err(format!(
                "\"layer_type\" is {other:?}; only \"basic\" and \"bottleneck\" can be run"
            ));
        }
    };
    // `ResNetConfig` writes them although they follow from the layer type.
    wanted("hidden_sizes", [64, 128, 256, 512].map(|size| size * width).to_vec().into())?;
    let stride_first = field(config, &["downsample_in_bottleneck"]) == Some(&true.into());
    let depths = field(config, &["depths"]);
    let depths: Option<Vec<_>> = match depths {
        None => Some(vec![3, 4, 6, 3]),
        Some(depths) => depths.as_array().and_then(|d| d.iter().map(Value::as_u64).collect()),
    };
    match (layer, depths.as_deref(), stride_first) {
        ("basic", Some([2, 2, 2, 2]), _) => Ok(Architecture::ResNet18),
        ("basic", Some([3, 4, 6, 3]), _) => Ok(Architecture::ResNet34),
        ("bottleneck", Some([3, 4, 6, 3]), false) => Ok(Architecture::ResNet50),
        ("bottleneck", Some([3, 4, 23, 3]), false) => Ok(Architecture::ResNet101),
        ("bottleneck", Some([3, 8, 36, 3]), false) => Ok(Architecture::ResNet152),
        ("bottleneck", Some([3, 4, 6, 3]), true) => Ok(Architecture::ResNet50V1),
        ("bottleneck", Some([3, 4, 23, 3]), true) => Ok(Architecture::ResNet101V1),
        ("bottleneck", Some([3, 8, 36, 3]), true) => Ok(Architecture::ResNet152V1),
        _ => Err(format!(
            "\"depths\" is {}, with \"layer_type\" {layer:?}; only those of ResNet-18, -34, -50, \
             -101 and -152 can be run",
            config.get("depths").unwrap_or(&Value::Null)
        )),
    }
}

fn classes(config: &Value) -> Result<Vec<String>, Refusal> {
    let Some(names) = field(config, &["id2label"]) else {
        // It is left out if there are the two default classes.
        return Ok(vec!["LABEL_0".into(), "LABEL_1".into()]);
    };
    let names = names.as_object().ok_or("\"id2label\" is not an object of class names")?;
    let in_order: Option<Vec<_>> = (0..names.len())
        .map(|class| names.get(&class.to_string())?.as_str().map(str::to_owned))
        .collect();
    let in_order = in_order.ok_or("\"id2label\" doesn't name each class from 0 on")?;
    let unnamed = in_order.iter().enumerate().all(|(id, name)| *name == format!("LABEL_{id}"));
    if unnamed && in_order.len() == IMAGENET_CLASSES {
        return Ok(imagenet_1k());
    }
    Ok(tell_twins_apart(in_order))
}

/// ImageNet has a crane that is a bird and one that lifts loads, and two maillots. On the hub both
/// have the same name; torchvision's names tell them apart.
fn tell_twins_apart(mut names: Vec<String>) -> Vec<String> {
    const TWINS: [(&str, [usize; 2]); 2] = [("crane", [134, 517]), ("maillot", [638, 639])];
    if names.len() != IMAGENET_CLASSES {
        return names;
    }
    let different = imagenet_1k();
    for (word, twins @ [one, other]) in TWINS {
        // Only if they are what they are in ImageNet.
        if names[one] == names[other] && names[one].starts_with(word) {
            twins.iter().for_each(|&class| names[class].clone_from(&different[class]));
        }
    }
    names
}

fn input(config: &Value) -> Result<InputRule, Refusal> {
    let kind = field(config, &["image_processor_type", "feature_extractor_type"]);
    let kind = kind.and_then(Value::as_str).unwrap_or("ViTImageProcessor");
    if !flag(config, "do_resize", true)? {
        return Err("\"do_resize\" is false; images of any size can't be run".into());
    }
    let (resize, [height, width]) = if kind.starts_with("ConvNext") {
        convnext(config)?
    } else if PLAIN.iter().any(|plain| kind.starts_with(plain)) {
        plain(config, kind)?
    } else {
        return Err(format!(
            "\"image_processor_type\" is {kind:?}; only ConvNext's, ViT's, DeiT's, Bit's, CLIP's \
             and Beit's are known"
        ));
    };
    let statistics = |name: &str| match field(config, &[name]) {
        Some(value) => triple(name, value),
        // Each processor has its own default, and always writes it.
        None => Err(format!("\"{name}\" is missing")),
    };
    let (mean, std) = match flag(config, "do_normalize", true)? {
        true => (statistics("image_mean")?, statistics("image_std")?),
        false => ([0.0; 3], [1.0; 3]),
    };
    Ok(InputRule {
        height,
        width,
        resize,
        interpolation: interpolation(config, kind)?,
        scale: scale(config)?,
        mean,
        std,
        color: ChannelOrder::Rgb,
    })
}

/// As in `ConvNextImageProcessor.resize`.
fn convnext(config: &Value) -> Result<(Resize, [usize; 2]), Refusal> {
    let side = match field(config, &["size"]) {
        None => CONVNEXT_SIDE,
        Some(size) => pixels("size", field(size, &["shortest_edge"]).unwrap_or(size))?,
    };
    if side >= CONVNEXT_CROPS_BELOW {
        return Ok((Resize::Stretch, [side; 2]));
    }
    let share = match field(config, &["crop_pct"]) {
        None => CONVNEXT_CROP_PCT,
        Some(value) => value
            .as_f64()
            .filter(|share| *share > 0.0 && *share <= 1.0)
            .ok_or_else(|| format!("\"crop_pct\" is {value}; only 0 to 1 can be done"))?,
    };
    Ok((Resize::ShorterSide((side as f64 / share) as usize), [side; 2]))
}

/// As in `ViTImageProcessor` and the others of [`PLAIN`]: a size, then perhaps a crop of the
/// centre.
fn plain(config: &Value, kind: &str) -> Result<(Resize, [usize; 2]), Refusal> {
    let square = |name: &str, value: &Value| match value {
        Value::Number(_) => Ok([pixels(name, value)?; 2]),
        size => match (size.get("height"), size.get("width")) {
            (Some(height), Some(width)) => Ok([pixels(name, height)?, pixels(name, width)?]),
            _ => Err(format!("\"{name}\" is {value}; only height and width can be done")),
        },
    };
    let size = field(config, &["size"]);
    let shorter = size.and_then(|size| field(size, &["shortest_edge"]));
    let crops =
        flag(config, "do_center_crop", ["Bit", "CLIP"].iter().any(|k| kind.starts_with(k)))?;
    let cut = field(config, &["crop_size"]).filter(|_| crops);
    match (size, shorter, cut) {
        (_, Some(shorter), Some(cut)) => {
            Ok((Resize::ShorterSide(pixels("size", shorter)?), square("crop_size", cut)?))
        }
        (_, Some(_), None) => {
            Err("\"size\" has only a \"shortest_edge\" and nothing is cut out, so that each image \
                 gives another input; only inputs of one size can be run"
                .into())
        }
        (Some(size), None, Some(cut)) => {
            let ([high, wide], cut) = (square("size", size)?, square("crop_size", cut)?);
            let same = [high, wide] == cut;
            let to = if same {
                Resize::Stretch
            } else {
                Resize::StretchTo { height: high, width: wide }
            };
            Ok((to, cut))
        }
        (Some(size), None, None) => Ok((Resize::Stretch, square("size", size)?)),
        (None, ..) => Err("\"size\" is missing".into()),
    }
}

fn interpolation(config: &Value, kind: &str) -> Result<Interpolation, Refusal> {
    let Some(code) = field(config, &["resample"]) else {
        let bilinear = ["ConvNext", "ViT"].iter().any(|known| kind.starts_with(known));
        return Ok(match bilinear {
            true => Interpolation::BilinearAntialiased,
            false => Interpolation::BicubicAntialiased,
        });
    };
    match code.as_u64() {
        Some(RESAMPLE_LANCZOS) => Ok(Interpolation::LanczosAntialiased),
        Some(RESAMPLE_BILINEAR) => Ok(Interpolation::BilinearAntialiased),
        Some(RESAMPLE_BICUBIC) => Ok(Interpolation::BicubicAntialiased),
        _ => Err(format!(
            "\"resample\" is {code}; only 1 (Lanczos), 2 (bilinear) and 3 (bicubic) can be done"
        )),
    }
}

fn scale(config: &Value) -> Result<Scale, Refusal> {
    if !flag(config, "do_rescale", true)? {
        return Ok(Scale::Byte);
    }
    match field(config, &["rescale_factor"]) {
        None => Ok(Scale::ByteToUnit),
        Some(factor) => match factor.as_f64() {
            Some(factor) if (factor * 255.0 - 1.0).abs() < 1e-6 => Ok(Scale::ByteToUnit),
            Some(1.0) => Ok(Scale::Byte),
            _ => Err(format!("\"rescale_factor\" is {factor}; only 1/255 and 1 can be done")),
        },
    }
}

fn flag(config: &Value, name: &str, default: bool) -> Result<bool, Refusal> {
    match field(config, &[name]) {
        None => Ok(default),
        Some(value) => {
            value.as_bool().ok_or_else(|| format!("\"{name}\" is {value}, not true or false"))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The fields of `microsoft/resnet-50`'s configuration that are read.
    fn config() -> Value {
        json!({
            "architectures": ["ResNetForImageClassification"], "model_type": "resnet",
            "depths": [3, 4, 6, 3], "downsample_in_first_stage": false, "embedding_size": 64,
            "hidden_act": "relu", "hidden_sizes": [256, 512, 1024, 2048],
            "layer_type": "bottleneck", "num_channels": 3,
            "id2label": {"0": "tench, Tinca tinca", "1": "goldfish, Carassius auratus"}
        })
    }

    fn preprocessor() -> Value {
        json!({
            "crop_pct": 0.875, "do_normalize": true, "do_resize": true,
            "feature_extractor_type": "ConvNextFeatureExtractor",
            "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225],
            "resample": 3, "size": 224
        })
    }

    fn resize(preprocessor: &Value) -> (Resize, usize, usize) {
        let InputRule { resize, height, width, .. } = input(preprocessor).unwrap();
        (resize, height, width)
    }

    #[test]
    fn a_model_of_the_hub_is_understood() {
        assert!(is_transformers(&config()));
        let read = read(&config(), Some(&preprocessor()), None).unwrap();
        assert_eq!(read.architecture, Architecture::ResNet50);
        assert_eq!(read.classes[1], "goldfish, Carassius auratus");
        let matcher = read.label_matcher();
        for label in ["goldfish", "Carassius_auratus", "goldfish, Carassius auratus", "1"] {
            assert_eq!(matcher.find(label), Ok(1), "{label}");
        }
        assert_eq!(read.input.resize, Resize::ShorterSide(256));
        assert_eq!((read.input.height, read.input.width), (224, 224));
        assert_eq!(read.input.interpolation, Interpolation::BicubicAntialiased);
        assert_eq!(read.input.scale, Scale::ByteToUnit);
    }

    #[test]
    fn the_two_cranes_of_imagenet_get_different_names() {
        let mut config = config();
        let named = |class: usize| match class {
            134 | 517 => "crane".to_owned(),
            class => format!("class {class}"),
        };
        let names: serde_json::Map<_, _> =
            (0..1000).map(|class| (class.to_string(), named(class).into())).collect();
        config["id2label"] = names.into();
        let classes = read(&config, Some(&preprocessor()), None).unwrap().classes;
        assert_eq!([&classes[134], &classes[517]], ["crane bird", "crane"]);
        assert_eq!(classes[638], "class 638");
    }

    #[test]
    fn strides_in_the_first_convolution_are_the_papers_network() {
        let mut config = config();
        config["downsample_in_bottleneck"] = true.into();
        assert_eq!(architecture(&config).unwrap(), Architecture::ResNet50V1);
    }

    #[test]
    fn convnexts_processor_cuts_small_inputs_and_stretches_large_ones() {
        let mut rule = preprocessor();
        rule["size"] = json!({"shortest_edge": 383});
        assert_eq!(resize(&rule), (Resize::ShorterSide(437), 383, 383));
        rule["size"] = json!({"shortest_edge": 384});
        assert_eq!(resize(&rule), (Resize::Stretch, 384, 384));
    }

    #[test]
    fn vits_processor_stretches_and_may_cut() {
        let mut rule = json!({
            "image_processor_type": "ViTImageProcessor", "size": {"height": 224, "width": 192},
            "resample": 2, "do_rescale": true, "rescale_factor": 0.003_921_568_627_450_98,
            "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]
        });
        assert_eq!(resize(&rule), (Resize::Stretch, 224, 192));
        assert_eq!(input(&rule).unwrap().mean, [0.5; 3]);
        rule["size"] = json!({"height": 256, "width": 256});
        rule["do_center_crop"] = true.into();
        rule["crop_size"] = 224.into();
        assert_eq!(resize(&rule), (Resize::StretchTo { height: 256, width: 256 }, 224, 224));
        rule["size"] = json!({"shortest_edge": 256});
        assert_eq!(resize(&rule), (Resize::ShorterSide(256), 224, 224));
        rule["do_rescale"] = false.into();
        rule["do_normalize"] = false.into();
        let plain = input(&rule).unwrap();
        assert_eq!((plain.scale, plain.mean, plain.std), (Scale::Byte, [0.0; 3], [1.0; 3]));
    }

    #[test]
    fn what_cannot_be_honoured_is_refused_by_name() {
        for (field, value) in [
            ("model_type", json!("vit")),
            ("depths", json!([3, 3, 27, 3])),
            ("hidden_sizes", json!([96, 192, 384, 768])),
            ("embedding_size", json!(32)),
            ("layer_type", json!("inverted")),
            ("hidden_act", json!("gelu")),
            ("downsample_in_first_stage", json!(true)),
            ("id2label", json!({"0": "cat", "2": "dog"})),
        ] {
            let mut config = config();
            config[field] = value;
            let error = read(&config, Some(&preprocessor()), None).unwrap_err();
            assert!(error.contains(&format!("\"{field}\"")), "{field}: {error}");
        }
        for (field, value) in [
            ("feature_extractor_type", json!("EfficientNetImageProcessor")),
            ("do_resize", json!(false)),
            ("size", json!({"longest_edge": 224})),
            ("resample", json!(0)),
            ("rescale_factor", json!(0.5)),
            ("crop_pct", json!(1.5)),
            ("image_std", json!(1)),
        ] {
            let mut rule = preprocessor();
            rule[field] = value;
            let error = read(&config(), Some(&rule), None).unwrap_err();
            let named = error.contains(&format!("\"{field}\"")) || error.contains("processor_type");
            assert!(named && error.contains("preprocessor_config.json"), "{field}: {error}");
        }
        assert!(read(&config(), None, None).unwrap_err().contains("put that beside it"));
    }
}
