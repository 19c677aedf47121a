//! The arguments of `camshaft calibrate`, and the config made of them.

use camshaft_arguments::ModelOptionArgs;
use camshaft_common::location::Location;
use camshaft_common::model::{ModelReference, ModelRequest};
use clap::Args;

use crate::calibrate::CalibrateConfig;
use crate::cli::UsageError;
use crate::cli::image_files::ImageFileArgs;
use crate::images::source_config::{SourceArgument, SourceConfig};

/// `camshaft calibrate`.
#[derive(Args, Debug)]
pub(crate) struct CalibrateArgs {
    /// The classifier: cats-vs-dogs, a folder or store URL, a file of weights, or hf:OWNER/NAME
    #[arg(value_name = "MODEL")]
    pub(crate) model: ModelReference,
    /// Images like those that the model is to see: a folder, an image, a URL, or list:PATH
    #[arg(value_name = "SOURCE")]
    pub(crate) source: SourceArgument,
    /// Where calibration.json goes: the OUT of the runs that use it, or any folder or URL [default: the
    /// model's folder]
    #[arg(long, env = "CAMSHAFT_OUT", value_name = "OUT")]
    pub(crate) out: Option<Location>,
    /// With list:PATH, the folder or URL that its keys are below
    #[arg(long, env = "CAMSHAFT_BASE", value_name = "URL")]
    pub(crate) base: Option<Location>,
    /// Which files are images.
    #[command(flatten)]
    pub(crate) files: ImageFileArgs,
    /// What the model's files don't say.
    #[command(flatten)]
    pub(crate) options: ModelOptionArgs,
}

impl CalibrateArgs {
    pub(crate) fn resolve(self) -> Result<CalibrateConfig, UsageError> {
        let source = SourceConfig::new(self.source, self.base)?;
        let model = ModelRequest { reference: self.model, options: self.options.resolve() };
        let image_files = self.files.resolve(&source)?;
        Ok(CalibrateConfig { model, source, image_files, out: self.out })
    }
}
