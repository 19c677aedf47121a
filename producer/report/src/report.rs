//! From OUT to OUT/report. Wiring only:
//!
//! ```text
//! results ─▶ rows ─▶ predictions.parquet ─▶ findings ─▶ thumbnails ─▶ index.html
//!              └───▶ overview                  └───▶ findings.parquet
//! ```
//!
//! Tables are written to temporary files, read from there, and put into OUT when they are whole;
//! the page comes last, so that a page never speaks of what is not there.

use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::sync::Arc;

use camshaft_common::layout::REPORT;
use camshaft_common::location::Location;
use camshaft_common::run::{RunRecord, SCHEMA};
use camshaft_common::store::{Folder, StoreOptions};
use chrono::{DateTime, Utc};
use tokio::sync::mpsc;

use crate::comparison::{self, Comparison};
use crate::csv_file::CsvFile;
use crate::error::ReportError;
use crate::findings::{self, Finding, Findings};
use crate::gather::{Progress, gather};
use crate::overview::Tally;
use crate::page::{self, PageData, Pictures, RunFacts};
use crate::row::{self, ImageRow};
use crate::summary::{self, Summary};
use crate::table::{TableError, TableReader, TableWriter};
use crate::thumbnails::{Picture, Thumbnails};

const PARQUET: &str = "application/vnd.apache.parquet";
/// Chunks of rows on their way to the table.
const CHUNKS: usize = 4;
/// Unreadable results that are named.
const NAMED: usize = 3;

/// What a report holds besides what it always does.
#[derive(Clone, Debug)]
pub struct ReportOptions {
    /// `predictions.csv` as well.
    pub csv: bool,
    /// Embeddings in the tables.
    pub embeddings: bool,
    /// Thumbnails for so many of the most urgent findings.
    pub thumbnails: usize,
    /// The run to compare with.
    pub against: Option<Location>,
}

impl Default for ReportOptions {
    fn default() -> Self {
        Self { csv: false, embeddings: false, thumbnails: 1000, against: None }
    }
}

/// Builds OUT/report.
///
/// # Errors
/// Where OUT holds no run or no results, or can't be read or written.
pub async fn build(
    location: &Location,
    options: &ReportOptions,
    stores: &StoreOptions,
    progress: &Arc<Progress>,
) -> Result<Summary, ReportError> {
    let out = Folder::open(location, stores)?;
    let run = RunRecord::read_existing(&out).await?;
    let mut built = build_table(&out, options, progress).await?;
    let mut overview = built.tally.overview(run.images);
    if overview.images == 0 {
        return Err(ReportError::NoResults(location.to_string()));
    }
    if options.embeddings && !built.has_embeddings {
        return Err(ReportError::NoEmbeddings);
    }
    let table = built.table.try_clone()?;
    let found = blocking(move || findings::find(&TableReader::open(table)?)).await?;
    let Findings { list, clusters, tests, estimated_label_errors, notes } = found;
    overview.estimated_label_errors = estimated_label_errors;
    overview.notes = unreadable_notes(&built.unreadable);
    overview.notes.extend(notes);

    let compared = match &options.against {
        Some(against) => Some(compare(against, &built.table, stores, progress).await?),
        None => None,
    };
    let source = source_of(&run, stores);
    let wanted = wanted(&list, &clusters, compared.as_ref().map(|(c, _)| c), options.thumbnails);
    let thumbnails = Thumbnails::make(&out, source.as_ref(), wanted).await?;
    if let Some((count, reason)) = &thumbnails.missing {
        overview.notes.push(format!("{count} pictures have no thumbnail; the first: {reason}"));
    }

    let findings_table = blocking({
        let list = list.clone();
        move || write_findings(list)
    })
    .await?;
    let put = |name: &'static str, mut file: File, content_type| {
        let out = &out;
        async move {
            file.seek(SeekFrom::Start(0))?;
            out.put_file(&format!("{REPORT}/{name}"), file, content_type).await?;
            Ok::<_, ReportError>(())
        }
    };
    put("predictions.parquet", built.table, PARQUET).await?;
    put("findings.parquet", findings_table, PARQUET).await?;
    // An earlier report's, that this one doesn't have, would speak of other results.
    match built.csv.take() {
        Some(csv) => put("predictions.csv", csv, "text/csv; charset=utf-8").await?,
        None => out.delete(&format!("{REPORT}/predictions.csv")).await?,
    }
    let compared = match compared {
        Some((comparison, file)) => {
            put("comparison.parquet", file, PARQUET).await?;
            Some(comparison)
        }
        None => {
            out.delete(&format!("{REPORT}/comparison.parquet")).await?;
            None
        }
    };
    let originals = source.as_ref().map(Folder::location).filter(|at| at.local_path().is_some());
    let originals = originals.map(|at| at.as_url().as_str().trim_end_matches('/').to_owned());
    let pictures = Pictures { thumbnails: &thumbnails, originals: originals.as_deref() };
    let data = PageData {
        schema: SCHEMA,
        title: title(&run),
        built_at: Utc::now(),
        camshaft: env!("CARGO_PKG_VERSION"),
        run: facts(&run, location),
        overview: &overview,
        findings: pictures.findings(&list),
        clusters: pictures.clusters(&clusters),
        tests: &tests,
        comparison: compared.as_ref().map(|comparison| pictures.comparison(comparison)),
    };
    let place = format!("{REPORT}/index.html");
    out.put(&place, page::render(&data), "text/html; charset=utf-8").await?;
    Ok(Summary {
        run: run.run.to_string(),
        overview,
        findings: summary::counts(&list),
        comparison: compared,
        page: format!("{}/{place}", location.to_string().trim_end_matches('/')),
        unreadable: built.unreadable.len() as u64,
    })
}

