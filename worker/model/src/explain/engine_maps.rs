//! The maps of a layer before the last stage's end, on a device that works on layers itself.
//!
//! As [`maps`](super::maps) for such a device. What it gives back are maps, or activations and gradients,
//! of which [`cam`](crate::cam) makes maps.

use camshaft_common::explain::Method;
use camshaft_vision::heat_map::HeatMap;
use candle_core::{Result, Tensor};

use super::forwarded_batch::ForwardedBatch;
use crate::cam::{CamTarget, Gradients, ablation_cam, eigen_cam, eigen_grad_cam, score_cam};
use crate::network::inference::LayerEngine;
use crate::network::layer_point::LayerPoint;
use crate::network::resnet::ResNet;

/// Batch size of the passes of Score-CAM, one for each channel.
const CHANNELS_AT_ONCE: usize = 64;

/// The maps of one layer.
pub(super) struct EngineMaps<'a> {
    pub(super) network: &'a ResNet,
    pub(super) engine: &'a dyn LayerEngine,
    pub(super) batch: &'a ForwardedBatch<'a>,
    pub(super) point: LayerPoint,
}

impl EngineMaps<'_> {
    /// Computes the maps by method, then by target.
    pub(super) fn compute(
        &self,
        methods: &[Method],
        targets: &[CamTarget],
    ) -> Result<Vec<Vec<HeatMap>>> {
        let mut all = vec![Vec::new(); methods.len()];
        // As many as images: more targets need no more memory than the batch itself.
        for targets in targets.chunks(self.batch.input.images().max(1)) {
            let mut gradients = None;
            for (maps, &method) in all.iter_mut().zip(methods) {
                maps.extend(self.of_method(method, targets, &mut gradients)?);
            }
        }
        Ok(all)
    }

    /// The maps of a method. `gradients` are those of the targets, once a method has needed them.
    fn of_method(
        &self,
        method: Method,
        targets: &[CamTarget],
        gradients: &mut Option<Gradients>,
    ) -> Result<Vec<HeatMap>> {
        self.batch.early_end.check()?;
        let input = self.batch.input.given();
        let made = self.network.on_layer(self.point, |layer| {
            self.engine.maps(input, layer, targets, method).transpose()
        })?;
        if let Some(maps) = made {
            return Ok(maps);
        }
        let gradients = match gradients {
            Some(gradients) => &*gradients,
            none => none.insert(self.gradients(targets)?),
        };
        match method {
            Method::EigenGradCam => eigen_grad_cam::maps(gradients),
            Method::EigenCam => eigen_cam::maps(gradients.activations()),
            Method::ScoreCam => self.of_images(targets, gradients, Self::score_cam),
            Method::AblationCam => self.of_images(targets, gradients, Self::ablation_cam),
            Method::GradCam
            | Method::HiResCam
            | Method::GradCamPlusPlus
            | Method::XGradCam
            | Method::LayerCam => unreachable!("engines make maps of these"),
        }
    }

    fn gradients(&self, targets: &[CamTarget]) -> Result<Gradients> {
        let input = self.batch.input.given();
        self.network.on_layer(self.point, |layer| self.engine.gradients(input, layer, targets))
    }

    /// Calls `maps` once for each image, with the layer's output `[C, H, W]` and all classes of the
    /// image. Targets of an image are neighbours.
    fn of_images(
        &self,
        targets: &[CamTarget],
        gradients: &Gradients,
        maps: impl Fn(&Self, usize, &Tensor, &[usize]) -> Result<Vec<HeatMap>>,
    ) -> Result<Vec<HeatMap>> {
        let mut all = Vec::with_capacity(targets.len());
        for targets in targets.chunk_by(|a, b| a.image == b.image) {
            let classes: Vec<_> = targets.iter().map(|target| target.class).collect();
            let activations = gradients.activations().get(all.len())?;
            all.extend(maps(self, targets[0].image, &activations, &classes)?);
        }
        Ok(all)
    }

    fn score_cam(
        &self,
        image: usize,
        activations: &Tensor,
        classes: &[usize],
    ) -> Result<Vec<HeatMap>> {
        let input = self.batch.input.scaled()?.get(image)?;
        let score = |inputs: &Tensor| {
            self.batch.early_end.check()?;
            Ok(self.network.forward(inputs, &[])?.logits)
        };
        score_cam::maps(&input, activations, classes, CHANNELS_AT_ONCE, score)
    }

    fn ablation_cam(
        &self,
        image: usize,
        activations: &Tensor,
        classes: &[usize],
    ) -> Result<Vec<HeatMap>> {
        self.batch.early_end.check()?;
        let without = self.batch.input.with_image(image, |input| {
            self.network.on_layer(self.point, |layer| self.engine.ablated_logits(input, layer))
        })?;
        let logits = self.batch.forward.logits.get(image)?;
        ablation_cam::maps_of_logits(activations, &logits, &without, classes)
    }
}
