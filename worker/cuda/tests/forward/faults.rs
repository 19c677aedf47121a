//! What is said, and what still works, if the device has too little memory, is lost, or is not
//! there.
//! Only the emulated GPU fails when it is told to; each test runs in a process of its own.

use std::env;
use std::process::Command;

use camshaft_cuda::{
    CudaDevice, CudaError, CudaNetwork, EngineSettings, NumberFormat, PassInput, PassRequest,
};
use camshaft_kernels::STAGES;

use crate::networks::{Plan, TestNetwork};
use crate::reference::check;
use crate::{FORMATS, SMALL, device, expect_all, is_emulated, load, run, two_passes};

/// Names the test that a process runs alone.
const ALONE: &str = "CAMSHAFT_TEST_ALONE";

/// Runs `body` in a process of its own, for which the emulator has a switch. `test` is this
/// module's test that calls it.
fn with_switch(test: &str, switch: (&str, &str), body: impl FnOnce()) {
    if !is_emulated() {
        println!("not tested here: CAMSHAFT_CUDA_EMULATED is not 1");
        return;
    }
    if env::var(ALONE).is_ok_and(|alone| alone == test) {
        return body();
    }
    let (name, value) = switch;
    let output = Command::new(env::current_exe().unwrap())
        .arg(format!("faults::{test}"))
        .args(["--exact", "--nocapture"])
        .env(name, value)
        .env(ALONE, test)
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{name}={value}: {}\n{out}\n{err}", output.status);
    assert!(out.contains("1 passed"), "{test} did not run:\n{out}");
}

/// Tries to load a network.
fn try_load(
    device: &CudaDevice,
    network: &TestNetwork,
    max_images: usize,
) -> Result<CudaNetwork, CudaError> {
    let settings = EngineSettings {
        format: NumberFormat::F32,
        max_images,
        plan_cache: None,
        stem_channels: None,
    };
    CudaNetwork::load(device, &network.weights(), &network.head(), &network.input, settings)
}

#[test]
fn want_of_memory_is_told_and_a_smaller_batch_works() {
    let memory = (160usize << 20).to_string();
    let test = "want_of_memory_is_told_and_a_smaller_batch_works";
    with_switch(test, ("CAMSHAFT_EMULATE_MEMORY", memory.as_str()), || {
        let device = device().unwrap();
        let network = TestNetwork::new(SMALL);
        let error = try_load(&device, &network, 256).err().unwrap();
        assert!(matches!(error, CudaError::OutOfMemory { .. }), "{error:?}");
        let pixels = network.pixels(1, 3);
        let expected = expect_all(&network, &pixels);
        let mut engine = try_load(&device, &network, 1).unwrap();
        let output = run(&mut engine, PassInput::Pixels(&pixels), &PassRequest::default());
        check("after want of memory", &output, &[&expected[0]], &[], NumberFormat::F32);
    });
}

#[test]
fn a_lost_device_is_told_by_every_later_call() {
    let test = "a_lost_device_is_told_by_every_later_call";
    with_switch(test, ("CAMSHAFT_EMULATE_LOST", "700"), || {
        let device = device().unwrap();
        let network = TestNetwork::new(SMALL);
        let pixels = network.pixels(2, 3);
        let mut engine = load(&device, &network, NumberFormat::F32, 2);
        let request = PassRequest::default();
        let mut pass = || -> Result<(), CudaError> {
            let ticket = engine.begin(PassInput::Pixels(&pixels), &request)?;
            engine.finish(ticket).map(|_| ())
        };
        let error = (0..200).find_map(|_| pass().err()).unwrap();
        assert!(error.is_lost(), "{error:?}");
        let again = pass().unwrap_err();
        assert!(again.is_lost(), "{again:?}");
        assert!(try_load(&device, &network, 1).is_err());
    });
}

#[test]
fn a_device_that_is_lost_at_once_is_told() {
    let test = "a_device_that_is_lost_at_once_is_told";
    with_switch(test, ("CAMSHAFT_EMULATE_LOST", "1"), || {
        let device = device().unwrap();
        let network = TestNetwork::new(SMALL);
        let pixels = network.pixels(1, 3);
        let pass = || -> Result<(), CudaError> {
            let mut engine = try_load(&device, &network, 1)?;
            let ticket = engine.begin(PassInput::Pixels(&pixels), &PassRequest::default())?;
            engine.finish(ticket).map(|_| ())
        };
        let error = pass().unwrap_err();
        assert!(error.is_lost(), "{error:?}");
    });
}

#[test]
fn without_fused_engines_the_numbers_are_the_same() {
    let test = "without_fused_engines_the_numbers_are_the_same";
    with_switch(test, ("CAMSHAFT_EMULATE_NO_FUSION", "1"), || {
        let device = device().unwrap();
        let network = TestNetwork::new(Plan { image: [50, 65], ..SMALL });
        let pixels = network.pixels(3, 5);
        let expected = expect_all(&network, &pixels);
        let expected: Vec<_> = expected.iter().collect();
        let labels = [Some(0), Some(1), None];
        let request = PassRequest { stages: [true; STAGES], labels: &labels };
        for format in FORMATS {
            let mut engine = load(&device, &network, format, 4);
            for round in 0..4 {
                let output = run(&mut engine, PassInput::Pixels(&pixels), &request);
                let what = format!("without fusion, round {round}");
                check(&what, &output, &expected, &labels, format);
            }
        }
    });
}

#[test]
fn work_that_runs_at_once_gives_the_same() {
    let test = "work_that_runs_at_once_gives_the_same";
    with_switch(test, ("CAMSHAFT_EMULATE_EARLY", "1"), || two_passes(&device().unwrap()));
}

#[test]
fn a_machine_without_a_gpu_is_told() {
    let test = "a_machine_without_a_gpu_is_told";
    with_switch(test, ("CAMSHAFT_EMULATE_NO_DEVICE", "1"), || {
        assert!(!CudaDevice::is_present());
        let error = CudaDevice::open(0).unwrap_err();
        assert_eq!(error, CudaError::NoDevice { ordinal: 0, devices: 0 });
    });
}

#[test]
fn a_gpu_that_is_not_there_is_told() {
    if device().is_none() {
        return;
    }
    let error = CudaDevice::open(99).unwrap_err();
    assert!(matches!(error, CudaError::NoDevice { ordinal: 99, devices: 1.. }), "{error:?}");
}

#[test]
fn an_old_driver_is_told() {
    let test = "an_old_driver_is_told";
    with_switch(test, ("CAMSHAFT_EMULATE_DRIVER", "11080"), || {
        assert!(!CudaDevice::is_present());
        let error = CudaDevice::open(0).unwrap_err();
        assert!(matches!(error, CudaError::OldDriver { found: 11080, .. }), "{error:?}");
    });
}

#[test]
fn an_old_cudnn_is_told() {
    let test = "an_old_cudnn_is_told";
    with_switch(test, ("CAMSHAFT_EMULATE_CUDNN", "8907"), || {
        let device = device().unwrap();
        let error = try_load(&device, &TestNetwork::new(SMALL), 1).err().unwrap();
        assert!(matches!(error, CudaError::OldCudnn { found: 8907, .. }), "{error:?}");
    });
}
