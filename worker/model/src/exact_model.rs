//! The same model in f32, for images whose numbers are too large for f16.
//!
//! It is loaded when the first such image comes, and most runs have none. Upstream: [`Model`], if its
//! precision was left to it. Downstream: [`explain`](crate::explain).

use std::sync::OnceLock;

use crate::compute::{ComputeDevice, ComputeSettings, Precision};
use crate::model::Model;
use crate::model_files::ModelFiles;
use crate::network::resnet::ResNetShape;

/// Images that it takes at once. There are few, and f32 takes twice the memory.
const LARGEST_BATCH: usize = 8;

/// How to load the model in f32, and the model once it is loaded.
#[derive(Debug)]
pub(crate) struct ExactModel {
    files: ModelFiles,
    shape: ResNetShape,
    device: ComputeDevice,
    settings: ComputeSettings,
    /// None if it can't be loaded.
    loaded: OnceLock<Option<Box<Model>>>,
}

impl ExactModel {
    /// Of the model of `files` on `device`.
    pub(crate) fn new(
        files: &ModelFiles,
        shape: ResNetShape,
        device: &ComputeDevice,
        settings: ComputeSettings,
    ) -> Self {
        let largest_batch = settings.largest_batch.min(LARGEST_BATCH);
        let settings = ComputeSettings { precision: Precision::F32, largest_batch, ..settings };
        let (files, device) = (files.clone(), device.clone());
        Self { files, shape, device, settings, loaded: OnceLock::new() }
    }

    /// The model, if it can be loaded.
    pub(crate) fn model(&self) -> Option<&Model> {
        let Self { files, shape, device, settings, loaded } = self;
        let load = || match Model::load_shape(files, *shape, device, *settings) {
            Ok(model) => Some(Box::new(model)),
            Err(error) => {
                tracing::warn!(
                    %error,
                    "images whose numbers are too large for f16 can't be done again in f32"
                );
                None
            }
        };
        loaded.get_or_init(load).as_deref()
    }
}
