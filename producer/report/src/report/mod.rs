//! Builds OUT/report from the results in OUT. Wiring only:
//!
//! ```text
//! results ─▶ rows ─▶ predictions.parquet ─▶ findings ─▶ thumbnails ─▶ images ─▶ index.html
//!              └───▶ overview     └─▶ map    └───▶ findings.parquet, labels.parquet
//! ```
//!
//! Tables are written to temporary files, read from there, and put into OUT once they are complete.
//! The page comes last, so that it never refers to a table that is not there.

mod blocking;
mod image_table;
mod metadata;
mod options;
mod tables;

use std::fs::File;
use std::sync::Arc;

use camshaft_common::layout::{REPORT, UNUSABLE_FILE};
use camshaft_common::location::Location;
use camshaft_common::model::TrainedLayers;
use camshaft_common::run::{RunRecord, SCHEMA};
use camshaft_common::shortcuts::ShortcutsRecord;
use camshaft_common::skipped::SkippedCounts;
use camshaft_common::store::{Folder, StoreOptions};
use camshaft_common::trust::TrustRecord;
use camshaft_decisions::{MergedDecisions, Sample};
use chrono::Utc;
use tokio::sync::mpsc;

pub use options::ReportOptions;

use self::blocking::blocking;
use self::image_table::build_table;
use self::metadata::table_metadata;
use self::tables::{ReportTables, put_file, write_rows};
use crate::comparison::{self, RunComparison};
use crate::error::ReportError;
use crate::findings::{self, Finding, Findings, ShortcutSuspect};
use crate::judgements::Judgements;
use crate::overview::{self, LabelAudit, Overview};
use crate::page::image_files::put_files;
use crate::page::images::{self, ImagesData, ListedImages, MOST_IN_PAGE};
use crate::page::thumbnails::Thumbnails;
use crate::page::wanted::{wanted_examples, wanted_thumbnails};
use crate::page::{self, AvailablePictures, LISTED_FINDINGS, PageData, RunFacts, TrustFacts};
use crate::predictions::ImageClasses;
use crate::predictions::read_results::ReadProgress;
use crate::projection::ImageMap;
use crate::slices;
use crate::stored_record::StoredRecord;
use crate::summary::{self, Summary};
use crate::table::{TableError, TableReader};

