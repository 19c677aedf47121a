//! What lies in SOURCE and is no image: the reasons, and how many of each a listing met.
//!
//! `run.json` keeps the counts of a run, so that `status` can tell them.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::printable::printable;

/// Extensions that are counted one by one. A folder may have a million, if names have dates behind a
/// dot.
const MAX_EXTENSIONS: usize = 50;
/// What the other extensions count as.
const OTHER_EXTENSIONS: &str = "(other)";
/// Longer ones are no extensions but a part of the name.
const MAX_EXTENSION_CHARS: usize = 16;

/// Why something in SOURCE is not audited.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, strum::Display,
)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum SkipReason {
    /// Its extension is of no image.
    NotAnImage,
    /// Hidden, or below a hidden folder: its name starts with a dot.
    Hidden,
    /// No glob of `--include` matches it.
    NotIncluded,
    /// A glob of `--exclude` matches it.
    Excluded,
    /// The result of a run, this one or another.
    Result,
    /// An object in place of a folder: its name ends in `/`, or it is empty and Hadoop made it.
    FolderMarker,
    /// A symbolic link to nothing.
    BrokenLink,
    /// A symbolic link that leads back to itself or to a folder above it.
    LinkLoop,
    /// A named pipe, a socket or a device.
    NotAFile,
    /// A folder that can't be listed, or a file that can't be looked at.
    Unreadable,
}

impl SkipReason {
    /// True if it counts as "not images": nothing is wrong with it.
    #[must_use]
    pub fn is_not_an_image(self) -> bool {
        match self {
            Self::NotAnImage | Self::Hidden | Self::NotIncluded | Self::Excluded => true,
            Self::Result
            | Self::FolderMarker
            | Self::BrokenLink
            | Self::LinkLoop
            | Self::NotAFile
            | Self::Unreadable => false,
        }
    }

    /// True if it may have been meant to be audited.
    #[must_use]
    pub fn is_a_problem(self) -> bool {
        match self {
            Self::BrokenLink | Self::LinkLoop | Self::NotAFile | Self::Unreadable => true,
            Self::NotAnImage
            | Self::Hidden
            | Self::NotIncluded
            | Self::Excluded
            | Self::Result
            | Self::FolderMarker => false,
        }
    }

    /// What it is called in a sentence, for one and for several.
    #[must_use]
    pub fn nouns(self) -> (&'static str, &'static str) {
        match self {
            Self::NotAnImage => ("not an image", "not images"),
            Self::Hidden => ("hidden file", "hidden files"),
            Self::NotIncluded => ("not in --include", "not in --include"),
            Self::Excluded => ("excluded", "excluded"),
            Self::Result => ("result of a run", "results of runs"),
            Self::FolderMarker => ("folder marker", "folder markers"),
            Self::BrokenLink => ("broken link", "broken links"),
            Self::LinkLoop => ("link that leads back", "links that lead back"),
            Self::NotAFile => ("pipe, socket or device", "pipes, sockets or devices"),
            Self::Unreadable => {
                ("folder or file that can't be read", "folders or files that can't be read")
            }
        }
    }
}

/// How many entries of SOURCE are not audited.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SkippedCounts {
    /// By reason.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub by_reason: BTreeMap<SkipReason, u64>,
    /// Those that are no images by their name, by extension in small letters.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub by_extension: BTreeMap<String, u64>,
}

impl SkippedCounts {
    /// Counts one.
    pub fn count(&mut self, reason: SkipReason) {
        *self.by_reason.entry(reason).or_default() += 1;
    }

    /// Counts a file that is no image by its extension.
    pub fn count_extension(&mut self, extension: &str) {
        self.count(SkipReason::NotAnImage);
        let name = printable(extension).to_lowercase();
        let is_known = self.by_extension.contains_key(&name);
        let has_room = self.by_extension.len() < MAX_EXTENSIONS;
        let is_short = name.chars().count() <= MAX_EXTENSION_CHARS;
        let name =
            if is_known || (has_room && is_short) { name } else { OTHER_EXTENSIONS.to_owned() };
        *self.by_extension.entry(name).or_default() += 1;
    }

    /// True if nothing was left out.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_reason.is_empty()
    }

    /// The number for a reason.
    #[must_use]
    pub fn of(&self, reason: SkipReason) -> u64 {
        self.by_reason.get(&reason).copied().unwrap_or(0)
    }

    /// The files that are no images.
    #[must_use]
    pub fn not_images(&self) -> u64 {
        let counts = self.by_reason.iter().filter(|(reason, _)| reason.is_not_an_image());
        counts.map(|(_, count)| count).sum()
    }
}

impl fmt::Display for SkippedCounts {
    /// `9 not images (5 txt, 3 xml, 1 hidden file), 2 broken links`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let not_images = self.not_images();
        let mut separator = "";
        if not_images > 0 {
            let not_images = counted(not_images, SkipReason::NotAnImage.nouns());
            write!(f, "{not_images} ({})", self.describe_not_images())?;
            separator = ", ";
        }
        for (reason, count) in &self.by_reason {
            if reason.is_not_an_image() {
                continue;
            }
            write!(f, "{separator}{}", counted(*count, reason.nouns()))?;
            separator = ", ";
        }
        Ok(())
    }
}

impl SkippedCounts {
    /// `5 txt, 3 xml, 1 hidden file`, the most frequent extension first.
    fn describe_not_images(&self) -> String {
        let mut extensions: Vec<_> = self.by_extension.iter().collect();
        extensions.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        let extensions = extensions.into_iter().map(|(name, count)| format!("{count} {name}"));
        let others = self
            .by_reason
            .iter()
            .filter(|(reason, _)| reason.is_not_an_image() && **reason != SkipReason::NotAnImage);
        let others = others.map(|(reason, count)| counted(*count, reason.nouns()));
        extensions.chain(others).collect::<Vec<_>>().join(", ")
    }
}

fn counted(count: u64, (one, several): (&str, &str)) -> String {
    format!("{count} {}", if count == 1 { one } else { several })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_read_as_a_sentence_and_survive_json() {
        let mut counts = SkippedCounts::default();
        for extension in ["TXT", "xml", "txt"] {
            counts.count_extension(extension);
        }
        for reason in [SkipReason::Hidden, SkipReason::BrokenLink, SkipReason::BrokenLink] {
            counts.count(reason);
        }
        let text = "4 not images (2 txt, 1 xml, 1 hidden file), 2 broken links";
        assert_eq!(counts.to_string(), text);
        let mut one = SkippedCounts::default();
        one.count(SkipReason::Hidden);
        assert_eq!(one.to_string(), "1 not an image (1 hidden file)");
        let json = serde_json::to_string(&counts).unwrap();
        assert!(json.contains(r#""broken-link":2"#) && json.contains(r#""txt":2"#), "{json}");
        assert_eq!(serde_json::from_str::<SkippedCounts>(&json).unwrap(), counts);
    }

    #[test]
    fn a_million_extensions_take_no_memory() {
        let mut counts = SkippedCounts::default();
        for number in 0..1000 {
            counts.count_extension(&number.to_string());
        }
        counts.count_extension(&"x".repeat(200));
        assert!(counts.by_extension.len() <= MAX_EXTENSIONS + 1);
        assert_eq!(counts.not_images(), 1001);
        assert_eq!(counts.by_extension.values().sum::<u64>(), 1001);
    }
}
