//! Names of a ResNet's tensors in the checkpoints of different libraries.
//!
//! The rest of the crate uses torchvision's names. They are translated to a file's names here, and
//! nowhere else.

/// The library whose parameter names a file uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Naming {
    /// torchvision, and timm: `layer1.0.conv1.weight`.
    Torchvision,
    /// `nn.Sequential` of the modules of torchvision's network, in their order:
    /// `4.0.conv1.weight`.
    Sequential,
    /// transformers' `ResNetForImageClassification`:
    /// `resnet.encoder.stages.0.layers.0.layer.0.convolution.weight`.
    Transformers,
    /// `keras.applications.ResNet50` and its siblings: `conv2_block1_1_conv/kernel`.
    Keras,
}

impl Naming {
    /// Every one, in the order in which a file is tried.
    pub(super) const ALL: [Self; 4] =
        [Self::Torchvision, Self::Sequential, Self::Transformers, Self::Keras];

    /// The library's own name of a tensor of the convolutions, which torchvision calls `name`.
    pub(super) fn translate(self, name: &str) -> String {
        match self {
            Self::Torchvision => name.to_owned(),
            Self::Sequential => sequential(name),
            Self::Transformers => transformers(name),
            Self::Keras => keras(name),
        }
    }
}

/// How a file names its tensors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TensorNames {
    pub(super) naming: Naming,
    /// What stands before the name of every convolution.
    pub(super) prefix: String,
    /// What stands before `weight` and `bias` of the head, with the separator.
    pub(super) head: String,
}

/// The head's tensors begin so in torchvision's names.
const HEAD: &str = "fc.";

impl TensorNames {
    /// The names of a library with `prefix` before them, and the head where the library has it.
    pub(super) fn new(naming: Naming, prefix: &str) -> Self {
        let head = match naming {
            Naming::Torchvision | Naming::Sequential => format!("{prefix}{HEAD}"),
            // Beside the backbone `resnet.`, not in it.
            Naming::Transformers => {
                let outer = prefix.strip_suffix("resnet.").unwrap_or(prefix);
                format!("{outer}classifier.1.")
            }
            Naming::Keras => format!("{prefix}predictions/"),
        };
        Self { naming, prefix: prefix.to_owned(), head }
    }

    /// The library whose names they are.
    pub(crate) fn naming(&self) -> Naming {
        self.naming
    }

    /// What stands before the name of every convolution; empty for nothing.
    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// True if the tensor `name` of the file lies in one of the stages. Some blocks have linear layers
    /// there.
    pub(crate) fn is_in_stages(&self, name: &str) -> bool {
        let Some(rest) = name.strip_prefix(&self.prefix) else { return false };
        let starts: &[&str] = match self.naming {
            Naming::Torchvision => &["layer1.", "layer2.", "layer3.", "layer4."],
            Naming::Sequential => &["4.", "5.", "6.", "7."],
            Naming::Transformers => &["encoder."],
            Naming::Keras => &["conv"],
        };
        starts.iter().any(|start| rest.starts_with(start))
    }

    /// The name in the file of the tensor that torchvision calls `name`.
    pub(crate) fn in_file(&self, name: &str) -> String {
        match (name.strip_prefix(HEAD), self.naming) {
            (Some("weight"), Naming::Keras) => format!("{}kernel", self.head),
            (Some(parameter), _) => format!("{}{parameter}", self.head),
            (None, naming) => format!("{}{}", self.prefix, naming.translate(name)),
        }
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

/// The name in a sequence of torchvision's modules: `conv1`, `bn1`, ReLU, pooling, then the stages.
fn sequential(name: &str) -> String {
    let Some((module, rest)) = name.split_once('.') else { return name.to_owned() };
    let place = match module {
        "conv1" => "0",
        "bn1" => "1",
        "layer1" => "4",
        "layer2" => "5",
        "layer3" => "6",
        "layer4" => "7",
        other => other,
    };
    format!("{place}.{rest}")
}

/// The name in transformers' `ResNetForImageClassification`, without the `resnet.` before it.
fn transformers(name: &str) -> String {
    let Some(parts) = ParameterName::parse(name) else { return name.to_owned() };
    let parameter = parts.parameter;
    let kind = if parts.is_norm() { "normalization" } else { "convolution" };
    match (parts.block, parts.place()) {
        (None, _) => format!("embedder.embedder.{kind}.{parameter}"),
        (Some((stage, block)), place) => {
            let block = format!("encoder.stages.{stage}.layers.{block}");
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
        let transformers = TensorNames::new(Naming::Transformers, "resnet.");
        let keras = TensorNames::new(Naming::Keras, "");
        let wrapped = TensorNames::new(Naming::Torchvision, "module.");
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
    fn a_sequence_of_modules_counts_those_without_weights_too() {
        let names = TensorNames::new(Naming::Sequential, "encoder.");
        for (name, in_file) in [
            ("conv1.weight", "encoder.0.weight"),
            ("bn1.running_var", "encoder.1.running_var"),
            ("layer1.0.conv1.weight", "encoder.4.0.conv1.weight"),
            ("layer4.2.downsample.0.weight", "encoder.7.2.downsample.0.weight"),
        ] {
            assert_eq!(names.in_file(name), in_file);
        }
    }
}
