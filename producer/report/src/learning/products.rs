//! Products of matrices, in loops over fixed numbers of lanes that the compiler turns into vector
//! instructions.
//!
//! Matrices whose columns are classes are stored as panels: 16 columns side by side, row after row,
//! then the next 16. Multiplication and addition stay two instructions, so that a CPU with AVX2 and
//! one without get the same sums.

/// The columns of a panel: two registers of AVX2.
pub(super) const LANES: usize = 16;
/// The rows whose sums are kept in registers at once.
pub(super) const ROW_BLOCK: usize = 4;

/// One row of a panel.
pub(super) type Lanes = [f32; LANES];

/// Sums of a block of rows.
type Block = [Lanes; ROW_BLOCK];

/// Adds to the sums of one panel: `sums[i] += Σₖ left[i][k] · right[k]`. `left` is a matrix row by row
/// with `width` columns, a multiple of [`ROW_BLOCK`]; its rows are a multiple of [`ROW_BLOCK`], too.
#[inline(always)]
pub(super) fn add_product(left: &[f32], width: usize, right: &[Lanes], sums: &mut [Lanes]) {
    let (sums, _none) = sums.as_chunks_mut::<ROW_BLOCK>();
    for (rows, sums) in left.chunks_exact(ROW_BLOCK * width).zip(sums) {
        let (first, rest) = rows.split_at(width);
        let (second, rest) = rest.split_at(width);
        let (third, fourth) = rest.split_at(width);
        let rows = first.iter().zip(second).zip(third).zip(fourth);
        let mut block: Block = *sums;
        for ((((a, b), c), d), right) in rows.zip(right) {
            add_to_block(&mut block, [*a, *b, *c, *d], right);
        }
        *sums = block;
    }
}

/// Adds to the sums of one panel, with the left matrix turned: `sums[i] += Σₖ left[k][i] · right[k]`.
/// `left` is a matrix row by row with `width` columns, a multiple of [`ROW_BLOCK`].
#[inline(always)]
pub(super) fn add_turned_product(left: &[f32], width: usize, right: &[Lanes], sums: &mut [Lanes]) {
    let (sums, _none) = sums.as_chunks_mut::<ROW_BLOCK>();
    for (at, sums) in sums.iter_mut().enumerate() {
        let mut block: Block = *sums;
        for (row, right) in left.chunks_exact(width).zip(right) {
            let factors = &row.as_chunks::<ROW_BLOCK>().0[at];
            add_to_block(&mut block, *factors, right);
        }
        *sums = block;
    }
}

#[inline(always)]
fn add_to_block(block: &mut Block, factors: [f32; ROW_BLOCK], right: &Lanes) {
    for (sums, factor) in block.iter_mut().zip(factors) {
        for (sum, value) in sums.iter_mut().zip(right) {
            *sum += factor * value;
        }
    }
}

/// Runs `work` compiled for AVX2 if the CPU has it. What `work` calls must be inlined into it.
#[inline(always)]
pub(super) fn vectorised<T>(work: impl FnOnce() -> T) -> T {
    struct Work<F>(F);
    impl<T, F: FnOnce() -> T> pulp::WithSimd for Work<F> {
        type Output = T;
        #[inline(always)]
        fn with_simd<S: pulp::Simd>(self, _: S) -> T {
            (self.0)()
        }
    }
    #[cfg(target_arch = "x86_64")]
    if let Some(avx2) = pulp::x86::V3::try_new() {
        return pulp::Simd::vectorize(avx2, Work(work));
    }
    pulp::WithSimd::with_simd(Work(work), pulp::Scalar)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_are_those_of_three_plain_loops() {
        let (rows, width) = (8, 12);
        let left: Vec<f32> = (0..rows * width).map(|at| (at % 7) as f32 - 3.0).collect();
        let panel = |rows: usize| -> Vec<Lanes> {
            (0..rows).map(|row| std::array::from_fn(|lane| ((row * 5 + lane) % 9) as f32)).collect()
        };
        let (right, mut sums) = (panel(width), vec![[1.0; LANES]; rows]);
        vectorised(|| add_product(&left, width, &right, &mut sums));
        for (row, sums) in sums.iter().enumerate() {
            for (lane, sum) in sums.iter().enumerate() {
                let product = (0..width).map(|k| left[row * width + k] * right[k][lane]);
                assert_eq!(*sum, 1.0 + product.sum::<f32>());
            }
        }
        let (right, mut sums) = (panel(rows), vec![[1.0; LANES]; width]);
        vectorised(|| add_turned_product(&left, width, &right, &mut sums));
        for (column, sums) in sums.iter().enumerate() {
            for (lane, sum) in sums.iter().enumerate() {
                let product = (0..rows).map(|k| left[k * width + column] * right[k][lane]);
                assert_eq!(*sum, 1.0 + product.sum::<f32>());
            }
        }
    }
}
