//! Where a network lies among the tensors of a file: told by names and shapes alone, whatever a
//! training program has put before the names.
//!
//! Nothing is guessed: if two places fit, both are told. Upstream: a file's header. Downstream:
//! [`weights_file`](super::weights_file).

use std::collections::BTreeMap;

use super::naming::{Naming, TensorNames};

/// The shapes of a file's tensors, in the file's order of axes, by name.
pub(crate) type Shapes = BTreeMap<String, Vec<usize>>;

/// The first convolution of the first stage, and that of the last: every ResNet has both, whatever
/// its blocks and its stem are.
const STAGES: [&str; 2] = ["layer1.0.conv1.weight", "layer4.0.conv1.weight"];
/// The stem, which tells the library of a file that lacks the stages.
const STEM: &str = "conv1.weight";

/// Prefixes of training wrappers: PyTorch's data parallelism and compiler, and Lightning.
const WRAPPERS: [&str; 3] = ["module.", "model.", "_orig_mod."];

/// Finds the network in a file. Without a sign of one, torchvision's names are assumed, so that an
/// error can say what is missing.
///
/// # Errors
/// If there are several networks: all of them.
pub(crate) fn find_network(shapes: &Shapes) -> Result<TensorNames, Vec<TensorNames>> {
    let mut found = Vec::new();
    for naming in Naming::ALL {
        let [first, last] = STAGES.map(|name| naming.translate(name));
        let prefixes = shapes.keys().filter_map(|name| prefix_of(name, &first));
        let whole = prefixes.filter(|prefix| shapes.contains_key(&format!("{prefix}{last}")));
        found.extend(whole.map(|prefix| TensorNames::new(naming, prefix)));
    }
    match found.len() {
        0 => Ok(by_stem(shapes).unwrap_or(TensorNames::new(Naming::Torchvision, ""))),
        1 => Ok(found.remove(0)),
        _ => Err(found),
    }
}

/// What stands before `end` in a name; none if the name ends otherwise, or `end` is only a part of
/// a word there.
fn prefix_of<'a>(name: &'a str, end: &str) -> Option<&'a str> {
    let prefix = name.strip_suffix(end)?;
    (prefix.is_empty() || prefix.ends_with(['.', '/'])).then_some(prefix)
}

fn by_stem(shapes: &Shapes) -> Option<TensorNames> {
    [Naming::Torchvision, Naming::Transformers, Naming::Keras].into_iter().find_map(|naming| {
        let stem = naming.translate(STEM);
        let mut prefixes = shapes.keys().filter_map(|name| prefix_of(name, &stem));
        let usual = |prefix: &&str| {
            let mut rest = prefix.strip_suffix("resnet.").unwrap_or(prefix);
            while let Some(shorter) = WRAPPERS.iter().find_map(|word| rest.strip_prefix(word)) {
                rest = shorter;
            }
            rest.is_empty()
        };
        prefixes.find(usual).map(|prefix| TensorNames::new(naming, prefix))
    })
}

/// Finds the linear layer of `classes` classes and `inputs` inputs, and returns the names with it:
/// where the library has it, else the only linear layer that fits, wherever it is. If none fits, it
/// is the one that the error should be about.
///
/// # Errors
/// If several fit: what stands before `weight` of each.
pub(crate) fn find_head(
    shapes: &Shapes,
    names: TensorNames,
    classes: usize,
    inputs: usize,
) -> Result<TensorNames, Vec<String>> {
    let linear = linear_layers(shapes, &names);
    let fits = |(_, shape): &&(String, [usize; 2])| *shape == [classes, inputs];
    let fitting: Vec<_> = linear.iter().filter(fits).map(|(head, _)| head.clone()).collect();
    let usual = linear.iter().any(|(head, _)| *head == names.head);
    let head = match (&fitting[..], &linear[..]) {
        (fitting, _) if fitting.contains(&names.head) => return Ok(names),
        ([only], _) => only.clone(),
        ([], [(only, _)]) if !usual => only.clone(),
        ([], _) => return Ok(names),
        (several, _) => return Err(several.to_vec()),
    };
    Ok(TensorNames { head, ..names })
}

