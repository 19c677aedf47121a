//! The maps of a batch, for every method, layer and target.
//!
//! Owns which computations each method and layer needs, and shares them among methods. How a map is
//! made of activations and gradients is in [`cam`](crate::cam). Upstream: a forward pass.
//! Downstream: the results of [`explain`](crate::explain).

use std::collections::HashMap;

use camshaft_common::explain::{FusedLayers, Method, TargetLayer};
use camshaft_vision::heat_map::HeatMap;
use candle_core::{Result, Tensor};

use super::engine_maps::EngineMaps;
use super::forwarded_batch::ForwardedBatch;
use crate::cam::{
    CamTarget, Gradients, ablation_cam, class_indices, eigen_cam, eigen_grad_cam, grad_cam,
    grad_cam_plus_plus, hires_cam, image_indices, layer_cam, score_cam, xgrad_cam,
};
use crate::network::layer_point::LayerPoint;
use crate::network::resnet::{CutStart, CutState, ResNet};

/// Batch size of methods that run a pass for each channel.
const CHANNELS_AT_ONCE: usize = 16;

/// The stages, counted from 1, from whose outputs the maps of `layers` are computed.
pub(super) fn starting_stages<'a>(
    network: &ResNet,
    layers: impl IntoIterator<Item = &'a FusedLayers>,
) -> Vec<usize> {
    let layers = layers.into_iter().flat_map(FusedLayers::as_slice);
    let points = layers.filter_map(|&layer| network.find(layer));
    // An engine that works on layers starts from the image.
    let on_engine = network.layer_engine().is_some();
    let starts = points.filter(|&point| !on_engine || network.is_last(point)).filter_map(|point| {
        match network.start(point) {
            CutStart::Image => None,
            CutStart::Stage(stage) => Some(stage + 1),
        }
    });
    starts.collect()
}

/// Computes a map for each method, fused layers and target: by method and layers, then by target.
/// The network must have every layer.
pub(super) fn compute_maps(
    network: &ResNet,
    batch: &ForwardedBatch<'_>,
    methods: &[Method],
    layers: &[FusedLayers],
    targets: &[CamTarget],
) -> Result<Vec<Vec<HeatMap>>> {
    // Several fused layers may have a layer in common.
    let mut by_layer: HashMap<(Method, TargetLayer), Vec<HeatMap>> = HashMap::new();
    for &layer in layers.iter().flat_map(FusedLayers::as_slice) {
        if by_layer.contains_key(&(methods[0], layer)) {
            continue;
        }
        let point = network.find(layer).expect("the network has the layer");
        let maps = if let Some(maps) = maps_of_pass(network, batch, point, methods, targets) {
            vec![maps]
        } else if let Some(engine) = network.layer_engine()
            && !network.is_last(point)
        {
            EngineMaps { network, engine, batch, point }.compute(methods, targets)?
        } else {
            LayerMaps::new(network, batch, point, targets)?.compute(methods)?
        };
        for (method, maps) in methods.iter().zip(maps) {
            by_layer.insert((*method, layer), maps);
        }
    }
    let wanted = methods.iter().flat_map(|&method| layers.iter().map(move |one| (method, one)));
    let fused = wanted.map(|(method, layers)| {
        let of = |layer: &TargetLayer| &by_layer[&(method, *layer)];
        match layers.as_slice() {
            [layer] => of(layer).clone(),
            layers => (0..targets.len())
                .map(|target| {
                    let maps: Vec<_> =
                        layers.iter().map(|layer| of(layer)[target].clone()).collect();
                    HeatMap::fused(&maps)
                })
                .collect(),
        }
    });
    Ok(fused.collect())
}

/// The maps that came with the pass, if they are those that are wanted.
fn maps_of_pass(
    network: &ResNet,
    batch: &ForwardedBatch<'_>,
    point: LayerPoint,
    methods: &[Method],
    targets: &[CamTarget],
) -> Option<Vec<HeatMap>> {
    let maps = batch.forward.maps.as_ref()?;
    let are_wanted = methods == [Method::GradCam] && network.is_last(point);
    if !are_wanted {
        return None;
    }
    targets.iter().map(|&target| maps.find(target)).collect()
}

/// The maps of one layer.
struct LayerMaps<'a> {
    network: &'a ResNet,
    batch: &'a ForwardedBatch<'a>,
    cut: CutState,
    targets: &'a [CamTarget],
}

impl<'a> LayerMaps<'a> {
    fn new(
        network: &'a ResNet,
        batch: &'a ForwardedBatch<'a>,
        point: LayerPoint,
        targets: &'a [CamTarget],
    ) -> Result<Self> {
        let cut = match network.start(point) {
            CutStart::Image => network.cut(point, batch.input.scaled()?)?,
            CutStart::Stage(stage) => match &batch.forward.stages[stage] {
                Some(start) => network.cut(point, start)?,
                // Two logits that are equal have two most probable classes: the pass gave the map of
                // the other one.
                None => {
                    let again = network.forward(batch.input.scaled()?, &[stage + 1])?.stages;
                    network.cut(point, again[stage].as_ref().expect("it was asked for"))?
                }
            },
        };
        Ok(Self { network, batch, cut, targets })
    }

