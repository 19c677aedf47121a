//! Forward passes on a GPU against plain sums, and against the CPU's kernels.
//!
//! Without a GPU they run on the emulated one: see tests/gpu/emulator/README.md. Without either,
//! each test prints a line and does nothing.
#![expect(clippy::unwrap_used, reason = "a test that can't go on has to fail")]
#![expect(clippy::print_stdout, reason = "a test that does nothing says so")]

mod faults;
mod networks;
mod reference;

use camshaft_cuda::{
    CudaDevice, CudaNetwork, EngineSettings, NumberFormat, PassInput, PassOutput, PassRequest,
};
use camshaft_kernels::{Backbone, BatchInput, BatchShape, Kernel, STAGES};

use networks::{Blocks, CLASSES, Plan, TestNetwork};
use reference::{Expected, check, compare, tolerance};

const FORMATS: [NumberFormat; 4] =
    [NumberFormat::F32, NumberFormat::Tf32, NumberFormat::Bf16, NumberFormat::F16];

const SMALL: Plan = Plan {
    blocks: Blocks::StrideIn3x3,
    depth: [1, 2, 1, 1],
    width: 8,
    image: [64, 64],
    flatten: false,
};

/// Whether the emulated GPU is to be used.
fn is_emulated() -> bool {
    std::env::var("CAMSHAFT_CUDA_EMULATED").is_ok_and(|value| value == "1")
}

/// The GPU, or `None` with a printed line.
fn device() -> Option<CudaDevice> {
    if !is_emulated() && !CudaDevice::is_present() {
        println!("not tested here: there is no GPU, and CAMSHAFT_CUDA_EMULATED is not 1");
        return None;
    }
    Some(CudaDevice::open(0).unwrap())
}

/// The network on the device, for batches of up to `max_images`.
fn load(
    device: &CudaDevice,
    network: &TestNetwork,
    format: NumberFormat,
    max_images: usize,
) -> CudaNetwork {
    load_with_stem(device, network, format, max_images, None)
}

/// As [`load`], with a certain form of the stem.
fn load_with_stem(
    device: &CudaDevice,
    network: &TestNetwork,
    format: NumberFormat,
    max_images: usize,
    stem_channels: Option<usize>,
) -> CudaNetwork {
    let settings = EngineSettings { format, max_images, plan_cache: None, stem_channels };
    CudaNetwork::load(device, &network.weights(), &network.head(), &network.input, settings)
        .unwrap()
}

/// A pass, waited for.
fn run(engine: &mut CudaNetwork, input: PassInput<'_>, request: &PassRequest<'_>) -> PassOutput {
    let ticket = engine.begin(input, request).unwrap();
    engine.finish(ticket).unwrap()
}

fn expect_all(network: &TestNetwork, pixels: &[u8]) -> Vec<Expected> {
    let scaled = network.scaled(pixels);
    scaled.chunks(network.image_values()).map(|image| Expected::of(network, image)).collect()
}

#[test]
fn every_network_and_format_equals_plain_sums() {
    let Some(device) = device() else { return };
    let labels = [Some(1), None, Some(CLASSES - 1)];
    let request = PassRequest { stages: [true; STAGES], labels: &labels };
    for blocks in Blocks::ALL {
        // The last one's sides are odd, and so are those of some stages.
        for (image, flatten) in [([64, 64], false), ([40, 72], true), ([45, 71], false)] {
            let network = TestNetwork::new(Plan { blocks, image, flatten, ..SMALL });
            let pixels = network.pixels(3, 7);
            let expected = expect_all(&network, &pixels);
            for format in FORMATS {
                let mut engine = load(&device, &network, format, 4);
                let what = format!("{:?}", network.plan);
                let output = run(&mut engine, PassInput::Pixels(&pixels), &request);
                check(&what, &output, &expected.iter().collect::<Vec<_>>(), &labels, format);
                if format == NumberFormat::F32 {
                    let tops: Vec<_> = expected.iter().map(Expected::top).collect();
                    assert_eq!(output.tops, tops, "{what}");
                }
            }
        }
    }
}

