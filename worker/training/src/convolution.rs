//! A convolution without bias, and its gradients, channels last, as products of matrices.
//!
//! Patches are made again for the gradient rather than kept: they are nine times as large as
//! the activations they are made of, and cost a fraction of the product.

use candle_core::{Result, Tensor};

use camshaft_model::convolution::ConvShape;
use camshaft_model::patches::{Geometry, Scatter, patches};

/// `input` `[N, H, W, I]` by `weight` `[kernel * kernel * I, O]`, in the order of
/// [`patches`], to `[N, H', W', O]`.
pub(super) fn convolve(input: &Tensor, weight: &Tensor, shape: ConvShape) -> Result<Tensor> {
    let (batch, height, width, _) = input.dims4()?;
    let output = patches(input, shape)?.matmul(weight)?;
    let (height, width) = (shape.output_side(height), shape.output_side(width));
    output.reshape((batch, height, width, shape.outputs))
}

/// Gradient of the weight: from the input, and the gradient of the output.
pub(super) fn weight_gradient(
    input: &Tensor,
    gradient: &Tensor,
    shape: ConvShape,
) -> Result<Tensor> {
    let gradient = gradient.reshape(((), shape.outputs))?;
    patches(input, shape)?.t()?.matmul(&gradient)
}

/// Gradient of the input, which is `dims`: from the weight, and the gradient of the output.
pub(super) fn input_gradient(
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
    gradient.apply_op1_no_bwd(&Scatter(Geometry::new(shape, dims)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slopes::assert_slopes;
    use camshaft_model::testing::noise;

    #[test]
    fn gradients_are_slopes() {
        for (kernel, stride) in [(1, 1), (1, 2), (3, 1), (3, 2), (7, 2)] {
            let shape = ConvShape { inputs: 2, outputs: 3, kernel, stride };
            let input = noise(&[2, 7, 6, 2], 1);
            let weight = noise(&[kernel * kernel * 2, 3], 2);
            let factors = noise(convolve(&input, &weight, shape).unwrap().dims(), 3);
            assert_slopes(
                &input,
                |input| convolve(input, &weight, shape).unwrap(),
                &factors,
                &input_gradient(input.dims(), &weight, &factors, shape).unwrap(),
            );
            assert_slopes(
                &weight,
                |weight| convolve(&input, weight, shape).unwrap(),
                &factors,
                &weight_gradient(&input, &factors, shape).unwrap(),
            );
        }
    }
}
