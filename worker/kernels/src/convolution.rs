//! One convolution on activations: what a kernel is told, and which kernel is told it.
//! Multiplying and finishing a block is the kernels' work.

use crate::detect::Kernel;
use crate::layout::{Activation, Geometry, NOT_KEPT, PLANE, Segment};
use crate::narrow;
use crate::team::Part;
use crate::weights::Packed;
use crate::winograd::{self, Scratch};
#[cfg(target_arch = "x86_64")]
use crate::{amx, avx512, avx512_bf16};

/// Weights beyond so many bytes don't stay in the second-level cache beside activations: each
/// panel of 32 outputs is then used on more pixels before the next.
pub(crate) const CACHED_WEIGHT_BYTES: usize = 1_200_000;
/// How many times more, for kernels that take segments: some hundred pixels, whose input stays
/// in the second-level cache while all weights pass once. Measured on Zen 5; 2 and 8 are a
/// hundredth slower.
pub(crate) const UNCACHED_FACTOR: usize = 4;

/// Bytes of 32 channels of a pixel.
pub(crate) fn pixel_bytes(kernel: Kernel) -> usize {
    match kernel {
        Kernel::AmxBf16 | Kernel::Avx512Bf16 => 64,
        // Two bf16 for each value: first the 32 high ones, then the 32 low ones.
        Kernel::AmxBf16x3 => 128,
        Kernel::Avx512 | Kernel::Avx2 | Kernel::Neon => 128,
    }
}

/// What a thread must hold while it runs a job: tile registers, where there are any. It runs
/// nothing else meanwhile, which might let go of them.
///
/// # Safety
/// The machine has the kernel.
#[cfg(target_arch = "x86_64")]
pub(crate) unsafe fn prepare(kernel: Kernel) -> Option<amx::Tiles> {
    matches!(kernel, Kernel::AmxBf16 | Kernel::AmxBf16x3)
        // SAFETY: as the caller promises.
        .then(|| unsafe { amx::Tiles::configure() })
}

/// What a thread must hold while it runs a job: nothing here.
///
/// # Safety
/// The machine has the kernel.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) unsafe fn prepare(_kernel: Kernel) {}

/// Neighbouring pixels that the kernel computes together, where it does not take any.
pub(crate) fn segment_length(kernel: Kernel) -> usize {
    match kernel {
        Kernel::Avx2 | Kernel::Neon => narrow::SEGMENT,
        // Two of these fit AVX-512's registers, and the rows of ResNet's usual 56, 28, 14 and 7
        // columns exactly.
        _ => 7,
    }
}

/// What kernels are told. Pixels are counted in the geometry that is computed; those borders
/// and overruns that `table` does not keep are computed and thrown away.
#[derive(Clone, Copy)]
pub(crate) struct Job<'a> {
    pub(crate) weights: &'a Packed,
    /// From the start of a panel of weights to the first that is wanted.
    pub(crate) weights_offset: usize,
    /// One f32 for each output.
    pub(crate) bias: *const u8,
    /// What is computed: so many images of this geometry.
    pub(crate) geometry: Geometry,
    pub(crate) images: usize,
    /// Input of pixel 0.
    pub(crate) source: *const u8,
    pub(crate) source_plane_bytes: usize,
    /// From a value's high to its low half, where there are two.
    pub(crate) low_bytes: usize,
    /// Bytes from the input of a pixel to that of the next.
    pub(crate) step_bytes: usize,
    /// Offset in bytes of each tap's input.
    pub(crate) taps: &'a [isize],
    /// Output pixel 0 of plane 0.
    pub(crate) target: *mut u8,
    pub(crate) target_plane_bytes: usize,
    /// From pixel to output pixel, before `shift`.
    pub(crate) table: &'a [u32],
    /// Added to every output pixel kept.
    pub(crate) shift: usize,
    /// Where pixels that are not kept go.
    pub(crate) sink: usize,
    /// Added before the ReLU: pixel 0 of plane 0, or null. In the computed geometry.
    pub(crate) residual: *const u8,
    pub(crate) residual_plane_bytes: usize,
    pub(crate) relu: bool,
    /// Output in f32 where the kernel would choose otherwise.
    pub(crate) output_f32: bool,
    /// The first panel of 32 outputs to compute, and the first not to.
    pub(crate) panels: (usize, usize),
    /// First pixel and number of pixels, for kernels that take any.
    pub(crate) runs: [(usize, usize); 4],
    pub(crate) run_count: usize,
    /// The same pixels in pieces, for the others.
    pub(crate) segments: &'a [Segment],
}

// SAFETY: a job is a description. Whoever runs it promises that its pointers are good, and that
// jobs that run at the same time are parts of one, which write different pixels or planes.
unsafe impl Sync for Job<'_> {}