#[test]
fn every_batch_size_gives_each_image_its_numbers() {
    let Some(device) = device() else { return };
    const MOST: usize = 6;
    let network = TestNetwork::new(SMALL);
    let pixels = network.pixels(MOST, 11);
    let expected = expect_all(&network, &pixels);
    for format in [NumberFormat::F32, NumberFormat::F16] {
        let mut engine = load(&device, &network, format, MOST);
        assert_eq!(engine.max_images(), MOST);
        // Engines are timed between passes, and then passes are captured: after some rounds all
        // sizes run as graphs.
        for round in 0..12 {
            for images in [MOST, 1, 5, 2, 3, 4] {
                // Other images than before, so that what an earlier batch left would show.
                let first = round % (MOST + 1 - images);
                let values = network.image_values();
                let part = &pixels[first * values..][..images * values];
                let expected: Vec<_> = expected[first..][..images].iter().collect();
                let what = format!("round {round}");
                let output = run(&mut engine, PassInput::Pixels(part), &PassRequest::default());
                check(&what, &output, &expected, &[], format);
                assert!(output.stages.iter().all(Option::is_none));
            }
        }
        assert!(engine.memory_bytes() > 0);
    }
}

#[test]
fn two_passes_are_under_way_at_once() {
    let Some(device) = device() else { return };
    two_passes(&device);
}

fn two_passes(device: &CudaDevice) {
    let network = TestNetwork::new(SMALL);
    let pixels = network.pixels(6, 13);
    let expected = expect_all(&network, &pixels);
    let (first, second) = pixels.split_at(4 * network.image_values());
    let labels = [Some(2); 4];
    let with_labels = PassRequest { stages: [false, true, false, true], labels: &labels };
    let without = PassRequest::default();
    let mut engine = load(device, &network, NumberFormat::F32, 4);
    let of_first: Vec<_> = expected[..4].iter().collect();
    let of_second: Vec<_> = expected[4..].iter().collect();
    for _ in 0..10 {
        let one = engine.begin(PassInput::Pixels(first), &with_labels).unwrap();
        let two = engine.begin(PassInput::Pixels(second), &without).unwrap();
        assert!(engine.begin(PassInput::Pixels(second), &without).is_err(), "a third pass");
        // In either order.
        let two = engine.finish(two).unwrap();
        check("the second pass", &two, &of_second, &[], NumberFormat::F32);
        let again = engine.begin(PassInput::Pixels(second), &without).unwrap();
        let one = engine.finish(one).unwrap();
        check("the first pass", &one, &of_first, &labels, NumberFormat::F32);
        assert!(one.stages[1].is_some() && one.stages[3].is_some() && one.stages[0].is_none());
        let again = engine.finish(again).unwrap();
        check("the pass between", &again, &of_second, &[], NumberFormat::F32);
    }
}

#[test]
fn a_pass_whose_ticket_is_dropped_leaves_its_place() {
    let Some(device) = device() else { return };
    let network = TestNetwork::new(SMALL);
    let pixels = network.pixels(2, 17);
    let expected = expect_all(&network, &pixels);
    let mut engine = load(&device, &network, NumberFormat::F32, 2);
    for _ in 0..3 {
        drop(engine.begin(PassInput::Pixels(&pixels), &PassRequest::default()).unwrap());
    }
    let output = run(&mut engine, PassInput::Pixels(&pixels), &PassRequest::default());
    check("after dropped tickets", &output, &[&expected[0], &expected[1]], &[], NumberFormat::F32);
}

