//! Which options the user gave, on the command line or in the environment, and which have their
//! default.
//!
//! Upstream: a program's `…Args`, which have [`GivenOptions`] as their first field. Downstream: whoever
//! takes the other options from an earlier run.

use std::collections::BTreeSet;

use clap::parser::ValueSource;
use clap::{ArgMatches, Args, Command, Error, FromArgMatches};

/// The names of the fields whose values the user gave. It has no option of its own. It must be the
/// first field of its struct: clap takes the values of the fields before it away.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GivenOptions(BTreeSet<String>);

impl GivenOptions {
    /// True if the user gave the field of this name.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.0.contains(name)
    }
}

impl FromArgMatches for GivenOptions {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let is_given = |name: &&str| match matches.value_source(name) {
            Some(ValueSource::DefaultValue) | None => false,
            Some(_) => true,
        };
        let names = matches.ids().map(|id| id.as_str()).filter(is_given).map(str::to_owned);
        Ok(Self(names.collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for GivenOptions {
    fn augment_args(command: Command) -> Command {
        command
    }

    fn augment_args_for_update(command: Command) -> Command {
        command
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::ExplainArgs;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        given: GivenOptions,
        #[command(flatten)]
        explain: ExplainArgs,
    }

    #[test]
    fn a_default_is_not_given_even_if_the_same_value_is() {
        let parse = |more: &[&str]| Program::try_parse_from([&["program"], more].concat()).unwrap();
        let program = parse(&["--alpha", "0.4"]);
        assert!(program.given.has("alpha") && !program.given.has("method"));
        assert_eq!(program.explain.alpha, 0.4);
        assert!(!parse(&[]).given.has("embeddings"));
        for (text, records) in [("--embeddings", true), ("--embeddings=false", false)] {
            let program = parse(&[text]);
            assert!(program.given.has("embeddings"), "{text}");
            assert_eq!(program.explain.embeddings, records, "{text}");
        }
    }
}
