//! Noisy linear imputation: Rong et al. 2022, A Consistent and Efficient Evaluation Strategy
//! for Attribution Methods, <https://arxiv.org/abs/2202.00449>, section 4.2.
//!
//! A missing pixel is the weighted mean of its eight neighbours: 1/6 for each of the four beside it
//! and 1/12 for each of the four at its corners. Neighbours beyond the image's edge are left out,
//! and so is their weight. If neighbours are missing too, this is a system of linear equations, one
//! for each missing pixel. It is symmetric, and positive definite if at least one pixel is known,
//! so conjugate gradients solve it (Hestenes and Stiefel 1952).
//!
//! Does not add the noise: [`super::road`] does.

use super::pixels::InputImage;

/// Weight of a neighbour beside a pixel.
const BESIDE: f32 = 1.0 / 6.0;
/// Weight of a neighbour at a pixel's corner.
const CORNER: f32 = 1.0 / 12.0;

/// Iterations end when the residual, as a share of the right-hand side, is below this. Pixels are
/// then wrong by less than half a level of 255.
const TOLERANCE: f32 = 3e-5;
/// Bounds the time for any input. Images need fewer.
const MAX_ITERATIONS: usize = 5_000;

/// Imputes the pixels that are `missing` `[H, W]`; returns values `[3, H, W]`. Known pixels keep
/// their values, and so does an image whose pixels are all missing.
///
/// # Panics
/// If `missing` has another size than the image.
#[must_use]
pub fn impute(pixels: &InputImage, missing: &[bool]) -> Vec<f32> {
    impute_to(pixels, missing, TOLERANCE)
}

fn impute_to(pixels: &InputImage, missing: &[bool], tolerance: f32) -> Vec<f32> {
    assert_eq!(missing.len(), pixels.plane(), "a pixel is known or missing");
    let mut values = pixels.values.clone();
    if missing.iter().all(|&missing| missing) {
        return values;
    }
    let system = LinearSystem::new(missing, pixels.height, pixels.width);
    for plane in values.chunks_mut(missing.len()) {
        let solution = system.solve(plane, tolerance);
        for (row, values) in plane.chunks_mut(pixels.width).enumerate() {
            let solved = &solution[system.row(row)];
            let missing = &missing[row * pixels.width..][..pixels.width];
            for ((value, solved), _) in
                values.iter_mut().zip(solved).zip(missing).filter(|(_, missing)| **missing)
            {
                *value = *solved;
            }
        }
    }
    values
}

/// The equations of an image's missing pixels, on a grid with a border of one cell. The border is
/// always zero, so that every pixel has eight neighbours.
struct LinearSystem {
    height: usize,
    width: usize,
    /// `[H + 2, W + 2]`: 1 where a pixel is missing, else 0.
    unknown: Vec<f32>,
    /// The matrix's diagonal: the sum of the weights of a missing pixel's neighbours, else 0.
    diagonal: Vec<f32>,
}

impl LinearSystem {
    fn new(missing: &[bool], height: usize, width: usize) -> Self {
        let cells = (height + 2) * (width + 2);
        let mut system =
            Self { height, width, unknown: vec![0.0; cells], diagonal: vec![0.0; cells] };
        let mut inside = vec![0.0; cells];
        for row in 0..height {
            let range = system.row(row);
            inside[range.clone()].fill(1.0);
            let missing = &missing[row * width..][..width];
            for (unknown, &missing) in system.unknown[range].iter_mut().zip(missing) {
                *unknown = f32::from(u8::from(missing));
            }
        }
        let mut weights = vec![0.0; cells];
        system.sum_neighbours(&inside, &mut weights);
        system.diagonal = weights;
        system
    }

    /// The grid's cells of a row of the image.
    fn row(&self, row: usize) -> std::ops::Range<usize> {
        let start = (row + 1) * (self.width + 2) + 1;
        start..start + self.width
    }

    /// Sums the weighted neighbours of each missing pixel; all other cells become zero.
    fn sum_neighbours(&self, values: &[f32], sums: &mut [f32]) {
        let (stride, width) = (self.width + 2, self.width);
        for row in 0..self.height {
            let range = self.row(row);
            let lines: [&[f32]; 3] =
                std::array::from_fn(|line| &values[(row + line) * stride..][..stride]);
            let beside = |line: usize, shift: usize| &lines[line][shift..][..width];
            let [nw, n, ne] = [0, 1, 2].map(|shift| beside(0, shift));
            let [w, e] = [0, 2].map(|shift| beside(1, shift));
            let [sw, s, se] = [0, 1, 2].map(|shift| beside(2, shift));
            let unknown = &self.unknown[range.clone()];
            for (x, sum) in sums[range].iter_mut().enumerate() {
                let direct = n[x] + s[x] + w[x] + e[x];
                let corner = nw[x] + ne[x] + sw[x] + se[x];
                *sum = unknown[x] * (BESIDE * direct + CORNER * corner);
            }
        }
    }

