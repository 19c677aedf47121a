//! Maps as distributions over 7 × 7 cells, the form in which searches compare them.
//!
//! Owns the scaling, the distance and the regions of a map, not what counts as odd.
//!
//! Maps are compared by the Hellinger distance, which says how differently attention is spread and
//! ignores how strong it is. It is the Euclidean distance of the square roots of two distributions,
//! divided by √2: 0 for equal distributions, 1 for distributions that share no cell.

use crate::table::{TableError, TableReader};

/// Rows and columns of a distribution, whatever the size of the map.
pub(crate) const SIDE: usize = 7;
/// Cells of a distribution.
pub(crate) const CELLS: usize = SIDE * SIDE;

/// A map scaled to [`SIDE`] × [`SIDE`] cells, row by row, with a sum of 1.
pub(crate) type MapDistribution = [f32; CELLS];

/// The first map of each row of a row group; none if it is absent or zero everywhere.
pub(crate) fn read(
    table: &TableReader,
    group: usize,
) -> Result<Vec<Option<MapDistribution>>, TableError> {
    let maps = table.float_lists(group, "map")?;
    let (heights, widths) =
        (table.integers(group, "map_height")?, table.integers(group, "map_width")?);
    let sides = heights.iter().zip(&widths);
    let maps = maps.iter().zip(sides).map(|(values, (height, width))| {
        let side = |side: &Option<i64>| side.and_then(|side| usize::try_from(side).ok());
        distribution(values, side(height)?, side(width)?)
    });
    Ok(maps.collect())
}

/// Averages over the part of the map that each cell covers; none if the map is zero everywhere.
pub(crate) fn distribution(values: &[f32], height: usize, width: usize) -> Option<MapDistribution> {
    if height == 0 || width == 0 || values.len() != height * width {
        return None;
    }
    let mut cells = [0.0_f32; CELLS];
    if (height, width) == (SIDE, SIDE) {
        cells.copy_from_slice(values);
    } else {
        let columns: [_; SIDE] = std::array::from_fn(|column| overlap(column, width));
        for row in 0..SIDE {
            for (y, part_y) in overlap(row, height) {
                for column in 0..SIDE {
                    for &(x, part_x) in &columns[column] {
                        cells[row * SIDE + column] += values[y * width + x] * part_y * part_x;
                    }
                }
            }
        }
    }
    let mass: f32 = cells.iter().sum();
    if !(mass > 0.0 && mass.is_finite()) {
        return None;
    }
    cells.iter_mut().for_each(|cell| *cell /= mass);
    Some(cells)
}

/// The rows or columns of the map that a cell covers, each with the share of it that is covered.
fn overlap(cell: usize, side: usize) -> Vec<(usize, f32)> {
    let scale = side as f32 / SIDE as f32;
    let (from, to) = (cell as f32 * scale, (cell + 1) as f32 * scale);
    let covered = |source: usize| to.min((source + 1) as f32) - from.max(source as f32);
    let last = (to.ceil() as usize).min(side);
    (from as usize..last).map(|source| (source, covered(source))).collect()
}

/// The square roots of a distribution, between which distances are computed.
pub(crate) fn square_roots(map: &MapDistribution) -> [f32; CELLS] {
    map.map(f32::sqrt)
}

/// The Hellinger distance of two distributions, by their [square roots](square_roots): 0 to 1.
pub(crate) fn hellinger(one: &[f32; CELLS], other: &[f32; CELLS]) -> f32 {
    let squared: f32 = one.iter().zip(other).map(|(a, b)| (a - b) * (a - b)).sum();
    (squared / 2.0).sqrt()
}

/// A part of a map: a corner, an edge or the whole border.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MapRegion {
    TopLeft,
    TopRight,
    BottomLeft,
    BottomRight,
    Border,
    Left,
    Right,
    Top,
    Bottom,
}

impl MapRegion {
    /// The four corners.
    pub(crate) const CORNERS: [Self; 4] =
        [Self::TopLeft, Self::TopRight, Self::BottomLeft, Self::BottomRight];
    /// The four edges.
    pub(crate) const EDGES: [Self; 4] = [Self::Left, Self::Right, Self::Top, Self::Bottom];
    /// Every region.
    pub(crate) const ALL: [Self; 9] = [
        Self::TopLeft,
        Self::TopRight,
        Self::BottomLeft,
        Self::BottomRight,
        Self::Border,
        Self::Left,
        Self::Right,
        Self::Top,
        Self::Bottom,
    ];

    /// The region in words.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::TopLeft => "top left corner",
            Self::TopRight => "top right corner",
            Self::BottomLeft => "bottom left corner",
            Self::BottomRight => "bottom right corner",
            Self::Border => "border",
            Self::Left => "left edge",
            Self::Right => "right edge",
            Self::Top => "top edge",
            Self::Bottom => "bottom edge",
        }
    }

    /// Whether a cell belongs to the region. Corners have 2 × 2 cells, edges are 2 cells wide, the
    /// border 1 cell.
    fn contains(self, row: usize, column: usize) -> bool {
        let (top, bottom) = (row < 2, row + 2 >= SIDE);
        let (left, right) = (column < 2, column + 2 >= SIDE);
        match self {
            Self::TopLeft => top && left,
            Self::TopRight => top && right,
            Self::BottomLeft => bottom && left,
            Self::BottomRight => bottom && right,
            Self::Border => row == 0 || column == 0 || row + 1 == SIDE || column + 1 == SIDE,
            Self::Left => left,
            Self::Right => right,
            Self::Top => top,
            Self::Bottom => bottom,
        }
    }

    /// Left, top, right and bottom edge of a corner as shares of the map; none for other regions.
    pub(crate) fn corner_edges(self) -> Option<[f32; 4]> {
        let (near, far) = (2.0 / SIDE as f32, 1.0 - 2.0 / SIDE as f32);
        Some(match self {
            Self::TopLeft => [0.0, 0.0, near, near],
            Self::TopRight => [far, 0.0, 1.0, near],
            Self::BottomLeft => [0.0, far, near, 1.0],
            Self::BottomRight => [far, far, 1.0, 1.0],
            Self::Border | Self::Left | Self::Right | Self::Top | Self::Bottom => return None,
        })
    }

    /// The share of a map's attention that lies in the region.
    pub(crate) fn share(self, map: &MapDistribution) -> f32 {
        let inside = (0..CELLS).filter(|cell| self.contains(cell / SIDE, cell % SIDE));
        inside.map(|cell| map[cell]).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_of_any_size_become_distributions_of_one() {
        for (height, width) in [(7, 7), (14, 14), (28, 28), (1, 1), (4, 10), (9, 5)] {
            let map = distribution(&vec![0.3; height * width], height, width).unwrap();
            assert!(map.iter().all(|cell| (cell - 1.0 / 49.0).abs() < 1e-6), "{height} {width}");
        }
        assert_eq!(distribution(&[0.0; 49], 7, 7), None);
        let mut values = vec![0.0; 14 * 14];
        values[13 * 14 + 13] = 4.0;
        let map = distribution(&values, 14, 14).unwrap();
        assert_eq!(map[48], 1.0);
        assert_eq!(MapRegion::BottomRight.share(&map), 1.0);
        assert_eq!(MapRegion::TopLeft.share(&map), 0.0);
        assert_eq!(MapRegion::Border.share(&map), 1.0);
    }
}
