//! Class names that everyone means where a network has 1000 classes and nobody names them.

/// ImageNet-1k's, a line a class, in the order of its synsets: torchvision 0.20.1's
/// `torchvision/models/_meta.py` (BSD-3-Clause, © 2016 Soumith Chintala and the torchvision
/// contributors), which tells namesakes such as the two cranes apart.
const IMAGENET_1K: &str = include_str!("imagenet-1k.txt");

/// Classes of ImageNet-1k.
pub(super) const IMAGENET_CLASSES: usize = 1000;

/// Their names, by class index.
pub(super) fn imagenet_1k() -> Vec<String> {
    IMAGENET_1K.lines().map(str::to_owned).collect()
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
        // As every table of ImageNet's classes has them.
        for (class, name) in
            [(0, "tench"), (207, "golden retriever"), (281, "tabby"), (999, "toilet tissue")]
        {
            assert_eq!(names[class], name);
        }
    }
}
