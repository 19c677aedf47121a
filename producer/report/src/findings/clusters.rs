//! Groups of a class's images whose maps are alike, as SpRAy finds them (Lapuschkin et al. 2019,
//! <https://arxiv.org/abs/1902.10178>): a small one that the model is oddly sure of, looking
//! elsewhere than usual, is what a shortcut looks like (a watermark, a border, a text).
//!
//! Spectral clustering of a sample of each class, the number of clusters by the eigengap; every
//! other image belongs to the cluster of the sampled map nearest to its own. Then tests of where
//! attention lies against the class, and of how sure the model is in each cluster, all corrected
//! for their number.

use chrono::{DateTime, Utc};
use rayon::prelude::*;
use serde::Serialize;

use super::known::{Known, NONE};
use super::maps::{self, CELLS, Distribution, Place, SIDE};
use super::{FindingKind, Found};
use crate::nearest::NearestSample;
use crate::overview::{MeanMap, mean_map, share};
use crate::rank_test::{self, RankTest};
use crate::spectral::{self, Clustering, SpectralOptions};
use crate::table::{TableError, TableReader};

/// Maps of a class that are clustered: a cluster of a hundredth of the class has some twenty.
const SAMPLE: usize = 2000;
/// Maps that are clustered of all classes together, to bound memory: 80 MB.
const SAMPLES: usize = 400_000;
/// Fewer maps of a class are no ground for clusters.
const FEWEST: usize = 50;
/// Most clusters of a class.
const MAX_CLUSTERS: usize = 8;
/// Images of a cluster that are shown.
const EXAMPLES: usize = 12;
/// False discovery rate of tests that are told.
const FALSE_DISCOVERIES: f64 = 0.01;
/// How far from a half the chance must be that one of a class's maps has more attention at a
/// place than one of the others: with a million images every difference is significant.
const EFFECT: f64 = 0.15;
/// Tests that are told, the largest effects first.
const MAX_TESTS: usize = 200;
/// A larger share of its class is the class's usual way.
const SMALL: f64 = 0.45;
/// Chance that the model is surer in the cluster than outside: an oddly sure one's.
const SURER: f64 = 0.55;
/// Hellinger distance of the cluster's mean map to the others': it looks elsewhere.
const ELSEWHERE: f32 = 0.35;
/// A steady corner: in nine of ten of the cluster's maps it has at least this share of the
/// attention, more than its share of the cells, 0.08 …
const STEADY: f32 = 0.1;
/// … and the chance that it has more in one of them than in one of the class's other maps.
const STEADIER: f64 = 0.9;

/// Images of a class whose maps are alike.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Cluster {
    pub(crate) id: u32,
    /// The class that its maps explain.
    pub(crate) class: String,
    pub(crate) images: u64,
    /// Of the class's.
    pub(crate) share: f64,
    /// Share of its labelled images that are predicted as labelled.
    pub(crate) accuracy: Option<f64>,
    pub(crate) mean_probability: f64,
    pub(crate) rest_mean_probability: f64,
    /// Chance that the model is surer of one of its images than of another of the class.
    pub(crate) surer: f64,
    /// False discovery rate at which it is surer, or less sure.
    pub(crate) q: f64,
    /// Hellinger distance of its mean map to the rest of the class's, 0 to 1.
    pub(crate) distance: f32,
    pub(crate) shortcut: bool,
    /// Where most of its attention lies, or the corner where all of its maps have some and hardly
    /// any other has.
    pub(crate) place: Option<&'static str>,
    pub(crate) map: MeanMap,
    pub(crate) reason: String,
    #[serde(skip)]
    pub(crate) examples: Vec<ClusterExample>,
    /// Whether `place` is such a corner: a thing that always lies there, unlike what is photographed.
    pub(crate) steady: bool,
    #[serde(skip)]
    pub(crate) example_rows: Vec<u32>,
}

/// An image of a cluster.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ClusterExample {
    pub(crate) key: String,
    pub(crate) overlay: Option<String>,
    #[serde(skip)]
    pub(crate) finished_at: DateTime<Utc>,
}

