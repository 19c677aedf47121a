//! The rules that make maps of a layer's outputs and gradients, in f64: the formulas of
//! `camshaft_model::cam`.

use camshaft_cuda::CamRule;

use super::features::Features;

/// The map of one image and class, `[P]`. `sum_error` moves the sum of each channel's activations by
/// this share of their absolute values' sum: some rules divide by such a sum.
pub(crate) fn map(
    rule: CamRule,
    activations: &Features,
    gradients: &Features,
    sum_error: f64,
) -> Vec<f64> {
    let positions = activations.positions();
    let channels = || {
        let gradients = gradients.values.chunks(positions);
        activations.values.chunks(positions).zip(gradients)
    };
    let mut map = vec![0.0; positions];
    for (activations, gradients) in channels() {
        let weight = channel_weight(rule, activations, gradients, sum_error);
        for (position, sum) in map.iter_mut().enumerate() {
            *sum += activations[position]
                * match rule {
                    CamRule::HiResCam => gradients[position],
                    CamRule::LayerCam => gradients[position].max(0.0),
                    CamRule::GradCam | CamRule::GradCamPlusPlus | CamRule::XGradCam => weight,
                };
        }
    }
    map.into_iter().map(|value| value.max(0.0)).collect()
}

/// The weight of one channel, if the rule gives each channel one.
fn channel_weight(rule: CamRule, activations: &[f64], gradients: &[f64], sum_error: f64) -> f64 {
    let absolute = activations.iter().map(|value| value.abs()).sum::<f64>();
    let sum = activations.iter().sum::<f64>() + sum_error * absolute;
    match rule {
        CamRule::GradCam => gradients.iter().sum::<f64>() / gradients.len() as f64,
        CamRule::GradCamPlusPlus => {
            let share = |g: f64| g * g / (2.0 * g * g + g * g * g * sum + 1e-6);
            gradients.iter().map(|&gradient| gradient.max(0.0) * share(gradient)).sum()
        }
        CamRule::XGradCam => {
            let products = activations.iter().zip(gradients).map(|(a, g)| a * g);
            products.sum::<f64>() / (sum + 1e-7)
        }
        CamRule::HiResCam | CamRule::LayerCam => 0.0,
    }
}
