//! Builds OUT/report from the results in OUT. Wiring only:
//!
//! ```text
//! results ─▶ rows ─▶ predictions.parquet ─▶ findings ─▶ thumbnails ─▶ index.html
//!              └───▶ overview                  └───▶ findings.parquet, labels.parquet
//! ```
//!
//! Tables are written to temporary files, read from there, and put into OUT once they are complete.
//! The page comes last, so that it never refers to a table that is not there.

use std::collections::HashSet;
use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use camshaft_common::label::LabelMatcher;
use camshaft_common::layout::{REPORT, UNUSABLE_FILE};
use camshaft_common::location::Location;
use camshaft_common::manifest::ManifestImages;
use camshaft_common::run::{RunRecord, SCHEMA};
use camshaft_common::skipped::SkippedCounts;
use camshaft_common::store::{Folder, StoreOptions};
use chrono::{DateTime, Utc};
use tokio::sync::mpsc;

use crate::comparison::{self, RunComparison};
use crate::error::ReportError;
use crate::findings::{
    self, Cluster, Finding, Findings, LabelOptions, NoSuchFolder, ShortcutSuspect,
};
use crate::left_out::{LeftOut, LeftOutTotals};
use crate::overview::{self, OverviewTotals};
use crate::page::thumbnails::{PagePicture, Thumbnails, WantedThumbnail, wanted_examples};
use crate::page::{self, AvailablePictures, PageData, RunFacts};
use crate::predictions::read_results::{ReadProgress, ResultReader, RowChunk};
use crate::predictions::{self, LabelMeaning, NamedClasses};
use crate::run_images::RunImages;
use crate::shortcut_proofs::StoredProofs;
use crate::slices::{self, Slice};
use crate::summary::{self, Summary};
use crate::table::{CsvWriter, TableError, TableReader, TableWriter};

const PARQUET: &str = "application/vnd.apache.parquet";
const GZIP: &str = "application/gzip";
/// Chunks of rows that may wait for the table's writer.
const WAITING_CHUNKS: usize = 4;

/// What a report holds besides what every report holds.
#[derive(Clone, Debug)]
pub struct ReportOptions {
    /// Whether to write `predictions.csv` as well.
    pub csv: bool,
    /// Whether the tables hold embeddings.
    pub embeddings: bool,
    /// The number of findings that get thumbnails, the most urgent ones.
    pub thumbnails: usize,
    /// Where another run is, to compare this one with.
    pub compare_with: Option<Location>,
    /// The share of images that no finding is about, 0 to 1 without both; none for no hold-out.
    pub holdout: Option<f64>,
    /// The folder of an image's key, counted from 1, whose images are judged together.
    pub group_by: Option<usize>,
}

impl Default for ReportOptions {
    fn default() -> Self {
        Self {
            csv: false,
            embeddings: false,
            thumbnails: 1000,
            compare_with: None,
            holdout: None,
            group_by: None,
        }
    }
}

