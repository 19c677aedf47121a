//! Compiles the kernels with NVIDIA's compiler into one file for all GPUs, which the library
//! includes.
//!
//! Without the feature `device-code`, or with `CAMSHAFT_CUDA_EMULATED=1`, it is built without that
//! compiler: for the emulated driver of the tests, which has kernels of its own, and for lints and
//! documentation. A real GPU refuses such a build.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// Set to 1: no compiler is needed, and the kernels run in the emulated driver only.
const EMULATED: &str = "CAMSHAFT_CUDA_EMULATED";
/// What the file holds then. The emulated driver accepts any, but none at all is an error. A real
/// one takes it for text, which it reads up to a zero.
const PLACEHOLDER: &[u8] = b"no kernels: built for the emulated driver\0";

const SOURCE: &str = "src/kernels.cu";
const INCLUDED: [&str; 5] = [
    "src/kernels_common.h",
    "src/kernels_head.h",
    "src/kernels_maps.h",
    "src/kernels_on_host.h",
    "src/kernels_rows.h",
];

/// GPUs that get machine code. That of 8.0 serves all of 8.x, but those named run their own faster;
/// that of 10.0 serves 10.3, and that of 12.0 serves 12.1.
const MACHINE_CODE: [&str; 6] = ["80", "86", "89", "90", "100", "120"];
/// GPUs whose intermediate code is included: the driver translates it for GPUs that are not listed.
/// 12.0's is for all that come later. 8.0's is for those between the listed ones, such as 11.0,
/// which run neither machine code of another generation nor later intermediate code.
const INTERMEDIATE_CODE: [&str; 2] = ["80", "120"];

fn main() -> ExitCode {
    for path in INCLUDED.into_iter().chain([SOURCE, "build.rs"]) {
        println!("cargo::rerun-if-changed={path}");
    }
    for variable in [EMULATED, "CUDA_HOME", "PATH"] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    match write_kernels() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            for line in message.lines() {
                println!("cargo::error={line}");
            }
            ExitCode::FAILURE
        }
    }
}

fn write_kernels() -> Result<(), String> {
    let folder = env::var_os("OUT_DIR").ok_or("OUT_DIR is not set; build with cargo")?;
    let target = Path::new(&folder).join("kernels.fatbin");
    let is_emulated = env::var_os(EMULATED).is_some_and(|value| value == "1");
    if is_emulated || env::var_os("CARGO_FEATURE_DEVICE_CODE").is_none() {
        return std::fs::write(&target, PLACEHOLDER)
            .map_err(|error| format!("cannot write {}: {error}", target.display()));
    }
    let compiler = find_compiler().ok_or_else(|| {
        format!(
            "the feature `cuda` needs NVIDIA's compiler, nvcc, which was not found: install CUDA's \
             toolkit, 12.8 or later, and set CUDA_HOME to its folder or add its bin folder to \
             PATH; or set {EMULATED}=1 to build without kernels for real GPUs"
        )
    })?;
    compile(&compiler, &target)
}

/// `nvcc` in the folder that `CUDA_HOME` names, or else in one of `PATH`.
fn find_compiler() -> Option<PathBuf> {
    let name = format!("nvcc{}", env::consts::EXE_SUFFIX);
    let home = env::var_os("CUDA_HOME").map(|home| Path::new(&home).join("bin"));
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = home.into_iter().chain(env::split_paths(&path));
    folders.map(|folder| folder.join(&name)).find(|file| file.is_file())
}

fn compile(compiler: &Path, target: &Path) -> Result<(), String> {
    let mut command = Command::new(compiler);
    // One thread for each kind of GPU, as far as there are cores.
    command.args(["-fatbin", "-O3", "--std=c++17", "--threads", "0"]);
    for gpu in MACHINE_CODE {
        command.arg(format!("-gencode=arch=compute_{gpu},code=sm_{gpu}"));
    }
    for gpu in INTERMEDIATE_CODE {
        command.arg(format!("-gencode=arch=compute_{gpu},code=compute_{gpu}"));
    }
    command.arg("-o").arg(target).arg(SOURCE);
    let output =
        command.output().map_err(|error| format!("cannot run {}: {error}", compiler.display()))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!(
        "{} cannot compile the kernels ({}); it needs CUDA 12.8 or later and a C++ compiler, such \
         as g++:\n{}{}",
        compiler.display(),
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    ))
}
