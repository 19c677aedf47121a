//! What a listing of SOURCE left out: counted, named if it may be a mistake, and printed if the user
//! wants to see all of it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use camshaft_common::image_files::NotSelected;
use camshaft_common::printable::printable;
use camshaft_common::skipped::{SkipReason, SkippedCounts};
use camshaft_common::store::SkippedEntry;

use crate::terminal::output::print_line;

/// Problems that are named without `--list-skipped`.
const MAX_NAMED: usize = 10;

/// What a listing left out. Several tasks may write to it.
#[derive(Debug, Default)]
pub(crate) struct SkippedLog {
    noted: Mutex<Noted>,
    prints: bool,
}

#[derive(Debug, Default)]
struct Noted {
    counts: SkippedCounts,
    /// The first problems.
    named: Vec<String>,
}

impl SkippedLog {
    /// `prints`: whether each entry is printed at once.
    pub(crate) fn new(prints: bool) -> Self {
        Self { noted: Mutex::default(), prints }
    }

    /// Notes an entry that can be no image, or a result.
    pub(crate) fn note(&self, entry: &SkippedEntry) {
        let SkippedEntry { name, reason, detail } = entry;
        let mut noted = self.lock();
        noted.counts.count(*reason);
        if reason.is_a_problem() && noted.named.len() < MAX_NAMED {
            let what = detail.as_deref().unwrap_or(reason.nouns().0);
            noted.named.push(format!("{name} ({})", printable(what)));
        }
        drop(noted);
        self.print(*reason, name);
    }

    /// Notes a file that is no image of the run.
    pub(crate) fn note_not_selected(&self, name: &str, why: &NotSelected) {
        let reason = match why {
            NotSelected::Extension(_) => SkipReason::NotAnImage,
            NotSelected::SystemFolder => SkipReason::Hidden,
            NotSelected::NotIncluded => SkipReason::NotIncluded,
            NotSelected::Excluded => SkipReason::Excluded,
        };
        match why {
            NotSelected::Extension(extension) => self.lock().counts.count_extension(extension),
            _ => self.lock().counts.count(reason),
        }
        self.print(reason, &printable(name));
    }

    fn print(&self, reason: SkipReason, name: &str) {
        if self.prints {
            print_line(&format!("skipped\t{reason}\t{name}"));
        }
    }

    /// The counts so far.
    #[must_use]
    pub(crate) fn counts(&self) -> SkippedCounts {
        self.lock().counts.clone()
    }

    /// Lines for a person; none if nothing was left out.
    #[must_use]
    pub(crate) fn to_lines(&self) -> Vec<String> {
        let noted = self.lock();
        if noted.counts.is_empty() {
            return Vec::new();
        }
        let hint = if self.prints { "" } else { "; --list-skipped names them" };
        let mut lines = vec![format!("Left out: {}{hint}", noted.counts)];
        lines.extend(noted.named.iter().map(|name| format!("  {name}")));
        let problems = noted.counts.by_reason.iter().filter(|(reason, _)| reason.is_a_problem());
        let more = problems.map(|(_, count)| count).sum::<u64>() - noted.named.len() as u64;
        if more > 0 {
            lines.push(format!("  and {more} more"));
        }
        lines
    }

    fn lock(&self) -> MutexGuard<'_, Noted> {
        // A panic elsewhere leaves the counts as they are.
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_are_named_and_the_rest_is_counted() {
        let log = SkippedLog::default();
        assert!(log.to_lines().is_empty());
        let entry = |name: &str, reason, detail: Option<&str>| SkippedEntry {
            name: name.to_owned(),
            reason,
            detail: detail.map(str::to_owned),
        };
        log.note_not_selected("a.TXT", &NotSelected::Extension("TXT".to_owned()));
        log.note(&entry(".git/x", SkipReason::Hidden, None));
        log.note(&entry("a/", SkipReason::Unreadable, Some("Permission denied")));
        for number in 0..12 {
            log.note(&entry(&format!("{number}"), SkipReason::BrokenLink, None));
        }
        let lines = log.to_lines();
        let first = "Left out: 2 not images (1 txt, 1 hidden file), 12 broken links, 1 folder or \
                     file that can't be read; --list-skipped names them";
        assert_eq!(lines[0], first);
        assert_eq!(lines[1], "  a/ (Permission denied)");
        assert_eq!(lines[2], "  0 (broken link)");
        assert_eq!(lines.last().unwrap(), "  and 3 more");
    }
}