/// Builds the report of the run in OUT, which is at `location`, into OUT/report.
///
/// # Errors
/// If OUT holds no run or no results, or can't be read or written.
pub async fn build(
    location: &Location,
    options: &ReportOptions,
    stores: &StoreOptions,
    progress: &Arc<ReadProgress>,
) -> Result<Summary, ReportError> {
    let out = Folder::open(location, stores)?;
    let run = RunRecord::read_existing(&out).await?;
    let built = build_table(&out, &run, options, progress).await?;
    // Before anything can fail: it says what to do when no result counts, too.
    put_file(&out, UNUSABLE_FILE, built.unusable, GZIP).await?;
    let mut overview = built.totals.into_overview(run.images);
    let left_out = built.left_out.texts();
    if overview.images == 0 {
        let out = location.to_string();
        return Err(match left_out.is_empty() {
            true => ReportError::NoResults(out),
            false => ReportError::AllLeftOut { out, reasons: left_out },
        });
    }
    if options.embeddings && !built.has_embeddings {
        return Err(ReportError::NoEmbeddings);
    }
    let StoredProofs { proofs, note } = StoredProofs::read(&out, &run).await?;
    let labels = LabelOptions { holdout: options.holdout, group_by: options.group_by };
    let (table, confusion) = (built.table.try_clone()?, overview.confusion.clone());
    let (found, sliced, confused) = blocking(move || {
        let table = TableReader::open(table)?;
        let confused = confusion.map(|confusion| overview::read_confused(&table, &confusion));
        let found = findings::find(&table, labels, &proofs)?;
        Ok((found, slices::find(&table)?, confused.transpose()?))
    })
    .await?;
    let confused = confused.unwrap_or_default();
    let Findings { list, clusters, tests, estimated_label_errors, notes, .. } = found;
    if let Some(NoSuchFolder { part, example }) = found.no_such_folder {
        return Err(ReportError::NoSuchFolder { part, example });
    }
    overview.estimated_label_errors = estimated_label_errors.map(|errors| errors.count);
    overview.estimated_label_errors_low = estimated_label_errors.map(|errors| errors.low);
    overview.estimated_label_errors_high = estimated_label_errors.map(|errors| errors.high);
    overview.label_audit = found.label_audit;
    overview.notes.extend(left_out);
    overview.notes.extend(built.manifest_note);
    overview.notes.extend(note);
    overview.notes.extend(notes);
    overview.notes.extend(sliced.notes.iter().cloned());
    let (comparison, comparison_table) = match &options.compare_with {
        Some(other) => {
            let (compared, table, note) =
                compare(other, &run, &built.table, stores, progress).await?;
            overview.notes.extend(note);
            (Some(compared), Some(table))
        }
        None => (None, None),
    };

    let source = source_of(&run, stores);
    let mut wanted = wanted_thumbnails(&list, &clusters, comparison.as_ref(), options.thumbnails);
    if options.thumbnails > 0 {
        wanted.extend(wanted_examples(&sliced.list, &confused));
    }
    let thumbnails = Thumbnails::make(&out, source.as_ref(), wanted).await?;
    if let Some(missing) = &thumbnails.missing {
        let (count, reason) = (missing.count, &missing.first_reason);
        overview.notes.push(format!("{count} pictures have no thumbnail; the first: {reason}"));
    }
    let listed = list.clone();
    let tables = ReportTables {
        predictions: built.table,
        findings: blocking(move || write_findings(listed)).await?,
        csv: built.csv,
        labels: found.labels,
        comparison: comparison_table,
        slices: write_slices(sliced.list.clone()).await?,
    };
    tables.put(&out).await?;

    let source = source.as_ref().map(Folder::location).filter(|at| at.local_path().is_some());
    let source = source.map(|at| at.as_url().as_str().trim_end_matches('/').to_owned());
    let pictures = AvailablePictures { thumbnails: &thumbnails, originals: source.as_deref() };
    let data = PageData {
        schema: SCHEMA,
        title: page::title(&run),
        built_at: Utc::now(),
        camshaft: env!("CARGO_PKG_VERSION"),
        run: RunFacts::new(&run, location),
        overview: &overview,
        findings: pictures.findings(&list),
        clusters: pictures.clusters(&clusters),
        tests: &tests,
        comparison: comparison.as_ref().map(|comparison| pictures.comparison(comparison)),
        slices: pictures.slices(&sliced),
        confused: pictures.confused(&confused),
    };
    let path = format!("{REPORT}/index.html");
    out.put(&path, page::render(&data), "text/html; charset=utf-8").await?;
    Ok(Summary {
        run: run.run.to_string(),
        overview,
        not_images: run.skipped.as_ref().map(SkippedCounts::not_images),
        findings: summary::count_findings(&list),
        comparison,
        slices: summary::SliceCounts::of(&sliced),
        page: format!("{}/{path}", location.to_string().trim_end_matches('/')),
        unreadable: built.left_out.unreadable(),
        outdated: built.left_out.outdated(),
        left_out: built.left_out,
    })
}

