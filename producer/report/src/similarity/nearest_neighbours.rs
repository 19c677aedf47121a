//! Nearest neighbours by exhaustive search, in blocks that the compiler turns into vector code.
//!
//! Owns the packing of samples for that search. Upstream: feature vectors of a few dozen numbers.
//! Downstream: the graph of the spectral clustering, the assignment of a run's maps to clusters, and the
//! map of its images.
//!
//! The nearest sample `s` of a point `p` is the one with the largest `p·s − ‖s‖²/2`, because
//! `‖p − s‖²` is `‖p‖²` less twice that. The sums are `f32`, for vectors of about unit length. If the
//! points lie far from the origin compared with their distances, subtract their mean first. Numbers
//! that are not finite count as zero.

use rayon::prelude::*;

/// Samples that lie side by side in a panel: two SSE registers.
const LANES: usize = 8;
/// Points that are compared with a panel at once; `ROWS` × `LANES` sums fill 8 of SSE's 16
/// registers.
const ROWS: usize = 4;
/// Groups of `ROWS` points that share one pass over the panels, so that a panel is fetched into the
/// nearest cache only once for all of them.
const GROUPS: usize = 16;

/// Samples packed for the search.
pub(crate) struct NearestSample {
    dimensions: usize,
    count: usize,
    /// [count / LANES, dimensions], each an array of `LANES` samples' numbers. The last panel is
    /// filled up with zeros.
    panels: Vec<[f32; LANES]>,
    /// `−‖s‖²/2` of each sample; minus infinity for the zeros that fill up the last panel.
    offsets: Vec<[f32; LANES]>,
}

impl NearestSample {
    /// Packs `samples`, [N, dimensions], row-major; `dimensions` is at least 1.
    pub(crate) fn new(samples: &[f32], dimensions: usize) -> Self {
        let count = samples.len() / dimensions;
        let panel_count = count.div_ceil(LANES);
        let mut panels = vec![[0.0; LANES]; panel_count * dimensions];
        let mut offsets = vec![[f32::NEG_INFINITY; LANES]; panel_count];
        for (index, sample) in samples.chunks_exact(dimensions).enumerate() {
            let (panel, lane) = (index / LANES, index % LANES);
            let mut square = 0.0;
            for (dimension, &value) in sample.iter().enumerate() {
                let value = finite(value);
                panels[panel * dimensions + dimension][lane] = value;
                square += value * value;
            }
            offsets[panel][lane] = -0.5 * square;
        }
        Self { dimensions, count, panels, offsets }
    }

    /// For each of `points`, [M, dimensions], the index of the nearest sample; the lowest index if
    /// several are equally near. Without samples all are 0. Runs on rayon's threads.
    pub(crate) fn nearest(&self, points: &[f32]) -> Vec<u32> {
        let mut nearest = vec![0; points.len() / self.dimensions];
        nearest
            .par_chunks_mut(GROUPS * ROWS)
            .zip(points.par_chunks(GROUPS * ROWS * self.dimensions))
            .for_each(|(nearest, points)| self.nearest_of_block(points, nearest));
        nearest
    }

    fn nearest_of_block(&self, points: &[f32], nearest: &mut [u32]) {
        let groups: Vec<Vec<[f32; ROWS]>> =
            points.chunks(ROWS * self.dimensions).map(|group| self.interleave(group)).collect();
        // Each lane keeps its own best, so that lanes are compared only at the end.
        let mut best = [[[f32::NEG_INFINITY; LANES]; ROWS]; GROUPS];
        let mut best_panel = [[[0u32; LANES]; ROWS]; GROUPS];
        for (index, (panel, offsets)) in self.panels_with_offsets().enumerate() {
            for (group, rows) in groups.iter().enumerate() {
                let sums = closeness(rows, panel, *offsets);
                for row in 0..ROWS {
                    for lane in 0..LANES {
                        let better = sums[row][lane] > best[group][row][lane];
                        let panel = best_panel[group][row][lane];
                        best_panel[group][row][lane] = if better { index as u32 } else { panel };
                        let closest = best[group][row][lane];
                        best[group][row][lane] = if better { sums[row][lane] } else { closest };
                    }
                }
            }
        }
        for (point, nearest) in nearest.iter_mut().enumerate() {
            let (group, row) = (point / ROWS, point % ROWS);
            let lanes = (0..LANES).map(|lane| {
                let sample = best_panel[group][row][lane] * LANES as u32 + lane as u32;
                (best[group][row][lane], sample)
            });
            let closest = lanes.min_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
            *nearest = closest.map_or(0, |(_, sample)| sample);
        }
    }

