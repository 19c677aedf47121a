//! Progress on standard error: a bar on a terminal, a plain line every ten seconds elsewhere.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tracing_subscriber::fmt::MakeWriter;

use crate::terminal::output::{format_duration, format_rate};

/// How often a plain line is printed.
const LINE_INTERVAL: Duration = Duration::from_secs(10);
/// How often a bar is drawn.
const BAR_INTERVAL: Duration = Duration::from_millis(200);

/// How far a task is. It counts images, unless the task says otherwise.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ProgressCounts {
    /// Images done, failed ones included.
    pub(crate) done: u64,
    /// Images in all, if that is known yet.
    pub(crate) total: Option<u64>,
    /// Images that failed.
    pub(crate) failed: u64,
}

/// Progress of one task.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    verb: &'static str,
    started: Instant,
}

/// What all bars are drawn with, so that they make room for log lines.
fn terminal() -> &'static MultiProgress {
    static TERMINAL: std::sync::OnceLock<MultiProgress> = std::sync::OnceLock::new();
    TERMINAL.get_or_init(MultiProgress::new)
}

impl Progress {
    /// Starts to show progress. `verb` says what happens to images: `enqueued`.
    #[must_use]
    pub(crate) fn start(verb: &'static str) -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let bar = terminal().add(ProgressBar::no_length());
            bar.set_style(style("{spinner} {pos} {msg}"));
            bar
        });
        Self { bar, verb, started: Instant::now() }
    }

    /// Shows what `read` returns, now and then, until `work` is done.
    pub(crate) async fn follow<T>(
        self,
        work: impl Future<Output = T>,
        read: impl Fn() -> ProgressCounts,
    ) -> T {
        let interval = if self.bar.is_some() { BAR_INTERVAL } else { LINE_INTERVAL };
        let mut ticks = tokio::time::interval(interval);
        ticks.tick().await;
        let mut work = std::pin::pin!(work);
        let result = loop {
            tokio::select! {
                result = &mut work => break result,
                _ = ticks.tick() => self.show(read()),
            }
        };
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
        result
    }

    fn show(&self, counts: ProgressCounts) {
        let ProgressCounts { done, total, .. } = counts;
        let rest = describe(counts, self.started.elapsed());
        if let Some(bar) = &self.bar {
            set_length(bar, total);
            bar.set_position(done);
            bar.set_message(format!("{}{rest}", self.verb));
            bar.tick();
        } else {
            let total = total.map_or_else(String::new, |total| format!(" of {total}"));
            // Fails if standard error was closed: then nobody reads it.
            writeln!(io::stderr(), "{done}{total} {}{rest}", self.verb).unwrap_or_default();
        }
    }
}

/// Gives a bar its length. The total may become known late, and may change.
fn set_length(bar: &ProgressBar, total: Option<u64>) {
    let Some(total) = total.filter(|total| bar.length() != Some(*total)) else { return };
    if bar.length().is_none() {
        bar.set_style(style("{bar:30.cyan/blue} {pos}/{len} {msg}"));
    }
    bar.set_length(total);
}

/// What follows the numbers: failures, rate and time left, as far as they say something.
fn describe(counts: ProgressCounts, elapsed: Duration) -> String {
    let ProgressCounts { done, total, failed } = counts;
    let mut text = String::new();
    if failed > 0 {
        text.push_str(&format!(", {failed} failed"));
    }
    // Nothing is done yet, or everything was done before.
    if done == 0 {
        return text;
    }
    let rate = done as f64 / elapsed.as_secs_f64().max(0.001);
    text.push_str(&format!(", {} images/s", format_rate(rate)));
    if let Some(left) = total.and_then(|total| total.checked_sub(done)).filter(|left| *left > 0) {
        text.push_str(&format!(", {} left", format_duration(left as f64 / rate)));
    }
    text
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the template is valid")
}

/// Standard error for log lines. The progress bar is hidden while a line is written.
#[derive(Clone, Copy, Debug)]
pub struct LogWriter;

impl Write for LogWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        terminal().suspend(|| io::stderr().write(line))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

impl MakeWriter<'_> for LogWriter {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        Self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_whose_total_comes_late_shows_it() {
        // As of a training: the first look is before the number of images is known.
        let bar = ProgressBar::no_length();
        for (total, length) in [(None, None), (Some(0), Some(0)), (Some(720), Some(720))] {
            set_length(&bar, total);
            assert_eq!(bar.length(), length);
        }
        set_length(&bar, None);
        assert_eq!(bar.length(), Some(720));
    }

    #[test]
    fn progress_tells_no_rate_of_nothing() {
        let describe = |done, total, failed| {
            describe(ProgressCounts { done, total, failed }, Duration::from_secs(10))
        };
        assert_eq!(describe(0, Some(720), 0), "");
        assert_eq!(describe(0, None, 1), ", 1 failed");
        assert_eq!(describe(20, None, 0), ", 2.0 images/s");
        assert_eq!(describe(20, Some(720), 3), ", 3 failed, 2.0 images/s, 5 min left");
        assert_eq!(describe(720, Some(720), 0), ", 72.0 images/s");
        assert_eq!(describe(1, Some(3), 0), ", 0.10 images/s, 20 s left");
    }
}
