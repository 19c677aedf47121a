//! Converts the bytes of a tensor to f32.
//!
//! candle converts one number after the other, which took a tenth of the time to start. Knows no
//! names and no shapes. Downstream: [`weights`](super::weights).

use candle_core::DType;
use half::f16;
use half::slice::HalfFloatSliceExt;

/// Numbers that are converted at once. They stay in the CPU's caches.
const CHUNK: usize = 1024;

/// The numbers of a tensor of f16, bf16, f32 or f64, little-endian; none of another type.
pub(super) fn to_f32(bytes: &[u8], dtype: DType) -> Option<Vec<f32>> {
    let values = match dtype {
        DType::F16 => f16_to_f32(bytes),
        DType::BF16 => {
            let numbers = bytes.as_chunks().0.iter();
            numbers.map(|&half| f32::from_bits(u32::from(u16::from_le_bytes(half)) << 16)).collect()
        }
        DType::F32 => bytes.as_chunks().0.iter().map(|&value| f32::from_le_bytes(value)).collect(),
        DType::F64 => {
            bytes.as_chunks().0.iter().map(|&value| f64::from_le_bytes(value) as f32).collect()
        }
        _ => return None,
    };
    Some(values)
}

fn f16_to_f32(bytes: &[u8]) -> Vec<f32> {
    let numbers = bytes.as_chunks::<2>().0;
    let mut values = vec![0.0; numbers.len()];
    let mut halves = [f16::ZERO; CHUNK];
    for (numbers, values) in numbers.chunks(CHUNK).zip(values.chunks_mut(CHUNK)) {
        // A file's numbers may lie at odd addresses.
        let halves = &mut halves[..numbers.len()];
        for (half, &number) in halves.iter_mut().zip(numbers) {
            *half = f16::from_le_bytes(number);
        }
        halves.convert_to_f32_slice(values);
    }
    values
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};

    use super::*;

    #[test]
    fn numbers_are_candles() {
        let numbers: Vec<f32> =
            (0..2500).map(|at| (at as f32 * 0.37).sin() * 10_f32.powi(at % 12 - 9)).collect();
        let numbers = Tensor::from_vec(numbers, 2500, &Device::Cpu).unwrap();
        for dtype in [DType::F16, DType::BF16, DType::F32, DType::F64] {
            let tensor = numbers.to_dtype(dtype).unwrap();
            let file = std::collections::HashMap::from([("a", tensor.clone())]);
            let file = safetensors::serialize(&file, None).unwrap();
            let file = safetensors::SafeTensors::deserialize(&file).unwrap();
            // Behind a byte, so that numbers lie at odd addresses.
            let bytes = [&[0], file.tensor("a").unwrap().data()].concat();
            let expected = tensor.to_dtype(DType::F32).unwrap().to_vec1::<f32>().unwrap();
            assert_eq!(to_f32(&bytes[1..], dtype).unwrap(), expected, "{dtype:?}");
        }
        assert_eq!(to_f32(&[0; 8], DType::I64), None);
    }
}