    /// Computes the maps by method, then by target.
    fn compute(&self, methods: &[Method]) -> Result<Vec<Vec<HeatMap>>> {
        let mut all = vec![Vec::new(); methods.len()];
        // At most a batch's number of targets at a time, so that images with many targets need no more
        // memory than the batch itself.
        for targets in self.targets.chunks(self.batch.input.images().max(1)) {
            self.batch.early_end.check()?;
            let mut gradients = None;
            for (maps, &method) in all.iter_mut().zip(methods) {
                maps.extend(match method {
                    Method::EigenCam => self.eigen_cam(targets)?,
                    Method::ScoreCam => self.for_each_image(targets, Self::score_cam)?,
                    Method::AblationCam if !self.is_last() => {
                        self.for_each_image(targets, Self::ablation_cam)?
                    }
                    _ => {
                        let layer = match &mut gradients {
                            Some(gradients) => gradients,
                            none => none.insert(self.gradients(targets)?),
                        };
                        self.by_gradients(method, layer, targets)?
                    }
                });
            }
        }
        Ok(all)
    }

    fn is_last(&self) -> bool {
        self.network.is_last(self.cut.point)
    }

    fn by_gradients(
        &self,
        method: Method,
        layer: &Gradients,
        targets: &[CamTarget],
    ) -> Result<Vec<HeatMap>> {
        match method {
            Method::GradCam => grad_cam::maps(layer),
            Method::HiResCam => hires_cam::maps(layer),
            Method::GradCamPlusPlus => grad_cam_plus_plus::maps(layer),
            Method::XGradCam => xgrad_cam::maps(layer),
            Method::LayerCam => layer_cam::maps(layer),
            Method::EigenGradCam => eigen_grad_cam::maps(layer),
            Method::AblationCam => {
                let logits = &self.batch.forward.logits;
                let rows = logits.index_select(&image_indices(targets, logits)?, 0)?;
                let logits = rows.gather(&class_indices(targets, logits)?.unsqueeze(1)?, 1)?;
                ablation_cam::linear(layer, &logits.squeeze(1)?)
            }
            Method::EigenCam | Method::ScoreCam => unreachable!("they take no gradients"),
        }
    }

    /// Activations and gradients of some targets: in closed form if only the head follows the
    /// layer, else by a backward pass.
    fn gradients(&self, targets: &[CamTarget]) -> Result<Gradients> {
        let features = &self.cut.features;
        // If there is one target for each image, as usual, nothing is copied.
        let all = targets.iter().map(|target| target.image).eq(0..features.dim(0)?);
        let cut = match all {
            true => self.cut.clone(),
            false => self.cut.select(&image_indices(targets, features)?)?,
        };
        let classes = class_indices(targets, features)?;
        if self.is_last() {
            let gradients = self.network.head().gradient(&classes)?;
            return Ok(Gradients::linear(cut.features.contiguous()?, gradients));
        }
        Gradients::back_through(&cut.features, &classes, |x| self.network.rest(&cut, x))
    }

    fn eigen_cam(&self, targets: &[CamTarget]) -> Result<Vec<HeatMap>> {
        self.for_each_image(targets, |maps, image, classes| {
            let activations = maps.cut.features.narrow(0, image, 1)?;
            let map = eigen_cam::maps(&activations)?.remove(0);
            Ok(vec![map; classes.len()])
        })
    }

    fn score_cam(&self, image: usize, classes: &[usize]) -> Result<Vec<HeatMap>> {
        let input = self.batch.input.scaled()?.get(image)?;
        let activations = self.cut.features.get(image)?;
        let score = |inputs: &Tensor| {
            self.batch.early_end.check()?;
            Ok(self.network.forward(inputs, &[])?.logits)
        };
        score_cam::maps(&input, &activations, classes, CHANNELS_AT_ONCE, score)
    }

    fn ablation_cam(&self, image: usize, classes: &[usize]) -> Result<Vec<HeatMap>> {
        let same = Tensor::new(vec![image as u32; CHANNELS_AT_ONCE], self.cut.features.device())?;
        let cut = self.cut.select(&same)?;
        let rest = |features: &Tensor| {
            self.batch.early_end.check()?;
            let rows = features.dim(0)?;
            match rows == CHANNELS_AT_ONCE {
                true => self.network.rest(&cut, features),
                false => self.network.rest(&cut.first(rows)?, features),
            }
        };
        let (activations, logits) =
            (self.cut.features.get(image)?, self.batch.forward.logits.get(image)?);
        ablation_cam::maps(&activations, &logits, classes, CHANNELS_AT_ONCE, rest)
    }

    /// Calls `maps` once for each image, with all classes of the image. Targets of an image are
    /// neighbours.
    fn for_each_image(
        &self,
        targets: &[CamTarget],
        maps: impl Fn(&Self, usize, &[usize]) -> Result<Vec<HeatMap>>,
    ) -> Result<Vec<HeatMap>> {
        let mut all = Vec::with_capacity(targets.len());
        for targets in targets.chunk_by(|a, b| a.image == b.image) {
            let classes: Vec<_> = targets.iter().map(|target| target.class).collect();
            all.extend(maps(self, targets[0].image, &classes)?);
        }
        Ok(all)
    }
}
