use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use camshaft_arguments::help;
use clap::{Command, CommandFactory};

use super::*;

/// The commands of both programs, the programs themselves among them, by name.
fn commands() -> Vec<(String, Command)> {
    let mut programs = vec![help::complete(Cli::command())];
    #[cfg(feature = "embedded")]
    programs.push(help::complete(camshaft_worker::arguments::ServiceArgs::command()));
    let mut commands = Vec::new();
    for mut program in programs {
        program.build();
        for command in program.get_subcommands().filter(|command| !command.is_hide_set()) {
            commands
                .push((format!("{} {}", program.get_name(), command.get_name()), command.clone()));
        }
        commands.push((program.get_name().to_owned(), program));
    }
    commands
}

#[test]
fn the_command_line_is_consistent() {
    help::complete(Cli::command()).debug_assert();
}

#[test]
fn help_shows_no_password_from_the_environment() {
    let mut command = Cli::command();
    let enqueue = command.find_subcommand_mut("enqueue").unwrap();
    let broker = enqueue.get_arguments().find(|a| a.get_id() == "broker").unwrap();
    assert!(broker.is_hide_env_values_set());
}

#[test]
fn no_line_of_any_help_is_wider_than_100_columns() {
    for (name, mut command) in commands() {
        for help in [command.render_help(), command.render_long_help()] {
            for line in help.to_string().lines() {
                assert!(line.chars().count() <= 100, "{name}: {line}");
            }
        }
    }
}

#[test]
fn every_environment_variable_is_in_the_table_and_named_as_its_option() {
    let commands = commands();
    let help_of = |name: &str| {
        let (_, command) = commands.iter().find(|(found, _)| found == name).unwrap();
        command.clone().render_help().to_string()
    };
    for (name, command) in &commands {
        let help = command.clone().render_help().to_string();
        assert!(!help.contains("[env:"), "{name}: {help}");
        for arg in command.get_arguments() {
            let Some(variable) = arg.get_env().map(|variable| variable.to_str().unwrap()) else {
                continue;
            };
            let option = arg.get_long().unwrap();
            let expected = format!("CAMSHAFT_{}", option.to_uppercase().replace('-', "_"));
            assert_eq!(variable, expected, "{name}");
            if !arg.is_hide_set() {
                let program = name.split(' ').next().unwrap();
                assert!(help.split_whitespace().any(|word| word == variable), "{name}: {variable}");
                let all = help_of(program);
                assert!(
                    all.split_whitespace().any(|word| word == variable),
                    "{program}: {variable}"
                );
            }
        }
    }
}

#[test]
fn every_command_has_examples() {
    for (name, command) in commands() {
        let help = command.clone().render_help().to_string();
        assert!(name.ends_with(" help") || help.contains("\nExamples:\n"), "{name}: {help}");
    }
}

/// Options of other programs (cargo, the tests), which the documentation names.
const OTHERS: &[&str] = &[
    "--bench",
    "--copies",
    "--emulated",
    "--features",
    "--format",
    "--locked",
    "--nocapture",
    "--path",
    "--profile",
    "--release",
    "--runs",
    "--seeds",
    "--soak",
];

fn documents() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let docs = std::fs::read_dir(root.join("docs")).unwrap();
    let docs = docs.map(|entry| entry.unwrap().path());
    let docs = docs.filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    docs.chain([root.join("README.md")]).collect()
}

#[cfg(feature = "embedded")]
#[test]
fn every_documented_option_exists() {
    let known: BTreeSet<_> = commands()
        .iter()
        .flat_map(|(_, command)| command.get_arguments().filter_map(|arg| arg.get_long()))
        .map(|option| format!("--{option}"))
        .collect();
    let is_option = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    for document in documents() {
        let text = std::fs::read_to_string(&document).unwrap();
        for (start, _) in text.match_indices("--") {
            let before = text[..start].chars().next_back();
            let end = text[start..].find(|c| !is_option(c)).map_or(text.len(), |at| start + at);
            let option = &text[start..end];
            let is_word = before.is_none_or(|c| c.is_whitespace() || "`(\"'[".contains(c));
            let starts_well = option[2..].starts_with(|c: char| c.is_ascii_lowercase());
            if is_word && starts_well && !known.contains(option) && !OTHERS.contains(&option) {
                panic!("{} names {option}, which no command has", document.display());
            }
        }
    }
}

#[cfg(feature = "embedded")]
#[test]
fn default_sizes_are_the_librarys() {
    use camshaft_decoding::ImageLimits;
    let cli = Cli::try_parse_from(["camshaft", "audit", "x", "--out", "y"]).unwrap();
    let super::Command::Audit(args) = cli.command else { panic!("it is an audit") };
    assert_eq!(args.engine.max_image_bytes, ImageLimits::default().max_bytes);
    assert_eq!(args.engine.max_image_pixels, ImageLimits::default().max_pixels);
}

#[test]
fn status_leaves_the_queues_name_to_the_run_unless_it_is_given() {
    let queue_of = |more: &[&str]| {
        let arguments = ["camshaft", "status", "/out", "--broker", "amqp://localhost"];
        match Cli::try_parse_from(arguments.iter().chain(more)).unwrap().command {
            super::Command::Status(args) => args.resolve().broker.unwrap().queue,
            _ => panic!("it is a status"),
        }
    };
    assert_eq!(queue_of(&[]), None);
    assert_eq!(queue_of(&["--queue", "team-a"]).as_deref(), Some("team-a"));
}

#[test]
fn conditions_that_cannot_be_judged_are_wrong_usage() {
    let parse = |arguments: &[&str]| match Cli::try_parse_from(arguments).unwrap().command {
        super::Command::Report(args) => args.resolve(),
        _ => panic!("it is a report"),
    };
    let report = ["camshaft", "report", "/out", "--fail-on", "accuracy<0.9,changed>0"];
    let error = parse(&report).unwrap_err().to_string();
    assert!(error.contains("--fail-on changed>0") && error.contains("--against"), "{error}");
    assert!(parse(&[&report[..], &["--against", "/other"]].concat()).is_ok());
    let itself = parse(&["camshaft", "report", "/out", "--against", "/out/"]).unwrap_err();
    assert!(itself.to_string().contains("--against is OUT itself"), "{itself}");
}

#[test]
fn prune_has_its_limit_behind_an_equals_sign_and_goes_with_whole_sources_only() {
    use clap::error::ErrorKind;

    use crate::enqueue::prune::PruneLimit;

    let enqueue = ["camshaft", "enqueue", "/images", "--out", "/out", "--broker", "amqp://x"];
    let prune = |more: &[&str]| -> Result<Option<PruneLimit>, ErrorKind> {
        let cli = Cli::try_parse_from(enqueue.iter().chain(more)).map_err(|error| error.kind())?;
        let super::Command::Enqueue(args) = cli.command else { panic!("it is an enqueue") };
        Ok(args.resolve().unwrap().run.prune)
    };
    assert_eq!(prune(&[]), Ok(None));
    assert_eq!(prune(&["--prune"]), Ok(Some(PruneLimit::Half)));
    assert_eq!(prune(&["--prune=all", "--dry-run"]), Ok(Some(PruneLimit::All)));
    assert_eq!(prune(&["--prune", "all"]), Err(ErrorKind::UnknownArgument));
    assert_eq!(prune(&["--prune", "--limit", "9"]), Err(ErrorKind::ArgumentConflict));
    assert_eq!(prune(&["--prune=most"]), Err(ErrorKind::InvalidValue));
}
