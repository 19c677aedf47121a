//! The maps of an image for the predicted and for the given class, on one scale, so that the page can
//! draw them over the picture and show how much speaks for each.
//!
//! Owns their reading and their short form. An overlay file scales its map by the map's own maximum:
//! there, a class of hardly any probability glows as red as a certain one. Upstream: the columns `map`
//! and `label_map`. Downstream: the page.

use serde::Serialize;

use crate::table::{ListColumn, TableError, TableReader};

/// One map, or two of one size.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct ClassMaps {
    /// Rows.
    pub(crate) height: usize,
    /// Columns.
    pub(crate) width: usize,
    /// The map of the predicted class, row by row: two hexadecimal digits a cell, 255 for the largest
    /// value of both maps.
    pub(crate) predicted: String,
    /// The map of the given class, in the same way; none if that is the same class, or if it has no map
    /// of this size.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) given: Option<String>,
    /// The part of the image that the maps cover: left, top, right and bottom as shares of its sides;
    /// none if that is all of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) region: Option<[f32; 4]>,
}

impl ClassMaps {
    /// None if the map of the predicted class has another size or no cell, or if all is zero.
    fn new(
        (height, width): (usize, usize),
        predicted: &[f32],
        given: &[f32],
        region: &[f32],
    ) -> Option<Self> {
        let cells = height.checked_mul(width)?;
        if predicted.len() != cells {
            return None;
        }
        let given = Some(given).filter(|given| given.len() == cells);
        let both = predicted.iter().chain(given.into_iter().flatten());
        let most = both.copied().fold(0.0, f32::max);
        let short = |values: &[f32]| -> String {
            let level = |value: &f32| (value / most * 255.0).round().clamp(0.0, 255.0) as u8;
            values.iter().map(|value| format!("{:02x}", level(value))).collect()
        };
        (most > 0.0).then(|| Self {
            height,
            width,
            predicted: short(predicted),
            given: given.map(short),
            region: region.try_into().ok(),
        })
    }
}

/// The columns of a row group that [`ClassMaps`] are made of.
pub(super) struct ClassMapColumns {
    heights: Vec<Option<i64>>,
    widths: Vec<Option<i64>>,
    maps: ListColumn<f32>,
    given: ListColumn<f32>,
    regions: ListColumn<f32>,
}

impl ClassMapColumns {
    pub(super) fn read(table: &TableReader, group: usize) -> Result<Self, TableError> {
        Ok(Self {
            heights: table.integers(group, "map_height")?,
            widths: table.integers(group, "map_width")?,
            maps: table.float_lists(group, "map")?,
            given: table.float_lists(group, "label_map")?,
            regions: table.float_lists(group, "region")?,
        })
    }

    /// The maps of the row at this position of the group; none unless it has that of the prediction.
    pub(super) fn of_row(&self, at: usize) -> Option<ClassMaps> {
        let side = |sides: &[Option<i64>]| usize::try_from(sides[at]?).ok();
        let size = (side(&self.heights)?, side(&self.widths)?);
        ClassMaps::new(size, self.maps.get(at), self.given.get(at), self.regions.get(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_maps_share_the_scale_of_the_larger_one() {
        let maps = ClassMaps::new((1, 2), &[4.0, 2.0], &[0.0, 0.1], &[]).unwrap();
        assert_eq!((&*maps.predicted, maps.given.as_deref()), ("ff80", Some("0006")));
        assert_eq!(maps.region, None);
        let maps = ClassMaps::new((1, 1), &[0.0], &[1.0], &[0.1, 0.0, 0.9, 1.0]).unwrap();
        assert_eq!((&*maps.predicted, maps.region), ("00", Some([0.1, 0.0, 0.9, 1.0])));
    }

    #[test]
    fn maps_that_do_not_compare_are_left_out() {
        for given in [&[][..], &[1.0]] {
            let maps = ClassMaps::new((1, 2), &[1.0, 2.0], given, &[]).unwrap();
            assert_eq!((&*maps.predicted, maps.given), ("80ff", None));
        }
        assert_eq!(ClassMaps::new((1, 2), &[1.0], &[1.0, 2.0], &[]), None);
        assert_eq!(ClassMaps::new((1, 1), &[0.0], &[0.0], &[]), None);
    }
}
