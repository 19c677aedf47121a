//! Which class an image's label means, as its result says it or, in older results, as the names of
//! classes in results say it.

use camshaft_common::label::LabelMatcher;
use camshaft_common::prediction::{ClassPrediction, ImageRecord};

/// What a label means.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum LabelMeaning {
    /// There is no label, or it means none of the model's classes.
    #[default]
    NoClass,
    /// A class, by index and name.
    Class(usize, String),
    /// An older result does not say it, and names no class like the label. Other results may.
    Open,
}

impl LabelMeaning {
    /// What the label of a predicted image means. `classes` are those that results name; none while
    /// they are not known yet.
    pub(crate) fn of(
        image: &ImageRecord,
        predictions: &[ClassPrediction],
        classes: Option<&LabelMatcher>,
    ) -> Self {
        let class = |found: &ClassPrediction| Self::Class(found.class, found.label.clone());
        let Some(label) = &image.label else { return Self::NoClass };
        match (image.class, image.label_problem, classes) {
            // The label's class is always among the listed ones.
            (Some(index), ..) => {
                predictions.iter().find(|found| found.class == index).map_or(Self::NoClass, class)
            }
            (None, Some(_), _) => Self::NoClass,
            (None, None, Some(classes)) => match classes.find(label) {
                Ok(index) => {
                    let name = classes.name(index).unwrap_or_default();
                    Self::Class(index, name.to_owned())
                }
                Err(_) => Self::NoClass,
            },
            (None, None, None) => {
                predictions.iter().find(|found| found.label == *label).map_or(Self::Open, class)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use camshaft_common::decoded_scale::DecodedScale;
    use camshaft_common::key::ImageKey;
    use camshaft_common::label::{LabelProblem, NamedClass};

    use super::*;

    fn image(label: &str, class: Option<usize>, problem: Option<LabelProblem>) -> ImageRecord {
        ImageRecord {
            key: ImageKey::parse("a.jpg").unwrap(),
            etag: None,
            bytes: None,
            width: None,
            height: None,
            decoded_scale: DecodedScale::Full,
            region: None,
            label: Some(label.to_owned()),
            class,
            label_problem: problem,
            digest: None,
            measures: None,
            camera: None,
        }
    }

    #[test]
    fn results_say_it_and_older_ones_are_read_by_the_names_of_classes() {
        let named = |class, label: &str| ClassPrediction {
            class,
            label: label.to_owned(),
            probability: 0.5,
            logit: 0.0,
        };
        let listed = [named(3, "cat"), named(5, "dog")];
        let whale = NamedClass { index: 8, name: "whale", aliases: &[] };
        let cat = NamedClass { index: 3, name: "cat", aliases: &[] };
        let matcher = LabelMatcher::new([whale, cat]);
        let of = |image: &ImageRecord, all| LabelMeaning::of(image, &listed, all);
        let class = |index, name: &str| LabelMeaning::Class(index, name.to_owned());

        assert_eq!(of(&image("n02121808", Some(3), None), None), class(3, "cat"));
        let problem = image("cat", None, Some(LabelProblem::Ambiguous));
        assert_eq!(of(&problem, None), LabelMeaning::NoClass);
        assert_eq!(of(&problem, Some(&matcher)), LabelMeaning::NoClass);
        assert_eq!(of(&image("dog", None, None), None), class(5, "dog"));
        assert_eq!(of(&image("Cat", None, None), None), LabelMeaning::Open);
        assert_eq!(of(&image("Cat", None, None), Some(&matcher)), class(3, "cat"));
        assert_eq!(of(&image("whale", None, None), Some(&matcher)), class(8, "whale"));
        assert_eq!(of(&image("cow", None, None), Some(&matcher)), LabelMeaning::NoClass);
    }
}
