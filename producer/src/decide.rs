//! `camshaft decide`: decides by rules about the findings of a report, and takes over what people have
//! decided, here or in another program.
//!
//! Wiring only: [`camshaft_decisions`] has rules, merges and parts, and [`import`] reads files. Nothing is
//! written if a line of a file is no decision, or if rules contradict each other.

mod import;

use std::path::PathBuf;

use camshaft_common::location::Location;
use camshaft_common::run::{ReadRunError, RunRecord};
use camshaft_common::store::{Folder, StoreError, StoreOptions};
use camshaft_decisions::{
    Choice, Decision, DecisionWriter, Findings, FindingsError, JudgeError, Judged, LinesError,
    MergeError, MergedDecisions, RuleFor, Sample, SampleKind, judge, read_judged_images,
};
use camshaft_exchange::ReadError;
use chrono::Utc;

use crate::advice;
use crate::run_images::RunImagesError;
use crate::terminal::output::{format_count, print_line};
use import::Imported;

/// What `camshaft decide` is to do.
#[derive(Debug)]
pub(crate) struct DecideConfig {
    /// The run.
    pub(crate) out: Location,
    /// The rules, and what they do.
    pub(crate) rules: Vec<RuleFor>,
    /// Files of decisions, or of other programs.
    pub(crate) import: Vec<PathBuf>,
    /// Who decides by the rules.
    pub(crate) by: String,
    /// Whether rules replace what people have decided.
    pub(crate) override_people: bool,
    /// What to draw for people to judge.
    pub(crate) sample: Option<SampleConfig>,
    /// Write nothing.
    pub(crate) dry_run: bool,
}

/// `--sample` and `--of`.
#[derive(Clone, Debug)]
pub(crate) struct SampleConfig {
    /// The number of images.
    pub(crate) size: usize,
    /// Which images are drawn from.
    pub(crate) kind: SampleKind,
}

