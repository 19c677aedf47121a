//! The class names of ImageNet, for networks with 1000 classes whose files don't name them, and its
//! classes' WordNet ids, which its folders are called by.

use camshaft_common::label::fold;

/// The names of ImageNet-1k's classes, one a line, in the order of its synsets. From torchvision
/// 0.20.1's `torchvision/models/_meta.py` (BSD-3-Clause, © 2016 Soumith Chintala and the
/// torchvision contributors), which gives classes of the same name, such as the two cranes,
/// different names.
const IMAGENET_1K: &str = include_str!("imagenet-1k.txt");

/// The WordNet ids of ImageNet-1k's classes, one a line, in ascending order, which is that of the
/// classes (ILSVRC 2012's `synset_words.txt`).
const WORDNET_IDS: &str = include_str!("imagenet-1k-wordnet.txt");

/// Number of classes of ImageNet-1k.
pub(super) const IMAGENET_CLASSES: usize = 1000;

/// The names of ImageNet-1k's classes, by class index.
pub(super) fn imagenet_1k() -> Vec<String> {
    IMAGENET_1K.lines().map(str::to_owned).collect()
}

/// The classes are taken for ImageNet-1k's if this number of names is that of the class in its place.
/// Lists differ in a few, such as the two cranes.
const LEAST_KNOWN_NAMES: usize = 900;

/// By class index, the WordNet id of each class of ImageNet-1k that is known by its name; empty if
/// these are not ImageNet-1k's classes in their order. A name may be followed by synonyms.
pub(super) fn wordnet_ids(classes: &[String]) -> Vec<Option<&'static str>> {
    if classes.len() != IMAGENET_CLASSES {
        return Vec::new();
    }
    let first = |names: &str| fold(names.split(',').next().unwrap_or_default());
    let known = IMAGENET_1K.lines().zip(WORDNET_IDS.lines());
    let ids: Vec<_> = known
        .zip(classes)
        .map(|((name, id), class)| (first(class) == fold(name)).then_some(id))
        .collect();
    if ids.iter().flatten().count() < LEAST_KNOWN_NAMES { Vec::new() } else { ids }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn imagenets_classes_are_a_thousand_different_names_in_order() {
        let names = imagenet_1k();
        assert_eq!(names.len(), IMAGENET_CLASSES);
        let different: std::collections::HashSet<_> = names.iter().collect();
        assert_eq!(different.len(), IMAGENET_CLASSES);
        // Known from every table of ImageNet's classes.
        for (class, name) in
            [(0, "tench"), (207, "golden retriever"), (281, "tabby"), (999, "toilet tissue")]
        {
            assert_eq!(names[class], name);
        }
    }

    #[test]
    fn imagenets_classes_have_wordnet_ids_whatever_follows_their_names() {
        let ids = wordnet_ids(&imagenet_1k());
        assert!(ids.iter().all(Option::is_some));
        assert!(ids.is_sorted());
        // Known from every table of ImageNet's classes.
        for (class, id) in [(0, "n01440764"), (207, "n02099601"), (281, "n02123045")] {
            assert_eq!(ids[class], Some(id));
        }
        // As transformers and Keras call them.
        let mut names = imagenet_1k();
        names[0] = "tench, Tinca tinca".to_owned();
        names[207] = "golden_retriever".to_owned();
        names[134] = "crane".to_owned();
        let ids = wordnet_ids(&names);
        assert_eq!((ids[0], ids[207], ids[134]), (Some("n01440764"), Some("n02099601"), None));
        names.reverse();
        assert!(wordnet_ids(&names).is_empty(), "in another order they are other classes");
        assert!(wordnet_ids(&names[1..]).is_empty());
    }
}
