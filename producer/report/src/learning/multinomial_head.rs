//! A multinomial logistic regression: a linear head that tells classes by features.

use super::feature_matrix::FeatureMatrix;
use super::minimiser::minimise;
use super::objective::{Examples, PanelWeights};

/// A fitted head.
#[derive(Clone, Debug)]
pub(crate) struct MultinomialHead {
    weights: PanelWeights,
}

impl MultinomialHead {
    /// Fits a head to the examples in `rows`. `classes` holds the class of each row of the features,
    /// below `class_count`; only those of `rows` are read. The greater the strength, the smaller the
    /// weights: the mean cross-entropy and half the strength times the sum of the squared weights are
    /// minimised together.
    pub(crate) fn fit(
        features: &FeatureMatrix,
        rows: &[u32],
        classes: &[u32],
        class_count: usize,
        strength: f64,
    ) -> Self {
        let start = PanelWeights::zeros(class_count, features.stored_width());
        Self { weights: start }.fit_again(features, rows, classes, strength)
    }

    /// Fits a head to other examples, or with another strength, starting from this one. It ends at the
    /// same head as [`Self::fit`], but sooner if the two are alike.
    pub(crate) fn fit_again(
        &self,
        features: &FeatureMatrix,
        rows: &[u32],
        classes: &[u32],
        strength: f64,
    ) -> Self {
        let examples = Examples { features, rows, classes, strength };
        let mut weights = self.weights.clone();
        let found = minimise(self.weights.to_point(), |point, gradient| {
            weights.set(point);
            examples.evaluate(&weights, gradient)
        });
        weights.set(&found);
        Self { weights }
    }

    /// The number of classes.
    pub(crate) fn classes(&self) -> usize {
        self.weights.classes
    }

    /// Writes the probability of each class for one row of the features.
    pub(crate) fn probabilities(&self, features: &FeatureMatrix, row: u32, into: &mut [f32]) {
        let found = self.weights.map_rows(features, &[row], |_, found| found.to_vec());
        into.copy_from_slice(&found[0]);
    }

    /// Calls `read` with each row and its classes' probabilities, in parallel. Returns what it
    /// returns, in the order of the rows.
    pub(crate) fn map_rows<T: Send>(
        &self,
        features: &FeatureMatrix,
        rows: &[u32],
        read: impl Fn(u32, &[f32]) -> T + Sync,
    ) -> Vec<T> {
        self.weights.map_rows(features, rows, read)
    }
}

#[cfg(test)]
mod tests {
    use rand::{Rng, RngExt, SeedableRng};
    use rand_pcg::Pcg64Mcg;

    use super::super::feature_matrix::FeatureMatrixBuilder;
    use super::*;

    /// Clouds around one centre a class, and the class of each point.
    fn clouds(classes: u32, width: usize, rows: u32) -> (FeatureMatrix, Vec<u32>) {
        let mut chance = Pcg64Mcg::seed_from_u64(5);
        let mut around = |chance: &mut dyn Rng, spread: f32| -> Vec<f32> {
            (0..width)
                .map(|_| spread * (chance.random::<f32>() + chance.random::<f32>() - 1.0))
                .collect()
        };
        let centres: Vec<_> = (0..classes).map(|_| around(&mut chance, 2.0)).collect();
        let mut features = FeatureMatrixBuilder::new(width, rows as usize);
        for row in 0..rows {
            let noise = around(&mut chance, 3.0);
            let centre = &centres[(row % classes) as usize];
            let point: Vec<_> = centre.iter().zip(noise).map(|(a, b)| a + b).collect();
            features.push(&point);
        }
        (features.finish(), (0..rows).map(|row| row % classes).collect())
    }

    fn accuracy(
        head: &MultinomialHead,
        features: &FeatureMatrix,
        rows: &[u32],
        classes: &[u32],
    ) -> f64 {
        let right = head.map_rows(features, rows, |row, found| {
            let best = (0..found.len()).max_by(|a, b| found[*a].total_cmp(&found[*b])).unwrap();
            assert!((found.iter().sum::<f32>() - 1.0).abs() < 1e-5);
            best as u32 == classes[row as usize]
        });
        right.iter().filter(|right| **right).count() as f64 / rows.len() as f64
    }

    #[test]
    fn classes_are_told_apart_that_the_head_has_not_seen() {
        for (class_count, width) in [(2, 5), (20, 30)] {
            let (features, classes) = clouds(class_count, width, 3000);
            let rows: Vec<u32> = (0..3000).collect();
            let head = MultinomialHead::fit(
                &features,
                &rows[..2000],
                &classes,
                class_count as usize,
                1e-3,
            );
            let accuracy = accuracy(&head, &features, &rows[2000..], &classes);
            assert!(accuracy > 0.85, "{class_count}: {accuracy}");
        }
    }

    #[test]
    fn a_strong_regularisation_leaves_little_but_the_frequency_of_classes() {
        let (features, mut classes) = clouds(2, 4, 1000);
        classes[..500].fill(1);
        let rows: Vec<u32> = (0..1000).collect();
        let head = MultinomialHead::fit(&features, &rows, &classes, 2, 1e4);
        let mut found = [0.0; 2];
        head.probabilities(&features, 3, &mut found);
        assert!((found[1] - 0.75).abs() < 0.01, "{found:?}");
    }

    #[test]
    fn the_fit_is_the_same_from_another_start_and_with_any_number_of_threads() {
        let (features, classes) = clouds(3, 8, 5000);
        let rows: Vec<u32> = (0..5000).collect();
        let fit = || MultinomialHead::fit(&features, &rows, &classes, 3, 1e-2);
        let head = fit();
        let alone = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap().install(fit);
        assert_eq!(head.weights.weights, alone.weights.weights);
        let other = MultinomialHead::fit(&features, &rows[..300], &classes, 3, 1.0)
            .fit_again(&features, &rows, &classes, 1e-2);
        let [mut one, mut two] = [[0.0; 3]; 2];
        for row in 0..50 {
            head.probabilities(&features, row, &mut one);
            other.probabilities(&features, row, &mut two);
            assert!(one.iter().zip(two).all(|(a, b)| (a - b).abs() < 0.01), "{one:?} {two:?}");
        }
    }
}