    /// Solves for the missing values of a channel `[H, W]`. Returns them on the grid with its
    /// border; all other cells are zero.
    fn solve(&self, channel: &[f32], tolerance: f32) -> Vec<f32> {
        let cells = self.unknown.len();
        let mut known = vec![0.0; cells];
        for row in 0..self.height {
            let range = self.row(row);
            known[range.clone()].copy_from_slice(&channel[row * self.width..][..self.width]);
            for (known, unknown) in known[range.clone()].iter_mut().zip(&self.unknown[range]) {
                *known *= 1.0 - unknown;
            }
        }
        // Iterations start from the mean of the known pixels.
        let count = (self.height * self.width) as f32 - self.unknown.iter().sum::<f32>();
        let mean = known.iter().sum::<f32>() / count;
        let mut solution: Vec<_> = self.unknown.iter().map(|unknown| unknown * mean).collect();
        let mut product = vec![0.0; cells];
        self.sum_neighbours(&known, &mut product);
        let limit = tolerance * tolerance * dot(&product, &product);
        let mut residual = product.clone();
        self.multiply(&solution, &mut product);
        for (residual, product) in residual.iter_mut().zip(&product) {
            *residual -= product;
        }
        let mut direction = residual.clone();
        let mut norm = dot(&residual, &residual);
        for _ in 0..MAX_ITERATIONS {
            if norm <= limit {
                break;
            }
            self.multiply(&direction, &mut product);
            let step = norm / dot(&direction, &product);
            for (solution, direction) in solution.iter_mut().zip(&direction) {
                *solution += step * direction;
            }
            for (residual, product) in residual.iter_mut().zip(&product) {
                *residual -= step * product;
            }
            let next = dot(&residual, &residual);
            let turn = next / norm;
            for (direction, residual) in direction.iter_mut().zip(&residual) {
                *direction = residual + turn * *direction;
            }
            norm = next;
        }
        solution
    }

    /// Multiplies the system's matrix with a vector that is zero at known pixels.
    fn multiply(&self, vector: &[f32], product: &mut [f32]) {
        self.sum_neighbours(vector, product);
        let diagonal = self.diagonal.iter().zip(vector);
        for (product, (diagonal, value)) in product.iter_mut().zip(diagonal) {
            *product = diagonal * value - *product;
        }
    }
}

