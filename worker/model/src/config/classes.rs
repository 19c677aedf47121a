//! The class names of ImageNet, for networks with 1000 classes whose files don't name them.

/// The names of ImageNet-1k's classes, one a line, in the order of its synsets. From torchvision
/// 0.20.1's `torchvision/models/_meta.py` (BSD-3-Clause, © 2016 Soumith Chintala and the
/// torchvision contributors), which gives classes of the same name, such as the two cranes,
/// different names.
const IMAGENET_1K: &str = include_str!("imagenet-1k.txt");

/// Number of classes of ImageNet-1k.
pub(super) const IMAGENET_CLASSES: usize = 1000;

/// The names of ImageNet-1k's classes, by class index.
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
        // Known from every table of ImageNet's classes.
        for (class, name) in
            [(0, "tench"), (207, "golden retriever"), (281, "tabby"), (999, "toilet tissue")]
        {
            assert_eq!(names[class], name);
        }
    }
}