/// The linear layers outside the convolutions: what stands before `weight`, and the shape in
/// PyTorch's order, outputs and inputs.
fn linear_layers(shapes: &Shapes, names: &TensorNames) -> Vec<(String, [usize; 2])> {
    let keras = names.naming == Naming::Keras;
    let weight = if keras { "kernel" } else { "weight" };
    let linear = shapes.iter().filter_map(|(name, shape)| {
        let head = prefix_of(name, weight)?;
        let &[rows, columns] = &shape[..] else { return None };
        let shape = if keras { [columns, rows] } else { [rows, columns] };
        (!names.is_in_stages(head)).then(|| (head.to_owned(), shape))
    });
    linear.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shapes(tensors: &[(&str, &[usize])]) -> Shapes {
        tensors.iter().map(|(name, shape)| ((*name).to_owned(), shape.to_vec())).collect()
    }

    /// The tensors by which a network is found, after `prefix`.
    fn network(naming: Naming, prefix: &str) -> Shapes {
        let names = [STEM, STAGES[0], STAGES[1]];
        let named = names.map(|name| (format!("{prefix}{}", naming.translate(name)), vec![1; 4]));
        named.into_iter().collect()
    }

    #[test]
    fn a_network_is_found_at_any_depth() {
        for (naming, prefix) in [
            (Naming::Torchvision, ""),
            (Naming::Torchvision, "backbone."),
            (Naming::Torchvision, "module._orig_mod."),
            (Naming::Torchvision, "_orig_mod.module.model.net.encoder."),
            (Naming::Sequential, "features."),
            (Naming::Sequential, ""),
            (Naming::Transformers, "resnet."),
            (Naming::Transformers, "model.backbone.resnet."),
            (Naming::Transformers, ""),
            (Naming::Keras, ""),
            (Naming::Keras, "resnet50/"),
        ] {
            let found = find_network(&network(naming, prefix));
            assert_eq!(found, Ok(TensorNames::new(naming, prefix)), "{naming:?} {prefix}");
        }
    }

    #[test]
    fn two_networks_are_told_and_none_is_chosen() {
        let mut both = network(Naming::Torchvision, "encoder_q.");
        both.append(&mut network(Naming::Torchvision, "encoder_k."));
        let found = find_network(&both).unwrap_err();
        let prefixes: Vec<_> = found.iter().map(TensorNames::prefix).collect();
        assert_eq!(prefixes, ["encoder_k.", "encoder_q."]);
    }

    #[test]
    fn without_stages_the_stem_tells_the_library_and_else_nothing_does() {
        let found = |name: &str| find_network(&shapes(&[(name, &[1])])).unwrap();
        let stem = "resnet.embedder.embedder.convolution.weight";
        assert_eq!(found(stem), TensorNames::new(Naming::Transformers, "resnet."));
        let wrapped = TensorNames::new(Naming::Torchvision, "module.model.");
        assert_eq!(found("module.model.conv1.weight"), wrapped);
        for other in ["layer1.0.conv1.weight", "backbone.conv1.weight", "x"] {
            assert_eq!(found(other), TensorNames::new(Naming::Torchvision, ""), "{other}");
        }
    }

    #[test]
    fn the_head_is_the_linear_layer_that_fits() {
        let names = || TensorNames::new(Naming::Torchvision, "net.");
        let head = |tensors: &[(&str, &[usize])]| {
            find_head(&shapes(tensors), names(), 3, 8).map(|names| names.head)
        };
        for usual in ["net.fc.weight", "head.fc.weight", "net.fc.1.weight", "classifier.weight"] {
            let expected = usual.strip_suffix("weight").unwrap();
            assert_eq!(head(&[(usual, &[3, 8])]).as_deref(), Ok(expected));
        }
        // The old head of the backbone stays behind when a new one follows it.
        let old = [("net.fc.weight", &[10, 8][..]), ("head.weight", &[3, 8])];
        assert_eq!(head(&old).as_deref(), Ok("head."));
        let beside = [("net.fc.weight", &[3, 8][..]), ("projector.weight", &[3, 8])];
        assert_eq!(head(&beside).as_deref(), Ok("net.fc."));
        let several = [("a.weight", &[3, 8][..]), ("b.weight", &[3, 8])];
        assert_eq!(head(&several), Err(vec!["a.".into(), "b.".into()]));
        // None fits: the error is about the only one, or about the usual place.
        assert_eq!(head(&[("a.weight", &[4, 8])]).as_deref(), Ok("a."));
        let layers = [("a.weight", &[5, 8][..]), ("b.weight", &[3, 5])];
        assert_eq!(head(&layers).as_deref(), Ok("net.fc."));
        assert_eq!(head(&[("net.layer1.0.se.fc.weight", &[3, 8])]).as_deref(), Ok("net.fc."));
    }
}