    /// For each sample, the indices of the `neighbours` nearest other samples, nearest first; the
    /// lower index first if two are equally near. Returns [N, min(neighbours, N − 1)].
    ///
    /// `samples` are those that were packed. Runs on rayon's threads.
    pub(crate) fn neighbours(&self, samples: &[f32], neighbours: usize) -> Vec<u32> {
        self.closest(samples, neighbours.min(self.count.saturating_sub(1)), Some)
    }

    /// For each of `points`, [M, dimensions], the indices of the `several` nearest samples, as
    /// [`Self::neighbours`] orders them. Returns [M, min(several, N)].
    pub(crate) fn nearest_several(&self, points: &[f32], several: usize) -> Vec<u32> {
        self.closest(points, several.min(self.count), |_| None)
    }

    /// The `several` samples that are closest to each point, without the one that `itself` names.
    fn closest(
        &self,
        points: &[f32],
        several: usize,
        itself: impl Fn(usize) -> Option<usize> + Sync,
    ) -> Vec<u32> {
        if several == 0 {
            return Vec::new();
        }
        let mut all = vec![0; points.len() / self.dimensions * several];
        all.par_chunks_mut(ROWS * several)
            .zip(points.par_chunks(ROWS * self.dimensions))
            .enumerate()
            .for_each(|(group, (all, points))| {
                let rows = self.interleave(points);
                let sums: Vec<[[f32; LANES]; ROWS]> = self
                    .panels_with_offsets()
                    .map(|(panel, offsets)| closeness(&rows, panel, *offsets))
                    .collect();
                for (row, chosen) in all.chunks_exact_mut(several).enumerate() {
                    let itself = itself(group * ROWS + row);
                    let mut candidates: Vec<(f32, u32)> = (0..self.count)
                        .filter(|&index| Some(index) != itself)
                        .map(|index| (sums[index / LANES][row][index % LANES], index as u32))
                        .collect();
                    let nearer =
                        |a: &(f32, u32), b: &(f32, u32)| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1));
                    candidates.select_nth_unstable_by(several - 1, nearer);
                    candidates.truncate(several);
                    candidates.sort_unstable_by(nearer);
                    for (chosen, (_, index)) in chosen.iter_mut().zip(candidates) {
                        *chosen = index;
                    }
                }
            });
        all
    }

    fn panels_with_offsets(&self) -> impl Iterator<Item = (&[[f32; LANES]], &[f32; LANES])> {
        self.panels.chunks_exact(self.dimensions).zip(&self.offsets)
    }

    /// Up to `ROWS` points as [dimensions] arrays of `ROWS` numbers; missing points are zeros.
    fn interleave(&self, points: &[f32]) -> Vec<[f32; ROWS]> {
        let mut rows = vec![[0.0; ROWS]; self.dimensions];
        for (row, point) in points.chunks_exact(self.dimensions).enumerate() {
            for (to, &value) in rows.iter_mut().zip(point) {
                to[row] = finite(value);
            }
        }
        rows
    }
}

/// The number itself, or 0 if it is not finite.
fn finite(value: f32) -> f32 {
    if value.is_finite() { value } else { 0.0 }
}