/// Where a class's attention lies, against the others'.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct AttentionTest {
    pub(crate) class: String,
    pub(crate) measure: String,
    /// Chance that one of its maps has more there than one of the others.
    pub(crate) effect: f64,
    pub(crate) q: f64,
    pub(crate) count: u64,
    pub(crate) reason: String,
}

/// What was found of where the model looks.
pub(super) struct Attention {
    pub(super) clusters: Vec<Cluster>,
    pub(super) tests: Vec<AttentionTest>,
    pub(super) found: Vec<Found>,
}

/// Looks at the first maps of all images.
pub(super) fn find(
    table: &TableReader,
    known: &Known,
    notes: &mut Vec<String>,
) -> Result<Attention, TableError> {
    let tests = tests(table, known)?;
    let samples = samples(table, known)?;
    let clustered: Vec<_> = samples.into_par_iter().map(Sample::cluster).collect();
    if let Some(largest) = clustered.iter().map(|sample| sample.step).max().filter(|step| *step > 1)
    {
        notes.push(format!(
            "clusters of maps were looked for in every {largest}th map of the largest class: a \
             cluster of fewer than {} images there may be missed one time in twenty",
            // Ten of the sample make a cluster; Poisson(17) is below ten one time in twenty.
            17 * largest
        ));
    }
    let assigned = assign(table, known, &clustered)?;
    let clusters = describe(table, known, clustered, &assigned)?;
    let found = clusters.iter().filter(|cluster| cluster.shortcut);
    let found = found.map(|cluster| {
        let row = *cluster.example_rows.first().expect("no cluster is empty");
        let score = 0.95 + 0.04 * cluster.surer as f32;
        let reason = cluster.reason.clone();
        let found = Found::new(row as usize, FindingKind::Shortcut, score, reason);
        Found { cluster: Some(cluster.id), ..found }
    });
    let found = found.collect();
    Ok(Attention { clusters, tests, found })
}

/// Maps of a class.
struct Sample {
    class: u32,
    /// One of so many.
    step: usize,
    rows: Vec<u32>,
    /// Square roots of distributions, one after the other.
    points: Vec<f32>,
    clustering: Clustering,
}

impl Sample {
    fn cluster(mut self) -> Self {
        // Cut even where maps have no clear clusters: a small group that differs in how sure the
        // model is may lie at the end of a continuum. Whether it is a shortcut, tests tell.
        let (max_clusters, min_clusters) = (MAX_CLUSTERS, 2);
        let options = SpectralOptions { max_clusters, min_clusters, ..SpectralOptions::default() };
        self.clustering = spectral::cluster(&self.points, CELLS, &options);
        self
    }

    /// The rows nearest to the cluster's middle.
    fn examples(&self, cluster: usize) -> Vec<u32> {
        let members: Vec<usize> =
            (0..self.rows.len()).filter(|at| self.clustering.clusters[*at] == cluster).collect();
        let point = |at: usize| &self.points[at * CELLS..(at + 1) * CELLS];
        let mut middle = [0.0_f32; CELLS];
        for &member in &members {
            for (sum, value) in middle.iter_mut().zip(point(member)) {
                *sum += value / members.len() as f32;
            }
        }
        let far = |at: usize| -> f32 {
            point(at).iter().zip(&middle).map(|(a, b)| (a - b) * (a - b)).sum()
        };
        let mut members: Vec<_> = members.into_iter().map(|at| (far(at), self.rows[at])).collect();
        members.sort_by(|a, b| a.0.total_cmp(&b.0));
        members.into_iter().take(EXAMPLES).map(|(_, row)| row).collect()
    }
}

