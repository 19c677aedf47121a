//! Texts without what different spellings of a name differ in.

use unicode_normalization::UnicodeNormalization;

/// The text with case, the kind and number of separators, and Unicode's several ways to write one
/// character taken out: `Great_Dane`, `great-dane` and `GREAT  DANE` all become `great dane`. A
/// separator at an end is kept unless it is a space: `-1` and `A-` are not `1` and `A`.
#[must_use]
pub fn fold(text: &str) -> String {
    // Upper case first: `ß` and `SS` become one, and so do the two small sigmas.
    let cased = text.nfc().flat_map(char::to_uppercase).flat_map(char::to_lowercase);
    let cased: String = cased.nfc().map(plain).collect();
    let cased = cased.trim();
    let start = cased.len() - cased.trim_start_matches(is_separator).len();
    let end = cased.trim_end_matches(is_separator).len().max(start);
    let mut folded = cased[..start].to_owned();
    for (at, part) in cased[start..end].split(',').enumerate() {
        if at > 0 {
            folded.push(',');
        }
        let words = part.split(is_separator).filter(|word| !word.is_empty());
        for (at, word) in words.enumerate() {
            if at > 0 {
                folded.push(' ');
            }
            folded.push_str(word);
        }
    }
    folded + &cased[end..]
}

fn is_separator(letter: char) -> bool {
    letter.is_whitespace() || matches!(letter, '_' | '-')
}

/// One of the characters that are written for each other.
fn plain(letter: char) -> char {
    match letter {
        '\u{2010}'..='\u{2015}' | '\u{2212}' => '-',
        '\u{2018}' | '\u{2019}' => '\'',
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_name_are_one_text() {
        for (text, folded) in [
            ("Great_Dane", "great dane"),
            (" great - dane ", "great dane"),
            ("tabby, tabby cat", "tabby,tabby cat"),
            ("tabby,_Tabby_Cat", "tabby,tabby cat"),
            ("-1", "-1"),
            ("A-", "a-"),
            ("--", "--"),
            ("", ""),
            (",", ","),
            ("ΣΊΣΥΦΟΣ", "σίσυφοσ"),
            ("jack-o\u{2019}\u{2013}lantern", "jack o' lantern"),
        ] {
            assert_eq!(fold(text), folded, "{text:?}");
            assert_eq!(fold(folded), folded, "folding {text:?} twice");
        }
    }
}