/// The clusters of maps in the run's results that look like shortcuts, each with up to `images`
/// images of other classes to prove it on. Writes nothing.
///
/// # Errors
/// If OUT holds no run, or can't be read.
pub async fn find_suspects(
    location: &Location,
    images: usize,
    stores: &StoreOptions,
    progress: &Arc<ReadProgress>,
) -> Result<Vec<ShortcutSuspect>, ReportError> {
    let out = Folder::open(location, stores)?;
    let run = RunRecord::read_existing(&out).await?;
    let built = build_table(&out, &run, &ReportOptions::default(), progress).await?;
    let table = built.table;
    blocking(move || findings::suspects(&TableReader::open(table)?, images)).await
}

/// The finished table of all images, and what was counted on the way.
struct BuiltTable {
    table: File,
    csv: Option<File>,
    totals: OverviewTotals,
    has_embeddings: bool,
    /// The classes that results name.
    named_classes: NamedClasses,
    /// The labels of older results whose class is not known.
    open_labels: HashSet<String>,
    /// The results without a row.
    left_out: LeftOut,
    /// The note about those that only a report can tell; none if there are none.
    unusable: Option<File>,
    /// Why results of images that have gone may have rows, if that is so.
    manifest_note: Option<String>,
}

/// Builds the table of all images. Reads results a second time if older ones have labels whose
/// classes only other results name.
async fn build_table(
    out: &Folder,
    run: &RunRecord,
    options: &ReportOptions,
    progress: &Arc<ReadProgress>,
) -> Result<BuiltTable, ReportError> {
    let (listed, reason) = match ManifestImages::read(out, run).await {
        Ok(Some(listed)) => (Some(listed), None),
        Ok(None) => (None, why_not_listed(run).map(str::to_owned)),
        Err(error) if error.can_do_without() => (None, Some(error.to_string())),
        Err(error) => return Err(error.into()),
    };
    let manifest_note = reason
        .map(|reason| format!("results of images that have gone may be among these: {reason}"));
    let images = Arc::new(RunImages::new(run, listed));
    let mut built = read_table(out, &images, options, progress, None).await?;
    let classes = built.named_classes.matcher();
    if built.open_labels.iter().any(|label| classes.find(label).is_ok()) {
        progress.read.store(0, Relaxed);
        built = read_table(out, &images, options, progress, Some(&Arc::new(classes))).await?;
    }
    Ok(BuiltTable { manifest_note, ..built })
}

/// Why the run has no manifest of its images, unless an older version or a user without the right to
/// write one has started it: their reports never told.
fn why_not_listed(run: &RunRecord) -> Option<&'static str> {
    run.generation?;
    Some(match run.images {
        None => "SOURCE has not been listed to its end",
        Some(_) => "the run's manifest could not be written",
    })
}

async fn read_table(
    out: &Folder,
    images: &Arc<RunImages>,
    options: &ReportOptions,
    progress: &Arc<ReadProgress>,
    classes: Option<&Arc<LabelMatcher>>,
) -> Result<BuiltTable, ReportError> {
    let (rows, received) = mpsc::channel(WAITING_CHUNKS);
    let (csv, run) = (options.csv, images.run().clone());
    let writing = blocking(move || write_table(received, csv, &run));
    let reading = async {
        let embeddings = options.embeddings;
        let reader = ResultReader { out, images, embeddings, classes, progress, rows: &rows };
        let read = reader.send_results().await;
        drop(rows);
        read
    };
    let (read, written) = tokio::join!(reading, writing);
    read?;
    written
}

