//! What a network on a GPU computes about one target layer: gradients and maps, and logits with
//! other values in the layer's place.
//!
//! Owns which of the passes are kept from one call to the next: those of the layer that was asked
//! for last. Passes are [`backward`](crate::backward)'s and [`rest`](crate::rest)'s. Downstream:
//! the worker's models.

use crate::backward::GradientPass;
use crate::engine::CudaNetwork;
use crate::error::CudaError;
use crate::gradient_maps::{GradientOutput, GradientRequest};
use crate::layer_cut::{Cut, CutConvolution, CutEngine, CutLayer};
use crate::pass::LaunchQueue;
use crate::rest::RestPass;
use crate::results::PassInput;

impl CudaNetwork {
    /// Maps, or outputs and gradients, of the layer at `cut`: one for each target, which is an
    /// image of `input` and a class. `convolution` is the layer's, if the layer is one. There may be
    /// more images and targets than [`Self::max_images`]; they are computed in several batches.
    /// Passes that were begun go on meanwhile.
    ///
    /// The first call for a layer allocates memory for its targets, which is kept until a call
    /// names another layer.
    ///
    /// # Errors
    /// If the layer or a target is not there, if `convolution` does not fit, if memory is short, or
    /// the device fails.
    pub fn gradients(
        &mut self,
        input: PassInput<'_>,
        cut: Cut,
        convolution: Option<&CutConvolution<'_>>,
        targets: &[(usize, usize)],
        request: GradientRequest,
    ) -> Result<GradientOutput, CudaError> {
        // After an error the memory is given back.
        let kept = self.gradient_pass.take().filter(|pass| pass.layer().cut == cut);
        let mut engine = self.cut_engine()?;
        let mut pass = match kept {
            Some(pass) => pass,
            None => GradientPass::new(engine.layer(cut, convolution)?, engine.list),
        };
        let output = pass.run(&mut engine, input, targets, request)?;
        self.gradient_pass = Some(pass);
        Ok(output)
    }

    /// Logits `[R, K]` of the rest of the network, from `features`, f32 `[R, C, H, W]`, in the place
    /// of the output of the layer at `cut`. `convolution` is the layer's, if the layer is one.
    /// `block_input`, f32 `[R, C, H, W]`, is the input of the layer's block; it is needed if the
    /// layer is within a block, for its shortcut or its path.
    ///
    /// # Errors
    /// If the layer is not there, if the values are not whole rows, if `convolution` does not fit,
    /// if memory is short, or the device fails.
    pub fn rest(
        &mut self,
        cut: Cut,
        convolution: Option<&CutConvolution<'_>>,
        features: &[f32],
        block_input: Option<&[f32]>,
    ) -> Result<Vec<f32>, CudaError> {
        self.with_rest(cut, convolution, |pass, engine| {
            pass.logits_of(engine, features, block_input)
        })
    }

    /// Logits `[C, K]` of one image, each with one channel of the output of the layer at `cut` set
    /// to zero. `convolution` is the layer's, if the layer is one.
    ///
    /// # Errors
    /// If there is not one image, if the layer is not there, if `convolution` does not fit, if
    /// memory is short, or the device fails.
    pub fn ablated_logits(
        &mut self,
        image: PassInput<'_>,
        cut: Cut,
        convolution: Option<&CutConvolution<'_>>,
    ) -> Result<Vec<f32>, CudaError> {
        image.images(&self.network, 1)?;
        self.with_rest(cut, convolution, |pass, engine| pass.logits_without_channels(engine, image))
    }

    /// Calls `run` with passes from the layer at `cut` on, and keeps them for the next call.
    fn with_rest(
        &mut self,
        cut: Cut,
        convolution: Option<&CutConvolution<'_>>,
        run: impl FnOnce(&mut RestPass, &mut CutEngine<'_>) -> Result<Vec<f32>, CudaError>,
    ) -> Result<Vec<f32>, CudaError> {
        let kept = self.rest_pass.take().filter(|pass| pass.layer().cut == cut);
        let mut engine = self.cut_engine()?;
        let mut pass = match kept {
            Some(pass) => pass,
            None => RestPass::new(engine.layer(cut, convolution)?),
        };
        let logits = run(&mut pass, &mut engine)?;
        self.rest_pass = Some(pass);
        Ok(logits)
    }

    /// Bytes that these passes keep allocated on the device.
    pub(crate) fn target_layer_bytes(&self) -> usize {
        let gradients = self.gradient_pass.as_ref().map_or(0, GradientPass::bytes);
        let rest = self.rest_pass.as_ref().map_or(0, RestPass::bytes);
        gradients + rest + self.cut_activations.bytes()
    }

    /// What all of them compute with, on the network's own stream.
    fn cut_engine(&mut self) -> Result<CutEngine<'_>, CudaError> {
        self.device.bind_to_thread()?;
        self.cudnn.use_stream(&self.stream)?;
        let max_images = self.max_images();
        Ok(CutEngine {
            queue: LaunchQueue {
                cudnn: &self.cudnn,
                kernels: &self.kernels,
                stream: &self.stream,
                format: self.network.format,
            },
            planner: &mut self.planner,
            network: &self.network,
            list: &self.list,
            activations: &mut self.cut_activations,
            workspace: &self.workspace,
            max_images,
        })
    }
}

impl CutEngine<'_> {
    /// Finds a layer, and uploads its convolution.
    fn layer(
        &self,
        cut: Cut,
        convolution: Option<&CutConvolution<'_>>,
    ) -> Result<CutLayer, CudaError> {
        CutLayer::new(self.queue.stream, self.network, self.list, cut, convolution)
    }
}
