//! Names of a ResNet's tensors in the checkpoints of different libraries.
//!
//! The rest of the crate uses torchvision's names. They are translated to a file's names here, and
//! nowhere else.

/// The library whose parameter names a file uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Naming {
    /// torchvision, and timm: `layer1.0.conv1.weight`.
    Torchvision,
    /// transformers' `ResNetForImageClassification`:
    /// `resnet.encoder.stages.0.layers.0.layer.0.convolution.weight`.
    Transformers,
    /// `keras.applications.ResNet50` and its siblings: `conv2_block1_1_conv/kernel`.
    Keras,
}

/// Prefixes that training wrappers put before every name: PyTorch's data parallelism and
/// compiler, and Lightning.
const WRAPPERS: [&str; 3] = ["module.", "model.", "_orig_mod."];

/// How a file names its tensors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TensorNames {
    naming: Naming,
    prefix: String,
}

impl TensorNames {
    /// Detects it from the names in a file. Without a sign of another library, it is torchvision's.
    pub(crate) fn detect<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        // A tensor that every ResNet of the library has.
        const FIRST: [(Naming, &str); 3] = [
            (Naming::Torchvision, "conv1.weight"),
            (Naming::Transformers, "resnet.embedder.embedder.convolution.weight"),
            (Naming::Keras, "conv1_conv/kernel"),
        ];
        for name in names {
            for (naming, first) in FIRST {
                let Some(prefix) = name.strip_suffix(first) else { continue };
                if prefix.is_empty() || WRAPPERS.contains(&prefix) {
                    return Self { naming, prefix: prefix.to_owned() };
                }
            }
        }
        Self { naming: Naming::Torchvision, prefix: String::new() }
    }

    /// The library whose names they are.
    pub(crate) fn naming(&self) -> Naming {
        self.naming
    }

    /// The name in the file of the tensor that torchvision calls `name`.
    pub(crate) fn in_file(&self, name: &str) -> String {
        let name = match self.naming {
            Naming::Torchvision => name.to_owned(),
            Naming::Transformers => transformers(name),
            Naming::Keras => keras(name),
        };
        format!("{}{name}", self.prefix)
    }
}

/// The parts of a torchvision name: `layer2.0.downsample.1.running_mean`.
struct ParameterName<'a> {
    /// Stage and block from 0; none in stem and head.
    block: Option<(usize, usize)>,
    /// `conv1`, `bn1`, `downsample.0`, `fc`…
    module: &'a str,
    /// `weight`, `bias`, `running_mean`…
    parameter: &'a str,
}

impl<'a> ParameterName<'a> {
    fn parse(name: &'a str) -> Option<Self> {
        let (module, parameter) = name.rsplit_once('.')?;
        let Some(rest) = module.strip_prefix("layer") else {
            return Some(Self { block: None, module, parameter });
        };
        let (stage, rest) = rest.split_once('.')?;
        let (block, module) = rest.split_once('.')?;
        let stage = stage.parse::<usize>().ok()?.checked_sub(1)?;
        Some(Self { block: Some((stage, block.parse().ok()?)), module, parameter })
    }

    /// Position in a block's path, from 0: 1 for `conv2` and `bn2`. None for the shortcut.
    fn place(&self) -> Option<usize> {
        self.module.trim_start_matches(char::is_alphabetic).parse::<usize>().ok()?.checked_sub(1)
    }

    fn is_norm(&self) -> bool {
        self.module.starts_with("bn") || self.module == "downsample.1"
    }
}

/// The name in transformers' `ResNetForImageClassification`.
fn transformers(name: &str) -> String {
    let Some(parts) = ParameterName::parse(name) else { return name.to_owned() };
    let parameter = parts.parameter;
    let kind = if parts.is_norm() { "normalization" } else { "convolution" };
    match (parts.block, parts.place()) {
        (None, _) if parts.module == "fc" => format!("classifier.1.{parameter}"),
        (None, _) => format!("resnet.embedder.embedder.{kind}.{parameter}"),
        (Some((stage, block)), place) => {
            let block = format!("resnet.encoder.stages.{stage}.layers.{block}");
            match place {
                Some(place) => format!("{block}.layer.{place}.{kind}.{parameter}"),
                None => format!("{block}.shortcut.{kind}.{parameter}"),
            }
        }
    }
}

/// The name in `keras.applications.resnet`: layer and weight, joined by a slash.
fn keras(name: &str) -> String {
    let Some(parts) = ParameterName::parse(name) else { return name.to_owned() };
    let is_norm = parts.is_norm();
    let parameter = match parts.parameter {
        "weight" if is_norm => "gamma",
        "weight" => "kernel",
        "bias" if is_norm => "beta",
        "running_mean" => "moving_mean",
        "running_var" => "moving_variance",
        other => other,
    };
    let kind = if is_norm { "bn" } else { "conv" };
    match (parts.block, parts.place()) {
        (None, _) if parts.module == "fc" => format!("predictions/{parameter}"),
        (None, _) => format!("conv1_{kind}/{parameter}"),
        (Some((stage, block)), place) => {
            // Keras numbers the shortcut 0 and the path from 1. Its first stage is conv2.
            let number = place.map_or(0, |place| place + 1);
            format!("conv{}_block{}_{number}_{kind}/{parameter}", stage + 2, block + 1)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_library_has_its_own_names() {
        let names = |first: &str| TensorNames::detect(["fc.bias", first]);
        let transformers = names("resnet.embedder.embedder.convolution.weight");
        let keras = names("conv1_conv/kernel");
        let wrapped = names("module.conv1.weight");
        for (name, in_transformers, in_keras) in [
            ("conv1.weight", "resnet.embedder.embedder.convolution.weight", "conv1_conv/kernel"),
            (
                "bn1.running_var",
                "resnet.embedder.embedder.normalization.running_var",
                "conv1_bn/moving_variance",
            ),
            (
                "layer1.0.conv1.weight",
                "resnet.encoder.stages.0.layers.0.layer.0.convolution.weight",
                "conv2_block1_1_conv/kernel",
            ),
            (
                "layer4.2.bn3.bias",
                "resnet.encoder.stages.3.layers.2.layer.2.normalization.bias",
                "conv5_block3_3_bn/beta",
            ),
            (
                "layer2.0.downsample.0.weight",
                "resnet.encoder.stages.1.layers.0.shortcut.convolution.weight",
                "conv3_block1_0_conv/kernel",
            ),
            (
                "layer2.0.downsample.1.weight",
                "resnet.encoder.stages.1.layers.0.shortcut.normalization.weight",
                "conv3_block1_0_bn/gamma",
            ),
            ("fc.weight", "classifier.1.weight", "predictions/kernel"),
        ] {
            assert_eq!(transformers.in_file(name), in_transformers);
            assert_eq!(keras.in_file(name), in_keras);
            assert_eq!(wrapped.in_file(name), format!("module.{name}"));
        }
    }

    #[test]
    fn a_layer_within_a_longer_name_decides_nothing() {
        let names = TensorNames::detect(["layer1.0.conv1.weight", "backbone.conv1.weight"]);
        assert_eq!(names.in_file("conv1.weight"), "conv1.weight");
    }
}
