//! Reads a model's weights file: safetensors, or PyTorch's archive with its pickle. Memory stays
//! bounded by the file's size.
#![no_main]

use bytes::Bytes;
use camshaft_common::model::ModelReference;
use camshaft_model::{ComputeDevice, ComputeSettings, KernelChoice, Model, ModelFiles, Precision};
use libfuzzer_sys::fuzz_target;
use peak_alloc::PeakAlloc;
use safetensors::SafeTensors;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Config of the smallest network. The loader uses zeros for tensors that the file lacks, and then
/// reports them.
const CONFIG: &[u8] = br#"{
    "architecture": "resnet18", "classes": ["cat", "dog"],
    "input": {
        "height": 32, "width": 32, "resize": "stretch", "interpolation": "bilinear-antialiased",
        "scale": "1/255", "mean": [0, 0, 0], "std": [1, 1, 1], "color": "rgb"
    }
}"#;

/// Memory allowed for any file: twice that of the network's weights.
const FIXED_BYTES: usize = 2 * 4 * 11_700_000;
/// Memory allowed for each byte of the file. Values in JSON and in a pickle take more memory than
/// disk.
const BYTES_PER_BYTE: usize = 512;

fuzz_target!(|weights: &[u8]| {
    let file = Bytes::copy_from_slice(weights);
    MEMORY.reset_peak_usage();
    let before = MEMORY.current_usage();
    if let Ok(files) = ModelFiles::from_bytes(ModelReference::Bundled, file, CONFIG)
        && is_quick(files.weights().bytes())
    {
        let (precision, kernel) = (Precision::F32, KernelChoice::Candle);
        let compute = ComputeSettings { precision, kernel, largest_batch: 1 };
        let loaded = Model::load(&files, &ComputeDevice::Cpu, compute);
        assert!(loaded.is_err(), "{} bytes hold no network", weights.len());
    }
    let used = MEMORY.peak_usage() - before;
    let allowed = FIXED_BYTES + BYTES_PER_BYTE * weights.len();
    assert!(used <= allowed, "{} bytes of file took {used} bytes of memory", weights.len());
});

/// True if loading fails before it makes a network of zeros, which takes a tenth of a second. It
/// fails early if the header cannot be read, or if the head has another number of classes.
fn is_quick(file: &[u8]) -> bool {
    SafeTensors::deserialize(file).map_or(true, |tensors| tensors.tensor("fc.weight").is_ok())
}
