//! Residual networks on NVIDIA GPUs, for inference and class activation maps: convolutions by
//! cuDNN, everything between them by kernels of our own. Plain slices go in and come out. The crate
//! does not know tensors, files of models, or classes' names.
//!
//! Nothing links to CUDA. The driver and cuDNN are loaded when a [`CudaDevice`] is opened and a
//! network is loaded; without them there is an error.
//!
//! Activations are channels last, in one [`NumberFormat`]. Sums, logits, pooled features and maps
//! are f32.
//!
//! Start reading at [`CudaNetwork`]. From the top down:
//!
//! - `engine`: which slot a batch takes, and when engines of cuDNN are timed
//! - `slots`: a batch under way, from the host and back; `results`: what it takes and gives
//! - `target_layer`: what a caller asks about a layer; `backward`, `gradient_maps`: gradients at it,
//!   and maps of them; `rest`: from its output to logits; `layer_cut`: where it is
//! - `pass`: the operations of a pass at their addresses, `buffers`: which addresses, `pass_graph`:
//!   all of them as one call
//! - `operations`: a network as a list of operations
//! - `network`: weights on the device; `weight_layout`: their order; `stem_choice`: the stem's form
//! - `cudnn`: convolutions; `kernels`: everything else
//! - `memory`, `device`, `number_format`, `error`: what all of them need
//!
//! Words used throughout: an *operation* is a step of a pass, a *buffer* what it reads or writes, a
//! *slot* the place of a batch that is under way, a *bucket* a batch size that passes are planned
//! for, a *plan* an engine of cuDNN for one convolution, or those of a whole pass.

mod backward;
mod buffers;
mod cudnn;
mod device;
mod engine;
mod error;
mod gradient_maps;
mod kernels;
mod layer_cut;
mod memory;
mod network;
mod number_format;
mod operations;
mod pass;
mod pass_graph;
mod rest;
mod results;
mod slots;
mod stem_choice;
mod target_layer;
mod weight_layout;

pub use device::CudaDevice;
pub use engine::{CudaNetwork, EngineSettings, Ticket};
pub use error::CudaError;
pub use gradient_maps::{CamRule, GradientOutput, GradientRequest};
pub use layer_cut::{Cut, CutConvolution};
pub use network::{HeadWeights, InputFormat};
pub use number_format::NumberFormat;
pub use results::{PassInput, PassOutput, PassRequest};
