//! The arguments of `camshaft decide` and `camshaft apply`, and the configs made of them.

use std::path::PathBuf;

use camshaft_common::location::Location;
use camshaft_decisions::{Rule, RuleAction, RuleFor, SampleKind, WORDS};
use clap::Args;
use clap::builder::BoolishValueParser;

use super::UsageError;
use crate::apply::{ApplyConfig, ApplyForm, ApplyTask, FileLink};
use crate::decide::{DecideConfig, SampleConfig};

/// `camshaft decide`.
#[derive(Args, Debug)]
pub(crate) struct DecideArgs {
    /// The run to decide about: a folder or URL with a report
    #[arg(value_name = "OUT")]
    pub(crate) out: Location,
    /// Drop the images that meet this rule about their findings, such as 'exact and not conflict'.
    /// Repeatable
    #[arg(long, env = "CAMSHAFT_DROP", value_name = "RULE", value_delimiter = '\n', value_parser = parse_rule)]
    pub(crate) drop: Vec<Option<Rule>>,
    /// Keep the images that meet this rule as they are. Repeatable
    #[arg(long, env = "CAMSHAFT_KEEP", value_name = "RULE", value_delimiter = '\n', value_parser = parse_rule)]
    pub(crate) keep: Vec<Option<Rule>>,
    /// Give the images that meet this rule the labels that their findings suggest, such as
    /// 'label-error and score>0.95'. Repeatable
    #[arg(long, env = "CAMSHAFT_RELABEL", value_name = "RULE", value_delimiter = '\n', value_parser = parse_rule)]
    pub(crate) relabel: Vec<Option<Rule>>,
    /// Take over the decisions in this file, with who decided and when: the decisions.jsonl that the
    /// report's page saves, or a file of Label Studio, CVAT, COCO or a spreadsheet that camshaft export
    /// began. Repeatable
    #[arg(long, env = "CAMSHAFT_IMPORT", value_name = "FILE", value_delimiter = '\n')]
    pub(crate) import: Vec<PathBuf>,
    /// Who decides, as it is written into the decisions of rules
    #[arg(long, env = "CAMSHAFT_BY", value_name = "NAME", default_value = "camshaft")]
    pub(crate) by: String,
    /// Let rules replace what people have decided
    #[arg(long, env = "CAMSHAFT_OVERRIDE", value_parser = BoolishValueParser::new())]
    pub(crate) r#override: bool,
    /// Draw N images with findings at random, for people to judge, and write them into
    /// OUT/decisions/samples. The report then tells how many findings are right. The same findings give
    /// the same sample
    #[arg(long, env = "CAMSHAFT_SAMPLE", value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) sample: Option<u32>,
    /// With --sample, only images with findings of this kind or problem, such as label-error; or
    /// without them, as no-label-error, which tells how many of the labels left are wrong at most
    #[arg(long, env = "CAMSHAFT_OF", value_name = "KIND", value_parser = parse_kind, requires = "sample")]
    pub(crate) of: Option<SampleKind>,
    /// Tell what would be decided, and write nothing
    #[arg(long, env = "CAMSHAFT_DRY_RUN", value_parser = BoolishValueParser::new())]
    pub(crate) dry_run: bool,
}

