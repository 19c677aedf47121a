//! Which classes draw the model's attention to one region of the image, compared with the other
//! classes.
//!
//! Tests each class and region by the rank sum of the attention there, corrected for the number of
//! tests. Upstream: the first map of each image. Downstream: the page.

use rayon::prelude::*;
use serde::Serialize;

use crate::predictions::map_distribution::{self, MapRegion};
use crate::predictions::{ImageClasses, NO_NAME};
use crate::statistics::rank_sum::{self, RankSumTest, SIGNIFICANT_Q};
use crate::table::{TableError, TableReader};

/// The effect beyond 0.5 that a test needs to be reported: with a million images, every difference
/// is significant.
const MIN_EFFECT: f64 = 0.15;
/// Tests that are reported, the largest effects first.
const MAX_TESTS: usize = 200;

/// A class whose maps have more attention in a region than the maps of the other classes.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct AttentionTest {
    pub(crate) class: String,
    /// What was compared, in words.
    pub(crate) measure: String,
    /// The chance that a map of the class has more attention there than a map of another class.
    pub(crate) effect: f64,
    /// The false discovery rate at which the test counts as a discovery.
    pub(crate) q: f64,
    /// The number of maps of the class.
    pub(crate) count: u64,
    /// What the test says, in a sentence.
    pub(crate) reason: String,
}

/// Tests for each class and region whether the maps of the class have more attention there than the
/// maps of the other classes.
pub(super) fn test_classes(
    table: &TableReader,
    classes: &ImageClasses,
) -> Result<Vec<AttentionTest>, TableError> {
    let shares = region_shares(table)?;
    let class_count = classes.names.len();
    if class_count < 2 {
        return Ok(Vec::new());
    }
    // A row without a target has no map, so its share is NaN and its group does not matter.
    let groups: Vec<u32> = classes.target.iter().map(|target| target % NO_NAME).collect();
    let all: Vec<(MapRegion, Vec<RankSumTest>)> = MapRegion::ALL
        .into_par_iter()
        .zip(&shares)
        .map(|(region, shares)| (region, rank_sum::test_against_rest(shares, &groups, class_count)))
        .collect();
    let p: Vec<f64> = all.iter().flat_map(|(_, tests)| tests.iter().map(|test| test.p)).collect();
    let mut q = rank_sum::q_values(&p).into_iter();
    let mut reported = Vec::new();
    for (region, tests) in all {
        for (class, test) in tests.into_iter().enumerate() {
            let q = q.next().expect("one for each test");
            if q < SIGNIFICANT_Q && test.effect > 0.5 + MIN_EFFECT {
                reported.push(describe(classes.names.name(class as u32), region, test, q));
            }
        }
    }
    reported.sort_by(|a, b| b.effect.total_cmp(&a.effect));
    reported.truncate(MAX_TESTS);
    Ok(reported)
}

/// By region and row, the share of the map's attention that lies in the region; NaN without a map.
fn region_shares(table: &TableReader) -> Result<Vec<Vec<f32>>, TableError> {
    let mut shares = vec![Vec::with_capacity(table.rows()); MapRegion::ALL.len()];
    for group in 0..table.groups() {
        for map in map_distribution::read(table, group)? {
            for (region, shares) in MapRegion::ALL.iter().zip(&mut shares) {
                shares.push(map.as_ref().map_or(f32::NAN, |map| region.share(map)));
            }
        }
    }
    Ok(shares)
}

fn describe(class: &str, region: MapRegion, test: RankSumTest, q: f64) -> AttentionTest {
    let RankSumTest { effect, count, .. } = test;
    let reason = format!(
        "Explaining {class}, the model looks at the {} more than for other classes, in {:.0} of \
         100 pairs of images",
        region.name(),
        effect * 100.0
    );
    let measure = format!("attention at the {}", region.name());
    AttentionTest { class: class.to_owned(), measure, effect, q, count, reason }
}