/// A finished table of every image, and what was learnt on the way.
struct Built {
    table: File,
    csv: Option<File>,
    tally: Tally,
    has_embeddings: bool,
    unreadable: Vec<String>,
}

async fn build_table(
    out: &Folder,
    options: &ReportOptions,
    progress: &Arc<Progress>,
) -> Result<Built, ReportError> {
    let (sender, mut receiver) = mpsc::channel::<Vec<Result<ImageRow, String>>>(CHUNKS);
    let csv = options.csv;
    let writing = blocking(move || {
        let table = tempfile::tempfile()?;
        let mut writer = TableWriter::new(table.try_clone()?, row::COLUMNS)?;
        let mut csv = if csv { Some(CsvFile::new(row::COLUMNS)?) } else { None };
        let (mut tally, mut has_embeddings) = (Tally::default(), false);
        let mut unreadable = Vec::new();
        while let Some(rows) = receiver.blocking_recv() {
            for row in rows {
                let row = match row {
                    Ok(row) => row,
                    Err(reason) => {
                        unreadable.push(reason);
                        continue;
                    }
                };
                tally.add(&row);
                has_embeddings |= row.predicted.as_ref().is_some_and(|p| p.embedding.is_some());
                if let Some(csv) = &mut csv {
                    csv.push(&row)?;
                }
                writer.push(row)?;
            }
        }
        writer.finish()?;
        let csv = csv.map(CsvFile::finish).transpose()?;
        Ok::<_, TableError>(Built { table, csv, tally, has_embeddings, unreadable })
    });
    let reading = async {
        let read = gather(out, options.embeddings, progress, &sender).await;
        drop(sender);
        read
    };
    let (read, written) = tokio::join!(reading, writing);
    read?;
    written
}

/// The other run's table, and what changed since.
async fn compare(
    against: &Location,
    table: &File,
    stores: &StoreOptions,
    progress: &Arc<Progress>,
) -> Result<(Comparison, File), ReportError> {
    let other = Folder::open(against, stores)?;
    RunRecord::read_existing(&other).await?;
    let before = build_table(&other, &ReportOptions::default(), progress).await?;
    let (table, name) = (table.try_clone()?, against.to_string());
    blocking(move || {
        let file = tempfile::tempfile()?;
        let (now, before) = (TableReader::open(table)?, TableReader::open(before.table)?);
        let comparison = comparison::compare(&now, &before, name, file.try_clone()?)?;
        Ok((comparison, file))
    })
    .await
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, TableError> + Send + 'static,
) -> Result<T, ReportError> {
    let done = tokio::task::spawn_blocking(work).await;
    Ok(done.map_err(|_panicked| ReportError::Panicked)??)
}

/// Where the run's images lie, where that can be told from its record.
fn source_of(run: &RunRecord, stores: &StoreOptions) -> Option<Folder> {
    let place: Location = match &run.base {
        Some(base) => base.clone(),
        None => run.source.parse().ok()?,
    };
    let place = match place.local_path() {
        // One image: its key is its name.
        Some(path) if path.is_file() => path.parent()?.to_str()?.parse().ok()?,
        _ => place,
    };
    Folder::open(&place, stores).ok()
}

/// The pictures that the page shows first.
fn wanted(
    list: &[Finding],
    clusters: &[findings::Cluster],
    comparison: Option<&Comparison>,
    most: usize,
) -> Vec<(Picture, DateTime<Utc>)> {
    let mut wanted = Vec::new();
    let mut add = |key: Option<&String>, overlays: [Option<&String>; 2], since| {
        wanted.extend(key.map(|key| (Picture::Image(key.clone()), since)));
        let overlays = overlays.into_iter().flatten();
        wanted.extend(overlays.map(|path| (Picture::Overlay(path.clone()), since)));
    };
    for finding in list.iter().take(most) {
        let overlays = [finding.overlay.as_ref(), finding.given_overlay.as_ref()];
        add(Some(&finding.key), overlays, finding.finished_at);
        let overlays = [finding.other_overlay.as_ref(), None];
        add(finding.other.as_ref(), overlays, finding.finished_at);
    }
    if most > 0 {
        for example in clusters.iter().flat_map(|cluster| &cluster.examples) {
            add(Some(&example.key), [example.overlay.as_ref(), None], example.finished_at);
        }
        for moved in comparison.iter().flat_map(|comparison| &comparison.moved) {
            add(Some(&moved.key), [moved.overlay.as_ref(), None], DateTime::UNIX_EPOCH);
        }
    }
    wanted
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

fn unreadable_notes(unreadable: &[String]) -> Vec<String> {
    if unreadable.is_empty() {
        return Vec::new();
    }
    let count = unreadable.len();
    let named = unreadable[..count.min(NAMED)].join("; ");
    vec![format!(
        "{count} result files can't be read and are left out; delete them and run the same audit \
         again: {named}"
    )]
}

fn title(run: &RunRecord) -> String {
    format!(
        "{} on {}",
        run.model.name,
        run.base.as_ref().map_or(&*run.source, |b| b.as_url().as_str())
    )
}

fn facts(run: &RunRecord, out: &Location) -> RunFacts {
    let list = |items: Vec<String>| items.join(", ");
    let explain = &run.explain;
    RunFacts {
        id: run.run.to_string(),
        source: run.source.clone(),
        out: out.to_string(),
        model: run.model.name.clone(),
        model_digest: run.model.digest.to_string(),
        method: list(explain.method.iter().map(ToString::to_string).collect()),
        layer: list(explain.layer.iter().map(ToString::to_string).collect()),
        target: explain.target.to_string(),
        created_at: run.created_at,
        updated_at: run.updated_at,
    }
}
