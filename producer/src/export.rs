//! `camshaft export`: images with their findings as a file for another program that people label images in.
//!
//! Wiring only: [`exported_images`] reads the report's tables a row group at a time, and [`camshaft_exchange`]
//! writes. `camshaft decide --import` takes back what people make of the file. Nothing is replaced: a file that
//! is there may hold somebody's work.

mod chosen_images;
mod exported_images;
mod vocabulary;

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufWriter, Seek, SeekFrom};

use camshaft_common::layout::REPORT;
use camshaft_common::location::Location;
use camshaft_common::run::{ReadRunError, RunRecord};
use camshaft_common::store::{Folder, JSON, StoreError, StoreErrorKind, StoreOptions};
use camshaft_decisions::{Findings, FindingsError, MergeError, MergedDecisions, Rule};
use camshaft_exchange::{AddressRoot, ExportFormat, ExportHead, ExportWriter, WriteError};
use camshaft_table::{TableError, TableReader};

use self::chosen_images::{ChosenImages, FindingNotes};
use self::exported_images::{Addresses, Selected};
use self::vocabulary::Vocabulary;
use crate::advice;
use crate::terminal::output::{format_count, print_line};

/// What `camshaft export` is to do.
#[derive(Clone, Debug)]
pub(crate) struct ExportConfig {
    /// The run.
    pub(crate) out: Location,
    /// The format.
    pub(crate) format: ExportFormat,
    /// The file.
    pub(crate) to: Location,
    /// Which images.
    pub(crate) images: ImageChoice,
    /// Where the other program finds the images of SOURCE; none for where they are.
    pub(crate) image_root: Option<String>,
    /// Where it finds the overlays in OUT; none for where they are.
    pub(crate) out_root: Option<String>,
}

/// Which images are exported.
#[derive(Clone, Debug)]
pub(crate) enum ImageChoice {
    /// Those that something was found about.
    WithFindings,
    /// Those that meet a rule.
    Meeting(Box<Rule>),
    /// All.
    All,
}

/// Why nothing is exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// A place can't be opened, read or written.
    #[error("{}", advice::describe_store_error(.0))]
    Store(#[from] StoreError),
    /// OUT holds no run.
    #[error("{}", advice::describe_run_record_error(.0))]
    Run(#[from] ReadRunError),
    /// There is no report.
    #[error(
        "{0} has no report, and camshaft export takes images and findings from it; run camshaft report {0}"
    )]
    NoReport(String),
    /// The report is of a version that did not write a column.
    #[error("the report in {out} has no column {column}; run camshaft report {out} again")]
    OldReport {
        /// The run.
        out: String,
        /// The column.
        column: &'static str,
    },
    /// The findings can't be read.
    #[error("{}", advice::describe_findings_error(.0))]
    Findings(#[from] FindingsError),
    /// The decisions can't be read.
    #[error("{}", advice::describe_merge_error(.0))]
    Merge(#[from] MergeError),
    /// A table is damaged.
    #[error("{0}; run camshaft report again")]
    Table(#[from] TableError),
    /// The file can't be made.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// PLACE is no place for a file.
    #[error("{0} is a bucket or the root; give --to a file in it, such as {0}/tasks.json")]
    NoName(Location),
    /// There is a file.
    #[error(
        "{0} exists, and somebody may have worked on it; choose another --to, or delete it first"
    )]
    Exists(String),
    /// No image is chosen.
    #[error("no image {0}; choose others with --rule RULE, or --all")]
    NoImages(&'static str),
    /// No image that is chosen has a size.
    #[error(
        "none of the images has a size, as files that can't be decoded have none, and {0} needs one; choose --as csv \
         or label-studio"
    )]
    NoSizes(&'static str),
    /// There is a folder.
    #[error("{0} is a folder; give --to a file in it, such as {0}/tasks.json")]
    IsFolder(String),
    /// A bug.
    #[error("writing ended with a panic")]
    Panicked,
}

impl From<std::io::Error> for ExportError {
    fn from(error: std::io::Error) -> Self {
        Self::Write(error.into())
    }
}

/// A file that was made, and what goes beside it.
struct Exported {
    file: File,
    companion: Option<String>,
    images: u64,
    without_size: u64,
}