/// Evenly over each class's images that have a map.
fn samples(table: &TableReader, known: &Known) -> Result<Vec<Sample>, TableError> {
    let classes = known.names.len();
    let mut counts = vec![0_usize; classes];
    for target in known.target.iter().filter(|target| **target != NONE) {
        counts[*target as usize] += 1;
    }
    let of_class = SAMPLE.min(SAMPLES / classes.max(1)).max(FEWEST);
    let steps: Vec<_> = counts.iter().map(|count| count.div_ceil(of_class).max(1)).collect();
    let mut samples: Vec<_> = (0..classes)
        .map(|class| Sample {
            class: u32::try_from(class).expect("fewer classes than rows"),
            step: steps[class],
            rows: Vec::new(),
            points: Vec::new(),
            clustering: Clustering::default(),
        })
        .collect();
    let mut seen = vec![0_usize; classes];
    for (group, start) in known.starts.iter().enumerate() {
        for (at, map) in maps::read(table, group)?.iter().enumerate() {
            let (Some(map), target) = (map, known.target[start + at] as usize) else { continue };
            if seen[target].is_multiple_of(steps[target]) {
                let row = u32::try_from(start + at).expect("fewer than four billion rows");
                samples[target].rows.push(row);
                samples[target].points.extend(maps::roots(map));
            }
            seen[target] += 1;
        }
    }
    samples.retain(|sample| sample.rows.len() >= FEWEST);
    Ok(samples)
}

/// What is known of the images of each cluster.
struct Assigned {
    /// By row, its cluster among its class's; [`NONE`] without.
    cluster: Vec<u32>,
    /// By class, cluster: the sum of the maps.
    sums: Vec<Vec<[f64; CELLS]>>,
    /// By row, the corners' shares of the attention, NaN without a map.
    corners: Vec<[f32; 4]>,
}

/// Gives every image with a map to the cluster of the sampled map nearest to its own.
fn assign(table: &TableReader, known: &Known, samples: &[Sample]) -> Result<Assigned, TableError> {
    let mut of_class = vec![None; known.names.len()];
    for (index, sample) in
        samples.iter().enumerate().filter(|(_, sample)| sample.clustering.count > 1)
    {
        of_class[sample.class as usize] = Some(index);
    }
    let nearest: Vec<_> = samples
        .iter()
        .map(|sample| {
            (sample.clustering.count > 1).then(|| NearestSample::new(&sample.points, CELLS))
        })
        .collect();
    let sums = samples.iter().map(|sample| vec![[0.0; CELLS]; sample.clustering.count]).collect();
    let rows = known.target.len();
    let corners = vec![[f32::NAN; 4]; rows];
    let mut assigned = Assigned { cluster: vec![NONE; rows], sums, corners };
    for (group, start) in known.starts.iter().enumerate() {
        let maps = maps::read(table, group)?;
        let mut of_sample: Vec<(Vec<usize>, Vec<f32>)> = vec![Default::default(); samples.len()];
        for (at, map) in maps.iter().enumerate() {
            let Some(map) = map else { continue };
            let target = known.target[start + at] as usize;
            let Some(index) = of_class[target] else { continue };
            of_sample[index].0.push(at);
            of_sample[index].1.extend(maps::roots(map));
        }
        for (index, (rows, points)) in of_sample.into_iter().enumerate() {
            let Some(nearest) = &nearest[index] else { continue };
            let clusters = samples[index].clustering.nearest_cluster(nearest, &points);
            for (at, cluster) in rows.into_iter().zip(clusters) {
                assigned.cluster[start + at] = cluster as u32;
                let map = maps[at].as_ref().expect("it has one");
                assigned.corners[start + at] = Place::CORNERS.map(|corner| corner.share(map));
                for (sum, value) in assigned.sums[index][cluster].iter_mut().zip(map) {
                    *sum += f64::from(*value);
                }
            }
        }
    }
    Ok(assigned)
}

/// What is counted of a cluster.
#[derive(Clone, Copy, Default)]
struct Counts {
    images: u64,
    labelled: u64,
    right: u64,
    probability: f64,
}

