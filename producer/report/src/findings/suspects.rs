//! The clusters that look like shortcuts, with all that is needed to prove them on images.
//!
//! Owns which images are taken and where in them: the patches of the cluster's most typical images,
//! other images of the class for controls, and images of other classes to paste patches into. Reads
//! no image. Upstream: `shortcuts`. Downstream: `camshaft audit --prove-shortcuts`.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::cluster::Cluster;
use super::hashed_choice::{SmallestHashes, hash_of};
use super::map_clusters::MapClusters;
use crate::predictions::map_distribution::MapRegion;
use crate::predictions::{ImageClasses, NO_NAME};
use crate::table::{TableError, TableReader};

/// Images of a cluster whose patches are pasted. With several, one image without the detail does not
/// decide.
const PATCHES: usize = 5;
/// Patches that cover a larger share of the image would paste what is photographed, not a detail.
const LARGEST_PATCH: f32 = 0.3;

/// A cluster that looks like a shortcut.
#[derive(Clone, Debug, PartialEq)]
pub struct ShortcutSuspect {
    /// The class that its maps explain.
    pub class: String,
    /// Images of the cluster.
    pub images: u64,
    /// The most typical images and where their patches lie, the most typical first. Empty if no
    /// map has a place that stands out.
    pub patches: Vec<SuspectPatch>,
    /// Images that are predicted as the class, outside the cluster.
    pub controls: Vec<ControlImage>,
    /// The keys of images that are predicted as other classes, rightly as far as their labels tell.
    pub others: Vec<String>,
}

/// An image of a cluster, and the patch in it.
#[derive(Clone, Debug, PartialEq)]
pub struct SuspectPatch {
    /// The image's key.
    pub key: String,
    /// SHA-256 of its file, if its result has it.
    pub digest: Option<String>,
    /// Left, top, right and bottom edge, as shares of the part of the image that the network sees.
    pub region: [f32; 4],
}

/// An image of the class outside the cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct ControlImage {
    /// The image's key.
    pub key: String,
    /// Where the model looks most: x and y as shares of the part that the network sees.
    pub hottest: [f32; 2],
}

/// The suspects, by row.
struct SuspectRows<'a> {
    cluster: &'a Cluster,
    controls: Vec<u32>,
    others: Vec<u32>,
}

/// Describes the flagged ones of `clusters`, with up to `images` images of other classes and as many
/// controls each.
pub(super) fn describe(
    table: &TableReader,
    classes: &ImageClasses,
    clustered: &MapClusters,
    clusters: &[Cluster],
    images: usize,
) -> Result<Vec<ShortcutSuspect>, TableError> {
    let flagged: Vec<_> = clusters.iter().filter(|cluster| cluster.shortcut).collect();
    if flagged.is_empty() {
        return Ok(Vec::new());
    }
    let suspects = choose_rows(table, classes, clustered, &flagged, images)?;
    let mut rows: Vec<u32> = Vec::new();
    for SuspectRows { cluster, controls, others } in &suspects {
        rows.extend(cluster.example_rows.iter().take(PATCHES).chain(controls).chain(others));
    }
    rows.sort_unstable();
    rows.dedup();
    let facts = read_facts(table, &rows)?;
    let suspects = suspects.into_iter().map(|SuspectRows { cluster, controls, others }| {
        let patch = |row: &u32| {
            let ImageFacts { key, digest, map } = &facts[row];
            let region = patch_region(map, steady_corner(cluster))?;
            Some(SuspectPatch { key: key.clone(), digest: digest.clone(), region })
        };
        let control = |row: &u32| {
            let ImageFacts { key, map, .. } = &facts[row];
            Some(ControlImage { key: key.clone(), hottest: map.hottest()? })
        };
        ShortcutSuspect {
            class: cluster.class.clone(),
            images: cluster.images,
            patches: cluster.example_rows.iter().take(PATCHES).filter_map(patch).collect(),
            controls: controls.iter().filter_map(control).collect(),
            others: others.iter().map(|row| facts[row].key.clone()).collect(),
        }
    });
    Ok(suspects.collect())
}

