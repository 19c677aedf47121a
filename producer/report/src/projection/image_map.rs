//! The map of all images, from their sketches.
//!
//! A layout takes time, so only a sample is laid out, chosen by hashes of the keys: a larger sample holds
//! every smaller one. Other images are placed among their neighbours in the sample. In very large runs they
//! are left out, since a screen shows no more points anyway.

use crate::findings::{SmallestHashes, hash_of};
use crate::learning::Projection;
use crate::predictions::sketches::{CentredSketches, SketchVector};
use crate::similarity::nearest_neighbours::NearestSample;
use crate::table::{TableError, TableReader};

use super::layout::lay_out;
use super::neighbour_graph::distance;

/// The most images that are laid out.
const MOST_LAID_OUT: usize = 20_000;
/// The most images that are placed on a map at all, unless they are laid out.
const MOST_PLACED: usize = 100_000;
/// Fewer images are no map.
const FEWEST: usize = 5;
/// Numbers of a sketch after projection: sketches are projections of chance, and hold little beyond these.
const AXES: usize = 48;
/// Neighbours in the sample among which an image is placed.
const PLACED_AMONG: usize = 5;
/// The coordinates of an image that is not on the map.
pub(crate) const NOWHERE: [u16; 2] = [u16::MAX; 2];

/// Where images are on the map.
#[derive(Debug)]
pub(crate) struct ImageMap {
    /// By row. The longer side of the map is 0 to 65,534; [`NOWHERE`] for an image that is not on it.
    pub(crate) points: Vec<[u16; 2]>,
}

impl ImageMap {
    /// Lays out the images of a table; none if too few of them have sketches.
    pub(crate) fn read(table: &TableReader) -> Result<Option<Self>, TableError> {
        Self::of_sample(table, MOST_LAID_OUT, MOST_PLACED)
    }

    fn of_sample(
        table: &TableReader,
        most_laid_out: usize,
        most_placed: usize,
    ) -> Result<Option<Self>, TableError> {
        let Some(sketches) = CentredSketches::new(table)? else { return Ok(None) };
        let (mut sample, mut count, mut start) = (SmallestHashes::new(most_laid_out), 0, 0);
        for group in 0..table.groups() {
            let points = sketches.of_group(table, group)?;
            let keys = table.texts(group, "key")?;
            for (at, (point, key)) in points.iter().zip(&keys).enumerate() {
                if let (Some(_), Some(key)) = (point, key) {
                    sample.add(hash_of(key), row_number(start + at));
                    count += 1;
                }
            }
            start += points.len();
        }
        if count < FEWEST {
            return Ok(None);
        }
        let rows: Vec<u32> = sample.into_rows().into_iter().map(|(_, row)| row).collect();
        let by_row = sketches.of_rows(table, &rows.iter().copied().collect())?;
        let vectors: Vec<f32> = rows.iter().flat_map(|row| unit(&by_row[row])).collect();
        drop(by_row);
        let projection = Projection::of_sample(&vectors, size_of_sketch(), AXES);
        let sampled = Sample { points: projection.project(&vectors), projection };
        let plane = lay_out(&sampled.points, AXES);
        let mut places = vec![None; start];
        if count > rows.len() && count <= most_placed {
            let nearest = NearestSample::new(&sampled.points, AXES);
            let mut start = 0;
            for group in 0..table.groups() {
                let points = sketches.of_group(table, group)?;
                let with: Vec<usize> =
                    (0..points.len()).filter(|&at| points[at].is_some()).collect();
                let found = sampled.place(points.iter().flatten(), &nearest, &plane);
                for (at, place) in with.into_iter().zip(found) {
                    places[start + at] = Some(place);
                }
                start += points.len();
            }
        }
        for (row, place) in rows.iter().zip(plane) {
            places[*row as usize] = Some(place);
        }
        Ok(Some(Self { points: coordinates(&places) }))
    }
}

/// The images that are laid out.
struct Sample {
    projection: Projection,
    /// [N, AXES].
    points: Vec<f32>,
}

impl Sample {
    /// Places images at the mean of their neighbours, the nearer the more.
    fn place<'a>(
        &self,
        sketches: impl Iterator<Item = &'a SketchVector>,
        nearest: &NearestSample,
        plane: &[[f32; 2]],
    ) -> Vec<[f32; 2]> {
        let vectors: Vec<f32> = sketches.flat_map(unit).collect();
        let points = self.projection.project(&vectors);
        let found = nearest.nearest_several(&points, PLACED_AMONG);
        let among = PLACED_AMONG.min(plane.len());
        let pairs = points.chunks_exact(AXES).zip(found.chunks_exact(among));
        let place = |(point, near): (&[f32], &[u32])| {
            let (mut sums, mut weights) = ([0.0; 2], 0.0);
            for &at in near {
                let at = at as usize;
                let weight = 1.0 / (1e-3 + distance(point, &self.points[at * AXES..][..AXES]));
                weights += weight;
                for (sum, value) in sums.iter_mut().zip(plane[at]) {
                    *sum += weight * value;
                }
            }
            sums.map(|sum| sum / weights)
        };
        pairs.map(place).collect()
    }
}