/// Why nothing is decided.
#[derive(Debug, thiserror::Error)]
pub enum DecideError {
    /// OUT can't be opened or written.
    #[error("{}", advice::describe_store_error(.0))]
    Out(#[from] StoreError),
    /// OUT holds no run.
    #[error("{}", advice::describe_run_record_error(.0))]
    Run(#[from] ReadRunError),
    /// The findings can't be read.
    #[error("{}", advice::describe_findings_error(.0))]
    Findings(#[from] FindingsError),
    /// The decisions so far can't be read, or not written.
    #[error("{}", advice::describe_merge_error(.0))]
    Merge(#[from] MergeError),
    /// A file of decisions can't be read.
    #[error(transparent)]
    Import(#[from] LinesError),
    /// A file of another program can't be read.
    #[error("{path}: {source}; nothing was decided")]
    Exchange {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: ReadError,
    },
    /// One item of such a file can't be taken.
    #[error("{path}, {item}: {reason}; nothing was decided")]
    Item {
        /// The file.
        path: String,
        /// The item.
        item: String,
        /// Why, and what to do.
        reason: String,
    },
    /// No image of such a file is the run's.
    #[error(
        "{path} is about images that the run in {out} does not have, such as {names}; nothing was decided: give \
         the OUT that the file was exported from, with names as they are below SOURCE"
    )]
    OtherRun {
        /// The file.
        path: String,
        /// The run.
        out: String,
        /// Some of its images.
        names: String,
    },
    /// It can't be told which images the run has.
    #[error(transparent)]
    Images(#[from] RunImagesError),
    /// Rules contradict each other.
    #[error(transparent)]
    Rules(#[from] JudgeError),
    /// There is no such image.
    #[error("there is no image {}; there is nothing to draw", describe_kind(.0))]
    NothingToDraw(SampleKind),
}

fn describe_kind(kind: &SampleKind) -> String {
    match kind {
        SampleKind::Any => "with a finding".to_owned(),
        SampleKind::With(word) => format!("with a finding of the kind {word}"),
        SampleKind::Without(word) => {
            format!("with a label, a prediction, and no finding of the kind {word}")
        }
    }
}

/// Decides.
///
/// # Errors
/// If findings or decisions can't be read, rules contradict each other, or OUT can't be written.
pub(crate) async fn decide(config: DecideConfig, stores: StoreOptions) -> Result<(), DecideError> {
    let DecideConfig { out, rules, import, by, override_people, sample, dry_run } = config;
    let out = Folder::open(&out, &stores)?;
    let run = RunRecord::read_existing(&out).await?;
    let now = Utc::now();
    let mut decided = match rules.is_empty() && import.is_empty() {
        true => MergedDecisions::default(),
        false => MergedDecisions::read(&out).await?,
    };
    let Imported { decisions: mut imported, notes } =
        import::read(&import, &out, &run, &decided, now).await?;
    let mut judged = Judged::default();
    if !rules.is_empty() || sample.is_some() {
        let with_best_labels = rules.iter().any(|rule| rule.rule.mentions_best());
        let findings = Findings::read(&out, with_best_labels).await?;
        if !rules.is_empty() {
            imported.iter().for_each(|decision| decided.add(decision.clone()));
            judged = judge(&findings, &rules, &decided, &by, now, override_people)?;
        }
        if let Some(config) = sample {
            draw(&findings, config, &out, dry_run).await?;
        }
    }
    if !import.is_empty() {
        notes.iter().for_each(|note| print_line(note));
        print_line(&describe_imported(&imported, dry_run));
    }
    if !rules.is_empty() {
        describe_judged(&judged, &rules, dry_run).iter().for_each(|line| print_line(line));
    }
    if dry_run || (rules.is_empty() && import.is_empty()) {
        return Ok(());
    }
    imported.append(&mut judged.decisions);
    if imported.is_empty() && decided.is_empty() {
        print_line(&format!("Nothing is decided in {}", out.location()));
        return Ok(());
    }
    DecisionWriter::new(out.clone()).write(&imported).await?;
    drop(imported);
    // Also what others have decided meanwhile.
    let decided = MergedDecisions::read(&out).await?.write_table(&out).await?;
    let images = format_count(decided.len() as u64, "image");
    let place = out.location();
    print_line(&format!(
        "{images} decided in all: see {place}/decisions.parquet; camshaft apply {place} --to PLACE applies it"
    ));
    Ok(())
}

/// Draws a sample for people to judge, and writes it.
async fn draw(
    findings: &Findings,
    config: SampleConfig,
    out: &Folder,
    dry_run: bool,
) -> Result<(), DecideError> {
    let SampleConfig { size, kind } = config;
    let judged = match kind.is_without() {
        true => read_judged_images(out).await?,
        false => Vec::new(),
    };
    let sample = Sample::draw(findings, judged, size, kind, Utc::now());
    if sample.keys.is_empty() {
        return Err(DecideError::NothingToDraw(sample.kind));
    }
    if !dry_run {
        sample.write(out).await?;
    }
    let (place, path) = (out.location(), sample.path());
    print_line(&format!(
        "{} {} of {} {}{}",
        if dry_run { "Would draw" } else { "Drew" },
        sample.keys.len(),
        format_count(sample.of, "image"),
        describe_kind(&sample.kind),
        if dry_run { String::new() } else { format!(" into {place}/{path}") },
    ));
    if !dry_run {
        print_line(&format!(
            "Decide about all of them on the page of camshaft serve {place}, at #images?sample={}; then \
             camshaft report {place} counts what they tell",
            sample.kind
        ));
    }
    Ok(())
}

fn describe_imported(imported: &[Decision], dry_run: bool) -> String {
    let verb = if dry_run { "Would take over" } else { "Took over" };
    let decisions = format_count(imported.len() as u64, "decision");
    format!("{verb} {decisions}: {}", describe_choices(imported))
}

/// `2 to drop, 1 to keep`.
fn describe_choices(decisions: &[Decision]) -> String {
    let count = |is_it: fn(&Choice) -> bool| {
        decisions.iter().filter(|decision| is_it(&decision.choice)).count()
    };
    let counts = [
        (count(|choice| *choice == Choice::Drop), "to drop"),
        (count(|choice| *choice == Choice::Keep), "to keep"),
        (count(|choice| choice.label().is_some()), "to relabel"),
        (count(|choice| *choice == Choice::Undecided), "taken back"),
    ];
    let some = counts.iter().filter(|(count, _)| *count > 0);
    let some: Vec<_> = some.map(|(count, what)| format!("{count} {what}")).collect();
    if some.is_empty() { "none".to_owned() } else { some.join(", ") }
}

fn describe_judged(judged: &Judged, rules: &[RuleFor], dry_run: bool) -> Vec<String> {
    let mut lines = Vec::new();
    for (rule, met) in rules.iter().zip(&judged.met) {
        let verb = if *met == 1 { "meets" } else { "meet" };
        let images = format_count(*met, "image");
        lines.push(format!("{images} {verb} the rule to {}: {}", rule.action.word(), rule.rule));
    }
    let verb = if dry_run { "Would decide" } else { "Decided" };
    let images = format_count(judged.decisions.len() as u64, "image");
    let choices = describe_choices(&judged.decisions);
    lines.push(format!("{verb} about {images} by rules: {choices}"));
    for (count, what) in [
        (judged.unchanged, "had the same decision already"),
        (judged.by_people, "left as people decided; --override replaces that"),
        (judged.without_suggestion, "left without a decision: no finding suggests a label"),
    ] {
        if count > 0 {
            lines.push(format!("{} {what}", format_count(count, "image")));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use camshaft_decisions::WORDS;

    use super::*;

    #[test]
    fn rules_know_every_word_of_findings() {
        let words: BTreeSet<_> = camshaft_report::finding_words().chain(["best"]).collect();
        assert_eq!(WORDS.into_iter().collect::<BTreeSet<_>>(), words);
    }

    #[test]
    fn counts_tell_what_becomes_of_images() {
        let rules = [RuleFor {
            action: camshaft_decisions::RuleAction::Drop,
            rule: "exact".parse().unwrap(),
        }];
        let line =
            r#"{"schema":1,"key":"a","decision":"drop","by":"","at":"2026-01-01T00:00:00Z"}"#;
        let decisions = vec![Decision::parse(line).unwrap()];
        let judged = Judged { decisions, met: vec![3], by_people: 2, ..Judged::default() };
        assert_eq!(
            describe_judged(&judged, &rules, true),
            [
                "3 images meet the rule to drop: exact",
                "Would decide about 1 image by rules: 1 to drop",
                "2 images left as people decided; --override replaces that",
            ]
        );
    }
}