/// Chooses images by the hash of their keys, so that they are spread over the data set whatever its
/// order.
fn choose_rows<'a>(
    table: &TableReader,
    classes: &ImageClasses,
    clustered: &MapClusters,
    flagged: &[&'a Cluster],
    images: usize,
) -> Result<Vec<SuspectRows<'a>>, TableError> {
    // By predicted class.
    let mut others = BTreeMap::<u32, SmallestHashes>::new();
    // By cluster: its class, its number there, and the controls.
    let mut controls: Vec<_> = flagged
        .iter()
        .map(|cluster| {
            let row = cluster.example_rows[0] as usize;
            let (class, number) = (classes.target[row], clustered.cluster[row]);
            (class, number, SmallestHashes::new(images))
        })
        .collect();
    for (group, start) in classes.group_starts.iter().enumerate() {
        for (at, key) in table.texts(group, "key")?.into_iter().enumerate() {
            let row = start + at;
            let (predicted, label) = (classes.predicted[row], classes.label[row]);
            let Some(key) = key.filter(|_| predicted != NO_NAME) else { continue };
            let (hash, index) = (hash_of(&key), u32::try_from(row).expect("as classes' rows"));
            if label == NO_NAME || label == predicted {
                others
                    .entry(predicted)
                    .or_insert_with(|| SmallestHashes::new(images))
                    .add(hash, index);
            }
            let (target, own) = (classes.target[row], clustered.cluster[row]);
            for (class, number, controls) in &mut controls {
                let is_of_class = target == *class && predicted == *class;
                if is_of_class && own != NO_NAME && own != *number {
                    controls.add(hash, index);
                }
            }
        }
    }
    let suspects = flagged.iter().zip(controls).map(|(&cluster, (class, _, controls))| {
        let of_others = others.iter().filter(|(other, _)| **other != class);
        let of_others: Vec<_> = of_others.map(|(_, smallest)| smallest.rows()).collect();
        let controls = controls.into_rows().into_iter().map(|(_, row)| row).collect();
        SuspectRows { cluster, controls, others: spread(&of_others, images) }
    });
    Ok(suspects.collect())
}

/// Up to `count` rows of several sets in turn: the first of each set, then the second of each.
fn spread(sets: &[&BTreeSet<(u64, u32)>], count: usize) -> Vec<u32> {
    let turns = sets.iter().flat_map(|set| set.iter().enumerate());
    let mut turns: Vec<_> = turns.map(|(turn, (hash, row))| (turn, *hash, *row)).collect();
    turns.sort_unstable();
    turns.into_iter().take(count).map(|(_, _, row)| row).collect()
}

/// What is read of an image.
struct ImageFacts {
    key: String,
    digest: Option<String>,
    map: RawMap,
}

/// A map as its layer gives it, row by row.
#[derive(Clone, Debug)]
struct RawMap {
    values: Vec<f32>,
    height: usize,
    width: usize,
}

impl RawMap {
    /// The cell with the largest value, if one is above zero; of several the first.
    fn hottest_cell(&self) -> Option<usize> {
        let whole = self.height.checked_mul(self.width)?;
        if whole == 0 || whole != self.values.len() {
            return None;
        }
        let (cell, value) = self
            .values
            .iter()
            .enumerate()
            .max_by(|(at, a), (other, b)| a.total_cmp(b).then(other.cmp(at)))?;
        (*value > 0.0 && value.is_finite()).then_some(cell)
    }

    /// The middle of that cell.
    fn hottest(&self) -> Option<[f32; 2]> {
        let cell = self.hottest_cell()?;
        let middle = |at: usize, side: usize| (at as f32 + 0.5) / side as f32;
        Some([middle(cell % self.width, self.width), middle(cell / self.width, self.height)])
    }

    /// The box around the cells of at least `share` of the largest value that are joined to the
    /// largest one, side by side.
    fn region_above(&self, share: f32) -> Option<[f32; 4]> {
        let hottest = self.hottest_cell()?;
        let least = self.values[hottest] * share;
        let (mut joined, mut waiting) = (vec![false; self.values.len()], vec![hottest]);
        let [mut left, mut top, mut right, mut bottom] = [usize::MAX, usize::MAX, 0, 0];
        while let Some(cell) = waiting.pop() {
            if std::mem::replace(&mut joined[cell], true) {
                continue;
            }
            let (row, column) = (cell / self.width, cell % self.width);
            (left, right) = (left.min(column), right.max(column + 1));
            (top, bottom) = (top.min(row), bottom.max(row + 1));
            let beside = [
                (column > 0).then(|| cell - 1),
                (column + 1 < self.width).then(|| cell + 1),
                (row > 0).then(|| cell - self.width),
                (row + 1 < self.height).then(|| cell + self.width),
            ];
            waiting.extend(beside.into_iter().flatten().filter(|at| self.values[*at] >= least));
        }
        let shares = |at: usize, side: usize| at as f32 / side as f32;
        let (width, height) = (self.width, self.height);
        Some([
            shares(left, width),
            shares(top, height),
            shares(right, width),
            shares(bottom, height),
        ])
    }
}

