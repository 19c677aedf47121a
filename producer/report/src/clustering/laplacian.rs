//! The smallest eigenpairs of the normalised Laplacian of a sparse graph.
//!
//! Owns the matrix and its eigenvalue solver, not what the graph means. Upstream and downstream:
//! `spectral`.
//!
//! The solver is Chebyshev-filtered subspace iteration (Zhou, Saad, Tiago & Chelikowsky 2006,
//! "Self-consistent-field calculations using Chebyshev-filtered subspace iteration"). Each
//! iteration does three things with a block of vectors: it multiplies them by a polynomial of the
//! matrix that is small over the unwanted part of the spectrum, makes them orthonormal again, and
//! rotates them onto the eigenvectors of the matrix within their span. A block method finds all
//! vectors of a multiple eigenvalue, such as the zeros of a graph of several connected parts.

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64;

/// Vectors iterated together. Vectors beyond the wanted ones only speed up convergence.
pub(crate) const BLOCK: usize = 16;
/// The degree of the filter polynomial: the number of products with the matrix in an iteration.
const DEGREE: usize = 40;
/// The most iterations. Bounds the time for graphs whose eigenvalues lie extremely close together.
const MAX_ITERATIONS: usize = 25;
/// The norm of `Lx − λx` below which a unit vector `x` counts as an eigenvector.
const TOLERANCE: f64 = 1e-5;

/// `L = I − D^-½ W D^-½` of an undirected graph with weights `W` and degrees `D`. Its eigenvalues
/// lie in 0 to 2, and it has one eigenvalue 0 for each connected part (von Luxburg 2007,
/// proposition 4).
pub(crate) struct Laplacian {
    /// By node, where its neighbours start in `columns` and `weights`; one more for the end.
    starts: Vec<usize>,
    columns: Vec<u32>,
    /// `D^-½ W D^-½`.
    weights: Vec<f64>,
}

/// Eigenvalues in ascending order, and their eigenvectors: number `node` of the vector that belongs
/// to `values[pair]` is `vectors[node][pair]`.
pub(crate) struct Eigenpairs {
    pub(crate) values: Vec<f64>,
    pub(crate) vectors: Vec<[f64; BLOCK]>,
}

/// An undirected edge between two nodes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Edge {
    pub(crate) a: u32,
    pub(crate) b: u32,
    pub(crate) weight: f64,
}

impl Laplacian {
    /// The Laplacian of the graph with these edges, each given once. Weights are above 0.
    pub(crate) fn new(nodes: usize, edges: &[Edge]) -> Self {
        let mut starts = vec![0; nodes + 1];
        let mut degrees = vec![0.0; nodes];
        for &Edge { a, b, weight } in edges {
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
        for &Edge { a, b, weight } in edges {
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

    /// The `BLOCK` smallest eigenpairs, or all if the matrix is smaller. The first `wanted` pairs
    /// are accurate to about `TOLERANCE`, the others are estimates. The same seed gives the same
    /// pairs.
    pub(crate) fn smallest(&self, wanted: usize, seed: u64) -> Eigenpairs {
        // The block would span most of the space of a smaller matrix, and a dense solver is quick.
        if self.nodes() <= 2 * BLOCK {
            return self.all();
        }
        let mut random = Pcg64::seed_from_u64(seed);
        let mut vectors: Vec<[f64; BLOCK]> = (0..self.nodes())
            .map(|_| std::array::from_fn(|_| random.random_range(-1.0..1.0)))
            .collect();
        orthonormalise(&mut vectors, &mut random);
        let mut values = self.rotate(&mut vectors);
        for _ in 0..MAX_ITERATIONS {
            if self.residual(&values, &vectors, wanted.min(BLOCK)) < TOLERANCE {
                break;
            }
            self.filter(&mut vectors, values[BLOCK - 1]);
            orthonormalise(&mut vectors, &mut random);
            values = self.rotate(&mut vectors);
        }
        Eigenpairs { values: values.to_vec(), vectors }
    }

    /// All eigenpairs, by the dense solver.
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

    /// Row `node` of `Lx`, for all vectors `x` of the block.
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

    /// Multiplies the block by the Chebyshev polynomial that stays within ±1 for eigenvalues from
    /// `cut` to 2 and grows below `cut`. It is scaled so that the vectors of eigenvalue 0 keep
    /// their length.
    fn filter(&self, vectors: &mut Vec<[f64; BLOCK]>, cut: f64) {
        // A cut of 0 would divide by 0. A graph has one if it has more parts than the block
        // vectors.
        let cut = cut.clamp(1e-4, 1.9);
        let (half_width, centre) = ((2.0 - cut) / 2.0, (2.0 + cut) / 2.0);
        // The three-term recurrence, with the scale factors of Zhou et al., algorithm 4.3.
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
            // The step needs the last two blocks. The new one replaces the older one row by row.
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

    /// Rotates an orthonormal block onto its Rayleigh–Ritz vectors. Returns their values,
    /// ascending.
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

/// Makes the block's vectors orthonormal by Gram–Schmidt, each vector twice ("twice is enough",
/// Parlett 1980). A vector in the span of the vectors before it is replaced by a random one.
fn orthonormalise(vectors: &mut [[f64; BLOCK]], random: &mut Pcg64) {
    for column in 0..BLOCK {
        // One random vector is enough in practice; 3 is only a bound.
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

/// Subtracts from vector `column` its projections on the vectors before it.
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

/// All eigenvalues of a small symmetric matrix, ascending, and their unit eigenvectors, by Jacobi's
/// rotations in cyclic order (Golub & Van Loan, Matrix Computations, section 8.5).
fn symmetric_eigenpairs(mut matrix: Vec<Vec<f64>>) -> (Vec<f64>, Vec<Vec<f64>>) {
    let size = matrix.len();
    let mut vectors: Vec<Vec<f64>> =
        (0..size).map(|i| (0..size).map(|j| f64::from(i == j)).collect()).collect();
    // It converges quadratically, in 6 to 10 sweeps; 30 is only a bound.
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
                rotate_to_zero(&mut matrix, &mut vectors, p, q);
            }
        }
    }
    let mut order: Vec<usize> = (0..size).collect();
    order.sort_by(|&a, &b| matrix[a][a].total_cmp(&matrix[b][b]));
    let values = order.iter().map(|&i| matrix[i][i]).collect();
    (values, order.iter().map(|&i| std::mem::take(&mut vectors[i])).collect())
}

/// Rotates the matrix so that `matrix[p][q]` becomes zero, and the rows of `vectors` with it.
fn rotate_to_zero(matrix: &mut [Vec<f64>], vectors: &mut [Vec<f64>], p: usize, q: usize) {
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

    fn ring(from: u32, nodes: u32) -> impl Iterator<Item = Edge> {
        (0..nodes).map(move |node| Edge {
            a: from + node,
            b: from + (node + 1) % nodes,
            weight: 2.5,
        })
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
        let chords = (0..100).map(|node| Edge { a: node, b: 150 + (node * 7) % 150, weight: 0.5 });
        let edges: Vec<_> = ring(0, 300).chain(chords).collect();
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