impl Job<'_> {
    /// One part of this job: some of the outputs, where weights are what takes long to read,
    /// or else some of the pixels. An output is computed in the same way in any part.
    pub(crate) fn part(&self, part: Part) -> Self {
        let mut job = *self;
        if part == Part::WHOLE {
            return job;
        }
        job.sink -= part.index;
        let (first, end) = self.panels;
        let panels = end - first;
        if panels >= part.of && panels * self.weights.panel_bytes > CACHED_WEIGHT_BYTES / 4 {
            let range = part.range(panels);
            job.panels = (first + range.start, first + range.end);
        } else {
            let pairs = part.range(self.segments.len().div_ceil(2));
            let end = (2 * pairs.end).min(self.segments.len());
            job.segments = &self.segments[2 * pairs.start..end];
            (job.runs, job.run_count) = cut(&self.runs[..self.run_count], part);
        }
        job
    }

    /// Bytes of the weights of the panels to compute.
    pub(crate) fn weight_bytes(&self) -> usize {
        (self.panels.1 - self.panels.0) * self.weights.panel_bytes
    }

    /// Weights of 32 outputs.
    pub(crate) fn panel(&self, panel: usize) -> *const u8 {
        let offset = panel * self.weights.panel_bytes + self.weights_offset;
        self.weights.blocks.as_ptr().wrapping_add(offset)
    }

    /// The output pixel for a pixel.
    #[inline(always)]
    pub(crate) fn place(&self, pixel: usize) -> usize {
        match self.table[pixel] {
            NOT_KEPT => self.sink,
            place => place as usize + self.shift,
        }
    }

    /// The smallest value that the output may have.
    pub(crate) fn floor(&self) -> f32 {
        if self.relu { 0.0 } else { f32::NEG_INFINITY }
    }
}

/// Runs one part of the job.
///
/// # Safety
/// The machine has the kernel, and this thread holds what [`prepare`] gives. Source, target,
/// residual are valid for all pixels that the job names, with the overrun their
/// [`Activation`]s have. `target` may be `residual` if pixels keep their places, but not
/// `source`. `weights` are packed for the kernel. Only this thread uses `scratch`, which is as
/// large as the weights need; other threads at most run other parts.
pub(crate) unsafe fn run(kernel: Kernel, job: &Job<'_>, scratch: Option<&Scratch>, part: Part) {
    // SAFETY: as the caller promises.
    unsafe {
        match scratch {
            Some(scratch) if job.weights.transformed => {
                winograd::convolve(kernel, job, scratch, part)
            }
            _ => multiply(kernel, &job.part(part)),
        }
    }
}

/// Runs a job whose weights are not transformed.
///
/// # Safety
/// As for [`run`].
pub(crate) unsafe fn multiply(kernel: Kernel, job: &Job<'_>) {
    // SAFETY: as the caller promises.
    unsafe {
        match kernel {
            #[cfg(target_arch = "x86_64")]
            Kernel::AmxBf16 => amx::convolve::<false>(job),
            #[cfg(target_arch = "x86_64")]
            Kernel::AmxBf16x3 => amx::convolve::<true>(job),
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx512Bf16 => avx512_bf16::convolve(job),
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx512 => avx512::convolve(job),
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx2 => narrow::convolve_avx2(job),
            #[cfg(target_arch = "aarch64")]
            Kernel::Neon => narrow::convolve_neon(job),
            #[allow(unreachable_patterns, reason = "those of other architectures")]
            _ => unreachable!("{kernel} is not available, so nothing is made for it"),
        }
    }
}

/// A part of runs, in whole blocks of 32 pixels from each run's start.
fn cut(runs: &[(usize, usize)], part: Part) -> ([(usize, usize); 4], usize) {
    let blocks = |pixels: usize| pixels.div_ceil(PLANE);
    let wanted = part.range(runs.iter().map(|&(_, pixels)| blocks(pixels)).sum());
    let (mut cut, mut count, mut before) = ([(0, 0); 4], 0, 0);
    for &(start, pixels) in runs {
        let from = wanted.start.clamp(before, before + blocks(pixels)) - before;
        let to = wanted.end.clamp(before, before + blocks(pixels)) - before;
        if from < to {
            let (from, to) = (from * PLANE, (to * PLANE).min(pixels));
            cut[count] = (start + from, to - from);
            count += 1;
        }
        before += blocks(pixels);
    }
    (cut, count)
}

/// Fills in where a job's output goes.
pub(crate) fn set_target(job: &mut Job<'_>, target: &Activation) {
    job.target = target.pixels_shared();
    job.target_plane_bytes = target.plane_bytes();
    job.sink = target.sink();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cut_runs_cover_every_pixel_once_in_whole_blocks() {
        let runs = [(3, 70), (100, 32), (200, 1), (300, 65)];
        for of in 1..9 {
            let mut seen = vec![0; 400];
            for index in 0..of {
                let (cut, count) = cut(&runs, Part { index, of });
                for &(start, pixels) in &cut[..count] {
                    let whole = |(from, length): &(usize, usize)| {
                        (*from..from + length).contains(&start) && (start - from) % PLANE == 0
                    };
                    assert!(runs.iter().any(whole));
                    (start..start + pixels).for_each(|pixel| seen[pixel] += 1);
                }
            }
            for (pixel, times) in seen.into_iter().enumerate() {
                let counts = runs.iter().any(|&(from, n)| (from..from + n).contains(&pixel));
                assert_eq!(times, usize::from(counts), "{of} parts, pixel {pixel}");
            }
        }
    }
}
