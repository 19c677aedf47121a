//! Texts of XML: checked before they are written, and put together when they are read.

use crate::error::WriteError;

/// The text, if XML can hold it in an attribute and gives it back as it was.
pub(crate) fn checked(text: &str) -> Result<&str, WriteError> {
    let is_out = |c: char| c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}');
    if text.contains(is_out) { Err(WriteError::NotInXml(text.to_owned())) } else { Ok(text) }
}

/// The text with a space in place of what XML can't hold, where nobody needs it as it was.
pub(crate) fn cleaned(text: &str) -> String {
    text.chars()
        .map(|c| if checked(c.encode_utf8(&mut [0; 4])).is_ok() { c } else { ' ' })
        .collect()
}