fn describe(
    table: &TableReader,
    known: &Known,
    samples: Vec<Sample>,
    assigned: &Assigned,
) -> Result<Vec<Cluster>, TableError> {
    let margins = table.all_floats("logit_margin")?;
    let probabilities = table.all_floats("probability")?;
    let mut clusters = Vec::new();
    for (index, sample) in
        samples.iter().enumerate().filter(|(_, sample)| sample.clustering.count > 1)
    {
        let rows: Vec<usize> = (0..known.target.len())
            .filter(|row| known.target[*row] == sample.class && assigned.cluster[*row] != NONE)
            .collect();
        let mut counts = vec![Counts::default(); sample.clustering.count];
        for &row in &rows {
            let counts = &mut counts[assigned.cluster[row] as usize];
            counts.images += 1;
            counts.probability += f64::from(probabilities[row]);
            counts.labelled += u64::from(known.label[row] != NONE);
            counts.right += u64::from(known.label[row] == known.predicted[row]);
        }
        let of_rows: Vec<_> = rows.iter().map(|row| margins[*row]).collect();
        let groups: Vec<_> = rows.iter().map(|row| assigned.cluster[*row]).collect();
        let tests = rank_test::against_rest(&of_rows, &groups, sample.clustering.count);
        let steady = steady_corners(&rows, &groups, sample.clustering.count, &assigned.corners);
        let sums = &assigned.sums[index];
        for cluster in (0..sample.clustering.count).filter(|cluster| counts[*cluster].images > 0) {
            let known_of = (known.names.name(sample.class), &counts[..], &sums[..]);
            let one = one_cluster(sample, cluster, known_of, &tests[cluster]);
            clusters.extend(one.map(|one| match steady[cluster] {
                Some(corner) => Cluster { place: Some(corner.name()), steady: true, ..one },
                None => one,
            }));
        }
    }
    let q = rank_test::false_discovery(&clusters.iter().map(|c| c.q).collect::<Vec<_>>());
    for (id, (cluster, q)) in clusters.iter_mut().zip(q).enumerate() {
        cluster.id = u32::try_from(id).expect("a few for each class");
        cluster.q = q;
        judge(cluster);
    }
    clusters.sort_by(|a, b| {
        b.shortcut.cmp(&a.shortcut).then(b.surer.total_cmp(&a.surer)).then(a.id.cmp(&b.id))
    });
    Ok(clusters)
}

/// For each cluster of a class the corner where all of its maps have attention and hardly any
/// other's has, if there is one.
fn steady_corners(
    rows: &[usize],
    clusters: &[u32],
    count: usize,
    corners: &[[f32; 4]],
) -> Vec<Option<Place>> {
    let mut steady = vec![None; count];
    for (index, corner) in Place::CORNERS.into_iter().enumerate() {
        let shares: Vec<f32> = rows.iter().map(|row| corners[*row][index]).collect();
        let tests = rank_test::against_rest(&shares, clusters, count);
        for (cluster, _) in tests.iter().enumerate().filter(|(_, test)| test.effect > STEADIER) {
            let own = shares.iter().zip(clusters).filter(|(_, of)| **of as usize == cluster);
            let mut own: Vec<f32> = own.map(|(share, _)| *share).collect();
            let tenth = own.len() / 10;
            if *own.select_nth_unstable_by(tenth, f32::total_cmp).1 > STEADY {
                steady[cluster] = Some(corner);
            }
        }
    }
    steady
}

/// A cluster before all tests are known: its `q` is its own p.
fn one_cluster(
    sample: &Sample,
    cluster: usize,
    (class, counts, sums): (&str, &[Counts], &[[f64; CELLS]]),
    test: &RankTest,
) -> Option<Cluster> {
    let all: u64 = counts.iter().map(|counts| counts.images).sum();
    let Counts { images, labelled, right, probability } = counts[cluster];
    let rest_probability: f64 = counts.iter().map(|c| c.probability).sum::<f64>() - probability;
    let example_rows = sample.examples(cluster);
    let mut rest = [0.0; CELLS];
    for (_, sum) in sums.iter().enumerate().filter(|(other, _)| *other != cluster) {
        rest.iter_mut().zip(sum).for_each(|(rest, value)| *rest += value);
    }
    let place = place(&distribution(&sums[cluster]));
    (!example_rows.is_empty()).then(|| Cluster {
        id: 0,
        class: class.to_owned(),
        images,
        share: images as f64 / all as f64,
        accuracy: share(right, labelled),
        mean_probability: probability / images as f64,
        rest_mean_probability: rest_probability / (all - images).max(1) as f64,
        surer: test.effect,
        q: test.p,
        distance: hellinger(&distribution(&sums[cluster]), &distribution(&rest)),
        shortcut: false,
        place: place.map(Place::name),
        map: mean_map(SIDE, SIDE, &sums[cluster]),
        reason: String::new(),
        steady: false,
        examples: Vec::new(),
        example_rows,
    })
}