/// Writes all rows that come to the table, and to a CSV file if `csv` is true.
fn write_table(
    mut rows: mpsc::Receiver<RowChunk>,
    csv: bool,
    run: &RunRecord,
) -> Result<BuiltTable, TableError> {
    let table = tempfile::tempfile()?;
    let mut writer = TableWriter::new(table.try_clone()?, predictions::COLUMNS)?;
    let mut csv = if csv { Some(CsvWriter::new(predictions::COLUMNS)?) } else { None };
    let (mut totals, mut has_embeddings) = (OverviewTotals::default(), false);
    let (mut named_classes, mut open_labels) = (NamedClasses::default(), HashSet::new());
    let mut left_out = LeftOutTotals::new(run)?;
    while let Some(chunk) = rows.blocking_recv() {
        for row in chunk {
            let row = match row {
                Ok(row) => row,
                Err(result) => {
                    left_out.add(result)?;
                    continue;
                }
            };
            totals.add(&row);
            named_classes.add(&row);
            if let (LabelMeaning::Open, Some(label)) = (&row.meaning, &row.label)
                && !open_labels.contains(label)
            {
                open_labels.insert(label.clone());
            }
            has_embeddings |= row.predicted.as_ref().is_some_and(|p| p.embedding.is_some());
            if let Some(csv) = &mut csv {
                csv.push(&row)?;
            }
            writer.push(row)?;
        }
    }
    writer.finish()?;
    let csv = csv.map(CsvWriter::finish).transpose()?;
    let (left_out, unusable) = left_out.finish()?;
    Ok(BuiltTable {
        table,
        csv,
        totals,
        has_embeddings,
        named_classes,
        open_labels,
        left_out,
        unusable,
        manifest_note: None,
    })
}

/// Compares with the run at `other`. Returns the table `comparison.parquet` as well, and a note if
/// the runs have no image in common.
async fn compare(
    other: &Location,
    run: &RunRecord,
    table: &File,
    stores: &StoreOptions,
    progress: &Arc<ReadProgress>,
) -> Result<(RunComparison, File, Option<String>), ReportError> {
    let folder = Folder::open(other, stores)?;
    let other_run = RunRecord::read_existing(&folder).await?;
    let before = build_table(&folder, &other_run, &ReportOptions::default(), progress).await?;
    let is_same_model = run.model.digest == other_run.model.digest;
    let (table, name) = (table.try_clone()?, other.to_string());
    let (comparison, file, examples) = blocking(move || {
        let file = tempfile::tempfile()?;
        let (now, before) = (TableReader::open(table)?, TableReader::open(before.table)?);
        let comparison =
            comparison::compare_runs(&now, &before, name, is_same_model, file.try_clone()?)?;
        let examples = [comparison::first_predicted(&now)?, comparison::first_predicted(&before)?];
        Ok((comparison, file, examples))
    })
    .await?;
    if comparison.both > 0 {
        return Ok((comparison, file, None));
    }
    let describe = |count: u64, place, example: Option<String>| match example {
        Some(key) => format!("{count} {place}, such as {key}"),
        None => format!("none {place}"),
    };
    let [here, there] = examples;
    let note = format!(
        "no image is predicted in both runs ({}; {}), so that only their inputs are compared with \
         {}; predictions are compared of runs of the same SOURCE, whose keys are the same",
        describe(comparison.only_here, "here", here),
        describe(comparison.only_there, "there", there),
        comparison.against
    );
    Ok((comparison, file, Some(note)))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, TableError> + Send + 'static,
) -> Result<T, ReportError> {
    let done = tokio::task::spawn_blocking(work).await;
    Ok(done.map_err(|_panicked| ReportError::Panicked)??)
}

/// The folder with the run's images; none if the run's record does not tell it.
fn source_of(run: &RunRecord, stores: &StoreOptions) -> Option<Folder> {
    let location = run.images_place()?;
    let location = match location.local_path() {
        // SOURCE is a single image, whose key is its file name.
        Some(path) if path.is_file() => path.parent()?.to_str()?.parse().ok()?,
        _ => location,
    };
    Folder::open(&location, stores).ok()
}

