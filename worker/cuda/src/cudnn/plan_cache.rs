//! Which engine was fastest for each convolution, kept on disk: a later start need not time them
//! again.
//!
//! Owns one JSON file for each GPU model, driver and version of cuDNN, since an engine's name
//! means something else with another of them. The file only saves time. So one that is missing,
//! damaged or can't be written is no error, and worth a debug log. Upstream:
//! [`planner`](super::planner). Downstream: the file system.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use super::convolution_graph::ConvolutionProblem;
use super::plan::EngineChoice;

/// Changes if the file's form does, or what a choice means.
const FILE_VERSION: u32 = 2;

/// The device that engines are timed on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DeviceIdentity {
    /// The GPU's name, as the driver gives it.
    pub(crate) name: String,
    /// The driver's version, as `cuDriverGetVersion` gives it.
    pub(crate) driver: i32,
}

/// An engine, and how long it took.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct TimedChoice {
    pub(super) engine: EngineChoice,
    pub(super) milliseconds: f32,
}

/// Choices by the names of their problems.
type Choices = BTreeMap<String, TimedChoice>;

/// The file.
#[derive(Debug, Serialize, Deserialize)]
struct CacheFile {
    version: u32,
    device: DeviceIdentity,
    cudnn: usize,
    choices: Choices,
}

/// The fastest engines of one device.
#[derive(Debug)]
pub(super) struct PlanCache {
    device: DeviceIdentity,
    cudnn: usize,
    /// `None`: only in memory.
    path: Option<PathBuf>,
    choices: Choices,
}

impl PlanCache {
    /// Reads what is in `folder` for the device and this version of cuDNN.
    pub(super) fn open(device: DeviceIdentity, cudnn: usize, folder: Option<PathBuf>) -> Self {
        let path = folder.map(|folder| folder.join(file_name(&device, cudnn)));
        let mut cache = Self { device, cudnn, path, choices: Choices::new() };
        cache.choices = cache.read();
        cache
    }

    /// The fastest engine for a problem, if it is known.
    pub(super) fn get(&self, problem: &ConvolutionProblem) -> Option<TimedChoice> {
        self.choices.get(&problem.to_string()).copied()
    }

    /// Notes the fastest engine for a problem, in memory and in the file.
    pub(super) fn insert(&mut self, problem: &ConvolutionProblem, choice: TimedChoice) {
        self.choices.insert(problem.to_string(), choice);
        // Other workers on this machine write to the same file. Theirs fill in what is not known.
        for (name, choice) in self.read() {
            self.choices.entry(name).or_insert(choice);
        }
        let Some(path) = &self.path else { return };
        if let Err(error) = self.write(path) {
            tracing::debug!(%error, path = %path.display(), "the cache of plans is not written");
        }
    }

    /// What the file holds for this device.
    fn read(&self) -> Choices {
        let Some(path) = &self.path else { return Choices::new() };
        let file = fs::read(path).and_then(|json| Ok(serde_json::from_slice::<CacheFile>(&json)?));
        match file {
            Ok(file) if self.fits(&file) => file.choices,
            Ok(_) => {
                tracing::debug!(path = %path.display(), "the cache of plans is another device's");
                Choices::new()
            }
            Err(error) => {
                tracing::debug!(%error, path = %path.display(), "no cache of plans is read");
                Choices::new()
            }
        }
    }

    /// Whether the file is this device's. Names of files leave out some characters of devices'.
    fn fits(&self, file: &CacheFile) -> bool {
        file.version == FILE_VERSION && file.device == self.device && file.cudnn == self.cudnn
    }

    /// Replaces the file as a whole, so that a reader never sees half of one.
    fn write(&self, path: &Path) -> io::Result<()> {
        /// Distinguishes the writers of one process.
        static WRITERS: AtomicU64 = AtomicU64::new(0);
        let file = CacheFile {
            version: FILE_VERSION,
            device: self.device.clone(),
            cudnn: self.cudnn,
            choices: self.choices.clone(),
        };
        let json = serde_json::to_vec_pretty(&file)?;
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let writer = WRITERS.fetch_add(1, Ordering::Relaxed);
        let temporary = path.with_extension(format!("{}-{writer}.incomplete", process::id()));
        let written = fs::write(&temporary, json).and_then(|()| fs::rename(&temporary, path));
        if written.is_err()
            && let Err(error) = fs::remove_file(&temporary)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::debug!(%error, path = %temporary.display(), "an incomplete file is left");
        }
        written
    }
}

