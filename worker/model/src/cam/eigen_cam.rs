//! Eigen-CAM: Muhammad and Yeasin 2020, <https://arxiv.org/abs/2008.00299>.
//!
//! The activations projected on their first principal component. The map shows where the layer
//! responds most, whatever the class is. The mean of each channel is subtracted first, as in
//! pytorch-grad-cam. A component has no sign of its own: the sign is chosen so that the projection
//! grows with the mean activation.

use camshaft_vision::heat_map::HeatMap;
use candle_core::{DType, Result, Tensor};

/// Most steps of power iteration. If it has not settled by then, two components have the same size,
/// and either is as good.
const MOST_STEPS: usize = 20_000;
/// Largest change of a unit vector in a step that counts as settled.
const SETTLED: f64 = 1e-10;

/// Maps of a batch, one for each image: activations `[N, C, H, W]`, f32.
///
/// # Errors
/// If the device fails.
pub fn maps(activations: &Tensor) -> Result<Vec<HeatMap>> {
    let (_, _, height, width) = activations.dims4()?;
    let projections = projections(activations)?.into_iter();
    let rectify = |values: Vec<f32>| values.into_iter().map(|value| value.max(0.0)).collect();
    Ok(projections.map(|values| HeatMap { height, width, values: rectify(values) }).collect())
}

/// The maps before they are rectified, `H * W` values for each image. As pytorch-grad-cam's
/// `get_2d_projection`, but for the sign.
///
/// # Errors
/// If the device fails.
pub fn projections(activations: &Tensor) -> Result<Vec<Vec<f32>>> {
    let (images, channels, height, width) = activations.dims4()?;
    let cells = activations.reshape((images, channels, height * width))?.transpose(1, 2)?;
    (0..images).map(|image| projection(&cells.get(image)?)).collect()
}

/// The projection of one image's activations `[cells, channels]`, f32.
fn projection(cells: &Tensor) -> Result<Vec<f32>> {
    let centred = cells.broadcast_sub(&cells.mean_keepdim(0)?)?.contiguous()?;
    let (rows, columns) = centred.dims2()?;
    // The component is an eigenvector of cells × cells or of channels × channels. The smaller
    // matrix is faster.
    let values: Vec<f64> = if rows <= columns {
        let gram = centred.matmul(&centred.t()?)?;
        let (vector, value) = leading_eigenvector(&gram)?;
        vector.into_iter().map(|share| share * value.max(0.0).sqrt()).collect()
    } else {
        let gram = centred.t()?.matmul(&centred)?;
        let (vector, _) = leading_eigenvector(&gram)?;
        let vector: Vec<_> = vector.into_iter().map(|share| share as f32).collect();
        let vector = Tensor::from_vec(vector, (columns, 1), centred.device())?;
        centred.matmul(&vector)?.squeeze(1)?.to_dtype(DType::F64)?.to_vec1()?
    };
    let means: Vec<f64> = centred.mean(1)?.to_dtype(DType::F64)?.to_vec1()?;
    let along: f64 = values.iter().zip(&means).map(|(value, mean)| value * mean).sum();
    let sign = if along < 0.0 { -1.0 } else { 1.0 };
    Ok(values.into_iter().map(|value| (sign * value) as f32).collect())
}

/// The unit eigenvector of the largest eigenvalue, and that eigenvalue, of a symmetric matrix
/// `[n, n]` whose eigenvalues are zero or more.
fn leading_eigenvector(matrix: &Tensor) -> Result<(Vec<f64>, f64)> {
    let rows: Vec<Vec<f64>> = matrix.to_dtype(DType::F64)?.to_vec2()?;
    let norm = |vector: &[f64]| vector.iter().map(|value| value * value).sum::<f64>().sqrt();
    // The longest row can't be at right angles to the eigenvector, so iteration can start there.
    let longest = rows.iter().max_by(|a, b| norm(a).total_cmp(&norm(b)));
    let mut vector = longest.cloned().unwrap_or_default();
    let mut value = norm(&vector);
    if value == 0.0 || !value.is_finite() {
        return Ok((vec![value; rows.len()], value));
    }
    vector.iter_mut().for_each(|x| *x /= value);
    for _ in 0..MOST_STEPS {
        let next: Vec<f64> =
            rows.iter().map(|row| row.iter().zip(&vector).map(|(a, b)| a * b).sum()).collect();
        value = norm(&next);
        let mut change = 0f64;
        for (old, new) in vector.iter_mut().zip(next) {
            let new = new / value;
            change = change.max((*old - new).abs());
            *old = new;
        }
        if change < SETTLED {
            break;
        }
    }
    Ok((vector, value))
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::testing::noise;

    #[test]
    fn one_pattern_is_found_with_its_sign() {
        // Every channel is the same picture, at a strength of its own. The picture is the
        // component.
        let picture = [1f32, 5.0, 2.0, 0.0];
        let strengths = [2f32, 1.0, 0.0];
        let values: Vec<f32> =
            strengths.iter().flat_map(|s| picture.iter().map(move |p| s * p)).collect();
        let activations = Tensor::from_vec(values, (1, 3, 2, 2), &Device::Cpu).unwrap();
        let projection = projections(&activations).unwrap().remove(0);
        let length = strengths.iter().map(|s| s * s).sum::<f32>().sqrt();
        for (found, picture) in projection.iter().zip(picture) {
            assert!((found - (picture - 2.0) * length).abs() < 1e-5, "{projection:?}");
        }
        let map = maps(&activations).unwrap().remove(0);
        assert_eq!((map.values[0], map.values[3]), (0.0, 0.0));
    }

    #[test]
    fn both_products_give_the_same_component() {
        // 12 cells and 5 channels, and the same numbers as 5 cells and 12 channels.
        let cells = noise(&[12, 5], 3);
        let of_cells = cells.t().unwrap().reshape((1, 5, 3, 4)).unwrap();
        let narrow = projections(&of_cells).unwrap().remove(0);
        // Further channels of zeros make the other matrix the smaller one.
        let zeros = Tensor::zeros((1, 20, 3, 4), DType::F32, &Device::Cpu).unwrap();
        let padded = Tensor::cat(&[&of_cells, &zeros], 1).unwrap();
        let wide = projections(&padded).unwrap().remove(0);
        for (a, b) in narrow.iter().zip(&wide) {
            assert!((a - b).abs() < 1e-4, "{narrow:?} and {wide:?}");
        }
    }

    #[test]
    fn a_layer_that_is_constant_has_no_component() {
        let activations = Tensor::ones((1, 3, 2, 2), DType::F32, &Device::Cpu).unwrap();
        assert_eq!(maps(&activations).unwrap()[0].values, [0.0; 4]);
    }
}
