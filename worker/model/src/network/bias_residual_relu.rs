//! Bias, residual and ReLU after a convolution's product, on the CPU, in one pass over memory
//! instead of three.

use candle_core::{CpuStorage, InplaceOp2, InplaceOp3, Layout, Result, Tensor, bail};
use rayon::prelude::*;

use super::patches::values;

/// Values that a thread takes at a time: twice as many fit its first-level cache.
const CHUNK: usize = 4096;

/// Computes `output = relu(output + bias + residual)` in place; without `relu`, negative values
/// stay. `output` and `residual` are contiguous `[N, H, W, C]`, `bias` is `[C]`; all f32, any
/// range. Not differentiable.
pub(super) fn add_bias_residual_relu(
    output: &Tensor,
    bias: &Tensor,
    residual: Option<&Tensor>,
    relu: bool,
) -> Result<()> {
    match residual {
        Some(residual) => output.inplace_op3(bias, residual, &BiasResidualRelu { relu }),
        None => output.inplace_op2(bias, &BiasResidualRelu { relu }),
    }
}

struct BiasResidualRelu {
    relu: bool,
}

impl BiasResidualRelu {
    fn apply(&self, output: &mut [f32], bias: &[f32], residual: Option<&[f32]>) {
        let floor = if self.relu { 0.0 } else { f32::NEG_INFINITY };
        // Not `max`, which would turn NaN into a number.
        let floored = |value: f32| if value < floor { floor } else { value };
        let chunk = bias.len() * (CHUNK / bias.len()).max(1);
        output.par_chunks_mut(chunk).enumerate().for_each(|(index, output)| {
            let pixels = output.chunks_exact_mut(bias.len());
            match residual {
                None => pixels.for_each(|pixel| {
                    for (value, bias) in pixel.iter_mut().zip(bias) {
                        *value = floored(*value + bias);
                    }
                }),
                Some(residual) => {
                    let residual = residual[index * chunk..].chunks_exact(bias.len());
                    pixels.zip(residual).for_each(|(pixel, residual)| {
                        for ((value, bias), residual) in pixel.iter_mut().zip(bias).zip(residual) {
                            *value = floored(*value + bias + residual);
                        }
                    });
                }
            }
        });
    }
}

pub(super) fn values_mut<'a>(
    storage: &'a mut CpuStorage,
    layout: &Layout,
) -> Result<&'a mut [f32]> {
    let CpuStorage::F32(values) = storage else { bail!("the CPU computes in f32 only") };
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&mut values[start..end]),
        None => bail!("an in-place operation needs a contiguous tensor"),
    }
}

impl InplaceOp2 for BiasResidualRelu {
    fn name(&self) -> &'static str {
        "bias-relu"
    }

    fn cpu_fwd(
        &self,
        output: &mut CpuStorage,
        output_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<()> {
        let bias = values(bias, bias_layout)?;
        self.apply(values_mut(output, output_layout)?, bias, None);
        Ok(())
    }
}

impl InplaceOp3 for BiasResidualRelu {
    fn name(&self) -> &'static str {
        "bias-residual-relu"
    }

    fn cpu_fwd(
        &self,
        output: &mut CpuStorage,
        output_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
        residual: &CpuStorage,
        residual_layout: &Layout,
    ) -> Result<()> {
        let (bias, residual) = (values(bias, bias_layout)?, values(residual, residual_layout)?);
        self.apply(values_mut(output, output_layout)?, bias, Some(residual));
        Ok(())
    }
}