/// `p·s − ‖s‖²/2` of `ROWS` points `p` and the samples `s` of one panel.
#[inline]
fn closeness(
    rows: &[[f32; ROWS]],
    panel: &[[f32; LANES]],
    offsets: [f32; LANES],
) -> [[f32; LANES]; ROWS] {
    let mut sums = [offsets; ROWS];
    for (points, samples) in rows.iter().zip(panel) {
        for row in 0..ROWS {
            for lane in 0..LANES {
                sums[row][lane] += points[row] * samples[lane];
            }
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};
    use rand_pcg::Pcg64;

    use super::*;

    fn random(count: usize, dimensions: usize, seed: u64) -> Vec<f32> {
        let mut random = Pcg64::seed_from_u64(seed);
        (0..count * dimensions).map(|_| random.random_range(-1.0..1.0)).collect()
    }

    fn by_distance(point: &[f32], samples: &[f32], dimensions: usize) -> Vec<(f64, usize)> {
        let mut all: Vec<(f64, usize)> = samples
            .chunks_exact(dimensions)
            .map(|sample| point.iter().zip(sample).map(|(a, b)| f64::from(a - b).powi(2)).sum())
            .enumerate()
            .map(|(index, distance)| (distance, index))
            .collect();
        all.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        all
    }

    #[test]
    fn nearest_is_that_of_an_exhaustive_search() {
        for (count, dimensions) in [(1, 1), (7, 3), (8, 49), (100, 49), (203, 5)] {
            let samples = random(count, dimensions, 1);
            let points = random(150, dimensions, 2);
            let found = NearestSample::new(&samples, dimensions).nearest(&points);
            for (point, found) in points.chunks_exact(dimensions).zip(found) {
                let all = by_distance(point, &samples, dimensions);
                let distance = all.iter().find(|(_, index)| *index == found as usize).unwrap().0;
                assert!(distance <= all[0].0 + 1e-5, "{distance} is not {:?}", all[0]);
            }
        }
    }

    #[test]
    fn neighbours_are_those_of_an_exhaustive_search() {
        let samples = random(101, 6, 3);
        let found = NearestSample::new(&samples, 6).neighbours(&samples, 9);
        for (index, (point, found)) in
            samples.chunks_exact(6).zip(found.chunks_exact(9)).enumerate()
        {
            let all = by_distance(point, &samples, 6);
            let expected: Vec<u32> =
                all.iter().filter(|a| a.1 != index).take(9).map(|a| a.1 as u32).collect();
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn the_several_nearest_are_those_of_an_exhaustive_search() {
        let (samples, points) = (random(77, 5, 4), random(30, 5, 5));
        let found = NearestSample::new(&samples, 5).nearest_several(&points, 3);
        for (point, found) in points.chunks_exact(5).zip(found.chunks_exact(3)) {
            let expected: Vec<u32> =
                by_distance(point, &samples, 5).iter().take(3).map(|a| a.1 as u32).collect();
            assert_eq!(found, expected);
        }
        assert_eq!(NearestSample::new(&[1.0], 1).nearest_several(&[0.0, 2.0], 3), [0, 0]);
    }

    #[test]
    fn equal_samples_come_in_the_order_of_their_indices() {
        let samples = vec![0.3; 20 * 4];
        let packed = NearestSample::new(&samples, 4);
        assert_eq!(packed.neighbours(&samples, 2)[..6], [1, 2, 0, 2, 0, 1]);
        assert_eq!(packed.nearest(&samples), [0; 20]);
    }

    #[test]
    fn few_samples_give_few_neighbours() {
        let none = NearestSample::new(&[], 3);
        assert_eq!(none.nearest(&[1.0; 6]), [0, 0]);
        assert!(none.neighbours(&[], 5).is_empty());
        let one = NearestSample::new(&[1.0; 3], 3);
        assert!(one.neighbours(&[1.0; 3], 5).is_empty());
        let two = NearestSample::new(&[1.0; 6], 3);
        assert_eq!(two.neighbours(&[1.0; 6], 5), [1, 0]);
    }

    #[test]
    fn what_is_not_a_number_counts_as_zero() {
        let packed = NearestSample::new(&[f32::NAN, 0.0, 5.0, 5.0], 2);
        assert_eq!(packed.nearest(&[0.1, f32::INFINITY, 4.0, 5.0]), [0, 1]);
    }
}
