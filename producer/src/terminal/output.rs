//! What the program prints for its caller, on standard output.

/// Prints a line. Whoever closed the pipe has read enough.
pub(crate) fn say(line: &str) {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).unwrap_or_default();
}

/// `1 image`, `2 images`.
#[must_use]
pub(crate) fn count(number: u64, noun: &str) -> String {
    match number {
        1 => format!("1 {noun}"),
        _ => format!("{number} {noun}s"),
    }
}

/// `59 s`, `12 min`, `3 h 20 min`, `2 d 4 h`.
#[must_use]
pub(crate) fn duration(seconds: f64) -> String {
    let seconds = seconds.max(0.0).round() as u64;
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{minutes} min"),
        3600..86400 => format!("{hours} h {} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_for_people() {
        let texts = [0.4, 59.0, 720.0, 12_000.0, 187_200.0].map(duration);
        assert_eq!(texts, ["0 s", "59 s", "12 min", "3 h 20 min", "2 d 4 h"]);
        assert_eq!((count(1, "image"), count(0, "image")), ("1 image".into(), "0 images".into()));
    }
}