const GZIP: &str = "application/gzip";
/// Files of the page's data that may wait to be put into OUT.
const WAITING_FILES: usize = 2;

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
    let shortcuts = StoredRecord::<ShortcutsRecord>::read(&out, &run).await?;
    let proofs = shortcuts.record.map(|record| record.proofs).unwrap_or_default();
    let trust = StoredRecord::<TrustRecord>::read(&out, &run).await?;
    let labels = options.labels;
    let (table, confusion) = (built.table.try_clone()?, overview.confusion.clone());
    let (found, sliced, confused, map) = blocking(move || {
        let table = TableReader::open(table)?;
        let map = ImageMap::read(&table)?;
        let classes = ImageClasses::read(&table)?;
        let confused = confusion.map(|confusion| overview::read_confused(&table, &confusion));
        let found = findings::find(&table, &classes, labels, &proofs)?;
        let sliced = slices::find(&table, classes)?;
        Ok::<_, ReportError>((found, sliced, confused.transpose()?, map))
    })
    .await?;
    let confused = confused.unwrap_or_default();
    let Findings { list, clusters, tests, estimated_label_errors, notes, .. } = found;
    overview.estimated_label_errors = estimated_label_errors.map(|errors| errors.count);
    overview.estimated_label_errors_low = estimated_label_errors.map(|errors| errors.low);
    overview.estimated_label_errors_high = estimated_label_errors.map(|errors| errors.high);
    let all_layers_trained = run.trained_layers == Some(TrainedLayers::All);
    overview.label_audit =
        found.label_audit.map(|audit| LabelAudit { all_layers_trained, ..audit });
    overview.notes.extend(left_out);
    overview.notes.extend(built.manifest_note);
    overview.notes.extend(run.int8.map(|int8| format!("{int8}.")));
    overview.notes.extend(shortcuts.note);
    overview.notes.extend(trust.note);
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

    let samples = judge_findings(&out, &list, &mut overview).await;
    overview.notes.extend(overview.decision_problems.iter().cloned());
    let source = run.open_images(stores);
    let (most, without_images) = (options.thumbnails, source.is_none());
    let mut wanted = wanted_thumbnails(&list, &clusters, comparison.as_ref(), most, without_images);
    if options.thumbnails > 0 {
        wanted.extend(wanted_examples(&sliced.list, &confused));
    }
    let thumbnails = Thumbnails::make(&out, source.as_ref(), wanted).await?;
    if let Some(missing) = &thumbnails.missing {
        let (count, reason) = (missing.count, &missing.first_reason);
        overview.notes.push(format!("{count} pictures have no thumbnail; the first: {reason}"));
    }
    let originals = source.as_ref().map(Folder::location).filter(|at| at.local_path().is_some());
    let originals = originals.map(|at| at.as_url().as_str().trim_end_matches('/').to_owned());
    let thumbnails = Arc::new(thumbnails);
    let listed = list.iter().take(LISTED_FINDINGS);
    let listed = ListedImages {
        findings: listed.map(|found| (found.key.clone(), found.best.clone())).collect(),
        map,
        originals: originals.clone(),
        most_in_page: MOST_IN_PAGE,
    };
    let images = put_images(&out, built.table.try_clone()?, listed, &thumbnails).await?;
    let metadata = Arc::new(table_metadata(&run));
    let tables = ReportTables {
        predictions: built.table,
        findings: write_rows(list.clone(), findings::COLUMNS, &metadata).await?,
        csv: built.csv,
        labels: found.labels,
        comparison: comparison_table,
        slices: write_rows(sliced.list.clone(), slices::COLUMNS, &metadata).await?,
    };
    tables.put(&out).await?;

    let pictures = AvailablePictures { thumbnails: &thumbnails, originals: originals.as_deref() };
    let data = PageData {
        schema: SCHEMA,
        title: page::title(&run),
        built_at: Utc::now(),
        camshaft: env!("CARGO_PKG_VERSION"),
        run: RunFacts::new(&run, location),
        overview: &overview,
        trust: trust.record.as_ref().map(TrustFacts::new),
        findings: pictures.findings(&list),
        clusters: pictures.clusters(&clusters),
        tests: &tests,
        comparison: comparison.as_ref().map(|comparison| pictures.comparison(comparison)),
        slices: pictures.slices(&sliced),
        confused: pictures.confused(&confused),
        samples: &samples,
    };
    let path = format!("{REPORT}/index.html");
    out.put(&path, page::render(&data, &images), "text/html; charset=utf-8").await?;
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

/// Counts what people have decided about the findings, and returns the samples that were drawn for them.
/// Decisions that can't be read are a note: the report is of the results.
async fn judge_findings(out: &Folder, list: &[Finding], overview: &mut Overview) -> Vec<Sample> {
    let read = async {
        let (samples, broken) = Sample::read_all(out).await.map_err(|error| error.to_string())?;
        let decided = MergedDecisions::read(out).await.map_err(|error| error.to_string())?;
        Ok::<_, String>((samples, broken, decided))
    };
    match read.await {
        Ok((samples, broken, decided)) => {
            overview.decision_problems = broken.iter().map(ToString::to_string).collect();
            let found = list.iter().map(|finding| (finding.kind, finding.key.as_str()));
            overview.judgements = Judgements::count(found, &samples, &decided);
            samples
        }
        Err(reason) => {
            overview.decision_problems = vec![format!("decisions are not counted: {reason}")];
            Vec::new()
        }
    }
}

/// Reads the data of all images for the page, and puts into OUT those that are too many for it.
async fn put_images(
    out: &Folder,
    table: File,
    listed: ListedImages,
    thumbnails: &Arc<Thumbnails>,
) -> Result<ImagesData, ReportError> {
    let (files, received) = mpsc::channel(WAITING_FILES);
    let thumbnails = Arc::clone(thumbnails);
    let reading = blocking(move || {
        images::read_images(&TableReader::open(table)?, &listed, &thumbnails, &files)
    });
    let (images, put) = tokio::join!(reading, put_files(out, received));
    put?;
    images
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
        Ok::<_, TableError>((comparison, file, examples))
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
