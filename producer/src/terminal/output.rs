//! Lines on standard output, and numbers as a person reads them.

use std::io::Write;

use camshaft_common::printable::{printable_json, printable_lines};
use chrono::{DateTime, Utc};

/// Prints a line, with control characters escaped. Does nothing if the reader has closed the pipe.
pub(crate) fn print_line(line: &str) {
    let line = printable_lines(line);
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).unwrap_or_default();
}

/// Prints JSON on a line, with control characters escaped as JSON does.
pub(crate) fn print_json(json: &str) {
    print_line(&printable_json(json));
}

/// `1 image`, `2 images`.
#[must_use]
pub(crate) fn format_count(number: u64, noun: &str) -> String {
    match number {
        1 => format!("1 {noun}"),
        _ => format!("{number} {noun}s"),
    }
}

/// How long something took: `0.4 s`, `1 min 50 s`, `3 h 20 min`.
#[cfg(feature = "embedded")]
#[must_use]
pub(crate) fn format_elapsed(seconds: f64) -> String {
    match seconds.round() as u64 {
        _ if seconds < 59.95 => format!("{seconds:.1} s"),
        whole @ 0..3600 => format!("{} min {} s", whole / 60, whole % 60),
        _ => format_duration(seconds),
    }
}

/// `59 s`, `12 min`, `3 h 20 min`, `2 d 4 h`.
#[must_use]
pub(crate) fn format_duration(seconds: f64) -> String {
    let seconds = seconds.max(0.0).round() as u64;
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{minutes} min"),
        3600..86400 => format!("{hours} h {} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

/// A time, to the second: `2026-01-02 03:04:05 UTC`.
#[must_use]
pub(crate) fn format_time(time: DateTime<Utc>) -> String {
    time.format("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// A rate above zero, with at least one digit that is not zero: `72.0`, `0.10`, `0.0021`.
#[must_use]
pub(crate) fn format_rate(rate: f64) -> String {
    match rate {
        0.95.. => format!("{rate:.1}"),
        0.01.. => format!("{rate:.2}"),
        _ => format!("{rate:.4}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_counts_are_for_people() {
        let texts = [0.4, 59.0, 720.0, 12_000.0, 187_200.0].map(format_duration);
        assert_eq!(texts, ["0 s", "59 s", "12 min", "3 h 20 min", "2 d 4 h"]);
        let texts = [1, 0].map(|number| format_count(number, "image"));
        assert_eq!(texts, ["1 image", "0 images"]);
    }

    #[cfg(feature = "embedded")]
    #[test]
    fn what_took_minutes_is_not_told_in_seconds() {
        let texts = [0.04, 12.34, 59.94, 59.96, 110.4, 7261.0].map(format_elapsed);
        assert_eq!(texts, ["0.0 s", "12.3 s", "59.9 s", "1 min 0 s", "1 min 50 s", "2 h 1 min"]);
    }
}
