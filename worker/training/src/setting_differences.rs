//! What differs between the settings of a training that was started and those that it goes on with.
//!
//! Downstream: [`settings`](super::settings), which finds differences, and the errors that name them.

use std::fmt;

/// A setting that differs from the one that a training was started with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingDifference {
    /// Its path in the settings, such as `model.input.height`.
    pub setting: String,
    /// Its value when the training was started; empty for the images.
    pub then: String,
    /// What differs, as a sentence.
    pub(super) text: String,
}

impl SettingDifference {
    /// The path of a difference that is about the images.
    pub const IMAGES: &str = "dataset";

    pub(super) fn of_images(text: String) -> Self {
        Self { setting: Self::IMAGES.to_owned(), then: String::new(), text }
    }

    pub(super) fn of_values(setting: &str, then: String, now: &str) -> Self {
        let text = format!("{setting} was {then} and is {now} now");
        Self { setting: setting.to_owned(), then, text }
    }
}

/// The settings that differ, at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingDifferences(Vec<SettingDifference>);

impl SettingDifferences {
    /// Each of them.
    pub fn iter(&self) -> std::slice::Iter<'_, SettingDifference> {
        self.0.iter()
    }
}

impl From<Vec<SettingDifference>> for SettingDifferences {
    fn from(differences: Vec<SettingDifference>) -> Self {
        Self(differences)
    }
}

impl fmt::Display for SettingDifferences {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<_> = self.0.iter().map(|difference| difference.text.as_str()).collect();
        f.write_str(&texts.join(", "))
    }
}
