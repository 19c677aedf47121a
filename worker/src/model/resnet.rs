//! ResNet (He et al. 2015, <https://arxiv.org/abs/1512.03385>) with torchvision's parameter
//! names and strides ("v1.5": a bottleneck's stride is in its 3×3).
//!
//! Can start from and stop at the output of each of its four residual stages, which is what
//! explanations need. What classes mean and how images become input is not known here.

use std::sync::OnceLock;

use bytes::Bytes;
use camshaft_kernels::{Backbone, Kernel, SMALLEST_SIDE};
use candle_core::{CpuStorage, DType, Device, Result, Storage, Tensor, bail};

use super::compute::Compute;
use super::config::HeadKind;
use super::head::{Head, HeadShape};
use super::layers::{FoldedNetwork, Layers, ResNetShape};
use super::weights::Weights;

/// Number of residual stages, `layer1` to `layer4`.
pub const STAGES: usize = 4;

/// A ResNet on one device, BatchNorms folded in.
///
/// Tensors it takes and gives are f32 whatever it computes in.
#[derive(Debug)]
pub struct ResNet {
    shape: ResNetShape,
    head: Head,
    device: Device,
    dtype: DType,
    /// The CPU's own kernels, where they can run this network: what a plain pass runs on.
    /// Gradients go through candle's layers.
    backbone: Option<Backbone>,
    /// Made when they are first needed, where there is a backbone: most runs need no gradient,
    /// and they are twice the file's size.
    layers: OnceLock<Layers>,
    /// What they are made of.
    file: Bytes,
}

/// What a forward pass leaves.
#[derive(Clone, Debug)]
pub struct Forward {
    /// `[N, K]`, f32, any range.
    pub logits: Tensor,
    /// By stage, `layer1` first: `[N, C, H, W]`, f32, zero or more, where it was asked for.
    pub stages: [Option<Tensor>; STAGES],
}

impl ResNet {
    /// Reads a network from `weights`, the tensors of `file`; those that don't fit are noted in
    /// `weights`.
    pub(super) fn load(
        weights: &mut Weights<'_>,
        file: Bytes,
        (shape, head): (ResNetShape, HeadShape),
        device: &Device,
        &Compute { dtype, kernel, .. }: &Compute,
    ) -> Result<Self> {
        let folded = FoldedNetwork::load(weights, shape)?;
        let head = Head::load(weights, head, device)?;
        let backbone = match kernel {
            Some(kernel) => backbone(&folded, kernel)?,
            None => None,
        };
        let layers = OnceLock::new();
        if backbone.is_none() {
            let made = Layers::new(&folded, (device, dtype))?;
            layers.get_or_init(|| made);
        }
        Ok(Self { shape, head, device: device.clone(), dtype, backbone, layers, file })
    }

    /// The kernel a plain pass runs on; none: candle.
    pub(super) fn kernel(&self) -> Option<Kernel> {
        self.backbone.as_ref().map(Backbone::kernel)
    }

    fn layers(&self) -> Result<&Layers> {
        if let Some(layers) = self.layers.get() {
            return Ok(layers);
        }
        // Nothing is missing here, or there would be no backbone.
        let folded = FoldedNetwork::load(&mut Weights::read(&self.file)?, self.shape)?;
        let layers = Layers::new(&folded, (&self.device, self.dtype))?;
        Ok(self.layers.get_or_init(|| layers))
    }

    /// Logits of a batch, and the outputs of the stages named in `wanted` (1 to 4), in one
    /// pass. `input` `[N, 3, H, W]`, f32, scaled as the model's input rule says.
    pub fn forward(&self, input: &Tensor, wanted: &[usize]) -> Result<Forward> {
        let (_, _, height, width) = input.dims4()?;
        if let Some(backbone) = &self.backbone
            && !input.track_op()
            && height.min(width) >= SMALLEST_SIDE
        {
            return self.forward_on_kernels(backbone, input, wanted);
        }
        let layers = self.layers()?;
        let mut features = layers.stem(input)?;
        let mut stages = [const { None }; STAGES];
        for (stage, output) in stages.iter_mut().enumerate() {
            features = layers.stage(stage, &features)?;
            if wanted.contains(&(stage + 1)) {
                *output = Some(features.to_dtype(DType::F32)?);
            }
        }
        Ok(Forward { logits: self.head.forward(&features)?, stages })
    }

    fn forward_on_kernels(
        &self,
        backbone: &Backbone,
        input: &Tensor,
        wanted: &[usize],
    ) -> Result<Forward> {
        let (batch, _, height, width) = input.dims4()?;
        let mut run = std::array::from_fn(|index| wanted.contains(&(index + 1)));
        let flatten = self.head.shape().kind == HeadKind::Flatten;
        run[STAGES - 1] |= flatten;
        let threads = rayon::current_num_threads();
        let input = input.contiguous()?;
        let (storage, layout) = input.storage_and_layout();
        let (Storage::Cpu(CpuStorage::F32(values)), Some((start, end))) =
            (&*storage, layout.contiguous_offsets())
        else {
            bail!("the CPU's kernels take f32 on the CPU");
        };
        let output = backbone.run(&values[start..end], (batch, height, width), run, threads);
        let mut stages = [const { None }; STAGES];
        for (stage, features) in stages.iter_mut().zip(output.stages) {
            if let Some(features) = features {
                *stage =
                    Some(Tensor::from_vec(features.values, &features.shape[..], &self.device)?);
            }
        }
        let logits = if flatten {
            let last = stages[STAGES - 1].as_ref().expect("it was asked for");
            self.head.forward(last)?
        } else {
            let pooled = Tensor::from_vec(output.pooled, (batch, ()), &self.device)?;
            self.head.forward_pooled(&pooled)?
        };
        Ok(Forward { logits, stages })
    }