#[test]
fn pixels_and_scaled_values_agree() {
    let Some(device) = device() else { return };
    let network = TestNetwork::new(Plan { image: [34, 50], ..SMALL });
    let pixels = network.pixels(3, 19);
    let expected = expect_all(&network, &pixels);
    let expected: Vec<_> = expected.iter().collect();
    let scaled = network.scaled(&pixels);
    for format in FORMATS {
        let mut engine = load(&device, &network, format, 3);
        let request = PassRequest::default();
        for round in 0..2 {
            let output = run(&mut engine, PassInput::Scaled(&scaled), &request);
            check(&format!("scaled values, round {round}"), &output, &expected, &[], format);
            let output = run(&mut engine, PassInput::Pixels(&pixels), &request);
            check(&format!("pixels, round {round}"), &output, &expected, &[], format);
        }
    }
}

#[test]
fn every_form_of_the_stem_gives_the_same() {
    let Some(device) = device() else { return };
    for image in [[64, 64], [34, 50]] {
        let network = TestNetwork::new(Plan { image, ..SMALL });
        let pixels = network.pixels(3, 29);
        let expected = expect_all(&network, &pixels);
        let expected: Vec<_> = expected.iter().collect();
        for format in [NumberFormat::F16, NumberFormat::Bf16] {
            for channels in [4, 8, 16] {
                for most in [1, 3] {
                    let mut engine =
                        load_with_stem(&device, &network, format, most, Some(channels));
                    for round in 0..3 {
                        let one = pixels.len() / 3 * most;
                        let output = run(
                            &mut engine,
                            PassInput::Pixels(&pixels[..one]),
                            &PassRequest::default(),
                        );
                        let what = format!("{channels} channels, {most} images, round {round}");
                        check(&what, &output, &expected[..most], &[], format);
                    }
                }
            }
        }
    }
}

#[test]
fn the_cpus_kernels_agree() {
    let Some(device) = device() else { return };
    let exact = |kernel: &Kernel| {
        matches!(kernel, Kernel::Avx512 | Kernel::Avx2 | Kernel::Neon) && kernel.is_available()
    };
    let Some(kernel) = Kernel::ALL.into_iter().find(exact) else {
        println!("not tested here: this CPU has no kernel for f32");
        return;
    };
    for blocks in Blocks::ALL {
        let network = TestNetwork::new(Plan { blocks, width: 32, image: [61, 80], ..SMALL });
        let (height, width) = (network.input.height, network.input.width);
        let scaled = network.scaled(&network.pixels(2, 23));
        let shape = BatchShape { images: 2, height, width };
        let backbone = Backbone::new(kernel, &network.weights()).unwrap();
        let on_cpu = backbone.run(BatchInput::Values(&scaled), shape, [true; STAGES], 2);
        let mut engine = load(&device, &network, NumberFormat::F32, 2);
        let request = PassRequest { stages: [true; STAGES], labels: &[] };
        let output = run(&mut engine, PassInput::Scaled(&scaled), &request);
        let agree = |what: &str, values: &[f32], expected: &[f32]| {
            let expected: Vec<f64> = expected.iter().copied().map(f64::from).collect();
            let largest = expected.iter().fold(0.0, |a, &b| f64::max(a, b));
            // Both round, each in its own order.
            let allowed = 2.0 * tolerance(NumberFormat::F32) * largest;
            compare(&format!("{what}, {blocks:?}, {kernel}"), values, &expected, allowed);
        };
        for (stage, expected) in on_cpu.stages.iter().enumerate() {
            let (output, expected) =
                (output.stages[stage].as_ref().unwrap(), expected.as_ref().unwrap());
            assert_eq!(output.shape, expected.shape);
            agree(&format!("stage {stage}"), &output.values, &expected.values);
        }
        agree("pooled", &output.pooled, &on_cpu.pooled);
    }
}

#[test]
fn not_a_number_is_not_hidden() {
    let Some(device) = device() else { return };
    let network = TestNetwork::new(SMALL);
    let mut scaled = network.scaled(&network.pixels(1, 29));
    scaled[64 * 32 + 32] = f32::NAN;
    let mut engine = load(&device, &network, NumberFormat::F32, 1);
    let output = run(&mut engine, PassInput::Scaled(&scaled), &PassRequest::default());
    assert!(output.logits.iter().any(|logit| logit.is_nan()), "{:?}", output.logits);
}