/// Exports.
///
/// # Errors
/// If there is no report, it can't be read, or the file can't be written or is there already.
pub(crate) async fn export(config: ExportConfig, stores: StoreOptions) -> Result<(), ExportError> {
    let ExportConfig { out, format, to, images, image_root, out_root } = config;
    let out = Folder::open(&out, &stores)?;
    let run = RunRecord::read_existing(&out).await?;
    let (folder, name) = to.split_last().ok_or_else(|| ExportError::NoName(to.clone()))?;
    let folder = Folder::open(&folder, &stores)?;
    let companion_name = format.companion_suffix().map(|suffix| beside(&name, suffix));
    for name in [Some(&name), companion_name.as_ref()].into_iter().flatten() {
        let path = folder.location().local_path().map(|folder| folder.join(name));
        if path.is_some_and(|path| path.is_dir()) {
            return Err(ExportError::IsFolder(place_of(&folder, name)));
        }
        if folder.exists(name).await? {
            return Err(ExportError::Exists(place_of(&folder, name)));
        }
    }
    let predictions = open_table(&out, "predictions.parquet").await?;
    let findings = open_table(&out, "findings.parquet").await?;
    let why_none = match images {
        ImageChoice::WithFindings => "has a finding",
        ImageChoice::Meeting(_) => "meets the rule",
        ImageChoice::All => "is in the report",
    };
    let chosen = match images {
        ImageChoice::All => ChosenImages::All,
        ImageChoice::WithFindings => ChosenImages::WithFindings,
        ImageChoice::Meeting(rule) => {
            let findings = Findings::read(&out, rule.mentions_best()).await?;
            let meeting = findings.images().iter().filter(|image| rule.holds(image));
            let keys = meeting.map(|image| image.key().as_str().to_owned());
            ChosenImages::Keys(keys.collect::<HashSet<_>>())
        }
    };
    let decided = MergedDecisions::read(&out).await?;
    let images_at = image_root.or_else(|| Some(run.images_place()?.plain_text()));
    let reads_no_paths = format == ExportFormat::LabelStudio
        && images_at.as_ref().is_some_and(|root| root.starts_with('/') && !root.contains('?'));
    let addresses = Addresses {
        images: images_at.as_deref().map(AddressRoot::new),
        out: AddressRoot::new(&out_root.unwrap_or_else(|| out.location().plain_text())),
    };
    let out_place = out.location().to_string();
    let writing = tokio::task::spawn_blocking(move || {
        let (predictions, findings) =
            (TableReader::open(predictions)?, TableReader::open(findings)?);
        let notes = FindingNotes::read(&findings, &out_place)?;
        exported_images::check_columns(&predictions, &out_place)?;
        let (vocabulary, seen) = Vocabulary::read(&predictions, &notes, &chosen)?;
        let head = ExportHead {
            run: run.run.to_string(),
            model: run.model.name.clone(),
            model_digest: run.model.digest.to_string(),
            labels: vocabulary.labels(),
            has_overlays: seen.overlays,
            has_given_overlays: seen.given_overlays,
        };
        let companion = format.companion(&head)?;
        let selected =
            Selected { notes: &notes, chosen: &chosen, decided: &decided, vocabulary: &vocabulary };
        let file = tempfile::tempfile()?;
        let mut writer = ExportWriter::new(format, head, BufWriter::new(file.try_clone()?))?;
        let numbers = selected.numbers(&predictions, format.needs_sizes())?;
        let (mut written, mut without_size) = (0, 0);
        selected.visit(&predictions, &addresses, &numbers, |image| {
            if format.needs_sizes() && image.size.is_none() {
                without_size += 1;
                return Ok(());
            }
            written += 1;
            Ok::<_, ExportError>(writer.push(&image)?)
        })?;
        writer.finish()?;
        Ok::<_, ExportError>(Exported { file, companion, images: written, without_size })
    });
    let exported = writing.await.map_err(|_| ExportError::Panicked)??;
    let Exported { mut file, companion, images, without_size } = exported;
    if images == 0 && without_size > 0 {
        return Err(ExportError::NoSizes(format.name()));
    }
    if images == 0 {
        return Err(ExportError::NoImages(why_none));
    }
    file.seek(SeekFrom::Start(0))?;
    folder.put_file(&name, file, format.media_type()).await?;
    print_line(&format!("{} exported to {to}", format_count(images, "image")));
    if let Some((name, content)) = companion_name.zip(companion) {
        let media_type = if name.ends_with("xml") { "application/xml" } else { JSON };
        folder.put(&name, content, media_type).await?;
        let what = match format {
            ExportFormat::LabelStudio => "the project's labelling configuration",
            _ => "the labels of the task, for CVAT's constructor of labels (Raw)",
        };
        print_line(&format!("{} has {what}", place_of(&folder, &name)));
    }
    if reads_no_paths {
        print_line(
            "Label Studio opens no paths; give --image-root and --out-root, such as '/data/local-files/?d=pets'",
        );
    }
    if without_size > 0 {
        let images = format_count(without_size, "image");
        print_line(&format!(
            "{images} left out: without a size, as files that can't be decoded are"
        ));
    }
    print_line(&format!(
        "What people make of it is taken back with: camshaft decide {} --import FILE",
        out.location()
    ));
    Ok(())
}

/// The name of the file beside `name`: `tasks.json` has `tasks.config.xml`.
fn beside(name: &str, suffix: &str) -> String {
    let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
    format!("{}{suffix}", if stem.is_empty() { name } else { stem })
}

fn place_of(folder: &Folder, name: &str) -> String {
    format!("{}/{name}", folder.location().to_string().trim_end_matches('/'))
}

/// A table of the report, in a temporary file.
async fn open_table(out: &Folder, name: &str) -> Result<File, ExportError> {
    let opened = match out.open_object(&format!("{REPORT}/{name}"), u64::MAX).await {
        Err(error) if error.kind() == StoreErrorKind::NotFound => {
            return Err(ExportError::NoReport(out.location().to_string()));
        }
        opened => opened?,
    };
    Ok(opened.into_file().await?)
}
