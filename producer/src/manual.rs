//! `camshaft completions` and `camshaft man`: scripts for shells, and manual pages.
//!
//! Both are made from the command line's definition; nothing is written by hand.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use camshaft_arguments::help;
use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;

use crate::cli::Cli;

/// A manual page can't be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {path}: {source}; choose another folder, or check its permissions")]
pub struct ManualError {
    path: PathBuf,
    source: io::Error,
}

/// Prints a shell's script.
pub(crate) fn print_completions(shell: Shell) {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut help::complete(Cli::command()), "camshaft", &mut script);
    let mut out = io::stdout().lock();
    // Fails if the reader has closed the pipe.
    out.write_all(&script).and_then(|()| out.flush()).unwrap_or_default();
}

/// Writes a page for each program and each command.
///
/// # Errors
/// If the folder can't be written.
pub(crate) fn write_pages(folder: &Path) -> Result<(), ManualError> {
    let failed = |path: &Path, source| ManualError { path: path.to_owned(), source };
    fs::create_dir_all(folder).map_err(|source| failed(folder, source))?;
    #[cfg(feature = "embedded")]
    let programs = [Cli::command(), camshaft_worker::arguments::ServiceArgs::command()];
    #[cfg(not(feature = "embedded"))]
    let programs = [Cli::command()];
    for program in programs {
        let mut program = help::complete(program).disable_help_subcommand(true);
        program.build();
        let commands = program.get_subcommands().filter(|command| !command.is_hide_set());
        for command in commands.chain([&program]) {
            let name = command.get_display_name().unwrap_or(command.get_name());
            let path = folder.join(format!("{name}.1"));
            let write = || write_page(command, &mut File::create(&path)?);
            write().map_err(|source| failed(&path, source))?;
        }
    }
    Ok(())
}

/// Writes a page. The end of the help keeps its lines, which the generator would join.
fn write_page(command: &Command, file: &mut dyn Write) -> io::Result<()> {
    let man = Man::new(command.clone());
    man.render_title(file)?;
    man.render_name_section(file)?;
    man.render_synopsis_section(file)?;
    man.render_description_section(file)?;
    man.render_options_section(file)?;
    if command.get_subcommands().any(|command| !command.is_hide_set()) {
        man.render_subcommands_section(file)?;
    }
    if let Some(help) = command.get_after_help() {
        writeln!(file, ".SH EXAMPLES AND ENVIRONMENT\n.nf")?;
        for line in help.to_string().lines() {
            // A dot or an apostrophe at the start would be a request to the formatter.
            let line = line.replace('\\', "\\e").replace('-', "\\-");
            let guard = if line.starts_with(['.', '\'']) { "\\&" } else { "" };
            writeln!(file, "{guard}{line}")?;
        }
        writeln!(file, ".fi")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page_with_its_options() {
        let folder = tempfile::tempdir().unwrap();
        write_pages(folder.path()).unwrap();
        let page = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
        assert!(page("camshaft.1").contains("camshaft"));
        let enqueue = page("camshaft-enqueue.1");
        assert!(enqueue.contains("\\-\\-broker") && enqueue.contains(".nf\nExamples:\n"));
        assert!(enqueue.contains("CAMSHAFT_BROKER"));
        #[cfg(feature = "embedded")]
        assert!(page("camshaft-worker.1").contains("CAMSHAFT_DRAIN_TIMEOUT"));
        assert!(!folder.path().join("camshaft-man.1").exists());
    }
}
