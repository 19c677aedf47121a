//! The heat map of a layer: how much each place of the image speaks for a class.
//!
//! Owns the map's values and the fusion of several maps. Does not compute maps from a network, and
//! does not draw them. Upstream: the CAM methods of `camshaft-model`. Downstream:
//! [`overlay`](crate::overlay).

/// A rectified map at the target layer's own resolution. It is not scaled, so that the values of
/// several images can be compared.
#[derive(Clone, Debug, PartialEq)]
pub struct HeatMap {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// Zero or more, row by row.
    pub values: Vec<f32>,
}

impl HeatMap {
    /// True if every value is finite. Maps of a network that overflows are not; they must not be
    /// drawn.
    #[must_use]
    pub fn is_finite(&self) -> bool {
        self.values.iter().all(|value| value.is_finite())
    }

    /// Fuses the maps of several layers into one: the mean of the maps, each divided by its maximum
    /// and stretched to the height and width of the largest one. pytorch-grad-cam's
    /// `aggregate_multi_layers` does the same, but at the image's resolution.
    ///
    /// # Panics
    /// If there is no map.
    ///
    /// ```
    /// use camshaft_vision::heat_map::HeatMap;
    ///
    /// let coarse = HeatMap { height: 1, width: 1, values: vec![4.0] };
    /// let fine = HeatMap { height: 1, width: 2, values: vec![0.0, 8.0] };
    /// assert_eq!(HeatMap::fused(&[coarse, fine]).values, [0.5, 1.0]);
    /// ```
    #[must_use]
    pub fn fused(maps: &[Self]) -> Self {
        let largest = maps.iter().max_by_key(|map| map.values.len()).expect("there is a map");
        let (height, width) = (largest.height, largest.width);
        let mut values = vec![0.0; height * width];
        for map in maps {
            let max = map.values.iter().copied().fold(0.0, f32::max);
            // A map of zeros counts too: it lowers the mean.
            let scale = if max > 0.0 { 1.0 / (max * maps.len() as f32) } else { 0.0 };
            for (sum, value) in values.iter_mut().zip(map.stretched(height, width)) {
                *sum += scale * value;
            }
        }
        Self { height, width, values }
    }

    /// Stretches the map to another size: bilinear between the centres of its cells, constant
    /// beyond the outermost centres.
    fn stretched(&self, height: usize, width: usize) -> Vec<f32> {
        let place = |at: usize, to: usize, from: usize| {
            let centre = (at as f32 + 0.5) * from as f32 / to as f32 - 0.5;
            let centre = centre.clamp(0.0, (from - 1) as f32);
            let first = centre as usize;
            (first, (first + 1).min(from - 1), centre - first as f32)
        };
        let mut values = Vec::with_capacity(height * width);
        for y in 0..height {
            let (top, bottom, down) = place(y, height, self.height);
            for x in 0..width {
                let (left, right, across) = place(x, width, self.width);
                let at = |y: usize, x: usize| self.values[y * self.width + x];
                let row = |y: usize| at(y, left) + (at(y, right) - at(y, left)) * across;
                values.push(row(top) + (row(bottom) - row(top)) * down);
            }
        }
        values
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fusing_is_the_mean_of_scaled_maps_at_the_finest_size() {
        let coarse = HeatMap { height: 1, width: 1, values: vec![4.0] };
        let fine = HeatMap { height: 1, width: 2, values: vec![0.0, 8.0] };
        let zero = HeatMap { height: 1, width: 1, values: vec![0.0] };
        let fused = HeatMap::fused(&[coarse.clone(), fine.clone()]);
        assert_eq!(fused, HeatMap { height: 1, width: 2, values: vec![0.5, 1.0] });
        assert_eq!(HeatMap::fused(&[zero.clone(), fine]).values, [0.0, 0.5]);
        assert_eq!(HeatMap::fused(&[zero]).values, [0.0]);
        // One map is only scaled.
        assert_eq!(HeatMap::fused(&[coarse]).values, [1.0]);
    }

    #[test]
    fn stretching_is_bilinear_between_centres() {
        let map = HeatMap { height: 1, width: 2, values: vec![0.0, 1.0] };
        assert_eq!(map.stretched(1, 4), [0.0, 0.25, 0.75, 1.0]);
        assert_eq!(map.stretched(2, 2), [0.0, 1.0, 0.0, 1.0]);
    }
}