const fn size_of_sketch() -> usize {
    size_of::<SketchVector>() / size_of::<f32>()
}

/// The vector with length 1: the distance of two such vectors tells the angle between them. Zeros stay.
fn unit(vector: &SketchVector) -> SketchVector {
    let length = vector.iter().map(|value| value * value).sum::<f32>().sqrt();
    let scale = if length > 0.0 { 1.0 / length } else { 0.0 };
    vector.map(|value| value * scale)
}

fn row_number(row: usize) -> u32 {
    u32::try_from(row).expect("a table has fewer than four billion rows")
}

/// Places as whole numbers, with the same scale on both sides.
fn coordinates(places: &[Option<[f32; 2]>]) -> Vec<[u16; 2]> {
    let mut ends = [[f32::MAX, f32::MIN]; 2];
    for place in places.iter().flatten() {
        for (end, value) in ends.iter_mut().zip(place) {
            *end = [end[0].min(*value), end[1].max(*value)];
        }
    }
    let longer = ends.iter().map(|[low, high]| high - low).fold(f32::MIN_POSITIVE, f32::max);
    let scale = f32::from(u16::MAX - 1) / longer;
    let whole = |side: usize, value: f32| ((value - ends[side][0]) * scale).round() as u16;
    let places = places.iter().map(|place| match place {
        Some([x, y]) => [whole(0, *x), whole(1, *y)],
        None => NOWHERE,
    });
    places.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::predictions::{COLUMNS, ImageRow, RowPrediction, SketchBytes};
    use crate::table::table_of;

    /// Images of two kinds in turn, every ninth without a sketch.
    fn table(count: usize) -> TableReader {
        let rows = (0..count).map(|at| {
            let number = |place: usize| {
                let kind = if place.is_multiple_of(2) == at.is_multiple_of(2) { 90 } else { 0 };
                let noise = ((at * 7919 + place * 10_007) as u32).wrapping_mul(0x9E37_79B1) >> 16;
                kind + (noise % 23) as u8
            };
            let numbers = (0..size_of_sketch()).map(number).collect();
            let sketch = (at % 9 != 8).then_some(SketchBytes { scale: 0.1, numbers });
            let predicted = Some(RowPrediction { sketch, ..RowPrediction::default() });
            ImageRow { key: format!("{at:04}.jpg"), predicted, ..ImageRow::default() }
        });
        table_of(rows, COLUMNS)
    }

    fn distance_squared(one: [u16; 2], other: [u16; 2]) -> f64 {
        let side = |at: usize| (f64::from(one[at]) - f64::from(other[at])).powi(2);
        side(0) + side(1)
    }

    #[test]
    fn alike_images_lie_together_and_those_without_a_sketch_nowhere() {
        let table = table(300);
        let map = ImageMap::read(&table).unwrap().unwrap();
        let again = ImageMap::read(&table).unwrap().unwrap();
        assert_eq!(map.points, again.points);
        assert_eq!(map.points[8], NOWHERE);
        assert!(map.points.iter().flatten().any(|&value| value == u16::MAX - 1));
        for at in [0, 1, 20, 30] {
            let own = distance_squared(map.points[at], map.points[at + 2]);
            let other = distance_squared(map.points[at], map.points[at + 1]);
            assert!(own < other, "{at}: {own} {other}");
        }
    }

    #[test]
    fn images_outside_of_the_sample_lie_among_their_like_or_nowhere() {
        let table = table(300);
        let map = ImageMap::of_sample(&table, 60, 1000).unwrap().unwrap();
        let placed = |map: &ImageMap| map.points.iter().filter(|point| **point != NOWHERE).count();
        assert_eq!(placed(&map), 267);
        for at in [0, 1, 20, 30] {
            let own = distance_squared(map.points[at], map.points[at + 2]);
            let other = distance_squared(map.points[at], map.points[at + 1]);
            assert!(own < other, "{at}: {own} {other}");
        }
        let map = ImageMap::of_sample(&table, 60, 200).unwrap().unwrap();
        assert_eq!(placed(&map), 60);
    }

    #[test]
    fn a_handful_of_images_is_no_map() {
        assert!(ImageMap::read(&table(4)).unwrap().is_none());
        assert!(ImageMap::read(&table(0)).unwrap().is_none());
    }
}
