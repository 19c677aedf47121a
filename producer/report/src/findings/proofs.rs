//! Brings the proofs of `shortcuts.json` to the clusters that they are of.
//!
//! Owns the match: a proof belongs to the cluster with its most typical image, since the numbers of
//! clusters change with every image that is added. A proof of images that have changed or gone is
//! left out. Upstream: `shortcut_proofs`, `shortcuts`. Downstream: the finding and the page.

use std::collections::HashMap;

use camshaft_common::shortcuts::{PatchEffect, ProofVerdict, ShortcutProof};
use camshaft_common::trust::Estimate;

use super::cluster::Cluster;
use super::map_clusters::MapClusters;
use crate::predictions::{ImageClasses, NO_NAME};
use crate::table::{TableError, TableReader};

/// Gives each cluster its proof, and says it in the cluster's reason.
pub(super) fn attach(
    table: &TableReader,
    classes: &ImageClasses,
    clustered: &MapClusters,
    clusters: &mut [Cluster],
    proofs: &[ShortcutProof],
    notes: &mut Vec<String>,
) -> Result<(), TableError> {
    if proofs.is_empty() {
        return Ok(());
    }
    let images = find_images(table, classes, proofs)?;
    let mut left_out = 0_u64;
    for proof in proofs {
        let row = row_if_unchanged(proof, &images);
        let place = row.map(|row| (classes.target[row], clustered.cluster[row]));
        let place = place.filter(|(class, number)| {
            *number != NO_NAME && classes.names.name(*class) == proof.class
        });
        let cluster = clusters.iter_mut().find(|cluster| {
            let row = cluster.example_rows[0] as usize;
            place == Some((classes.target[row], clustered.cluster[row]))
        });
        match cluster {
            Some(cluster) if cluster.proof.is_none() => {
                let reason = describe(proof, &cluster.class);
                cluster.reason = format!("{}. {reason}", cluster.reason);
                cluster.proof = Some(proof.clone());
            }
            // Two clusters have become one; the first proof is of the more striking one.
            Some(_) => {}
            None => left_out += 1,
        }
    }
    if left_out > 0 {
        notes.push(format!(
            "{left_out} of {} proofs of shortcuts are left out, because the images of their patches \
             have changed or gone; camshaft audit --prove-shortcuts measures anew",
            proofs.len()
        ));
    }
    Ok(())
}

/// Rows and digests of the images of patches, by key.
type PatchImages<'a> = HashMap<&'a str, Option<(usize, Option<String>)>>;

fn find_images<'a>(
    table: &TableReader,
    classes: &ImageClasses,
    proofs: &'a [ShortcutProof],
) -> Result<PatchImages<'a>, TableError> {
    let patches = proofs.iter().flat_map(|proof| &proof.patches);
    let mut images: PatchImages<'_> = patches.map(|patch| (patch.key.as_str(), None)).collect();
    for (group, start) in classes.group_starts.iter().enumerate() {
        let mut digests = None;
        for (at, key) in table.texts(group, "key")?.into_iter().enumerate() {
            let Some(image) = key.and_then(|key| images.get_mut(key.as_str())) else { continue };
            let digests = match &mut digests {
                Some(digests) => digests,
                none => none.insert(table.texts(group, "digest")?),
            };
            *image = Some((start + at, digests[at].take()));
        }
    }
    Ok(images)
}

/// The row of a proof's most typical image, if all images of its patches are as they were.
fn row_if_unchanged(proof: &ShortcutProof, images: &PatchImages<'_>) -> Option<usize> {
    let mut first = None;
    for patch in &proof.patches {
        let (row, digest) = images.get(patch.key.as_str())?.as_ref()?;
        // Older results have no digest.
        let is_other = digest.as_ref().zip(patch.digest.as_ref()).is_some_and(|(a, b)| a != b);
        if is_other {
            return None;
        }
        first.get_or_insert(*row);
    }
    first
}

/// The proof in a sentence.
fn describe(proof: &ShortcutProof, class: &str) -> String {
    let measured = proof.sample.measured;
    let verdict = match proof.verdict {
        ProofVerdict::Confirmed => "Confirmed",
        ProofVerdict::Refuted => "Refuted",
        ProofVerdict::Undecided => "Undecided",
    };
    if measured == 0 {
        return format!("{verdict}: no image of another class could be measured");
    }
    let rise = |effect: &PatchEffect| effect.probability_rise.mean.unwrap_or_default();
    format!(
        "{verdict}: pasted into {measured} images of other classes, its patch turns {} into {class}, \
         a random place of the class's other images {}, the place where the model looks most in them {}; it \
         raises the probability by {:.2}, they by {:.2} and {:.2}",
        describe_effect(&proof.patch),
        describe_effect(&proof.random_place.effect),
        describe_effect(&proof.usual_place.effect),
        rise(&proof.patch),
        rise(&proof.random_place.effect),
        rise(&proof.usual_place.effect)
    )
}

/// `44 (88 %, 76 to 94 %)`.
fn describe_effect(effect: &PatchEffect) -> String {
    let PatchEffect { flips, rate: Estimate { mean, low, high, .. }, .. } = effect;
    let percent = |share: &Option<f64>| share.unwrap_or_default() * 100.0;
    let (mean, low, high) = (percent(mean), percent(low), percent(high));
    format!("{flips} ({mean:.0} %, {low:.0} to {high:.0} %)")
}