/// A name that every file system takes.
fn file_name(device: &DeviceIdentity, cudnn: usize) -> String {
    let plain = |character: char| match character.to_ascii_lowercase() {
        character if character.is_ascii_alphanumeric() => character,
        _ => '-',
    };
    let name: String = device.name.chars().map(plain).collect();
    format!("{name}-driver-{}-cudnn-{cudnn}.json", device.driver)
}

#[cfg(test)]
mod tests {
    use super::super::convolution_graph::{ConvolutionKind, ConvolutionShape, NotANumber};
    use super::super::plan::Heuristics;
    use super::*;
    use crate::number_format::NumberFormat;

    const FAST: TimedChoice = TimedChoice {
        engine: EngineChoice {
            not_a_number: NotANumber::Kept,
            heuristics: Heuristics::B,
            index: 3,
        },
        milliseconds: 0.25,
    };
    const FASTER: TimedChoice = TimedChoice {
        engine: EngineChoice {
            not_a_number: NotANumber::Zeroed,
            heuristics: Heuristics::A,
            index: 0,
        },
        milliseconds: 0.125,
    };

    fn device() -> DeviceIdentity {
        DeviceIdentity { name: "NVIDIA H100 80GB HBM3".to_owned(), driver: 13_000 }
    }

    fn problem(images: usize) -> ConvolutionProblem {
        let shape = ConvolutionShape {
            images,
            height: 56,
            width: 56,
            inputs: 64,
            outputs: 256,
            kernel: 1,
            stride: 1,
            padding: [0, 0],
        };
        ConvolutionProblem { shape, kind: ConvolutionKind::Plain, format: NumberFormat::F16 }
    }

    fn open(folder: &Path) -> PlanCache {
        PlanCache::open(device(), 91_400, Some(folder.to_owned()))
    }

    /// The only file in a folder.
    fn only_file(folder: &Path) -> PathBuf {
        let files: Vec<_> =
            fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
        assert_eq!(files.len(), 1, "{files:?}");
        files[0].clone()
    }

    #[test]
    fn choices_survive_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("camshaft/plans");
        open(&deep).insert(&problem(8), FAST);
        assert_eq!(open(&deep).get(&problem(8)), Some(FAST));
        assert_eq!(open(&deep).get(&problem(16)), None);
        let file = only_file(&deep);
        assert!(file.ends_with("nvidia-h100-80gb-hbm3-driver-13000-cudnn-91400.json"), "{file:?}");
    }

    #[test]
    fn choices_of_two_workers_are_merged() {
        let folder = tempfile::tempdir().unwrap();
        let (mut first, mut second) = (open(folder.path()), open(folder.path()));
        first.insert(&problem(8), FAST);
        second.insert(&problem(16), FASTER);
        second.insert(&problem(8), FASTER);
        let third = open(folder.path());
        assert_eq!((third.get(&problem(8)), third.get(&problem(16))), (Some(FASTER), Some(FASTER)));
        only_file(folder.path());
    }

    #[test]
    fn another_device_driver_or_cudnn_has_its_own_choices() {
        let folder = tempfile::tempdir().unwrap();
        open(folder.path()).insert(&problem(8), FAST);
        let other = |device, cudnn| PlanCache::open(device, cudnn, Some(folder.path().to_owned()));
        assert_eq!(other(device(), 91_401).get(&problem(8)), None);
        let newer = DeviceIdentity { driver: 13_010, ..device() };
        assert_eq!(other(newer, 91_400).get(&problem(8)), None);
        // The same name of the file.
        let alike = DeviceIdentity { name: "NVIDIA H100-80GB-HBM3".to_owned(), ..device() };
        assert_eq!(other(alike, 91_400).get(&problem(8)), None);
    }

    #[test]
    fn a_damaged_file_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        open(folder.path()).insert(&problem(8), FAST);
        let file = only_file(folder.path());
        let whole = fs::read(&file).unwrap();
        let damages: [&[u8]; 4] = [&whole[..whole.len() / 2], b"", b"[1, 2]", b"\xff"];
        for damaged in damages {
            fs::write(&file, damaged).unwrap();
            let mut cache = open(folder.path());
            assert_eq!(cache.get(&problem(8)), None);
            cache.insert(&problem(8), FASTER);
            assert_eq!(open(folder.path()).get(&problem(8)), Some(FASTER));
        }
    }

    #[test]
    fn a_folder_that_cannot_be_written_leaves_choices_in_memory() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "no folder").unwrap();
        let mut cache = open(&file);
        cache.insert(&problem(8), FAST);
        assert_eq!(cache.get(&problem(8)), Some(FAST));
        let mut nowhere = PlanCache::open(device(), 91_400, None);
        nowhere.insert(&problem(8), FAST);
        assert_eq!(nowhere.get(&problem(8)), Some(FAST));
    }
}
