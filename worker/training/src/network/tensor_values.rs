//! Access to the values of tensors on the CPU.

use candle_core::{Result, Storage, Tensor, bail};
use rayon::prelude::*;

/// Values that a thread takes at a time: enough to make the cost of starting it small.
const CHUNK: usize = 1 << 15;

/// Calls `read` with the values of a contiguous f32 tensor.
pub(crate) fn with<R>(tensor: &Tensor, read: impl FnOnce(&[f32]) -> R) -> Result<R> {
    let (storage, layout) = tensor.storage_and_layout();
    let Storage::Cpu(storage) = &*storage else { bail!("training computes on the CPU") };
    Ok(read(camshaft_model::network::patches::values(storage, layout)?))
}

/// A copy of a tensor's values, row-major.
pub(crate) fn copy(tensor: &Tensor) -> Result<Vec<f32>> {
    with(&tensor.contiguous()?, <[f32]>::to_vec)
}

/// Combines the values of two contiguous f32 tensors of the same shape, one by one.
pub(crate) fn zip(
    a: &Tensor,
    b: &Tensor,
    combine: impl Fn(f32, f32) -> f32 + Sync,
) -> Result<Tensor> {
    if a.dims() != b.dims() {
        bail!("shapes {:?} and {:?} differ", a.dims(), b.dims());
    }
    let values = with(a, |a| {
        with(b, |b| {
            let mut values = vec![0f32; a.len()];
            let chunks = values.par_chunks_mut(CHUNK).zip(a.par_chunks(CHUNK));
            chunks.zip(b.par_chunks(CHUNK)).for_each(|((values, a), b)| {
                for ((value, a), b) in values.iter_mut().zip(a).zip(b) {
                    *value = combine(*a, *b);
                }
            });
            values
        })
    })??;
    Tensor::from_vec(values, a.dims(), a.device())
}
