//! The camera that took a photograph, as its EXIF metadata tell.
//!
//! Owns which texts are kept of metadata that may say anything. Does not read EXIF:
//! `camshaft-decoding` does. Downstream: records, and the report's slices.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

/// The most characters that are kept of a make or model.
const MAX_CHARS: usize = 64;

/// Who made the camera, which model it is, and the year of the photograph.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Camera {
    /// EXIF's `Make`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub make: Option<String>,
    /// EXIF's `Model`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub model: Option<String>,
    /// The year of EXIF's `DateTimeOriginal`, or of `DateTime` if that is absent.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub year: Option<u16>,
}

impl Camera {
    /// The camera of metadata's texts, as bytes that may be anything; `None` if nothing is left of
    /// them.
    #[must_use]
    pub fn of_metadata(
        make: Option<&[u8]>,
        model: Option<&[u8]>,
        date: Option<&[u8]>,
    ) -> Option<Self> {
        let [make, model] = [make, model].map(|text| plain_text(text?));
        let camera = Self { make, model, year: year(date.unwrap_or_default()) };
        (camera != Self::default()).then_some(camera)
    }
}

/// The text up to its first zero byte, with single spaces for whitespace and for what can't be
/// printed in ASCII, as EXIF asks for; at most 64 characters. `None` if it is empty.
fn plain_text(bytes: &[u8]) -> Option<String> {
    let text = bytes.split(|&byte| byte == 0).next().unwrap_or_default();
    let words = text.split(|byte| !byte.is_ascii_graphic()).filter(|word| !word.is_empty());
    let mut plain = String::new();
    for word in words {
        if !plain.is_empty() {
            plain.push(' ');
        }
        plain.extend(word.iter().copied().map(char::from));
        if plain.len() > MAX_CHARS {
            break;
        }
    }
    // Every character has one byte.
    plain.truncate(MAX_CHARS);
    let trimmed = plain.trim_end().len();
    plain.truncate(trimmed);
    Some(plain).filter(|text| !text.is_empty())
}

/// The year of a date such as `2019:08:31 12:00:00`. Cameras whose clock isn't set write zeros.
fn year(date: &[u8]) -> Option<u16> {
    let (&digits, rest) = date.split_first_chunk::<4>()?;
    let is_date = matches!(rest, [b':' | b'-' | b'/', month, ..] if month.is_ascii_digit());
    if !is_date || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let year = digits.iter().fold(0, |year, digit| 10 * year + u16::from(digit - b'0'));
    YEARS.contains(&year).then_some(year)
}

/// From the first photograph that is kept, since scans may be of any age, to what a clock that was never
/// set may have run to. Zeros and nines are no year.
const YEARS: RangeInclusive<u16> = 1826..=2100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_plain_trimmed_and_short() {
        let of = |make: &[u8]| Camera::of_metadata(Some(make), None, None)?.make;
        assert_eq!(of(b"Canon\0rest").as_deref(), Some("Canon"));
        assert_eq!(of(b"  NIKON \t CORPORATION  ").as_deref(), Some("NIKON CORPORATION"));
        assert_eq!(of(b"a\x1b[31m<b>\r\n\x7f\xff\xc3\xa9").as_deref(), Some("a [31m<b>"));
        assert_eq!(of(&[b'x'; 70_000]).map(|text| text.len()), Some(64));
        assert_eq!(of(&[&[b'x'; 63][..], b" y"].concat()).map(|text| text.len()), Some(63));
        for empty in [&b""[..], b"\0Canon", b" \t ", b"\xff\xfe"] {
            assert_eq!(of(empty), None, "{empty:?}");
        }
    }

    #[test]
    fn a_year_is_that_of_a_date() {
        let of = |date: &[u8]| Camera::of_metadata(None, None, Some(date))?.year;
        assert_eq!(of(b"2019:08:31 12:00:00\0"), Some(2019));
        assert_eq!(of(b"1998-01-02"), Some(1998));
        for none in [
            &b""[..],
            b"2019",
            b"0000:00:00 00:00:00",
            b"9999:12:31 23:59:59",
            b"    :  :     :  :  ",
            b"2019:xx",
            b"+201:01",
        ] {
            assert_eq!(of(none), None, "{none:?}");
        }
    }

    #[test]
    fn what_is_absent_is_not_written() {
        let camera = Camera::of_metadata(None, Some(b"X100"), None).unwrap();
        let text = serde_json::to_string(&camera).unwrap();
        assert_eq!(text, "{\"model\":\"X100\"}");
        assert_eq!(serde_json::from_str::<Camera>(&text).unwrap(), camera);
    }
}
