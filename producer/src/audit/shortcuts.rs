//! `camshaft audit --prove-shortcuts`: pastes the patches of clusters that look like shortcuts into
//! images of other classes, and writes `shortcuts.json`.
//!
//! Owns the reading of images and what is printed. [`camshaft_report`] finds the clusters and chooses
//! the images, [`camshaft_trust`] pastes, measures and judges.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use camshaft_common::key::ImageKey;
use camshaft_common::layout::SHORTCUTS_FILE;
use camshaft_common::location::Location;
use camshaft_common::model::FileDigest;
use camshaft_common::run::{RunId, SCHEMA};
use camshaft_common::shortcuts::{
    PatchEffect, PatchSource, ProofSample, ShortcutProof, ShortcutsRecord, UnprovedCluster,
};
use camshaft_common::store::{Folder, JSON, StoreError, StoreOptions};
use camshaft_decoding::decode;
use camshaft_model::ModelFiles;
use camshaft_report::{ReadProgress, ReportError, ShortcutSuspect, SuspectPatch};
use camshaft_trust::examination::{ExaminationError, ExaminationProgress, seed_of};
use camshaft_trust::patches::TrialImages;
use camshaft_trust::shortcut_proof::{
    ClusterProof, MeasuredTrials, PatchTrial, measure_trials, settings,
};
use camshaft_worker::config::EngineConfig;
use futures::stream::{self, StreamExt, TryStreamExt};
use image::RgbImage;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::measuring::{Followed, MAX_FETCHES, follow, if_readable, open_device};
use crate::advice;
use crate::terminal::output::{format_count, format_elapsed, print_line};
use crate::terminal::progress::{Progress, ProgressCounts};

