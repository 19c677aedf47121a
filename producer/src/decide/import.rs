//! Files of decisions and of other programs, as decisions.
//!
//! Owns the reading of files, whatever their format: [`answers`] and [`lines`] tell what they mean for this run.
//! Upstream: files, whose formats [`camshaft_exchange`] and [`camshaft_decisions`] read. Downstream:
//! [`decide`](super), which writes the decisions.

mod answers;
mod imported;
mod lines;
mod run_facts;

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use camshaft_common::run::RunRecord;
use camshaft_common::store::Folder;
use camshaft_decisions::{Decision, LinesError, MergedDecisions, read_lines};
use camshaft_exchange::{Answer, ExportFormat, FileFormat};
use chrono::{DateTime, Utc};

use self::answers::decisions_of;
pub(super) use self::imported::Imported;
use self::lines::new_lines;
use self::run_facts::RunFacts;
use super::DecideError;

/// The part of a file that tells its format.
const HEAD_BYTES: usize = 64 << 10;

/// A file's content.
enum Content {
    Decisions(Vec<Decision>),
    Answers(ExportFormat, Vec<Answer>),
}

/// Reads all files. Decisions that OUT has already are left out.
pub(super) async fn read(
    files: &[impl AsRef<Path>],
    out: &Folder,
    run: &RunRecord,
    decided: &MergedDecisions,
    now: DateTime<Utc>,
) -> Result<Imported, DecideError> {
    let mut contents = Vec::new();
    for file in files {
        contents.push((file.as_ref().display().to_string(), read_file(file.as_ref())?));
    }
    if contents.is_empty() {
        return Ok(Imported::default());
    }
    let with_kinds = contents.iter().any(|(_, content)| matches!(content, Content::Answers(..)));
    let facts = RunFacts::read(out, run, with_kinds).await?;
    let mut imported = Imported::default();
    for (path, content) in contents {
        let (Imported { mut decisions, notes }, unknown) = match content {
            Content::Answers(format, answers) => {
                let found = decisions_of(&path, format, answers, &facts, decided, now)?;
                let notes = found.notes(&path);
                (Imported { notes, decisions: found.decisions }, found.unknown)
            }
            Content::Decisions(decisions) => new_lines(&path, decisions, &facts, decided),
        };
        if unknown.is_of_other_run() {
            let (out, names) = (out.location().to_string(), unknown.names.join(", "));
            return Err(DecideError::OtherRun { path, out, names });
        }
        imported.decisions.append(&mut decisions);
        imported.notes.extend(notes);
        imported.notes.extend(unknown.note(&path));
    }
    Ok(imported)
}

fn read_file(path: &Path) -> Result<Content, DecideError> {
    let shown = path.display().to_string();
    let cannot_read = |source| LinesError::Read { path: shown.clone(), source };
    let file = File::open(path).map_err(cannot_read)?;
    let mut reader = BufReader::with_capacity(HEAD_BYTES, file);
    let failed = |source| DecideError::Exchange { path: shown.clone(), source };
    let head = reader.fill_buf().map_err(cannot_read)?;
    match camshaft_exchange::recognise(head).map_err(failed)? {
        FileFormat::Decisions => {
            let mut decisions = Vec::new();
            read_lines(&shown, reader, |_, decision| decisions.push(decision))?;
            Ok(Content::Decisions(decisions))
        }
        FileFormat::Exchanged(format) => {
            let mut answers = Vec::new();
            camshaft_exchange::read(format, reader, &mut |answer| answers.push(answer))
                .map_err(failed)?;
            Ok(Content::Answers(format, answers))
        }
    }
}
