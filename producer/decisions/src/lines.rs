//! Files of decisions: one line of JSON each. A page's download is such a file, and so is a part.
//!
//! Upstream: local files, and parts from [`merge`](super::merge). A line that is no decision is an error
//! that names file and line, so that nothing is silently lost.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use crate::decision::{Decision, DecisionError};

/// The longest line: the longest key, of which JSON may write one byte as six, and the reasons.
const MAX_LINE_BYTES: u64 = 1 << 20;

/// A file of decisions can't be read.
#[derive(Debug, thiserror::Error)]
pub enum LinesError {
    /// The file can't be read.
    #[error("cannot read the decisions in {path}: {source}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A line is no decision.
    #[error("{path}, line {line}: {}; correct the line or take it out", without_line(source))]
    Line {
        /// The file.
        path: String,
        /// Counted from 1.
        line: u64,
        /// Why.
        #[source]
        source: Box<DecisionError>,
    },
    /// A line is no text.
    #[error("{path}, line {line}: it is not UTF-8; save the file as UTF-8, or take the line out")]
    NotUtf8 {
        /// The file.
        path: String,
        /// Counted from 1.
        line: u64,
    },
    /// A line is too long to be a decision.
    #[error(
        "{path}, line {line}: it is longer than {MAX_LINE_BYTES} bytes; is this a file of decisions?"
    )]
    TooLong {
        /// The file.
        path: String,
        /// Counted from 1.
        line: u64,
    },
}

/// The text of an error without the number of a line, which is 1 in every line.
fn without_line(error: &DecisionError) -> String {
    let text = error.to_string();
    let DecisionError::Json(json) = error else { return text };
    let column = json.column();
    match text.strip_suffix(&format!(" at line {} column {column}", json.line())) {
        Some(reason) => format!("{reason} at column {column}"),
        None => text,
    }
}

/// Reads a local file of decisions, and calls `visit` with each.
///
/// # Errors
/// If the file can't be read, or a line is no decision.
pub fn read_file(path: &Path, mut visit: impl FnMut(Decision)) -> Result<(), LinesError> {
    let shown = path.display().to_string();
    let file =
        File::open(path).map_err(|source| LinesError::Read { path: shown.clone(), source })?;
    read_lines(&shown, BufReader::new(file), |_, decision| visit(decision))
}

/// Reads decisions, and calls `visit` with the number of each line, from 1, and its decision. Blank lines
/// are left out. `path` is for errors.
///
/// # Errors
/// If the file can't be read, or a line is no decision.
pub fn read_lines(
    path: &str,
    mut reader: impl BufRead,
    mut visit: impl FnMut(u64, Decision),
) -> Result<(), LinesError> {
    let failed = |source| LinesError::Read { path: path.to_owned(), source };
    let mut text = Vec::new();
    for line in 1.. {
        text.clear();
        // A file without line ends may have any size: no more is read than a line may have.
        let read = io::Read::take(&mut reader, MAX_LINE_BYTES + 1).read_until(b'\n', &mut text);
        if read.map_err(failed)? == 0 {
            break;
        }
        if text.len() as u64 > MAX_LINE_BYTES {
            return Err(LinesError::TooLong { path: path.to_owned(), line });
        }
        let Ok(text) = str::from_utf8(&text) else {
            return Err(LinesError::NotUtf8 { path: path.to_owned(), line });
        };
        let text = text.trim_start_matches('\u{feff}').trim();
        if text.is_empty() {
            continue;
        }
        match Decision::parse(text) {
            Ok(decision) => visit(line, decision),
            Err(source) => {
                let (path, source) = (path.to_owned(), Box::new(source));
                return Err(LinesError::Line { path, line, source });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<(u64, String)>, LinesError> {
        let mut found = Vec::new();
        let visit = |line, decision: Decision| found.push((line, decision.key.to_string()));
        read_lines("file", text.as_bytes(), visit).map(|()| found)
    }

    #[test]
    fn lines_have_numbers_and_blank_ones_are_nothing() {
        let line = |key: &str| {
            format!(
                r#"{{"schema":1,"key":"{key}","decision":"keep","by":"","at":"2026-01-01T00:00:00Z"}}"#
            )
        };
        let text = format!("\u{feff}{}\r\n\n{}", line("a"), line("b"));
        assert_eq!(read(&text).unwrap(), [(1, "a".to_owned()), (3, "b".to_owned())]);
        assert!(read("").unwrap().is_empty());
        let error =
            read(&format!("{}\n{}\n", line("a"), &line("b")[..30])).unwrap_err().to_string();
        assert!(error.contains("file, line 2") && error.contains("not a decision"), "{error}");
        assert!(error.contains(" at column 30;") && !error.contains("line 1"), "{error}");
        // A label that is not UTF-8 is not to become another label.
        let latin = [line("a").as_bytes(), b"\n", line("caf").as_bytes(), b"\xe9\n"].concat();
        let error = read_lines("file", &*latin, |_, _| {}).unwrap_err().to_string();
        assert!(error.contains("file, line 2") && error.contains("UTF-8"), "{error}");
        let error = read(&"x".repeat(2 << 20)).unwrap_err().to_string();
        assert!(error.contains("line 1") && error.contains("longer"), "{error}");
    }
}
