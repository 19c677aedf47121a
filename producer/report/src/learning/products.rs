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
///
/// Iterators would be calls here: the compiler leaves them out of line in code for a CPU's extensions.
#[inline(always)]
pub(super) fn add_product(left: &[f32], width: usize, right: &[Lanes], sums: &mut [Lanes]) {
    let right = &right[..width];
    let mut row = 0;
    while row + ROW_BLOCK <= sums.len() {
        let rows = &left[row * width..(row + ROW_BLOCK) * width];
        let (first, second) = (&rows[..width], &rows[width..2 * width]);
        let (third, fourth) = (&rows[2 * width..3 * width], &rows[3 * width..4 * width]);
        let mut block: Block = [sums[row], sums[row + 1], sums[row + 2], sums[row + 3]];
        let mut k = 0;
        while k < width {
            let factors = [first[k], second[k], third[k], fourth[k]];
            add_to_block(&mut block, factors, &right[k]);
            k += 1;
        }
        (sums[row], sums[row + 1], sums[row + 2], sums[row + 3]) =
            (block[0], block[1], block[2], block[3]);
        row += ROW_BLOCK;
    }
}

/// Adds to the sums of one panel, with the left matrix turned: `sums[i] += Σₖ left[k][i] · right[k]`.
/// `left` is a matrix row by row with `width` columns, a multiple of [`ROW_BLOCK`].
#[inline(always)]
pub(super) fn add_turned_product(left: &[f32], width: usize, right: &[Lanes], sums: &mut [Lanes]) {
    let left = &left[..right.len() * width];
    let mut column = 0;
    while column + ROW_BLOCK <= sums.len() {
        let mut block: Block = [sums[column], sums[column + 1], sums[column + 2], sums[column + 3]];
        let (mut k, mut at) = (0, column);
        while k < right.len() {
            let factors = [left[at], left[at + 1], left[at + 2], left[at + 3]];
            add_to_block(&mut block, factors, &right[k]);
            k += 1;
            at += width;
        }
        (sums[column], sums[column + 1], sums[column + 2], sums[column + 3]) =
            (block[0], block[1], block[2], block[3]);
        column += ROW_BLOCK;
    }
}

#[inline(always)]
fn add_to_block(block: &mut Block, factors: [f32; ROW_BLOCK], right: &Lanes) {
    let mut row = 0;
    while row < ROW_BLOCK {
        let mut lane = 0;
        while lane < LANES {
            block[row][lane] += factors[row] * right[lane];
            lane += 1;
        }
        row += 1;
    }
}

/// Work whose loops become vector instructions. A closure would not do: the compiler may leave it out of
/// line, and then it is compiled without them.
pub(super) trait VectorWork {
    /// What it returns.
    type Output;

    /// Does the work. This function and what it calls have to be `#[inline(always)]`.
    fn run(self) -> Self::Output;
}

/// Does the work, compiled for AVX2 if the CPU has it.
#[inline(always)]
pub(super) fn vectorised<W: VectorWork>(work: W) -> W::Output {
    struct Work<W>(W);
    impl<W: VectorWork> pulp::WithSimd for Work<W> {
        type Output = W::Output;
        #[inline(always)]
        fn with_simd<S: pulp::Simd>(self, _: S) -> W::Output {
            self.0.run()
        }
    }
    #[cfg(target_arch = "x86_64")]
    if let Some(avx2) = pulp::x86::V3::try_new() {
        return pulp::Simd::vectorize(avx2, Work(work));
    }
    pulp::WithSimd::with_simd(Work(work), pulp::Scalar)
}

/// Adds a product to sums, as [`add_product`].
pub(super) struct AddProduct<'a> {
    pub(super) left: &'a [f32],
    pub(super) width: usize,
    pub(super) right: &'a [Lanes],
    pub(super) sums: &'a mut [Lanes],
}

impl VectorWork for AddProduct<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        add_product(self.left, self.width, self.right, self.sums);
    }
}

/// Adds a product to sums, as [`add_turned_product`].
pub(super) struct AddTurnedProduct<'a> {
    pub(super) left: &'a [f32],
    pub(super) width: usize,
    pub(super) right: &'a [Lanes],
    pub(super) sums: &'a mut [Lanes],
}

impl VectorWork for AddTurnedProduct<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        add_turned_product(self.left, self.width, self.right, self.sums);
    }
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
        vectorised(AddProduct { left: &left, width, right: &right, sums: &mut sums });
        for (row, sums) in sums.iter().enumerate() {
            for (lane, sum) in sums.iter().enumerate() {
                let product = (0..width).map(|k| left[row * width + k] * right[k][lane]);
                assert_eq!(*sum, 1.0 + product.sum::<f32>());
            }
        }
        let (right, mut sums) = (panel(rows), vec![[1.0; LANES]; width]);
        vectorised(AddTurnedProduct { left: &left, width, right: &right, sums: &mut sums });
        for (column, sums) in sums.iter().enumerate() {
            for (lane, sum) in sums.iter().enumerate() {
                let product = (0..rows).map(|k| left[k * width + column] * right[k][lane]);
                assert_eq!(*sum, 1.0 + product.sum::<f32>());
            }
        }
    }
}
