//! Agrees with the results in OUT: an audit or enqueue goes on with the run whose `run.json` lies
//! there, or starts a run of its own, or may not write there at all.

use camshaft_common::layout::RUN_FILE;
use camshaft_common::run::{RunId, RunRecord, SCHEMA};
use camshaft_common::store::{Folder, JSON, StoreError};
use chrono::Utc;

use crate::broker::usual_queue_name;
use crate::enqueue::differences::{self, Difference};
use crate::enqueue::request::{EnqueueRequest, JobsQueue};
use crate::images::list_lines::ListColumns;
use crate::images::selection::Selection;

/// OUT holds the results of another run.
#[derive(Debug, thiserror::Error)]
#[error("{out} holds results {}; {}, or choose another --out{redo}", .difference.text, .difference.go_on)]
pub struct OtherRun {
    out: String,
    difference: Difference,
    /// What else the user can do, if anything.
    redo: &'static str,
}

/// True if `record` is of the same SOURCE, model and options as `request`.
pub(crate) fn is_same_run(request: &EnqueueRequest, record: &RunRecord) -> bool {
    request.run.source.is_of(record)
        && ListColumns::of_run(record) == request.run.source.columns()
        && record.model.same_content(&request.model)
        && record.explain == request.run.explain
        && record.label_map == *request.label_map.words()
}

/// The record of the run that `request` goes on with or starts. `existing` is the record of the
/// results in OUT.
///
/// # Errors
/// If the results in OUT are of another SOURCE, model or options, and may not be replaced.
pub(crate) fn resume_or_start(
    request: &EnqueueRequest,
    existing: Option<RunRecord>,
) -> Result<RunRecord, OtherRun> {
    let Some(existing) = existing else { return Ok(start(request)) };
    let refuse = |difference, redo| {
        let out = request.run.out.to_string();
        Err(OtherRun { out, difference, redo })
    };
    let source = &request.run.source;
    if !source.is_of(&existing) {
        let then = (existing.source.as_str(), existing.base.as_ref());
        return refuse(differences::of_source(then, (&source.argument(), source.base())), "");
    }
    let (then, now) = (ListColumns::of_run(&existing), source.columns());
    if then != now {
        return refuse(differences::of_columns(&then, &now), "");
    }
    let difference = if !existing.model.same_content(&request.model) {
        differences::of_model(&existing.model, &request.model)
    } else if existing.explain != request.run.explain {
        differences::of_options(&existing.explain, &request.run.explain)
    } else if existing.label_map != *request.label_map.words() {
        differences::of_label_maps(&existing.label_map)
    } else {
        // The number of images is unknown until they are listed again: there may be more by now.
        let limit = request.run.limit;
        // Which files are images may change: results of others then no longer count.
        let image_files = request.source.image_files().cloned();
        let queue = queue_of(request, Some(&existing));
        let (images, skipped, updated_at) = (None, None, Utc::now());
        let int8 = request.run.int8.or(existing.int8);
        // It goes on.
        let cancelled_at = None;
        return Ok(RunRecord {
            limit,
            queue,
            image_files,
            images,
            skipped,
            int8,
            cancelled_at,
            updated_at,
            ..existing
        });
    };
    match (request.selection, request.can_redo_all) {
        (Selection::All, _) => Ok(start(request)),
        (_, true) => refuse(difference, " or redo every image with --only all"),
        (_, false) => refuse(difference, ""),
    }
}

/// The queues' name, if it is not the usual one. Jobs in this process leave those of an earlier
/// enqueue where they are.
fn queue_of(request: &EnqueueRequest, existing: Option<&RunRecord>) -> Option<String> {
    match &request.queue {
        JobsQueue::Named(name) => Some(name.clone()).filter(|name| *name != usual_queue_name()),
        JobsQueue::InProcess => existing.and_then(|existing| existing.queue.clone()),
    }
}

fn start(request: &EnqueueRequest) -> RunRecord {
    let now = Utc::now();
    let ListColumns { key: key_column, label: label_column } = request.run.source.columns();
    RunRecord {
        schema: SCHEMA,
        run: RunId::generate(),
        source: request.run.source.argument(),
        base: request.run.source.base().cloned(),
        key_column,
        label_column,
        label_map: request.label_map.words().clone(),
        limit: request.run.limit,
        queue: queue_of(request, None),
        image_files: request.source.image_files().cloned(),
        model: request.model.clone(),
        trained_layers: request.trained_layers,
        explain: request.run.explain.clone(),
        int8: request.run.int8,
        images: None,
        skipped: None,
        generation: None,
        jobs_since: None,
        cancelled_at: None,
        manifest: None,
        results_since: None,
        created_at: now,
        updated_at: now,
        camshaft: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

/// Writes `run.json`.
///
/// # Errors
/// If OUT can't be written.
pub(crate) async fn write(out: &Folder, record: &RunRecord) -> Result<(), StoreError> {
    let json = serde_json::to_vec_pretty(record).expect("a record has only strings and numbers");
    out.put(RUN_FILE, json, JSON).await
}
