//! A model's weights file: safetensors, or PyTorch's archive with its pickle.
#![no_main]

use bytes::Bytes;
use camshaft_common::model::ModelReference;
use camshaft_worker::model::{KernelChoice, Model, ModelFiles, Precision};
use candle_core::Device;
use libfuzzer_sys::fuzz_target;
use peak_alloc::PeakAlloc;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

const CONFIG: &[u8] = include_bytes!("../../../worker/models/cats-vs-dogs/config.json");

/// Of the network's own parts, before a weight is read.
const FIXED_BYTES: usize = 1 << 20;
/// Of memory for each byte of a file: values in JSON and in a pickle are small on disk.
const BYTES_PER_BYTE: usize = 512;

fuzz_target!(|weights: &[u8]| {
    let file = Bytes::copy_from_slice(weights);
    MEMORY.reset_peak_usage();
    let before = MEMORY.current_usage();
    if let Ok(files) = ModelFiles::from_bytes(ModelReference::Bundled, file, CONFIG) {
        let loaded = Model::load(&files, &Device::Cpu, Precision::F32, KernelChoice::Candle);
        assert!(loaded.is_err(), "{} bytes hold no network", weights.len());
    }
    let used = MEMORY.peak_usage() - before;
    let allowed = FIXED_BYTES + BYTES_PER_BYTE * weights.len();
    assert!(used <= allowed, "{} bytes of file took {used} bytes of memory", weights.len());
});