/// Why shortcuts could not be proved.
#[derive(Debug, thiserror::Error)]
pub enum ShortcutError {
    /// OUT or SOURCE can't be read, or OUT can't be written.
    #[error("{}", advice::describe_store_error(.0))]
    Store(#[from] StoreError),
    /// The results can't be read.
    #[error("{}", advice::describe_report_error(.0))]
    Report(#[from] ReportError),
    /// Measuring failed.
    #[error("{}", advice::describe_examination_error(.0))]
    Examination(#[from] ExaminationError),
    /// A bug, or too little memory.
    #[error("proving shortcuts ended with a panic; try a smaller --prove-shortcuts")]
    Panicked,
}

/// How the shortcuts of a run are to be proved.
#[derive(Debug)]
pub(crate) struct ShortcutProving {
    /// Images of other classes for each cluster.
    pub(crate) images: u16,
    /// The folder or prefix that keys are below.
    pub(crate) source: Location,
    /// OUT.
    pub(crate) out: Location,
    /// How the network runs, and how large images may be.
    pub(crate) engine: EngineConfig,
    /// The run's model.
    pub(crate) files: Arc<ModelFiles>,
}

/// The images of a cluster's patches.
type TypicalImages = Vec<(SuspectPatch, Arc<RgbImage>)>;

/// A cluster whose patches could be read.
struct ReadySuspect {
    suspect: ShortcutSuspect,
    /// The index of its class.
    class: usize,
    /// The images of its patches.
    typical: TypicalImages,
}

/// Sends the trials of all clusters to the thread that runs the model.
struct TrialSender<'a> {
    proving: &'a ShortcutProving,
    source: &'a Folder,
    trials: mpsc::Sender<PatchTrial>,
}

impl ShortcutProving {
    /// Measures every flagged cluster, writes `shortcuts.json` and prints the verdicts.
    ///
    /// # Errors
    /// If a store or the model can't be used, or if `stop` is cancelled.
    pub(crate) async fn prove(
        self,
        run: RunId,
        stores: &StoreOptions,
        stop: &CancellationToken,
    ) -> Result<(), ShortcutError> {
        let started = Instant::now();
        let source = Folder::open(&self.source, stores)?;
        let out = Folder::open(&self.out, stores)?;
        let suspects = self.find_suspects(stores).await?;
        let (mut ready, mut left_out) = (Vec::new(), Vec::new());
        for suspect in suspects {
            match self.make_ready(&source, &suspect).await? {
                Ok((class, typical)) => ready.push(ReadySuspect { suspect, class, typical }),
                Err(reason) => {
                    let ShortcutSuspect { class, images, .. } = suspect;
                    left_out.push(UnprovedCluster { class, images, reason: reason.to_owned() });
                }
            }
        }
        let measured = match ready.is_empty() {
            true => None,
            false => Some(self.measure(&source, &ready, stop).await?),
        };
        let (model, outcomes) = measured.map(|m| (m.model, m.outcomes)).unzip();
        let outcomes = outcomes.unwrap_or_default();
        let proofs = ready.into_iter().zip(&outcomes);
        let record = ShortcutsRecord {
            schema: SCHEMA,
            run,
            model,
            settings: settings(self.images.into()),
            proofs: proofs.map(|(ready, of)| ready.into_proof(&ClusterProof::of(of))).collect(),
            left_out,
        };
        let json =
            serde_json::to_vec_pretty(&record).expect("a record has only strings and numbers");
        out.put(SHORTCUTS_FILE, json, JSON).await?;
        print_record(&record, started, &self.out);
        Ok(())
    }

    async fn find_suspects(
        &self,
        stores: &StoreOptions,
    ) -> Result<Vec<ShortcutSuspect>, ReportError> {
        let progress = Arc::new(ReadProgress::default());
        let images = usize::from(self.images);
        let finding = camshaft_report::find_suspects(&self.out, images, stores, &progress);
        let counts =
            || ProgressCounts { done: progress.read.load(Relaxed), total: None, failed: 0 };
        Progress::start("read").follow(finding, counts).await
    }

    /// The class's index and the images of a cluster's patches, or why it can't be measured.
    async fn make_ready(
        &self,
        source: &Folder,
        suspect: &ShortcutSuspect,
    ) -> Result<Result<(usize, TypicalImages), &'static str>, StoreError> {
        let mut classes = self.files.config().classes.iter();
        let Some(class) = classes.position(|name| *name == suspect.class) else {
            return Ok(Err("the model has no class of this name"));
        };
        if suspect.patches.is_empty() {
            return Ok(Err("no place stands out in its maps"));
        }
        if suspect.others.is_empty() {
            return Ok(Err("no image is predicted as another class"));
        }
        if suspect.controls.is_empty() {
            return Ok(Err("no other image is predicted as this class"));
        }
        let mut typical = Vec::with_capacity(suspect.patches.len());
        for patch in &suspect.patches {
            if let Some(image) =
                self.read_image(source, &patch.key, patch.digest.as_deref()).await?
            {
                typical.push((patch.clone(), Arc::new(image)));
            }
        }
        Ok(match typical.is_empty() {
            true => Err("its typical images can no longer be read"),
            false => Ok((class, typical)),
        })
    }

    /// Reads and decodes an image; none if it has gone, is no longer an image, or has another
    /// content than its result says.
    async fn read_image(
        &self,
        source: &Folder,
        key: &str,
        digest: Option<&str>,
    ) -> Result<Option<RgbImage>, StoreError> {
        let Ok(key) = ImageKey::parse(key) else { return Ok(None) };
        let limits = self.engine.image_limits;
        let Some(image) = if_readable(source.get_image(&key, limits.max_bytes).await)? else {
            return Ok(None);
        };
        if digest.is_some_and(|digest| FileDigest::of(&image.bytes).as_str() != digest) {
            return Ok(None);
        }
        let transparency = self.files.config().transparency;
        let decoding =
            tokio::task::spawn_blocking(move || decode(&image.bytes, &limits, transparency).ok());
        // A decoder that panics also says that this is no image.
        Ok(decoding.await.unwrap_or_default())
    }

    /// Reads images, pastes, and runs the model on a thread of its own, with a progress bar.
    async fn measure(
        &self,
        source: &Folder,
        ready: &[ReadySuspect],
        stop: &CancellationToken,
    ) -> Result<MeasuredTrials, ShortcutError> {
        let total = ready.iter().map(|ready| ready.suspect.others.len() as u64).sum();
        let progress = Arc::new(ExaminationProgress::default());
        let (trials, mut received) = mpsc::channel(MAX_FETCHES);
        let (compute, clusters) = (self.engine.compute.clone(), ready.len());
        let (files, watched) = (Arc::clone(&self.files), Arc::clone(&progress));
        let measuring = tokio::task::spawn_blocking(move || {
            let (device, compute) = open_device(&compute)?;
            let trials = std::iter::from_fn(move || received.blocking_recv());
            measure_trials(&files, &device, compute, clusters, trials, &watched)
        });
        let working = async {
            let sent = TrialSender { proving: self, source, trials }.send_all(ready).await;
            (sent, measuring.await)
        };
        let (sent, measured) = follow(working, Followed::from(&*progress), total, stop).await;
        sent?;
        Ok(measured.map_err(|_panic| ShortcutError::Panicked)??)
    }
}

impl TrialSender<'_> {
    /// Sends every trial whose images can be read. Ends early if the model's thread has ended.
    async fn send_all(self, ready: &[ReadySuspect]) -> Result<(), StoreError> {
        for (cluster, ready) in ready.iter().enumerate() {
            let made = (0..ready.suspect.others.len()).map(|at| self.make(cluster, ready, at));
            let mut made = stream::iter(made).buffered(MAX_FETCHES);
            while let Some(trial) = made.try_next().await? {
                if let Some(trial) = trial
                    && self.trials.send(trial).await.is_err()
                {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// One image of another class with its patches. The patches and the controls take turns.
    async fn make(
        &self,
        cluster: usize,
        ready: &ReadySuspect,
        at: usize,
    ) -> Result<Option<PatchTrial>, StoreError> {
        let ReadySuspect { suspect, class, typical } = ready;
        let control = &suspect.controls[at % suspect.controls.len()];
        let (patch, image) = &typical[at % typical.len()];
        let key = &suspect.others[at];
        let target = self.proving.read_image(self.source, key, None).await?;
        let donor = self.proving.read_image(self.source, &control.key, None).await?;
        let (Some(target), Some(donor)) = (target, donor) else { return Ok(None) };
        let (region, hottest, image) = (patch.region, control.hottest, Arc::clone(image));
        let (class, files) = (*class, Arc::clone(&self.proving.files));
        let seed = seed_of(&ImageKey::parse(key).expect("it was read by this key"));
        let pasting = tokio::task::spawn_blocking(move || {
            let images = TrialImages {
                target: &target,
                typical: &image,
                region,
                control: &donor,
                hottest,
                seed,
            };
            PatchTrial { cluster, class, inputs: images.inputs(&files.config().input) }
        });
        Ok(pasting.await.ok())
    }
}

impl ReadySuspect {
    fn into_proof(self, proof: &ClusterProof) -> ShortcutProof {
        let chosen = self.suspect.others.len() as u64;
        let source = |(patch, _): (SuspectPatch, _)| PatchSource {
            key: ImageKey::parse(&patch.key).expect("it was read by this key"),
            digest: patch.digest,
            region: patch.region,
        };
        ShortcutProof {
            class: self.suspect.class,
            images: self.suspect.images,
            patches: self.typical.into_iter().map(source).collect(),
            sample: ProofSample {
                chosen,
                measured: proof.measured,
                left_out: chosen - proof.measured,
            },
            patch: proof.patch,
            random_place: proof.random_place,
            usual_place: proof.usual_place,
            verdict: proof.verdict,
        }
    }
}

/// Prints the verdicts; the rest is in the file.
fn print_record(record: &ShortcutsRecord, started: Instant, out: &Location) {
    let ShortcutsRecord { proofs, left_out, .. } = record;
    if proofs.is_empty() && left_out.is_empty() {
        print_line("No cluster of maps looks like a shortcut, so there is nothing to prove");
        return;
    }
    print_line(&format!(
        "Examined {} in {}: {out}/{SHORTCUTS_FILE}",
        format_count(proofs.len() as u64, "suspected shortcut"),
        format_elapsed(started.elapsed().as_secs_f64())
    ));
    proofs.iter().for_each(|proof| print_line(&describe_proof(proof)));
    for UnprovedCluster { class, images, reason } in left_out {
        let images = format_count(*images, "image");
        print_line(&format!("  {class}, a cluster of {images}: not examined, {reason}"));
    }
}

fn describe_proof(proof: &ShortcutProof) -> String {
    let ShortcutProof { class, images, sample, patch, random_place, usual_place, .. } = proof;
    let rate = |effect: &PatchEffect| match effect.rate.mean {
        Some(mean) => format!("{} ({:.0} %)", effect.flips, mean * 100.0),
        None => effect.flips.to_string(),
    };
    let mut line = format!(
        "  {class}, a cluster of {}: {}; in {} of other classes its patch turns {} into {class}, random \
         places {}, usual places {}",
        format_count(*images, "image"),
        proof.verdict.name(),
        format_count(sample.measured, "image"),
        rate(patch),
        rate(&random_place.effect),
        rate(&usual_place.effect),
    );
    if sample.left_out > 0 {
        line.push_str(&format!("; {} could not be used", sample.left_out));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use camshaft_common::shortcuts::{ControlEffect, ProofVerdict};
    use camshaft_common::trust::Estimate;

    #[test]
    fn verdicts_are_told_with_their_numbers() {
        let effect = |flips: u64| {
            let rate = Estimate { mean: Some(flips as f64 / 50.0), low: None, high: None, n: 50 };
            PatchEffect { flips, rate, probability_rise: rate }
        };
        let control = |flips| {
            let effect = effect(flips);
            ControlEffect { effect, difference: effect.rate, p: 0.001 }
        };
        let proof = ShortcutProof {
            class: "cat".to_owned(),
            images: 210,
            patches: Vec::new(),
            sample: ProofSample { chosen: 52, measured: 50, left_out: 2 },
            patch: effect(40),
            random_place: control(1),
            usual_place: control(5),
            verdict: ProofVerdict::Confirmed,
        };
        assert_eq!(
            describe_proof(&proof),
            "  cat, a cluster of 210 images: confirmed; in 50 images of other classes its patch turns \
             40 (80 %) into cat, random places 1 (2 %), usual places 5 (10 %); 2 could not be used"
        );
    }
}