/// `camshaft apply`.
#[derive(Args, Debug)]
pub(crate) struct ApplyArgs {
    /// The run whose decisions are applied: a folder or URL
    #[arg(value_name = "OUT", required_unless_present = "undo", requires = "to")]
    pub(crate) out: Option<Location>,
    /// Take the decisions from this file, and not from OUT
    #[arg(long, env = "CAMSHAFT_DECISIONS", value_name = "FILE")]
    pub(crate) decisions: Option<PathBuf>,
    /// Where the clean data set goes: a file such as clean.csv for a list, or an empty folder; a path
    /// or URL
    #[arg(long, env = "CAMSHAFT_TO", value_name = "PLACE")]
    pub(crate) to: Option<Location>,
    /// What it is: a list (CSV with the columns key, label and split), or a folder of class folders
    /// [default: list if PLACE ends in .csv, else folder]
    #[arg(long = "as", env = "CAMSHAFT_AS", value_enum, value_name = "FORM")]
    pub(crate) form: Option<ApplyForm>,
    /// How images get into a folder: as copies, as hard links, or moved away from SOURCE, which needs
    /// --yes
    #[arg(long, env = "CAMSHAFT_LINK", value_enum, default_value_t)]
    pub(crate) link: FileLink,
    /// Say that --link move may take images away from SOURCE
    #[arg(long, env = "CAMSHAFT_YES", value_parser = BoolishValueParser::new())]
    pub(crate) yes: bool,
    /// Tell what would be written, and write nothing
    #[arg(long, env = "CAMSHAFT_DRY_RUN", value_parser = BoolishValueParser::new())]
    pub(crate) dry_run: bool,
    /// Move images back to where they were, by the file PLACE.undo.json of --link move
    #[arg(long, env = "CAMSHAFT_UNDO", value_name = "FILE", conflicts_with_all = ["out", "decisions", "to", "form"])]
    pub(crate) undo: Option<PathBuf>,
}

/// A rule; none for an empty line, such as the last one of a variable.
fn parse_rule(text: &str) -> Result<Option<Rule>, String> {
    if text.trim().is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|error| format!("{error}"))
}

/// A kind or problem of findings.
fn parse_kind(text: &str) -> Result<SampleKind, String> {
    let kind = SampleKind::from(text.to_owned());
    let words = WORDS.into_iter().filter(|word| *word != "best");
    match &kind {
        SampleKind::Any => Ok(kind),
        SampleKind::With(word) | SampleKind::Without(word) => {
            match words.clone().any(|known| known == word) {
                true => Ok(kind),
                false => Err(format!(
                    "use one of {}, any, or no- before one of them",
                    words.collect::<Vec<_>>().join(", ")
                )),
            }
        }
    }
}

impl DecideArgs {
    pub(crate) fn resolve(self) -> Result<DecideConfig, UsageError> {
        let Self { out, drop, keep, relabel, import, by, r#override, sample, of, dry_run } = self;
        let actions =
            [(RuleAction::Drop, drop), (RuleAction::Keep, keep), (RuleAction::Relabel, relabel)];
        let rules = actions.into_iter().flat_map(|(action, rules)| {
            rules.into_iter().flatten().map(move |rule| RuleFor { action, rule })
        });
        let rules: Vec<_> = rules.collect();
        let import: Vec<_> =
            import.into_iter().filter(|path| !path.as_os_str().is_empty()).collect();
        if rules.is_empty() && import.is_empty() && sample.is_none() {
            return Err(UsageError::NothingToDecide);
        }
        let sample =
            sample.map(|size| SampleConfig { size: size as usize, kind: of.unwrap_or_default() });
        let override_people = r#override;
        Ok(DecideConfig { out, rules, import, by, override_people, sample, dry_run })
    }
}

impl ApplyArgs {
    pub(crate) fn resolve(self) -> Result<ApplyTask, UsageError> {
        let Self { out, decisions, to, form, link, yes, dry_run, undo } = self;
        if let Some(file) = undo {
            return Ok(ApplyTask::Undo { file, dry_run });
        }
        let (Some(out), Some(to)) = (out, to) else { return Err(UsageError::NothingToApply) };
        let is_csv = to.name().to_ascii_lowercase().ends_with(".csv");
        let form = form.unwrap_or(if is_csv { ApplyForm::List } else { ApplyForm::Folder });
        if form == ApplyForm::List && link != FileLink::Copy {
            return Err(UsageError::LinkWithList);
        }
        if link == FileLink::Move && !yes && !dry_run {
            return Err(UsageError::MoveWithoutYes);
        }
        Ok(ApplyTask::Apply(ApplyConfig { out, decisions, to, form, link, dry_run }))
    }
}
