//! Takes the options that the user did not give from the run in OUT.
//!
//! So the same command goes on with its results though a default has changed since, and nobody needs
//! to repeat every option. Which images are taken (`--limit`, `--include`, `--exclude`, `--labels`) and
//! the queue are asked anew each time. An OUT without results binds nobody: the user may have mistyped
//! something and starts over. Upstream: [`RunRecord`]. Downstream: the commands, before they check the
//! options.

use std::collections::BTreeSet;

use camshaft_arguments::given::GivenOptions;
use camshaft_common::explain::{ExplainOptions, Target};
use camshaft_common::layout::{FAILURES, PREDICTIONS};
use camshaft_common::location::Location;
use camshaft_common::model::{ModelReference, ModelRequest};
use camshaft_common::run::RunRecord;
use camshaft_common::store::{Folder, StoreError, StoreOptions};
use futures::TryStreamExt;

use crate::enqueue::differences;
use crate::enqueue::plan::EnqueuePlanError;
use crate::enqueue::request::RunConfig;
use crate::images::source_config::{LabelRule, SourceConfig};
use crate::int8_wish::Int8Wish;
use crate::label_map::LabelMapSource;
use crate::terminal::output::print_line;

/// The run as asked for, with the options of the run in OUT where the user gave none. Prints those
/// that are not the defaults. Takes none of a run of another SOURCE or model.
///
/// # Errors
/// If OUT can't be read, or if its options don't go with those that were given.
pub(crate) async fn inherit(
    run: RunConfig,
    stores: &StoreOptions,
) -> Result<RunConfig, EnqueuePlanError> {
    let out = Folder::open(&run.out, stores)?;
    let Some(record) = RunRecord::read(&out).await? else { return Ok(run) };
    let (inherited, words) = with_options_of(&record, &run);
    if words.is_empty() || !has_results(&out).await? {
        return Ok(run);
    }
    print_line(&format!("Goes on with the options of the results in OUT: {}", words.join(" ")));
    if inherited.explain.target == Target::Label && inherited.labels == LabelRule::None {
        return Err(EnqueuePlanError::TargetWithoutLabels);
    }
    Ok(inherited)
}

/// The record of the run in OUT, if that has results. One that can't be read is told when the run is planned.
///
/// # Errors
/// If OUT can't be read.
pub(crate) async fn record_of_results(
    out: &Location,
    stores: &StoreOptions,
) -> Result<Option<RunRecord>, StoreError> {
    let out = Folder::open(out, stores)?;
    let Ok(Some(record)) = RunRecord::read(&out).await else { return Ok(None) };
    Ok(has_results(&out).await?.then_some(record))
}

/// True if there are results in OUT.
///
/// # Errors
/// If OUT can't be read.
pub(crate) async fn has_results(out: &Folder) -> Result<bool, StoreError> {
    for folder in [PREDICTIONS, FAILURES] {
        if camshaft_common::results::list(out, folder).try_next().await?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// `run` with the options of `record` where the user gave none, and what changed by that, as a command
/// line has it.
fn with_options_of(record: &RunRecord, run: &RunConfig) -> (RunConfig, Vec<String>) {
    let mut inherited = run.clone();
    let mut words = Vec::new();
    let has = |name: &str| run.given.has(name);
    let is_same_model = !has("model") || may_be_same(&record.model.reference, &run.model.reference);
    if !run.source.is_of(record) || !is_same_model {
        return (inherited, words);
    }
    if let SourceConfig::List { columns, .. } = &mut inherited.source {
        for (name, asked, recorded) in [
            ("key_column", &mut columns.key, &record.key_column),
            ("label_column", &mut columns.label, &record.label_column),
        ] {
            if !has(name) && asked != recorded {
                asked.clone_from(recorded);
                words.extend(differences::option_with(name, recorded.as_deref()));
            }
        }
    }
    inherited.model = model_of(record, run);
    if inherited.model.options.calibration.is_some() {
        inherited.int8 = record.int8;
    }
    if inherited.model != run.model {
        words.extend(differences::model_words(&inherited.model));
    }
    if !has("label_map") && !record.label_map.is_empty() {
        inherited.label_map = LabelMapSource::Recorded(record.label_map.clone());
        words.push("--label-map as recorded".to_owned());
    }
    inherited.explain = merge(&run.explain, &record.explain, &run.given);
    words.extend(differences::words_of_options(&run.explain, &inherited.explain));
    (inherited, words)
}

/// True if a model may be the recorded one. The record has the commit of a model on the hub, and a
/// command usually a branch.
fn may_be_same(recorded: &ModelReference, given: &ModelReference) -> bool {
    match (recorded, given) {
        (ModelReference::Hub(recorded), ModelReference::Hub(given)) => {
            (recorded.owner(), recorded.name()) == (given.owner(), given.name())
        }
        (recorded, given) => recorded == given,
    }
}

/// The model of `record`, with its reference and options that the user gave.
fn model_of(record: &RunRecord, run: &RunConfig) -> ModelRequest {
    let mut options = record.model.options.clone();
    let ModelRequest { reference: asked, options: given } = run.model.clone();
    if run.given.has("classes") {
        options.classes = given.classes;
    }
    if run.given.has("ignore_tensors") {
        options.ignore_tensors = given.ignore_tensors;
    }
    if run.given.has("weights_key") {
        options.weights_key = given.weights_key;
    }
    if run.int8_wish == Int8Wish::No {
        options.calibration = None;
    }
    let reference = if run.given.has("model") { asked } else { record.model.reference.clone() };
    ModelRequest { reference, options }
}

/// The options of `asked` that the user gave, and the others of `recorded`. A field has its option's
/// name, so a new option needs nothing here.
fn merge(
    asked: &ExplainOptions,
    recorded: &ExplainOptions,
    given: &GivenOptions,
) -> ExplainOptions {
    let [mut asked, mut recorded] = [asked, recorded].map(differences::fields);
    let names: BTreeSet<_> = asked.keys().chain(recorded.keys()).cloned().collect();
    let merged = names.into_iter().filter_map(|name| {
        let from = if given.has(&name) { &mut asked } else { &mut recorded };
        // A field that is absent has its default.
        from.remove(&name).map(|value| (name, value))
    });
    serde_json::from_value(merged.collect()).expect("each field was written by these options")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_on_the_hub_is_the_same_at_another_revision() {
        let reference = |text: &str| text.parse::<ModelReference>().unwrap();
        let recorded = reference("hf:timm/resnet50@0123abc");
        assert!(may_be_same(&recorded, &reference("hf:timm/resnet50")));
        assert!(may_be_same(&recorded, &reference("hf:timm/resnet50@v2")));
        assert!(!may_be_same(&recorded, &reference("hf:timm/resnet18")));
        assert!(!may_be_same(&recorded, &reference("cats-vs-dogs")));
        let folder = reference("/models/pets");
        assert!(may_be_same(&folder, &reference("/models/pets")));
        assert!(!may_be_same(&folder, &reference("/models/birds")));
    }
}
