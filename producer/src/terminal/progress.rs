//! Progress on standard error: a bar on a terminal, a plain line now and then elsewhere.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tracing_subscriber::fmt::MakeWriter;

use crate::terminal::output::duration;

/// How often a plain line is printed.
const LINE_INTERVAL: Duration = Duration::from_secs(10);
/// How often a bar is drawn.
const BAR_INTERVAL: Duration = Duration::from_millis(200);

/// Images done so far, how many there are where that is known, and how many of those done
/// have failed.
pub type Reading = (u64, Option<u64>, u64);

/// Progress of one task.
#[derive(Debug)]
pub struct Progress {
    bar: Option<ProgressBar>,
    verb: &'static str,
    started: Instant,
}

/// The one drawing on the terminal, so that log lines can step around it.
fn terminal() -> &'static MultiProgress {
    static TERMINAL: std::sync::OnceLock<MultiProgress> = std::sync::OnceLock::new();
    TERMINAL.get_or_init(MultiProgress::new)
}

impl Progress {
    /// Starts one; `verb` says what happens to images.
    #[must_use]
    pub fn start(verb: &'static str) -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let bar = terminal().add(ProgressBar::no_length());
            bar.set_style(style("{spinner} {pos} {msg}"));
            bar
        });
        Self { bar, verb, started: Instant::now() }
    }

    /// Shows `read`'s numbers until `work` is done.
    pub async fn follow<T>(self, work: impl Future<Output = T>, read: impl Fn() -> Reading) -> T {
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

    fn show(&self, (done, total, failed): Reading) {
        let rate = done as f64 / self.started.elapsed().as_secs_f64().max(0.001);
        let left = total
            .filter(|_| rate > 0.0)
            .map(|total| format!(", {} left", duration(total.saturating_sub(done) as f64 / rate)));
        let failures = if failed > 0 { format!(", {failed} failed") } else { String::new() };
        let rest = format!("{failures}, {rate:.1} images/s{}", left.unwrap_or_default());
        if let Some(bar) = &self.bar {
            if let Some(total) = total.filter(|_| bar.length().is_none()) {
                bar.set_length(total);
                bar.set_style(style("{bar:30.cyan/blue} {pos}/{len} {msg}"));
            }
            bar.set_position(done);
            bar.set_message(format!("{}{rest}", self.verb));
            bar.tick();
        } else {
            let total = total.map_or_else(String::new, |total| format!(" of {total}"));
            // Whoever closed standard error doesn't want to know.
            writeln!(io::stderr(), "{done}{total} {}{rest}", self.verb).unwrap_or_default();
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the template is valid")
}

/// Standard error for log lines: a bar steps aside while one is written.
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