    /// The output of `stage` (1 to 4) after its last ReLU: `[N, C, H, W]`, f32, zero or more.
    /// `input` as for [`Self::forward`].
    pub fn forward_to_stage(&self, input: &Tensor, stage: usize) -> Result<Tensor> {
        let layers = self.layers()?;
        (0..stage)
            .try_fold(layers.stem(input)?, |x, stage| layers.stage(stage, &x))?
            .to_dtype(DType::F32)
    }

    /// Logits `[N, K]`, f32, from the output of `stage` (1 to 4) as [`Self::forward_to_stage`]
    /// gives it. Differentiable with respect to `features`.
    pub fn forward_from_stage(&self, features: &Tensor, stage: usize) -> Result<Tensor> {
        let layers = self.layers()?;
        let features = (stage..STAGES)
            .try_fold(features.clone(), |features, stage| layers.stage(stage, &features))?;
        self.head.forward(&features)
    }

    /// The head's weight: `[K, C]`, f32.
    pub fn head_weight(&self) -> &Tensor {
        self.head.weight()
    }
}

/// The network for the CPU's kernels, where they can run it.
fn backbone(folded: &FoldedNetwork, kernel: Kernel) -> Result<Option<Backbone>> {
    match folded.for_kernels(|network| Backbone::new(kernel, network))? {
        Ok(backbone) => Ok(Some(backbone)),
        Err(reason) => {
            tracing::warn!(%kernel, %reason, "the CPU's kernels can't run this network");
            Ok(None)
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::cam::{CamTarget, grad_cam};
    use crate::model::testing::{CLASSES, SIDE, noise, small_model};

    use super::*;

    fn largest_difference(a: &Tensor, b: &Tensor) -> f32 {
        (a - b).unwrap().abs().unwrap().max_all().unwrap().to_scalar().unwrap()
    }

    #[test]
    fn stopping_and_starting_at_any_stage_is_the_whole_pass() {
        let model = small_model();
        let network = model.network();
        let input = noise(&[2, 3, SIDE, SIDE], 100).abs().unwrap();
        let whole = network.forward(&input, &[1, 2, 3, 4]).unwrap();
        assert_eq!(whole.logits.dims(), [2, CLASSES]);
        for stage in 1..=STAGES {
            let features = network.forward_to_stage(&input, stage).unwrap();
            let side = SIDE >> (stage + 1);
            assert_eq!(features.dims(), [2, 16 << (stage - 1), side, side]);
            assert_eq!(
                largest_difference(&features, whole.stages[stage - 1].as_ref().unwrap()),
                0.0
            );
            let logits = network.forward_from_stage(&features, stage).unwrap();
            assert!(largest_difference(&logits, &whole.logits) < 1e-5);
        }
        let some = network.forward(&input, &[3]).unwrap().stages;
        assert_eq!(some.map(|stage| stage.is_some()), [false, false, true, false]);
    }

    #[test]
    fn gradient_through_the_network_equals_finite_differences() {
        let model = small_model();
        let network = model.network();
        let input = noise(&[1, 3, SIDE, SIDE], 100).abs().unwrap();
        for stage in 1..STAGES {
            let features = network.forward_to_stage(&input, stage).unwrap();
            let variable = candle_core::Var::from_tensor(&features).unwrap();
            let logit =
                |x: &Tensor| network.forward_from_stage(x, stage).unwrap().sum_all().unwrap();
            let gradients = logit(&variable).backward().unwrap();
            let gradient = gradients.get(&variable).unwrap();
            // Along the gradient itself, which outweighs the kinks of the ReLUs.
            let norm = gradient.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();
            let step = 1e-3 / norm.sqrt();
            let moved = |by: f32| {
                let moved = (&features + (gradient * f64::from(by)).unwrap()).unwrap();
                logit(&moved).to_scalar::<f32>().unwrap()
            };
            let slope = (moved(step) - moved(-step)) / (2.0 * step);
            assert!((slope / norm - 1.0).abs() < 0.05, "stage {stage}: {slope} and {norm}");
        }
    }

    #[test]
    fn closed_form_equals_the_gradients_map_through_the_head() {
        let model = small_model();
        let network = model.network();
        let input = noise(&[3, 3, SIDE, SIDE], 100).abs().unwrap();
        let features = network.forward_to_stage(&input, STAGES).unwrap();
        let targets: Vec<_> = (0..3 * CLASSES)
            .map(|index| CamTarget { image: index % 3, class: index / 3 })
            .collect();
        let closed = grad_cam::closed_form(&features, network.head_weight(), &targets).unwrap();
        let gradient = grad_cam::by_gradient(&features, &targets, |features| {
            network.forward_from_stage(features, STAGES)
        });
        // A map near zero is a difference of large channels: theirs is the scale.
        let scale: f32 = features.max_all().unwrap().to_scalar().unwrap();
        for (closed, gradient) in closed.iter().zip(gradient.unwrap()) {
            let max = closed.values.iter().copied().fold(1e-2 * scale, f32::max);
            for (a, b) in closed.values.iter().zip(gradient.values) {
                assert!((a - b).abs() <= 1e-5 * max, "{a} and {b}");
            }
        }
    }
}
