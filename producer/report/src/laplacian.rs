//! The smallest eigenpairs of the normalised Laplacian of a sparse graph.
//!
//! Owns the matrix and its eigen solver, not what the graph means. Up- and downstream: `spectral`.
//!
//! The solver is Chebyshev-filtered subspace iteration (Zhou, Saad, Tiago & Chelikowsky 2006,
//! "Self-consistent-field calculations using Chebyshev-filtered subspace iteration"): a block of
//! vectors is multiplied by a polynomial of the matrix that is small over the unwanted part of the
//! spectrum, made orthonormal again, and rotated onto the eigenvectors of the matrix within it. As a
//! block method it finds all vectors of a multiple eigenvalue, such as the zeros of a graph in parts.

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64;

/// Vectors iterated together. Those past the ones wanted only hasten convergence.
pub(crate) const BLOCK: usize = 16;
/// Degree of the filter polynomial: the products with the matrix between orthonormalisations.
const DEGREE: usize = 40;
/// Iterations at most: a bound on the time for graphs whose eigenvalues lie extremely close.
const ITERATIONS: usize = 25;
/// Norm of `Lx − λx` at which a unit vector counts as found.
const TOLERANCE: f64 = 1e-5;

/// `L = I − D^-½ W D^-½` of an undirected graph with weights `W` and degrees `D`; its eigenvalues
/// lie in 0..=2, and 0 comes once for each connected part (von Luxburg 2007, proposition 4).
pub(crate) struct Laplacian {
    /// Where each node's neighbours start in `columns` and `weights`, and the end.
    starts: Vec<usize>,
    columns: Vec<u32>,
    /// `D^-½ W D^-½`.
    weights: Vec<f64>,
}

/// Eigenvalues in ascending order, and the eigenvectors as rows: `vectors[node][pair]`.
pub(crate) struct Eigenpairs {
    pub(crate) values: Vec<f64>,
    pub(crate) vectors: Vec<[f64; BLOCK]>,
}

impl Laplacian {
    /// Of the graph with these edges and their weights above 0, each edge named once.
    pub(crate) fn new(nodes: usize, edges: &[(u32, u32, f64)]) -> Self {
        let mut starts = vec![0; nodes + 1];
        let mut degrees = vec![0.0; nodes];
        for &(a, b, weight) in edges {
            for node in [a as usize, b as usize] {
                starts[node + 1] += 1;
                degrees[node] += weight;
            }
        }
        for node in 0..nodes {
            starts[node + 1] += starts[node];
        }
        let mut ends = starts.clone();
        let mut columns = vec![0; 2 * edges.len()];
        let mut weights = vec![0.0; 2 * edges.len()];
        for &(a, b, weight) in edges {
            for (from, to) in [(a as usize, b), (b as usize, a)] {
                columns[ends[from]] = to;
                weights[ends[from]] = weight / (degrees[from] * degrees[to as usize]).sqrt();
                ends[from] += 1;
            }
        }
        Self { starts, columns, weights }
    }

    fn nodes(&self) -> usize {
        self.starts.len() - 1
    }

    /// The `BLOCK` smallest eigenpairs, or all of a smaller matrix. The first `wanted` are accurate
    /// to about `TOLERANCE`, the others estimates. The same seed gives the same pairs.
    pub(crate) fn smallest(&self, wanted: usize, seed: u64) -> Eigenpairs {
        // Below this the block would span most of the space; there a dense solver is quick.
        if self.nodes() <= 2 * BLOCK {
            return self.all();
        }
        let mut random = Pcg64::seed_from_u64(seed);
        let mut vectors: Vec<[f64; BLOCK]> = (0..self.nodes())
            .map(|_| std::array::from_fn(|_| random.random_range(-1.0..1.0)))
            .collect();
        orthonormalise(&mut vectors, &mut random);
        let mut values = self.rotate(&mut vectors);
        for _ in 0..ITERATIONS {
            if self.residual(&values, &vectors, wanted.min(BLOCK)) < TOLERANCE {
                break;
            }
            self.filter(&mut vectors, values[BLOCK - 1]);
            orthonormalise(&mut vectors, &mut random);
            values = self.rotate(&mut vectors);
        }
        Eigenpairs { values: values.to_vec(), vectors }
    }

    fn all(&self) -> Eigenpairs {
        let nodes = self.nodes();
        let mut matrix = vec![vec![0.0; nodes]; nodes];
        for (node, row) in matrix.iter_mut().enumerate() {
            row[node] = 1.0;
            for edge in self.starts[node]..self.starts[node + 1] {
                row[self.columns[edge] as usize] -= self.weights[edge];
            }
        }
        let (values, eigenvectors) = symmetric_eigenpairs(matrix);
        let kept = nodes.min(BLOCK);
        let mut vectors = vec![[0.0; BLOCK]; nodes];
        for (pair, eigenvector) in eigenvectors.iter().take(kept).enumerate() {
            for (row, &value) in vectors.iter_mut().zip(eigenvector) {
                row[pair] = value;
            }
        }
        Eigenpairs { values: values[..kept].to_vec(), vectors }
    }