/// The pictures of the `most` most urgent findings, and of all clusters and compared images.
fn wanted_thumbnails(
    list: &[Finding],
    clusters: &[Cluster],
    comparison: Option<&RunComparison>,
    most: usize,
) -> Vec<WantedThumbnail> {
    if most == 0 {
        return Vec::new();
    }
    let mut wanted = Vec::new();
    let mut add = |picture, not_before| wanted.push(WantedThumbnail { picture, not_before });
    let image = |key: &String| PagePicture::Image(key.clone());
    let overlay = |path: &String| PagePicture::Overlay(path.clone());
    for finding in list.iter().take(most) {
        let pictures = [
            // Only a failure to explain is of a picture that can be shown.
            finding
                .failure
                .as_ref()
                .is_none_or(|class| class == "explain-failed")
                .then(|| image(&finding.key)),
            finding.overlay.as_ref().map(overlay),
            finding.given_overlay.as_ref().map(overlay),
            finding.other.as_ref().map(image),
            finding.other_overlay.as_ref().map(overlay),
        ];
        pictures.into_iter().flatten().for_each(|picture| add(picture, finding.finished_at));
    }
    for example in clusters.iter().flat_map(|cluster| &cluster.examples) {
        let pictures = [Some(image(&example.key)), example.overlay.as_ref().map(overlay)];
        pictures.into_iter().flatten().for_each(|picture| add(picture, example.finished_at));
    }
    for compared in comparison.iter().flat_map(|comparison| &comparison.moved) {
        let pictures = [Some(image(&compared.key)), compared.overlay.as_ref().map(overlay)];
        pictures.into_iter().flatten().for_each(|picture| add(picture, DateTime::UNIX_EPOCH));
    }
    wanted
}

async fn write_slices(list: Vec<Slice>) -> Result<File, ReportError> {
    blocking(move || {
        let file = tempfile::tempfile()?;
        let mut writer = TableWriter::new(file.try_clone()?, slices::COLUMNS)?;
        for slice in list {
            writer.push(slice)?;
        }
        writer.finish()?;
        Ok(file)
    })
    .await
}

fn write_findings(list: Vec<Finding>) -> Result<File, TableError> {
    let file = tempfile::tempfile()?;
    let mut writer = TableWriter::new(file.try_clone()?, findings::COLUMNS)?;
    for finding in list {
        writer.push(finding)?;
    }
    writer.finish()?;
    Ok(file)
}

/// The finished tables of a report.
struct ReportTables {
    predictions: File,
    findings: File,
    csv: Option<File>,
    labels: Option<File>,
    comparison: Option<File>,
    slices: File,
}

impl ReportTables {
    /// Puts the tables into OUT. Deletes an earlier report's table that this report does not have,
    /// because it would be of other results.
    async fn put(self, out: &Folder) -> Result<(), ReportError> {
        let Self { predictions, findings, csv, labels, comparison, slices } = self;
        put_table(out, "predictions.parquet", Some(predictions), PARQUET).await?;
        put_table(out, "findings.parquet", Some(findings), PARQUET).await?;
        put_table(out, "labels.parquet", labels, PARQUET).await?;
        put_table(out, "predictions.csv", csv, "text/csv; charset=utf-8").await?;
        put_table(out, "comparison.parquet", comparison, PARQUET).await?;
        put_table(out, "slices.parquet", Some(slices), PARQUET).await
    }
}

async fn put_table(
    out: &Folder,
    name: &str,
    file: Option<File>,
    content_type: &'static str,
) -> Result<(), ReportError> {
    put_file(out, &format!("{REPORT}/{name}"), file, content_type).await
}

/// Puts a file into OUT, or deletes an earlier report's if there is none.
async fn put_file(
    out: &Folder,
    path: &str,
    file: Option<File>,
    content_type: &'static str,
) -> Result<(), ReportError> {
    match file {
        Some(mut file) => {
            file.seek(SeekFrom::Start(0))?;
            out.put_file(path, file, content_type).await?;
        }
        None => out.delete(path).await?,
    }
    Ok(())
}
