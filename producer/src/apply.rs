//! `camshaft apply`: writes the data set that the decisions leave.
//!
//! Wiring only: [`run_images`] reads the images of the run, [`plan`] says what becomes of each, [`list`] and
//! [`folder`] write, and [`undo`] remembers what was changed. The images of SOURCE stay where and as they
//! are, unless they are to be moved.

mod folder;
mod list;
mod moved_image;
mod plan;
mod undo;

use std::path::PathBuf;

use camshaft_common::key::ImageKey;
use camshaft_common::location::Location;
use camshaft_common::printable::printable;
use camshaft_common::run::{ReadRunError, RunRecord};
use camshaft_common::store::{Folder, StoreError, StoreOptions};
use camshaft_decisions::{LinesError, MergeError, MergedDecisions};
use chrono::{SubsecRound, Utc};

use crate::advice;
use crate::run_images::{self, RunImagesError};
use crate::terminal::output::{format_count, print_line};
use plan::{Change, Plan};
use undo::{UndoFile, UndoRecord};

/// Changes that a dry run names.
const NAMED_CHANGES: usize = 10;

/// What `camshaft apply` is to do.
#[derive(Debug)]
pub(crate) enum ApplyTask {
    /// Write a data set.
    Apply(ApplyConfig),
    /// Move images back.
    Undo {
        /// The file that says where they were.
        file: PathBuf,
        /// Write nothing.
        dry_run: bool,
    },
}

/// How a data set is written.
#[derive(Clone, Debug)]
pub(crate) struct ApplyConfig {
    /// The run.
    pub(crate) out: Location,
    /// A file of decisions, in place of those in OUT.
    pub(crate) decisions: Option<PathBuf>,
    /// Where it goes.
    pub(crate) to: Location,
    /// What it is.
    pub(crate) form: ApplyForm,
    /// How images get into a folder.
    pub(crate) link: FileLink,
    /// Write nothing.
    pub(crate) dry_run: bool,
}

/// What a data set is written as.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ApplyForm {
    /// CSV with the columns key, label and split
    List,
    /// Folders of classes, with the images in them
    Folder,
}

/// How images get into a folder.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    clap::ValueEnum,
    serde::Serialize,
    serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub(crate) enum FileLink {
    /// As copies
    #[default]
    Copy,
    /// As further names of the same files, on the same disk
    Hard,
    /// Away from SOURCE; needs --yes
    Move,
}

/// Why a data set is not written.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// A place can't be opened, read or written.
    #[error("{}", advice::describe_store_error(.0))]
    Store(#[from] StoreError),
    /// OUT holds no run.
    #[error("{}", advice::describe_run_record_error(.0))]
    Run(#[from] ReadRunError),
    /// The images of the run can't be read.
    #[error(transparent)]
    Images(#[from] RunImagesError),
    /// The decisions can't be read.
    #[error("{}", advice::describe_merge_error(.0))]
    Merge(#[from] MergeError),
    /// A file of decisions can't be read.
    #[error(transparent)]
    File(#[from] LinesError),
    /// Nothing is decided.
    #[error(
        "nothing is decided in {0}; decide by rules (camshaft decide {0} --drop exact), or import what was \
         decided on the report's page (camshaft decide {0} --import decisions.jsonl)"
    )]
    NoDecisions(String),
    /// `run.json` doesn't say where the images are.
    #[error(
        "the run in {0} does not say where its images are; apply to a list, with --to clean.csv"
    )]
    UnknownSource(String),
    /// PLACE is no place for a file.
    #[error("{0} is a bucket or the root; give --to a name in it, such as {0}/clean")]
    NoName(Location),
    /// There is a file that something else wrote.
    #[error("{0} exists, and camshaft apply did not write it; choose another --to")]
    Exists(Location),
    /// Somebody changed the list.
    #[error(
        "{0} was changed since camshaft apply wrote it; choose another --to, or move it out of the way"
    )]
    Changed(Location),
    /// The folder has something in it.
    #[error("{0} is not empty; choose another --to, or empty it")]
    NotEmpty(Location),
    /// The folder is in SOURCE or OUT.
    #[error("{to} lies in {what}, {place}; choose a --to outside")]
    Inside {
        /// The folder.
        to: String,
        /// What it lies in: SOURCE or OUT.
        what: &'static str,
        /// Where that is.
        place: String,
    },
    /// A list can't have the key.
    #[error("the key {:?} begins or ends with a space, which lists lose; use --as folder", .0.as_str())]
    SpacesInKey(ImageKey),
    /// A class folder needs a label.
    #[error("{key} has no label, and so no class folder{}; use --as list, or decide: drop it, or relabel it",
        if *images > 1 { format!(", and {} more have none", images - 1) } else { String::new() })]
    NoLabel {
        /// The first image.
        key: ImageKey,
        /// How many.
        images: u64,
    },
    /// A label can't be a folder's name.
    #[error(
        "the label {label:?} of {key} can't be the name of a class folder (it has a slash, begins with a dot, \
         or is escaped in another way); use --as list, or give such images another label"
    )]
    LabelIsNoFolder {
        /// The label.
        label: String,
        /// An image that has it.
        key: ImageKey,
    },
    /// Only local files have links and can be moved.
    #[error("--link {0} needs SOURCE and --to on this machine; use --link copy")]
    LinkNeedsDisk(&'static str),
    /// A file can't be written or moved.
    #[error("cannot {action} {from} to {to}: {source}{advice}")]
    Place {
        /// `copy`, `link` or `move`.
        action: &'static str,
        /// The image.
        from: String,
        /// Its new place.
        to: String,
        /// What the system says.
        #[source]
        source: std::io::Error,
        /// What to do, or nothing.
        advice: &'static str,
    },
    /// A temporary file can't be written.
    #[error("cannot use a temporary file: {0}; is TMPDIR full?")]
    Temporary(#[source] std::io::Error),
    /// The record of changes can't be read.
    #[error(
        "cannot read {path}: {reason}; give the file PLACE.undo.json that camshaft apply wrote"
    )]
    UndoFile {
        /// The file.
        path: String,
        /// Why.
        reason: String,
    },
    /// Nothing was moved.
    #[error("{0} moved no image; to undo it, delete what it wrote, {1}")]
    NothingMoved(String, Location),
    /// Some images can't be moved back.
    #[error(
        "{moved} moved back, and {left} not: {first} is in neither place or in both; put it back by hand, and \
         undo again"
    )]
    NotUndone {
        /// How many images were moved back.
        moved: u64,
        /// How many were not.
        left: u64,
        /// The first of them.
        first: String,
    },
    /// A bug.
    #[error("writing ended with a panic")]
    Panicked,
}