    /// `Lx` of one node for all vectors of the block.
    fn product(&self, node: usize, vectors: &[[f64; BLOCK]]) -> [f64; BLOCK] {
        let mut sums = vectors[node];
        let edges = self.starts[node]..self.starts[node + 1];
        for (&column, &weight) in self.columns[edges.clone()].iter().zip(&self.weights[edges]) {
            for (sum, value) in sums.iter_mut().zip(&vectors[column as usize]) {
                *sum -= weight * value;
            }
        }
        sums
    }

    /// Multiplies the block by the Chebyshev polynomial that stays within ±1 for eigenvalues in
    /// `cut`..=2 and grows below, scaled so that eigenvalue 0 keeps its vectors' length.
    fn filter(&self, vectors: &mut Vec<[f64; BLOCK]>, cut: f64) {
        // A cut of 0 would divide by 0 (a graph in more parts than the block has vectors).
        let cut = cut.clamp(1e-4, 1.9);
        let (half_width, centre) = ((2.0 - cut) / 2.0, (2.0 + cut) / 2.0);
        // The three-term recurrence with the scale factors of Zhou et al., algorithm 4.3.
        let first = half_width / -centre;
        let mut scale = first;
        let step = first / half_width;
        let mut current: Vec<[f64; BLOCK]> = (0..self.nodes())
            .map(|node| {
                let product = self.product(node, vectors);
                std::array::from_fn(|i| (product[i] - centre * vectors[node][i]) * step)
            })
            .collect();
        for _ in 1..DEGREE {
            let next_scale = 1.0 / (2.0 / first - scale);
            let (step, back) = (2.0 * next_scale / half_width, scale * next_scale);
            // The vectors before the last are read once more, row by row: the next take their place.
            for (node, previous) in vectors.iter_mut().enumerate() {
                let product = self.product(node, &current);
                for (i, previous) in previous.iter_mut().enumerate() {
                    *previous = (product[i] - centre * current[node][i]) * step - back * *previous;
                }
            }
            std::mem::swap(vectors, &mut current);
            scale = next_scale;
        }
        *vectors = current;
    }

    /// Rotates an orthonormal block onto its Rayleigh–Ritz vectors; their values, ascending.
    fn rotate(&self, vectors: &mut [[f64; BLOCK]]) -> [f64; BLOCK] {
        let mut projected = vec![vec![0.0; BLOCK]; BLOCK];
        for (node, row) in vectors.iter().enumerate() {
            let product = self.product(node, vectors);
            for (value, sums) in row.iter().zip(&mut projected) {
                for (sum, product) in sums.iter_mut().zip(product) {
                    *sum += value * product;
                }
            }
        }
        let (values, rotation) = symmetric_eigenpairs(projected);
        for row in vectors.iter_mut() {
            let old = *row;
            for (value, eigenvector) in row.iter_mut().zip(&rotation) {
                *value = old.iter().zip(eigenvector).map(|(a, b)| a * b).sum();
            }
        }
        std::array::from_fn(|i| values[i].max(0.0))
    }

    /// The largest norm of `Lx − λx` among the first `wanted` pairs.
    fn residual(&self, values: &[f64; BLOCK], vectors: &[[f64; BLOCK]], wanted: usize) -> f64 {
        let mut squares = [0.0; BLOCK];
        for (node, row) in vectors.iter().enumerate() {
            let product = self.product(node, vectors);
            for i in 0..BLOCK {
                squares[i] += (product[i] - values[i] * row[i]).powi(2);
            }
        }
        squares[..wanted].iter().fold(0.0, |largest: f64, &square| largest.max(square)).sqrt()
    }
}

/// Makes the block's vectors orthonormal: Gram–Schmidt, each vector twice ("twice is enough",
/// Parlett 1980). A vector that lies in the span of those before is drawn anew.
fn orthonormalise(vectors: &mut [[f64; BLOCK]], random: &mut Pcg64) {
    for column in 0..BLOCK {
        // Random vectors are independent; 3 draws are only a bound.
        for _ in 0..3 {
            let before = norm(vectors, column);
            for _ in 0..2 {
                subtract_projections(vectors, column);
            }
            let after = norm(vectors, column);
            if after > 1e-10 * before && after > f64::MIN_POSITIVE {
                vectors.iter_mut().for_each(|row| row[column] /= after);
                break;
            }
            vectors.iter_mut().for_each(|row| row[column] = random.random_range(-1.0..1.0));
        }
    }
}

fn norm(vectors: &[[f64; BLOCK]], column: usize) -> f64 {
    vectors.iter().map(|row| row[column] * row[column]).sum::<f64>().sqrt()
}

/// Takes from vector `column` its projections on those before it.
fn subtract_projections(vectors: &mut [[f64; BLOCK]], column: usize) {
    let mut products = [0.0; BLOCK];
    for row in vectors.iter() {
        for (product, value) in products.iter_mut().zip(row) {
            *product += value * row[column];
        }
    }
    products[column..].fill(0.0);
    for row in vectors {
        row[column] -= products.iter().zip(&*row).map(|(a, b)| a * b).sum::<f64>();
    }
}

