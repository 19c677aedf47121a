//! A convolution without bias, and its gradients, as products of matrices. Channels last.
//!
//! Patches are computed again for the gradient instead of kept: those of a 3×3 are nine times as
//! large as the activations, and computing them is fast beside the product.

use candle_core::{Result, Tensor};

use camshaft_model::network::ConvShape;
use camshaft_model::network::patches::{PatchGeometry, ScatterPatches, patches};

/// Convolves `input` `[N, H, W, I]` with `weight` `[kernel * kernel * I, O]`, whose rows are in the
/// order of [`patches`], to `[N, H', W', O]`; f32.
pub(crate) fn convolve(input: &Tensor, weight: &Tensor, shape: ConvShape) -> Result<Tensor> {
    let (batch, height, width, _) = input.dims4()?;
    let output = patches(input, shape)?.matmul(weight)?;
    let (height, width) = (shape.output_side(height), shape.output_side(width));
    output.reshape((batch, height, width, shape.outputs))
}

/// The weight's gradient, from the input and the output's gradient.
pub(crate) fn weight_gradient(
    input: &Tensor,
    gradient: &Tensor,
    shape: ConvShape,
) -> Result<Tensor> {
    let gradient = gradient.reshape(((), shape.outputs))?;
    patches(input, shape)?.t()?.matmul(&gradient)
}

/// The gradient of an input of shape `dims`, from the weight and the output's gradient.
pub(crate) fn input_gradient(
    dims: &[usize],
    weight: &Tensor,
    gradient: &Tensor,
    shape: ConvShape,
) -> Result<Tensor> {
    let gradient = gradient.reshape(((), shape.outputs))?.matmul(&weight.t()?)?;
    if shape.kernel == 1 && shape.stride == 1 {
        return gradient.reshape(dims);
    }
    let dims = [dims[0], dims[1], dims[2], dims[3]];
    gradient.apply_op1_no_bwd(&ScatterPatches(PatchGeometry::new(shape, dims)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::finite_differences::assert_gradient;
    use camshaft_model::testing::noise;

    #[test]
    fn gradients_are_slopes() {
        for (kernel, stride) in [(1, 1), (1, 2), (3, 1), (3, 2), (7, 2)] {
            let shape = ConvShape { inputs: 2, outputs: 3, kernel, stride };
            let input = noise(&[2, 7, 6, 2], 1);
            let weight = noise(&[kernel * kernel * 2, 3], 2);
            let factors = noise(convolve(&input, &weight, shape).unwrap().dims(), 3);
            assert_gradient(
                &input,
                |input| convolve(input, &weight, shape).unwrap(),
                &factors,
                &input_gradient(input.dims(), &weight, &factors, shape).unwrap(),
            );
            assert_gradient(
                &weight,
                |weight| convolve(&input, weight, shape).unwrap(),
                &factors,
                &weight_gradient(&input, &factors, shape).unwrap(),
            );
        }
    }
}
