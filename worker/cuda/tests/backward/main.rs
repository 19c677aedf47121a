//! Gradients, maps and ablations on a GPU, or in the emulator, against the same networks in plain
//! loops and f64.

#![expect(clippy::unwrap_used, reason = "a test that can't go on has to fail")]

mod convolution;
mod features;
mod maps;
mod network;

use std::env;

use camshaft_cuda::{
    CamRule, CudaDevice, CudaNetwork, Cut, EngineSettings, GradientOutput, GradientRequest,
    InputFormat, NumberFormat, PassInput,
};

use features::{Features, Noise};
use network::{Activity, BlockKind, LayerValues, Network, Pass, Settings};

/// The largest difference allowed in f32, relative to the largest value.
const TOLERANCE: f64 = 1e-4;
/// How far the sum of a channel may be off in f32, relative to the sum of its absolute values.
const ERROR_OF_SUMS: f64 = 2e-7;
/// A value in front of a ReLU that is nearer to zero may get the other sign on another device.
const NEAREST_KINK: f64 = 1e-5;

const RULES: [CamRule; 5] = [
    CamRule::GradCam,
    CamRule::GradCamPlusPlus,
    CamRule::XGradCam,
    CamRule::HiResCam,
    CamRule::LayerCam,
];

const BOTTLENECKS: Settings = Settings {
    kind: BlockKind::Bottleneck,
    width: 8,
    blocks: [2, 1, 2, 1],
    flatten: false,
    sides: [64, 32],
    activity: Activity::Mixed,
};

const CASES: [Settings; 4] = [
    BOTTLENECKS,
    Settings {
        kind: BlockKind::BottleneckStrideFirst,
        blocks: [1, 2, 1, 1],
        flatten: true,
        sides: [40, 56],
        ..BOTTLENECKS
    },
    Settings { kind: BlockKind::Basic, blocks: [1, 2, 1, 2], sides: [33, 47], ..BOTTLENECKS },
    Settings {
        kind: BlockKind::Basic,
        width: 32,
        blocks: [1; 4],
        flatten: true,
        sides: [32, 32],
        ..BOTTLENECKS
    },
];

/// A network with some images, and an engine that runs it.
struct Case {
    network: Network,
    images: Vec<Features>,
    passes: Vec<Pass>,
    engine: CudaNetwork,
}

impl Case {
    fn new(
        device: &CudaDevice,
        settings: Settings,
        format: NumberFormat,
        max_images: usize,
    ) -> Self {
        let network = Network::new(settings, 7);
        let mut noise = Noise::new(11);
        let (mut images, mut passes) = (Vec::new(), Vec::new());
        while images.len() < 3 {
            let image = network.random_image(&mut noise);
            let pass = network.run(&image);
            if pass.nearest_kink > NEAREST_KINK {
                images.push(image);
                passes.push(pass);
            }
        }
        let [height, width] = settings.sides;
        let input = InputFormat { height, width, table: [[0.0; 256]; 3], sources: [0, 1, 2] };
        let engine_settings =
            EngineSettings { format, max_images, plan_cache: None, stem_channels: None };
        let engine =
            CudaNetwork::load(device, &network.weights(), &network.head(), &input, engine_settings);
        Self { network, images, passes, engine: engine.unwrap() }
    }

    fn input(&self) -> Vec<f32> {
        self.images.iter().flat_map(Features::to_f32).collect()
    }

    fn expected_gradients(&self, targets: &[(usize, usize)]) -> Vec<LayerValues> {
        let of =
            |&(image, class): &(usize, usize)| self.network.gradients(&self.passes[image], class);
        targets.iter().map(of).collect()
    }

    fn gradients(
        &mut self,
        cut: Cut,
        targets: &[(usize, usize)],
        request: GradientRequest,
    ) -> GradientOutput {
        let input = self.input();
        let convolution = self.network.cut_convolution(cut);
        let input = PassInput::Scaled(&input);
        self.engine.gradients(input, cut, convolution.as_ref(), targets, request).unwrap()
    }
}

/// The device, or the emulator's. Without one the test has nothing to run on.
#[expect(clippy::print_stderr, reason = "a skipped test must be seen")]
fn device() -> Option<CudaDevice> {
    let emulated = env::var_os("CAMSHAFT_CUDA_EMULATED").is_some_and(|value| value == "1");
    if !emulated && !CudaDevice::is_present() {
        eprintln!("SKIPPED: there is no GPU, and CAMSHAFT_CUDA_EMULATED is not 1");
        return None;
    }
    Some(CudaDevice::open(0).unwrap())
}

