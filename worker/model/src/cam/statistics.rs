//! Numbers that describe a heat map and can be compared across images and layers.

use camshaft_vision::heat_map::HeatMap;

/// Numbers that describe a heat map.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MapStatistics {
    /// Largest value.
    pub max: f32,
    /// Sum of the values.
    pub mass: f32,
    /// Entropy of the map as a distribution, divided by ln(cells), 0 to 1: 0 for a single
    /// cell, 1 for a flat map. 0 if the map is all zero or has one cell only.
    pub entropy: f32,
    /// Centre of mass (x, y), 0 to 1 from the left and top edge, a cell's mass at its
    /// centre. The map's middle if the map is all zero.
    pub centroid: [f32; 2],
    /// Share of the mass in the outermost ring of cells, 0 to 1. 0 if the map is all zero.
    pub border_share: f32,
}

impl MapStatistics {
    /// Of a map whose values are finite and zero or more.
    #[must_use]
    pub fn of(map: &HeatMap) -> Self {
        let max = map.values.iter().copied().fold(0.0, f32::max);
        // f64, so that rounding doesn't depend on the order of the cells.
        let mass: f64 = map.values.iter().copied().map(f64::from).sum();
        if mass <= 0.0 {
            let centroid = [0.5, 0.5];
            return Self { max, mass: 0.0, entropy: 0.0, centroid, border_share: 0.0 };
        }
        let (mut entropy, mut x, mut y, mut border) = (0.0, 0.0, 0.0, 0.0);
        for (index, &value) in map.values.iter().enumerate() {
            let share = f64::from(value) / mass;
            if share == 0.0 {
                continue;
            }
            let (row, column) = (index / map.width, index % map.width);
            entropy -= share * share.ln();
            x += share * (column as f64 + 0.5) / map.width as f64;
            y += share * (row as f64 + 0.5) / map.height as f64;
            if row == 0 || column == 0 || row + 1 == map.height || column + 1 == map.width {
                border += share;
            }
        }
        let cells = map.values.len() as f64;
        let entropy = if cells > 1.0 { entropy / cells.ln() } else { 0.0 };
        Self {
            max,
            mass: mass as f32,
            entropy: entropy.clamp(0.0, 1.0) as f32,
            centroid: [x as f32, y as f32],
            border_share: border.min(1.0) as f32,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statistics(height: usize, width: usize, values: &[f32]) -> MapStatistics {
        MapStatistics::of(&HeatMap { height, width, values: values.to_vec() })
    }

    fn assert_close(actual: f32, expected: f32) {
        assert!((actual - expected).abs() < 1e-6, "{actual} is not {expected}");
    }

    #[test]
    fn a_flat_map_is_spread_evenly() {
        let flat = statistics(4, 4, &[0.25; 16]);
        assert_close(flat.max, 0.25);
        assert_close(flat.mass, 4.0);
        assert_close(flat.entropy, 1.0);
        assert_eq!(flat.centroid, [0.5, 0.5]);
        assert_close(flat.border_share, 12.0 / 16.0);
    }

    #[test]
    fn a_single_cell_is_where_it_is() {
        // Second row, third column of 3 × 4.
        let mut values = [0.0; 12];
        values[6] = 3.0;
        let single = statistics(3, 4, &values);
        assert_eq!((single.max, single.mass, single.entropy), (3.0, 3.0, 0.0));
        assert_eq!(single.centroid, [0.625, 0.5]);
        assert_eq!(single.border_share, 0.0);
    }

    #[test]
    fn uneven_mass_by_hand() {
        // Shares 3/4 in the middle, 1/4 in the lower right corner of 3 × 3.
        let map = statistics(3, 3, &[0.0, 0.0, 0.0, 0.0, 3.0, 0.0, 0.0, 0.0, 1.0]);
        assert_close(map.entropy, (0.75 * (4.0f32 / 3.0).ln() + 0.25 * 4.0f32.ln()) / 9.0f32.ln());
        let middle = 0.75 * 0.5 + 0.25 * 2.5 / 3.0;
        assert_close(map.centroid[0], middle);
        assert_close(map.centroid[1], middle);
        assert_close(map.border_share, 0.25);
    }

    #[test]
    fn nothing_divides_by_zero() {
        let none = statistics(7, 7, &[0.0; 49]);
        assert_eq!((none.max, none.mass, none.entropy, none.border_share), (0.0, 0.0, 0.0, 0.0));
        assert_eq!(none.centroid, [0.5, 0.5]);
        let one = statistics(1, 1, &[2.0]);
        assert_eq!((one.max, one.mass, one.entropy, one.border_share), (2.0, 2.0, 0.0, 1.0));
        assert_eq!(one.centroid, [0.5, 0.5]);
    }
}
