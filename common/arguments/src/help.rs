//! Help texts, the same for every command: at most 100 columns wide, with the environment variables
//! in one table and not in each option.
//!
//! Everything is computed from the options themselves, so that a new one needs nothing here.
//! Upstream: both programs' `Parser`. Downstream: their `main`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write;

use camshaft_common::secret::without_secrets;
use clap::{Arg, Command, Error, Parser};

/// The widest line of a help text.
const MAX_COLUMNS: usize = 100;
/// The widest line of what is not wrapped by itself. Most terminals are at least that wide.
const TABLE_COLUMNS: usize = 80;

/// Reads the program's arguments and environment. Ends the program if it can't, or if only help was
/// asked for.
#[must_use]
pub fn parse<P: Parser>() -> P {
    let mut command = complete(P::command());
    let matches = command.clone().try_get_matches();
    let parsed = matches.and_then(|mut matches| {
        P::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut command))
    });
    parsed.unwrap_or_else(|error| end(&error))
}

/// Ends the program with clap's text. It quotes values, and a URL that is refused may hold secrets.
#[expect(clippy::print_stderr, reason = "there is no log yet")]
fn end(error: &Error) -> ! {
    // Help shows the form of a URL with a password.
    if error.use_stderr()
        && let Cow::Owned(text) = without_secrets(&error.to_string())
    {
        eprint!("{text}");
        std::process::exit(error.exit_code());
    }
    error.exit()
}

/// The command with what its own and its subcommands' help texts have in common.
#[must_use]
pub fn complete(command: Command) -> Command {
    let global: Vec<_> =
        command.get_arguments().filter(|arg| arg.is_global_set()).filter_map(variable).collect();
    let table = if command.has_subcommands() {
        table_of_all(&command)
    } else {
        list_of(variables(&command))
    };
    let command = command.mut_subcommands(|subcommand| {
        if subcommand.is_hide_set() {
            return complete_one(subcommand, "");
        }
        let all = variables(&subcommand).into_iter().chain(global.clone()).collect();
        let list = list_of(all);
        complete_one(subcommand, &list)
    });
    complete_one(command, &table)
}

fn complete_one(command: Command, variables: &str) -> Command {
    let examples = command.get_after_help().map(|help| help.to_string().trim().to_owned());
    let parts = [examples.unwrap_or_default(), variables.to_owned()];
    let parts: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    let command = command.max_term_width(MAX_COLUMNS).mut_args(complete_argument);
    if parts.is_empty() { command } else { command.after_help(parts.join("\n\n")) }
}

fn complete_argument(arg: Arg) -> Arg {
    // `--alpha -1` is a wrong number, not an option `-1`.
    let takes_number = arg.get_long().is_some() && arg.get_action().takes_values();
    let arg = arg.hide_env(true);
    if takes_number { arg.allow_negative_numbers(true) } else { arg }
}

/// An option and its environment variable.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Variable {
    name: String,
    option: String,
}

fn variable(arg: &Arg) -> Option<Variable> {
    let name = arg.get_env()?.to_str()?.to_owned();
    (!arg.is_hide_set()).then_some(())?;
    Some(Variable { name, option: format!("--{}", arg.get_long()?) })
}

fn variables(command: &Command) -> Vec<Variable> {
    command.get_arguments().filter_map(variable).collect()
}

/// The variables of one command. Their names say which option is meant.
fn list_of(mut variables: Vec<Variable>) -> String {
    if variables.is_empty() {
        return String::new();
    }
    variables.sort();
    variables.dedup();
    let mut text = "Environment variables, each for the option of that name:".to_owned();
    let mut column = TABLE_COLUMNS;
    for Variable { name, .. } in variables {
        if column + 2 + name.len() > TABLE_COLUMNS {
            text.push_str("\n ");
            column = 1;
        }
        text.push(' ');
        text.push_str(&name);
        column += 1 + name.len();
    }
    text
}

/// The variables of all commands, a line each, with their option and commands.
fn table_of_all(command: &Command) -> String {
    let mut rows: BTreeMap<Variable, Vec<&str>> = BTreeMap::new();
    variables(command).into_iter().for_each(|variable| {
        rows.entry(variable).or_default();
    });
    for subcommand in command.get_subcommands().filter(|subcommand| !subcommand.is_hide_set()) {
        for variable in variables(subcommand) {
            rows.entry(variable).or_default().push(subcommand.get_name());
        }
    }
    let width = |text: fn(&Variable) -> &str| {
        rows.keys().map(|variable| text(variable).len()).max().unwrap_or(0)
    };
    let (names, options) = (width(|variable| &variable.name), width(|variable| &variable.option));
    let mut text = "Environment variables, used if the option is not given:".to_owned();
    for (Variable { name, option }, commands) in &rows {
        let commands = if commands.is_empty() { "all".to_owned() } else { commands.join(", ") };
        write!(text, "\n  {name:names$}  {option:options$}  {commands}").unwrap_or_default();
    }
    text
}

#[cfg(test)]
mod tests {
    use clap::{Args, CommandFactory};

    use super::*;

    /// A program
    #[derive(Parser)]
    struct Program {
        #[command(subcommand)]
        command: Commands,
        /// What to log
        #[arg(long, env = "CAMSHAFT_LOG", global = true)]
        log: Option<String>,
    }

    #[derive(clap::Subcommand)]
    enum Commands {
        /// Does something
        #[command(after_help = "Examples:\n  program work --alpha 0.5")]
        Work(WorkArgs),
        /// Does nothing
        Rest,
    }

    #[derive(Args)]
    struct WorkArgs {
        /// A number whose help is so long that it needs more than one line on a terminal of a usual width, or of any
        #[arg(long, env = "CAMSHAFT_ALPHA", default_value = "1", value_parser = number)]
        alpha: f32,
    }

    fn number(text: &str) -> Result<f32, String> {
        text.parse().ok().filter(|value| *value >= 0.0).ok_or_else(|| "not in range".to_owned())
    }

    fn help(arguments: &[&str]) -> String {
        let error = complete(Program::command()).try_get_matches_from(arguments).unwrap_err();
        error.to_string()
    }

    #[test]
    fn variables_are_in_a_table_and_not_in_options() {
        let work = help(&["program", "work", "--help"]);
        assert!(!work.contains("[env"), "{work}");
        assert!(work.contains("\n  CAMSHAFT_ALPHA CAMSHAFT_LOG"), "{work}");
        assert!(work.contains("program work --alpha 0.5"), "{work}");
        assert!(work.lines().all(|line| line.chars().count() <= MAX_COLUMNS), "{work}");
        let all = help(&["program", "--help"]);
        assert!(all.contains("\n  CAMSHAFT_ALPHA  --alpha  work\n"), "{all}");
        assert!(all.contains("\n  CAMSHAFT_LOG    --log    all"), "{all}");
    }

    #[test]
    fn a_negative_number_is_a_value_and_no_option() {
        let error = help(&["program", "work", "--alpha", "-1"]);
        assert!(error.contains("not in range"), "{error}");
    }
}