/// All eigenvalues of a small symmetric matrix, ascending, and their unit vectors, by Jacobi's
/// rotations in cyclic order (Golub & Van Loan, Matrix Computations, section 8.5).
fn symmetric_eigenpairs(mut matrix: Vec<Vec<f64>>) -> (Vec<f64>, Vec<Vec<f64>>) {
    let size = matrix.len();
    let mut vectors: Vec<Vec<f64>> =
        (0..size).map(|i| (0..size).map(|j| f64::from(i == j)).collect()).collect();
    // It converges quadratically, in 6 to 10 sweeps.
    for _ in 0..30 {
        let off_diagonal: f64 = (0..size)
            .flat_map(|i| (0..i).map(move |j| (i, j)))
            .map(|(i, j)| matrix[i][j].powi(2))
            .sum();
        if off_diagonal < 1e-28 {
            break;
        }
        for p in 0..size {
            for q in p + 1..size {
                turn(&mut matrix, &mut vectors, p, q);
            }
        }
    }
    let mut order: Vec<usize> = (0..size).collect();
    order.sort_by(|&a, &b| matrix[a][a].total_cmp(&matrix[b][b]));
    let values = order.iter().map(|&i| matrix[i][i]).collect();
    (values, order.iter().map(|&i| std::mem::take(&mut vectors[i])).collect())
}

/// The rotation that makes `matrix[p][q]` zero; the rows of `vectors` are turned along.
fn turn(matrix: &mut [Vec<f64>], vectors: &mut [Vec<f64>], p: usize, q: usize) {
    if matrix[p][q].abs() < f64::MIN_POSITIVE {
        return;
    }
    let ratio = (matrix[q][q] - matrix[p][p]) / (2.0 * matrix[p][q]);
    let tangent = ratio.signum() / (ratio.abs() + ratio.hypot(1.0));
    let cosine = 1.0 / tangent.hypot(1.0);
    let sine = tangent * cosine;
    for row in matrix.iter_mut() {
        (row[p], row[q]) = (cosine * row[p] - sine * row[q], sine * row[p] + cosine * row[q]);
    }
    for rows in [matrix, vectors] {
        let (before, after) = rows.split_at_mut(q);
        for (a, b) in before[p].iter_mut().zip(&mut after[0]) {
            (*a, *b) = (cosine * *a - sine * *b, sine * *a + cosine * *b);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(from: u32, nodes: u32) -> impl Iterator<Item = (u32, u32, f64)> {
        (0..nodes).map(move |node| (from + node, from + (node + 1) % nodes, 2.5))
    }

    /// A ring's eigenvalues are 1 − cos(2πj/n): each but the first comes twice.
    #[test]
    fn eigenvalues_of_a_ring_are_those_of_the_closed_form() {
        for nodes in [20, 200] {
            let edges: Vec<_> = ring(0, nodes).collect();
            let pairs = Laplacian::new(nodes as usize, &edges).smallest(9, 1);
            for (index, value) in pairs.values[..9].iter().enumerate() {
                let turns = index.div_ceil(2) as f64 / f64::from(nodes);
                let expected = 1.0 - (std::f64::consts::TAU * turns).cos();
                assert!((value - expected).abs() < 1e-8, "{nodes}: {value} is not {expected}");
            }
        }
    }

    #[test]
    fn every_part_of_a_graph_has_its_zero() {
        for (parts, nodes) in [(3, 5), (5, 30), (30, 12)] {
            let edges: Vec<_> = (0..parts).flat_map(|part| ring(part * nodes, nodes)).collect();
            let pairs = Laplacian::new((parts * nodes) as usize, &edges).smallest(9, 1);
            let zeros = pairs.values[..9].iter().filter(|value| **value < 1e-9).count();
            assert_eq!(zeros, 9.min(parts as usize));
        }
    }

    #[test]
    fn vectors_are_orthonormal_and_satisfy_the_equation() {
        let edges: Vec<_> =
            ring(0, 300).chain((0..100).map(|node| (node, 150 + (node * 7) % 150, 0.5))).collect();
        let laplacian = Laplacian::new(300, &edges);
        let Eigenpairs { values, vectors } = laplacian.smallest(9, 3);
        let values: [f64; BLOCK] = values.try_into().unwrap();
        assert!(laplacian.residual(&values, &vectors, 9) < TOLERANCE);
        for i in 0..BLOCK {
            for j in 0..=i {
                let product: f64 = vectors.iter().map(|row| row[i] * row[j]).sum();
                assert!((product - f64::from(i == j)).abs() < 1e-10);
            }
        }
    }

    #[test]
    fn eigenpairs_of_a_matrix_multiply_back_to_it() {
        let matrix = vec![vec![4.0, 1.0, -2.0], vec![1.0, 2.0, 0.0], vec![-2.0, 0.0, 3.0]];
        let (values, vectors) = symmetric_eigenpairs(matrix.clone());
        assert!(values.is_sorted());
        for i in 0..3 {
            for j in 0..3 {
                let sum: f64 = (0..3).map(|k| values[k] * vectors[k][i] * vectors[k][j]).sum();
                assert!((sum - matrix[i][j]).abs() < 1e-12);
            }
        }
    }
}
