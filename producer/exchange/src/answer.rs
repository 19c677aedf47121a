//! What a file says about an image.

use chrono::{DateTime, NaiveDateTime, Utc};

/// The label, tag or choice that leaves an image out, however it is written.
pub const DROP: &str = "drop";

/// What a file says about an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The image, as the file names it.
    pub key: String,
    /// What is said.
    pub verdict: Verdict,
    /// Who says it, if the file tells.
    pub by: Option<String>,
    /// When it was said, if the file tells.
    pub at: Option<DateTime<Utc>>,
    /// Where it stands, such as `task 3` or `line 7`, for errors.
    pub item: String,
}

/// What is said about an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It has these labels; one of them may be [`DROP`].
    Labels {
        /// The labels, each once.
        labels: Vec<String>,
        /// Whether somebody chose them. If not, they may be as they were exported, and the given label among
        /// them says nothing.
        chosen: bool,
    },
    /// It stays as it is.
    Keep,
    /// It is left out.
    Drop,
    /// An earlier decision is taken back.
    Undecided,
}

impl Verdict {
    /// Labels, without blanks around them and each once; `None` if there are none.
    pub(crate) fn labels(texts: impl IntoIterator<Item = String>, chosen: bool) -> Option<Self> {
        let mut labels: Vec<String> = Vec::new();
        for text in texts {
            let label = text.trim();
            if !label.is_empty() && !labels.iter().any(|known| known == label) {
                labels.push(label.to_owned());
            }
        }
        (!labels.is_empty()).then_some(Self::Labels { labels, chosen })
    }

    /// What the word of a decision says: `Ok(None)` if it says nothing, an error if it is no such word.
    pub(crate) fn of_word(word: &str) -> Result<Option<Self>, String> {
        match word.trim().to_ascii_lowercase().as_str() {
            "" | "none" => Ok(None),
            "keep" => Ok(Some(Self::Keep)),
            DROP => Ok(Some(Self::Drop)),
            "undecided" => Ok(Some(Self::Undecided)),
            _ => Err(format!("its decision is {word:?}; use keep, drop or undecided, or none")),
        }
    }
}

/// A time as these programs write it: with `T` or a space in the middle; in UTC if it names no zone.
pub(crate) fn time(text: &str) -> Option<DateTime<Utc>> {
    let text = text.trim().replacen(' ', "T", 1);
    let with_zone = DateTime::parse_from_rfc3339(&text).ok().map(|time| time.to_utc());
    with_zone.or_else(|| text.parse::<NaiveDateTime>().ok().map(|time| time.and_utc()))
}