#[test]
fn numbers_too_large_for_16_bits_are_not_hidden() {
    let Some(device) = device() else { return };
    let mut network = TestNetwork::new(SMALL);
    // The weights have their place in f16, and the activations have not.
    network.scale_stem(1e5);
    let pixels = network.pixels(1, 29);
    let mut engine = load(&device, &network, NumberFormat::F16, 1);
    let output = run(&mut engine, PassInput::Pixels(&pixels), &PassRequest::default());
    assert!(output.logits.iter().any(|logit| !logit.is_finite()), "{:?}", output.logits);
}

#[test]
fn a_batch_that_does_not_fit_is_an_error_and_the_next_one_works() {
    let Some(device) = device() else { return };
    let network = TestNetwork::new(SMALL);
    let pixels = network.pixels(3, 31);
    let expected = expect_all(&network, &pixels[..network.image_values()]);
    let mut engine = load(&device, &network, NumberFormat::F32, 2);
    let request = PassRequest::default();
    assert!(engine.begin(PassInput::Pixels(&pixels), &request).is_err(), "too many images");
    assert!(engine.begin(PassInput::Pixels(&pixels[1..]), &request).is_err(), "a part of one");
    assert!(engine.begin(PassInput::Pixels(&[]), &request).is_err(), "none");
    let image = PassInput::Pixels(&pixels[..network.image_values()]);
    let labels = [Some(CLASSES)];
    let unknown_class = PassRequest { labels: &labels, ..request };
    assert!(engine.begin(image, &unknown_class).is_err(), "a label that is no class");
    let two_labels = PassRequest { labels: &[Some(0), None], ..request };
    assert!(engine.begin(image, &two_labels).is_err(), "two labels for one image");
    let output = run(&mut engine, image, &request);
    check("after errors", &output, &[&expected[0]], &[], NumberFormat::F32);
}

#[test]
fn chosen_engines_are_kept_in_a_folder_that_may_be_missing_or_damaged() {
    let Some(device) = device() else { return };
    let network = TestNetwork::new(SMALL);
    let pixels = network.pixels(2, 37);
    let expected = expect_all(&network, &pixels);
    let folder = tempfile::tempdir().unwrap();
    let kept = folder.path().join("plans");
    let files = || std::fs::read_dir(&kept).map_or(0, |files| files.count());
    let not_a_folder = folder.path().join("file");
    std::fs::write(&not_a_folder, "no folder").unwrap();
    let pass = |plan_cache| {
        let settings = EngineSettings {
            format: NumberFormat::F16,
            max_images: 2,
            plan_cache,
            stem_channels: None,
        };
        let (weights, head) = (network.weights(), network.head());
        let mut engine =
            CudaNetwork::load(&device, &weights, &head, &network.input, settings).unwrap();
        for _ in 0..3 {
            let output = run(&mut engine, PassInput::Pixels(&pixels), &PassRequest::default());
            let expected = [&expected[0], &expected[1]];
            check("with a folder for plans", &output, &expected, &[], NumberFormat::F16);
        }
    };
    pass(Some(not_a_folder));
    pass(Some(kept.clone()));
    assert_eq!(files(), 1, "a file for this device");
    pass(Some(kept.clone()));
    for file in std::fs::read_dir(&kept).unwrap() {
        std::fs::write(file.unwrap().path(), "{\"damaged").unwrap();
    }
    pass(Some(kept.clone()));
    assert_eq!(files(), 1, "the damaged file is replaced");
    for file in std::fs::read_dir(&kept).unwrap() {
        assert!(!std::fs::read_to_string(file.unwrap().path()).unwrap().contains("damaged"));
    }
}
