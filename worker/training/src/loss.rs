//! Softmax cross-entropy: the loss of logits, and its gradient.

/// Loss and accuracy of several images.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Score {
    /// Sum of the images' losses.
    pub(super) loss: f64,
    /// Number of images whose class has the largest logit.
    pub(super) correct: u64,
    /// Number of images.
    pub(super) images: u64,
}

impl Score {
    pub(super) fn mean_loss(self) -> f64 {
        self.loss / self.images as f64
    }

    pub(super) fn accuracy(self) -> f64 {
        self.correct as f64 / self.images as f64
    }
}

impl std::ops::AddAssign for Score {
    fn add_assign(&mut self, other: Self) {
        self.loss += other.loss;
        self.correct += other.correct;
        self.images += other.images;
    }
}

/// The score of `logits` `[N, K]`, row-major, for the `N` true classes, and the gradient of the
/// mean loss with respect to the logits: `(softmax - one hot) / N`, `[N, K]`.
pub(super) fn cross_entropy(logits: &[f32], classes: &[usize]) -> (Score, Vec<f32>) {
    let images = classes.len();
    let width = logits.len() / images.max(1);
    let mut score = Score { images: images as u64, ..Score::default() };
    let mut gradient = Vec::with_capacity(logits.len());
    for (row, &class) in logits.chunks_exact(width).zip(classes) {
        let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        // Without subtracting the largest, the exponential would overflow.
        let sum: f64 = row.iter().map(|&logit| f64::from(logit - largest).exp()).sum();
        score.loss += sum.ln() - f64::from(row[class] - largest);
        let before = row[..class].iter().all(|&logit| logit < row[class]);
        score.correct += u64::from(before && row.iter().all(|&logit| logit <= row[class]));
        gradient.extend(row.iter().enumerate().map(|(index, &logit)| {
            let probability = f64::from(logit - largest).exp() / sum;
            ((probability - f64::from(u8::from(index == class))) / images as f64) as f32
        }));
    }
    (score, gradient)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gradient_is_the_losss_slope() {
        let logits = [0.3f32, -1.2, 2.0, 0.0, 0.1, 0.1];
        let classes = [1, 2];
        let loss = |logits: &[f32]| cross_entropy(logits, &classes).0.mean_loss();
        let (score, gradient) = cross_entropy(&logits, &classes);
        assert_eq!((score.correct, score.images), (0, 2), "of equal logits the first counts");
        for index in 0..logits.len() {
            let moved = |by: f32| {
                let mut logits = logits;
                logits[index] += by;
                loss(&logits)
            };
            let slope = (moved(1e-2) - moved(-1e-2)) / 2e-2;
            assert!((slope - f64::from(gradient[index])).abs() < 1e-4, "{index}: {slope}");
        }
    }

    #[test]
    fn large_logits_stay_finite_and_none_is_correct_that_is_no_number() {
        let (score, _) = cross_entropy(&[1000.0, -1000.0], &[1]);
        assert_eq!(score.loss, 2000.0);
        let (score, _) = cross_entropy(&[f32::NAN, 0.0], &[1]);
        assert!(score.loss.is_nan() && score.correct == 0);
    }
}