/// The dot product. Sixteen separate sums are faster and more exact than one.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0f32; 16];
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<16>(), b.as_chunks::<16>());
    for (a, b) in a.iter().zip(b) {
        for (sum, (a, b)) in sums.iter_mut().zip(a.iter().zip(b)) {
            *sum += a * b;
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f32>() + rest
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};
    use rand_pcg::Pcg64;

    use super::*;

    fn grey(height: usize, width: usize, values: &[f32]) -> InputImage {
        InputImage { height, width, values: values.repeat(3) }
    }

    #[test]
    fn one_missing_pixel_is_its_neighbours_weighted_mean() {
        let image = grey(3, 3, &[1.0, 2.0, 3.0, 4.0, 99.0, 6.0, 7.0, 8.0, 9.5]);
        let missing = [false, false, false, false, true, false, false, false, false];
        let imputed = impute(&image, &missing);
        let expected = (2.0 + 4.0 + 6.0 + 8.0) / 6.0 + (1.0 + 3.0 + 7.0 + 9.5) / 12.0;
        assert!((imputed[4] - expected).abs() < 1e-4, "{}", imputed[4]);
        assert_eq!(imputed[8], 9.5);
    }

    #[test]
    fn a_hand_solved_pair_at_the_edge() {
        // 1 × 4, the two in the middle missing. Each has two neighbours of weight 1/6, so they lie
        // on the line between both ends.
        let imputed = impute(&grey(1, 4, &[0.0, 99.0, 99.0, 3.0]), &[false, true, true, false]);
        assert!((imputed[1] - 1.0).abs() < 1e-3 && (imputed[2] - 2.0).abs() < 1e-3, "{imputed:?}");
        // A corner of 2 × 2: 1/6, 1/6 and 1/12 of a total of 5/12.
        let imputed = impute(&grey(2, 2, &[99.0, 1.0, 2.0, 4.0]), &[true, false, false, false]);
        let expected = (2.0 * 1.0 + 2.0 * 2.0 + 4.0) / 5.0;
        assert!((imputed[0] - expected).abs() < 1e-4, "{imputed:?}");
    }

    /// Gaussian elimination with pivots on the whole matrix, in f64.
    fn dense(image: &InputImage, missing: &[bool]) -> Vec<f64> {
        let (height, width) = (image.height as isize, image.width as isize);
        let unknowns: Vec<_> = (0..missing.len()).filter(|&pixel| missing[pixel]).collect();
        let size = unknowns.len();
        let mut rows = vec![vec![0.0; size + 1]; size];
        for (row, &pixel) in rows.iter_mut().zip(&unknowns) {
            let (y, x) = (pixel as isize / width, pixel as isize % width);
            for (dy, dx) in (-1..=1).flat_map(|dy| (-1..=1).map(move |dx| (dy, dx))) {
                let (y, x) = (y + dy, x + dx);
                if (dy, dx) == (0, 0) || y < 0 || x < 0 || y >= height || x >= width {
                    continue;
                }
                let weight = if dy == 0 || dx == 0 { 1.0 / 6.0 } else { 1.0 / 12.0 };
                let at = unknowns.iter().position(|&unknown| unknown == pixel).unwrap();
                let neighbour = (y * width + x) as usize;
                row[at] += weight;
                match unknowns.iter().position(|&unknown| unknown == neighbour) {
                    Some(column) => row[column] -= weight,
                    None => row[size] += weight * f64::from(image.values[neighbour]),
                }
            }
        }
        for column in 0..size {
            let pivot = (column..size)
                .max_by(|&a, &b| rows[a][column].abs().total_cmp(&rows[b][column].abs()));
            rows.swap(column, pivot.unwrap());
            let pivot = rows[column].clone();
            let others = rows.iter_mut().enumerate().filter(|(index, _)| *index != column);
            for (_, row) in others {
                let factor = row[column] / pivot[column];
                for (value, pivot) in row.iter_mut().zip(&pivot) {
                    *value -= factor * pivot;
                }
            }
        }
        (0..size).map(|row| rows[row][size] / rows[row][row]).collect()
    }

    #[test]
    fn the_solution_is_a_dense_solvers() {
        let mut random = Pcg64::seed_from_u64(7);
        let (height, width) = (13, 17);
        for share in [0.2, 0.5, 0.8, 0.98] {
            let values: Vec<f32> = (0..height * width).map(|_| random.random()).collect();
            let missing: Vec<_> = values.iter().map(|_| random.random_bool(share)).collect();
            let image = grey(height, width, &values);
            let imputed = impute(&image, &missing);
            let expected = dense(&image, &missing);
            let unknowns = (0..missing.len()).filter(|&pixel| missing[pixel]);
            for (pixel, expected) in unknowns.zip(expected) {
                let found = f64::from(imputed[pixel]);
                assert!((found - expected).abs() < 0.5 / 255.0, "{share}: {found}, {expected}");
            }
            let known = (0..missing.len()).filter(|&pixel| !missing[pixel]);
            assert!(known.into_iter().all(|pixel| imputed[pixel] == values[pixel]));
        }
    }

    #[test]
    fn large_holes_are_solved_to_within_half_a_level() {
        // The worst case of a photograph: 80 % in one region.
        let (height, width) = (112, 112);
        let values: Vec<f32> = (0..height * width)
            .map(|at| {
                let (y, x) = ((at / width) as f32, (at % width) as f32);
                0.5 + 0.3 * (y / 17.0).sin() + 0.2 * (x / 5.0).cos()
            })
            .collect();
        let missing: Vec<_> = (0..height * width).map(|at| at / width >= height / 5).collect();
        let image = grey(height, width, &values);
        let (quick, exact) = (impute(&image, &missing), impute_to(&image, &missing, 3e-7));
        let worst = quick.iter().zip(&exact).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst < 0.5 / 255.0, "{worst}");
    }

    #[test]
    fn nothing_known_or_nothing_missing_changes_nothing() {
        let image = grey(1, 2, &[0.25, 0.5]);
        assert_eq!(impute(&image, &[true; 2]), image.values);
        assert_eq!(impute(&image, &[false; 2]), image.values);
    }
}