/// Does what the command line asks for.
///
/// # Errors
/// If decisions or images can't be read, or the data set can't be written.
pub(crate) async fn apply(task: ApplyTask, stores: StoreOptions) -> Result<(), ApplyError> {
    match task {
        ApplyTask::Apply(config) => write_data_set(config, &stores).await,
        ApplyTask::Undo { file, dry_run } => {
            let undoing = tokio::task::spawn_blocking(move || undo::undo(&file, dry_run));
            let lines = undoing.await.map_err(|_| ApplyError::Panicked)??;
            lines.iter().for_each(|line| print_line(line));
            Ok(())
        }
    }
}

async fn write_data_set(config: ApplyConfig, stores: &StoreOptions) -> Result<(), ApplyError> {
    let ApplyConfig { out, decisions, to, form, link, dry_run } = config;
    let out = Folder::open(&out, stores)?;
    let run = RunRecord::read_existing(&out).await?;
    let (decided, is_of_out) = match decisions {
        Some(file) => (MergedDecisions::read_file(&file)?, false),
        None => (MergedDecisions::read(&out).await?, true),
    };
    if decided.is_empty() {
        return Err(ApplyError::NoDecisions(out.location().to_string()));
    }
    let source = run.images_place();
    let images = run_images::read(&out, &run).await?;
    let plan = Plan::new(images, &decided);
    let undo = UndoFile::beside(&to, stores)?;
    let target = match form {
        ApplyForm::List => {
            Target::List(Box::new(list::Target::open(&to, &plan, &undo, stores).await?))
        }
        ApplyForm::Folder => {
            let source = source
                .clone()
                .ok_or_else(|| ApplyError::UnknownSource(out.location().to_string()))?;
            let target = folder::Target::open(&to, &source, out.location(), &plan, link, stores);
            Target::Folder(Box::new(target.await?))
        }
    };
    describe(&plan, dry_run).iter().for_each(|line| print_line(line));
    if let Target::Folder(target) = &target {
        target.describe_names().iter().for_each(|line| print_line(line));
    }
    if dry_run {
        print_line(&format!("Nothing was written; without --dry-run it goes to {to}"));
        return Ok(());
    }
    let mut record = UndoRecord {
        schema: undo::SCHEMA,
        out: out.location().clone(),
        source,
        place: to.clone(),
        form,
        link,
        written_at: Utc::now().trunc_subsecs(3),
        changes: plan.changes().to_vec(),
        moved: match &target {
            Target::Folder(target) if link == FileLink::Move => target.moves(),
            Target::Folder(_) | Target::List(_) => Vec::new(),
        },
        lists: match &target {
            Target::List(target) => target.digests(),
            Target::Folder(_) => Vec::new(),
        },
    };
    // First: a move that is killed can be undone, too.
    undo.write(&record).await?;
    match target {
        Target::List(target) => target.write().await?,
        Target::Folder(target) => {
            let missing = target.write().await?;
            let moved = record.moved.len();
            record.moved.retain(|image| !missing.contains(&image.key));
            if record.moved.len() < moved {
                undo.write(&record).await?;
            }
        }
    }
    if is_of_out {
        let _decided = decided.write_table(&out).await?;
    }
    print_line(&format!("The clean data set is {to}; what was changed is in {}", undo.place()));
    Ok(())
}

/// The place of the data set, checked.
enum Target {
    List(Box<list::Target>),
    Folder(Box<folder::Target>),
}

/// What becomes of the images, in lines; for a dry run also the first changes.
fn describe(plan: &Plan, dry_run: bool) -> Vec<String> {
    let counts = plan.counts();
    let mut lines = vec![format!(
        "{} of the run: {} dropped, {} with another label, {} as they were ({} decided to keep)",
        format_count(counts.images, "image"),
        counts.dropped,
        counts.relabelled,
        counts.images - counts.dropped - counts.relabelled,
        counts.kept,
    )];
    if counts.foreign > 0 {
        lines.push(format!(
            "{} about images that the run does not have",
            format_count(counts.foreign, "decision")
        ));
    }
    if !dry_run {
        return lines;
    }
    lines.extend(plan.changes().iter().take(NAMED_CHANGES).map(|change| match change {
        Change::Drop { key, .. } => format!("  drop {}", printable(key.as_str())),
        Change::Relabel { key, label, new_label } => format!(
            "  relabel {}: {} becomes {}",
            printable(key.as_str()),
            printable(label.as_deref().unwrap_or("no label")),
            printable(new_label)
        ),
    }));
    if let Some(more) = plan.changes().len().checked_sub(NAMED_CHANGES).filter(|more| *more > 0) {
        lines.push(format!("  and {}", format_count(more as u64, "further change")));
    }
    lines
}
