//! Text from outside on a terminal: control characters could rewrite what is already there.

use std::borrow::Cow;
use std::fmt::Write;

/// The text with its control characters escaped, and with characters that change the direction or
/// the lines of what follows. Everything else stays.
///
/// ```
/// use camshaft_common::printable::printable;
///
/// assert_eq!(printable("猫 a.jpg"), "猫 a.jpg");
/// assert_eq!(printable("a\u{1b}[2J\n.jpg"), "a\\u{1b}[2J\\n.jpg");
/// ```
#[must_use]
pub fn printable(text: &str) -> Cow<'_, str> {
    escaped(text, is_unprintable)
}

/// As [`printable`], for lines with columns: the ends of lines and tabs stay.
#[must_use]
pub fn printable_lines(text: &str) -> Cow<'_, str> {
    escaped(text, |character| !matches!(character, '\n' | '\t') && is_unprintable(character))
}

/// The text, or its first `max_chars` characters and an ellipsis: for messages about a text that may
/// have any length.
#[must_use]
pub fn shortened(text: &str, max_chars: usize) -> Cow<'_, str> {
    match text.char_indices().nth(max_chars) {
        Some((end, _)) => format!("{}…", &text[..end]).into(),
        None => text.into(),
    }
}

/// A JSON text with the same characters escaped as JSON does, so that it means the same.
#[must_use]
pub fn printable_json(json: &str) -> Cow<'_, str> {
    if !json.contains(is_unprintable) {
        return Cow::Borrowed(json);
    }
    let mut printable = String::with_capacity(json.len() + 8);
    for character in json.chars() {
        match character {
            '\n' => printable.push('\n'),
            // All of them have four digits.
            _ if is_unprintable(character) => {
                write!(printable, "\\u{:04x}", u32::from(character))
                    .expect("writing to a string can't fail");
            }
            _ => printable.push(character),
        }
    }
    Cow::Owned(printable)
}

fn escaped(text: &str, is_escaped: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&is_escaped) {
        return Cow::Borrowed(text);
    }
    let mut printable = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        if is_escaped(character) {
            write!(printable, "{}", character.escape_default())
                .expect("writing to a string can't fail");
        } else {
            printable.push(character);
        }
    }
    Cow::Owned(printable)
}

fn is_unprintable(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_moves_the_cursor_or_turns_the_text_is_escaped() {
        assert_eq!(printable("a\tb\r\u{7f}\u{9b}"), "a\\tb\\r\\u{7f}\\u{9b}");
        assert_eq!(printable("gpj\u{202e}.exe\u{2028}x"), "gpj\\u{202e}.exe\\u{2028}x");
        assert_eq!(printable_lines("a\nb\u{1b}\tc"), "a\nb\\u{1b}\tc");
        let text = "x\u{202e}\u{9b}\u{7f}y";
        let json = printable_json(&serde_json::to_string(text).unwrap()).into_owned();
        assert_eq!(json, "\"x\\u202e\\u009b\\u007fy\"");
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
    }
}
