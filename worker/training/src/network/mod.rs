//! Networks that can be trained: layers, each with its forward pass and its gradients.
//!
//! Owns parameters and forward and backward passes, not the change of parameters, which is the
//! optimiser's ([`adam`](crate::adam)). Tensors lie channels last, `[N, H, W, C]`, f32, on the CPU.
//! Upstream: initial weights. Downstream: [`learner`](crate::learner).

pub(crate) mod batch_norm;
mod block;
mod convolution;
#[cfg(test)]
mod finite_differences;
mod head;
mod layer;
mod parameter;
mod resnet;
pub(crate) mod tensor_values;

pub(crate) use head::TrainedHead;
pub(crate) use layer::NamedTensors;
pub(crate) use parameter::{FindTensor, Parameter, restore_all, save_all};
pub(crate) use resnet::TrainedResNet;