/// The corner that flagged a cluster, if one did.
fn steady_corner(cluster: &Cluster) -> Option<MapRegion> {
    let is_named = |corner: &MapRegion| cluster.steady && cluster.place == Some(corner.name());
    MapRegion::CORNERS.into_iter().find(is_named)
}

/// Where the patch of an image lies: the corner that flagged the cluster, else the map's hottest
/// region. The region shrinks to hotter cells until it is small; none if it can't be.
fn patch_region(map: &RawMap, corner: Option<MapRegion>) -> Option<[f32; 4]> {
    if let Some(corner) = corner.and_then(MapRegion::corner_edges) {
        return Some(corner);
    }
    let area = |[left, top, right, bottom]: [f32; 4]| (right - left) * (bottom - top);
    let regions = [0.5, 0.6, 0.7, 0.8, 0.9, 1.0].map(|share| map.region_above(share));
    regions.into_iter().flatten().find(|region| area(*region) <= LARGEST_PATCH)
}

/// Reads what is needed of `rows`, which are in ascending order.
fn read_facts(table: &TableReader, rows: &[u32]) -> Result<HashMap<u32, ImageFacts>, TableError> {
    let mut facts = HashMap::with_capacity(rows.len());
    for rows in table.groups_of(rows) {
        let group = rows.group;
        let (mut keys, mut digests) = (table.texts(group, "key")?, table.texts(group, "digest")?);
        let maps = table.float_lists(group, "map")?;
        let heights = table.integers(group, "map_height")?;
        let widths = table.integers(group, "map_width")?;
        for (row, at) in rows.iter() {
            let side = |side: Option<i64>| side.and_then(|side| side.try_into().ok());
            let map = RawMap {
                values: maps.get(at).to_vec(),
                height: side(heights[at]).unwrap_or(0),
                width: side(widths[at]).unwrap_or(0),
            };
            let key = keys[at].take().unwrap_or_default();
            facts.insert(row, ImageFacts { key, digest: digests[at].take(), map });
        }
    }
    Ok(facts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(width: usize, values: &[f32]) -> RawMap {
        RawMap { values: values.to_vec(), height: values.len() / width, width }
    }

    #[test]
    fn a_patch_is_the_box_around_the_cells_joined_to_the_hottest() {
        #[rustfmt::skip]
        let map = map(4, &[
            9.0, 0.0, 0.0, 0.0,
            0.0, 0.0, 0.0, 0.0,
            0.0, 0.0, 6.0, 4.0,
            0.0, 0.0, 5.0, 10.0,
        ]);
        // Half of the largest are 9, 6 and 5; the 9 is not joined, the 4 is too cold.
        assert_eq!(patch_region(&map, None), Some([0.5, 0.5, 1.0, 1.0]));
        assert_eq!(map.hottest(), Some([0.875, 0.875]));
        let corner = patch_region(&map, Some(MapRegion::TopRight)).unwrap();
        assert_eq!(corner, [5.0 / 7.0, 0.0, 1.0, 2.0 / 7.0]);
    }

    #[test]
    fn a_wide_region_shrinks_to_its_hotter_cells() {
        #[rustfmt::skip]
        let wide = map(3, &[
            6.5, 6.5, 6.5,
            6.5, 10.0, 6.5,
            6.5, 6.5, 6.5,
        ]);
        assert_eq!(patch_region(&wide, None), Some([1.0 / 3.0, 1.0 / 3.0, 2.0 / 3.0, 2.0 / 3.0]));
    }

    #[test]
    fn a_map_without_a_place_has_no_patch() {
        for (width, values) in [(2, &[0.0; 4][..]), (1, &[3.0]), (3, &[2.0; 9])] {
            assert_eq!(patch_region(&map(width, values), None), None);
        }
        let cut_off = RawMap { values: vec![1.0; 3], height: 2, width: 2 };
        assert_eq!((patch_region(&cut_off, None), cut_off.hottest()), (None, None));
    }

    #[test]
    fn other_classes_take_turns() {
        let set = |hashes: &[(u64, u32)]| hashes.iter().copied().collect::<BTreeSet<_>>();
        let (many, one) = (set(&[(1, 10), (2, 11), (3, 12), (4, 13)]), set(&[(9, 20)]));
        assert_eq!(spread(&[&many, &one], 3), [10, 20, 11]);
        assert_eq!(spread(&[&many, &one], 100).len(), 5);
    }
}