/// Whether it is a shortcut, and what to say of it.
fn judge(cluster: &mut Cluster) {
    let odd = cluster.surer > SURER && cluster.q < FALSE_DISCOVERIES && cluster.share < SMALL;
    cluster.shortcut = odd && (cluster.steady || cluster.distance > ELSEWHERE);
    let at = match cluster.place {
        Some(place) if cluster.steady => format!("always looks at the {place} as well"),
        Some(place) => format!("looks at the {place}"),
        None => "looks at much the same place".to_owned(),
    };
    let sure = if cluster.q >= FALSE_DISCOVERIES {
        "as sure as of the others".to_owned()
    } else {
        let than = if cluster.surer > 0.5 { "surer" } else { "less sure" };
        let chance = cluster.surer.max(1.0 - cluster.surer) * 100.0;
        format!("{than} than of another in {chance:.0} of 100 pairs")
    };
    cluster.reason = format!(
        "In {:.1} % of the images explained as {} the model {at}; it is {sure}",
        cluster.share * 100.0,
        cluster.class
    );
}

/// Where most of the attention lies: the smallest place that holds most of it.
fn place(map: &Distribution) -> Option<Place> {
    let corner = Place::CORNERS.into_iter().find(|corner| corner.share(map) > 0.4);
    corner.or_else(|| Place::ALL[5..].iter().copied().find(|edge| edge.share(map) > 0.6))
}

fn distribution(sum: &[f64; CELLS]) -> Distribution {
    let whole: f64 = sum.iter().sum();
    sum.map(|value| (value / whole.max(f64::MIN_POSITIVE)) as f32)
}

fn hellinger(one: &Distribution, other: &Distribution) -> f32 {
    let (one, other) = (maps::roots(one), maps::roots(other));
    let squared: f32 = one.iter().zip(&other).map(|(a, b)| (a - b) * (a - b)).sum();
    (squared / 2.0).sqrt()
}

/// Tests for each class and place whether its maps have more attention there than the others'.
fn tests(table: &TableReader, known: &Known) -> Result<Vec<AttentionTest>, TableError> {
    let mut shares = vec![Vec::with_capacity(table.rows()); Place::ALL.len()];
    for group in 0..table.groups() {
        for map in maps::read(table, group)? {
            for (place, shares) in Place::ALL.iter().zip(&mut shares) {
                shares.push(map.as_ref().map_or(f32::NAN, |map| place.share(map)));
            }
        }
    }
    let classes = known.names.len();
    if classes < 2 {
        return Ok(Vec::new());
    }
    // Rows with no target have no map, and so no share: they don't count.
    let groups: Vec<u32> = known.target.iter().map(|target| target % NONE).collect();
    let all: Vec<(Place, Vec<RankTest>)> = Place::ALL
        .into_par_iter()
        .zip(&shares)
        .map(|(place, shares)| (place, rank_test::against_rest(shares, &groups, classes)))
        .collect();
    let p: Vec<f64> = all.iter().flat_map(|(_, tests)| tests.iter().map(|test| test.p)).collect();
    let mut q = rank_test::false_discovery(&p).into_iter();
    let mut told = Vec::new();
    for (place, tests) in all {
        for (class, test) in tests.into_iter().enumerate() {
            let q = q.next().expect("one for each test");
            if q < FALSE_DISCOVERIES && test.effect > 0.5 + EFFECT {
                let class = known.names.name(class as u32).to_owned();
                let reason = format!(
                    "Explaining {class}, the model looks at the {} more than for other classes, in \
                     {:.0} of 100 pairs of images",
                    place.name(),
                    test.effect * 100.0
                );
                let measure = format!("attention at the {}", place.name());
                let RankTest { effect, count, .. } = test;
                told.push(AttentionTest { class, measure, effect, q, count, reason });
            }
        }
    }
    told.sort_by(|a, b| b.effect.total_cmp(&a.effect));
    told.truncate(MAX_TESTS);
    Ok(told)
}