fn assert_close(what: &str, found: &[f32], expected: &[f64]) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(1e-7, |largest: f64, value| largest.max(value.abs()));
    for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
        let difference = (f64::from(*found) - expected).abs();
        assert!(
            difference <= TOLERANCE * largest,
            "{what}: {found} instead of {expected} at {index}, the largest is {largest}"
        );
    }
}

/// Relative to the largest value of `b`.
fn largest_difference(a: &[f64], b: &[f64]) -> f64 {
    let largest = |values: &mut dyn Iterator<Item = f64>| values.fold(0.0, f64::max);
    let difference = largest(&mut a.iter().zip(b).map(|(a, b)| (a - b).abs()));
    difference / largest(&mut b.iter().map(|value| value.abs())).max(1e-7)
}

fn cosine(a: &[f64], b: &[f64]) -> f64 {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

#[test]
fn gradients_equal_the_chain_rules_at_every_layer() {
    let Some(device) = device() else { return };
    // More targets than the engine takes at once, and an image with two.
    let targets = [(0, 1), (1, 4), (2, 0), (2, 3), (0, 1)];
    for settings in CASES {
        let mut case = Case::new(&device, settings, NumberFormat::F32, 2);
        let gradients = case.expected_gradients(&targets);
        for cut in case.network.cuts() {
            let found = case.gradients(cut, &targets, GradientRequest::Tensors);
            assert!(found.maps.is_empty());
            let shape = [found.channels, found.height, found.width];
            let values = shape.iter().product::<usize>();
            assert_eq!(found.activations.len(), targets.len() * values);
            for (row, (image, _)) in targets.into_iter().enumerate() {
                let what = format!("{settings:?}, {cut:?}, row {row}");
                let expected = case.passes[image].layers.at(cut);
                assert_eq!(shape, expected.shape, "{what}");
                let of_row = row * values..(row + 1) * values;
                assert_close(&what, &found.activations[of_row.clone()], &expected.values);
                let expected = &gradients[row].at(cut).values;
                assert_close(&what, &found.gradients[of_row], expected);
            }
        }
    }
}

/// The tensors are right, as the test above shows: so the expected maps are made of them. Where a
/// rule nearly divides by zero, sums in another order give another map, which is not compared.
#[test]
fn every_rule_makes_its_maps_of_the_gradients() {
    let Some(device) = device() else { return };
    let targets = [(2, 1), (0, 0), (1, 2)];
    let (mut compared, mut all) = (0, 0);
    for settings in CASES {
        let mut case = Case::new(&device, settings, NumberFormat::F32, 4);
        for cut in case.network.cuts() {
            let tensors = case.gradients(cut, &targets, GradientRequest::Tensors);
            let shape = [tensors.channels, tensors.height, tensors.width];
            let values = shape.iter().product::<usize>();
            let rows = |all: &[f32]| -> Vec<Features> {
                let rows = all.chunks(values).map(|row| Features {
                    values: row.iter().copied().map(f64::from).collect(),
                    shape,
                });
                rows.collect()
            };
            let (activations, gradients) = (rows(&tensors.activations), rows(&tensors.gradients));
            for rule in RULES {
                let found = case.gradients(cut, &targets, GradientRequest::Maps(rule));
                assert!(found.activations.is_empty() && found.gradients.is_empty());
                let maps = found.maps.chunks(tensors.height * tensors.width);
                assert_eq!(maps.len(), targets.len());
                for (row, map) in maps.enumerate() {
                    let expected =
                        |sum_error| maps::map(rule, &activations[row], &gradients[row], sum_error);
                    let (moved, expected) = (expected(ERROR_OF_SUMS), expected(0.0));
                    all += 1;
                    if largest_difference(&moved, &expected) > TOLERANCE / 2.0 {
                        continue;
                    }
                    compared += 1;
                    assert_close(&format!("{settings:?}, {cut:?}, {rule:?}"), map, &expected);
                }
            }
        }
    }
    assert!(4 * compared > 3 * all, "only {compared} of {all} maps can be compared");
}

#[test]
fn the_rest_of_the_network_gives_the_same_logits() {
    let Some(device) = device() else { return };
    for settings in CASES {
        let mut case = Case::new(&device, settings, NumberFormat::F32, 2);
        let expected: Vec<_> =
            case.passes.iter().flat_map(|pass| pass.logits.iter().copied()).collect();
        for cut in case.network.cuts() {
            let layer = |pass: &Pass| pass.layers.at(cut).to_f32();
            let features: Vec<_> = case.passes.iter().flat_map(layer).collect();
            let inputs: Option<Vec<_>> =
                case.passes.iter().map(|pass| pass.input_of_block(cut)).collect();
            let block_inputs: Option<Vec<_>> =
                inputs.map(|inputs| inputs.into_iter().flat_map(Features::to_f32).collect());
            let convolution = case.network.cut_convolution(cut);
            let logits =
                case.engine.rest(cut, convolution.as_ref(), &features, block_inputs.as_deref());
            assert_close(&format!("{settings:?}, {cut:?}"), &logits.unwrap(), &expected);
        }
    }
}

#[test]
fn logits_without_each_channel_equal_the_references() {
    let Some(device) = device() else { return };
    // The last one is wide, and the reference slow.
    for &settings in &CASES[..3] {
        // No divisor of the number of channels.
        let mut case = Case::new(&device, settings, NumberFormat::F32, 12);
        let cuts = [
            Cut::Stem,
            Cut::Block(0, 0),
            Cut::Path(0, 0, 1),
            Cut::Path(1, 0, 0),
            Cut::Shortcut(2, 0),
            Cut::Block(3, 0),
        ];
        let image = case.images[1].to_f32();
        for cut in cuts {
            let pass = &case.passes[1];
            let convolution = case.network.cut_convolution(cut);
            let input = PassInput::Scaled(&image);
            let found = case.engine.ablated_logits(input, cut, convolution.as_ref()).unwrap();
            let (layer, block_input) = (pass.layers.at(cut), pass.input_of_block(cut));
            let without =
                |channel| case.network.rest(cut, &layer.without_channel(channel), block_input);
            let expected: Vec<_> = (0..layer.shape[0]).flat_map(without).collect();
            assert_close(&format!("{settings:?}, {cut:?}"), &found, &expected);
        }
    }
}

#[test]
fn half_precisions_point_in_the_same_direction() {
    let Some(device) = device() else { return };
    let targets = [(0, 1), (1, 4), (2, 0)];
    for settings in [
        Settings { activity: Activity::Settled, ..BOTTLENECKS },
        Settings { activity: Activity::Settled, sides: [64, 64], ..CASES[2] },
    ] {
        for format in [NumberFormat::F16, NumberFormat::Bf16] {
            let mut case = Case::new(&device, settings, format, 4);
            let gradients = case.expected_gradients(&targets);
            let mut cosines = Vec::new();
            for cut in case.network.cuts() {
                let found = case.gradients(cut, &targets, GradientRequest::Tensors);
                let values = found.gradients.len() / targets.len();
                for (row, expected) in gradients.iter().enumerate() {
                    let expected = &expected.at(cut).values;
                    let found = found.gradients[row * values..][..values].iter();
                    let found: Vec<_> = found.copied().map(f64::from).collect();
                    let cosine = match cut {
                        // Rounding makes two values of a max-pooling's window equal: the gradient
                        // then goes to another position of the same channel.
                        Cut::Stem => {
                            let positions = values / settings.width;
                            let sums = |values: &[f64]| -> Vec<f64> {
                                values.chunks(positions).map(|one| one.iter().sum()).collect()
                            };
                            cosine(&sums(&found), &sums(expected))
                        }
                        _ => cosine(&found, expected),
                    };
                    cosines.push((cosine, cut, row));
                }
            }
            // A unit whose sum is nearly zero may lie on the other side of its ReLU: with few units, an
            // image's whole gradient shows that. bf16 has 8 bits, f16 11.
            let (usual, least) =
                if format == NumberFormat::Bf16 { (0.995, 0.95) } else { (0.9999, 0.995) };
            cosines.sort_by(|one, other| one.0.total_cmp(&other.0));
            let (median, worst) = (cosines[cosines.len() / 2], cosines[0]);
            let what = format!("{settings:?}, {format:?}");
            assert!(median.0 > usual && worst.0 > least, "{what}: {median:?}, {worst:?}");
        }
    }
}
