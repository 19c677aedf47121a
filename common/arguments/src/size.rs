//! Sizes and counts with units, as people write them: `10MB`, `64 MiB`, `1.5GB`, `100M`, `67108864`.
//!
//! A unit means what it says: `MB` is a million bytes, `MiB` is 1024 times 1024. Upstream: command
//! line options. Downstream: the configuration, in bytes or as a plain number. [`format_bytes`] is the
//! way back, for messages about such limits.

/// Reads a number of bytes, at least one.
///
/// # Errors
/// If the text is no size; the error shows examples.
pub fn bytes(text: &str) -> Result<u64, String> {
    parse(text, byte_unit).ok_or_else(|| {
        "use a number of bytes above 0, such as 10MB, 64MiB, 1.5GB or 67108864".into()
    })
}

/// Reads a count, at least one.
///
/// # Errors
/// If the text is no count; the error shows examples.
pub fn count(text: &str) -> Result<u64, String> {
    parse(text, count_unit)
        .ok_or_else(|| "use a number above 0, such as 500k, 100M, 1.5G or 100000000".into())
}

/// A number of bytes as options take it, cut off after a tenth of its unit: `12 bytes`, `512 KiB`,
/// `1.5 MiB`, `704 MiB`.
#[must_use]
pub fn format_bytes(bytes: u64) -> String {
    let (unit, name) = match bytes {
        1 => return "1 byte".to_owned(),
        0..1024 => return format!("{bytes} bytes"),
        1024..0x10_0000 => (1024, "KiB"),
        _ => (0x10_0000, "MiB"),
    };
    match (bytes / unit, bytes % unit * 10 / unit) {
        (whole, 0) => format!("{whole} {name}"),
        (whole, tenths) => format!("{whole}.{tenths} {name}"),
    }
}

/// A number with an optional unit. A fraction of the smallest unit is cut off. `None` if it can't be
/// read, or is zero or too large.
fn parse(text: &str, unit: fn(&str) -> Option<u64>) -> Option<u64> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && !"._".contains(c)).unwrap_or(text.len());
    let (number, unit_text) = text.split_at(end);
    let unit = unit(&unit_text.trim_start().to_ascii_lowercase())?;
    let value = match number.split_once('.') {
        None => whole(number)?.checked_mul(unit)?,
        // There is no fraction of a byte.
        Some(_) if unit == 1 => return None,
        Some((whole_part, fraction)) => {
            let digits = fraction.bytes().filter(u8::is_ascii_digit).count();
            let scale = 10_u128.checked_pow(u32::try_from(digits).ok()?)?;
            let part = u128::from(whole(fraction)?).checked_mul(unit.into())? / scale;
            whole(whole_part)?.checked_mul(unit)?.checked_add(u64::try_from(part).ok()?)?
        }
    };
    (value > 0).then_some(value)
}

/// Digits; single underscores may stand between them.
fn whole(digits: &str) -> Option<u64> {
    let is_separated = digits.split('_').all(|part| !part.is_empty());
    is_separated.then(|| digits.replace('_', "").parse().ok())?
}

fn byte_unit(unit: &str) -> Option<u64> {
    let prefix = match unit {
        "" | "b" | "byte" | "bytes" => return Some(1),
        _ => unit.strip_suffix('b').unwrap_or(unit),
    };
    match prefix.strip_suffix('i') {
        Some(prefix) => prefix_power(prefix).map(|power| 1024_u64.pow(power)),
        None => prefix_power(prefix).map(|power| 1000_u64.pow(power)),
    }
}

/// `100M`, `100 MP` and `100Mpx` are the same number of pixels.
fn count_unit(unit: &str) -> Option<u64> {
    let prefix = ["pixels", "px", "p"].iter().find_map(|noun| unit.strip_suffix(noun));
    match prefix.unwrap_or(unit).trim_end() {
        "" => Some(1),
        prefix => prefix_power(prefix).map(|power| 1000_u64.pow(power)),
    }
}

fn prefix_power(prefix: &str) -> Option<u32> {
    ["k", "m", "g", "t"].into_iter().zip(1..).find(|(known, _)| *known == prefix).map(|(_, p)| p)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_decimal_and_binary_units() {
        for (text, size) in [
            ("67108864", 67_108_864),
            ("67_108_864", 67_108_864),
            ("10MB", 10_000_000),
            ("10mb", 10_000_000),
            ("10 M", 10_000_000),
            ("10MiB", 10_485_760),
            ("64 MiB", 67_108_864),
            ("64Mi", 67_108_864),
            ("1.5GB", 1_500_000_000),
            ("0.5 KiB", 512),
            ("1.25kib", 1_280),
            ("2T", 2_000_000_000_000),
            ("1TiB", 1 << 40),
            ("12 B", 12),
            ("12 bytes", 12),
            (" 1k ", 1_000),
        ] {
            assert_eq!(bytes(text), Ok(size), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_answered_with_examples() {
        for text in [
            "",
            "MB",
            "ten",
            "10XB",
            "-1",
            "-1MB",
            "1.5",
            "1.5B",
            ".5MB",
            "1.MB",
            "1..5MB",
            "0",
            "0MB",
            "1e9",
            "10,000",
            "1 0MB",
            "10Mbit",
            "_1",
            "1__0",
            "99999999999T",
            "0.0001kB",
            "NaN",
            "inf",
            "10 MB 3",
            "1.99999999999999999999999999999999999999999MB",
        ] {
            let error = bytes(text).expect_err(text);
            assert!(error.contains("10MB, 64MiB"), "{error}");
        }
    }

    #[test]
    fn no_size_is_told_as_none_of_its_unit() {
        for (size, text) in [
            (0, "0 bytes"),
            (1, "1 byte"),
            (1023, "1023 bytes"),
            (1024, "1 KiB"),
            (1_000_000, "976.5 KiB"),
            (1 << 20, "1 MiB"),
            (1_600_000, "1.5 MiB"),
            (704 << 20, "704 MiB"),
            (8 << 30, "8192 MiB"),
        ] {
            assert_eq!(format_bytes(size), text);
            assert!(size == 0 || bytes(text).is_ok(), "{text} can't be read");
        }
    }

    #[test]
    fn counts_have_decimal_prefixes() {
        for (text, number) in [
            ("100M", 100_000_000),
            ("100MP", 100_000_000),
            ("100 Mpx", 100_000_000),
            ("12 pixels", 12),
            ("2.5k", 2_500),
            ("100000000", 100_000_000),
        ] {
            assert_eq!(count(text), Ok(number), "{text}");
        }
        for text in ["100MB", "100Mi", "-5", "0", "p5", "many"] {
            assert!(count(text).unwrap_err().contains("100M"), "{text}");
        }
    }
}
