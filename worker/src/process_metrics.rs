//! What every Prometheus client tells of its own process on Linux: `process_…`.
//!
//! Owns these metrics and reads them from `/proc` when asked. `prometheus` has the same behind
//! its feature `process`, but with a crate that can read all of `/proc` and takes longer to
//! compile than all of `prometheus`.

use std::fs;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntCounter, IntGauge};

/// Clock ticks a second in `/proc`, the same on every machine that Linux calls x86 or ARM.
/// <https://man7.org/linux/man-pages/man7/time.7.html>, `USER_HZ`
const TICKS_PER_SECOND: u64 = 100;

/// This process's processor time, memory, files, threads and age.
pub(crate) struct ProcessCollector {
    cpu_seconds: IntCounter,
    open_fds: IntGauge,
    max_fds: IntGauge,
    virtual_bytes: IntGauge,
    resident_bytes: IntGauge,
    start_time: IntGauge,
    threads: IntGauge,
}

impl ProcessCollector {
    /// Of the calling process.
    pub(crate) fn new() -> Self {
        let gauge = |name, help| IntGauge::new(name, help).expect("the name is one");
        let cpu_help = "Total user and system CPU time spent in seconds.";
        Self {
            cpu_seconds: IntCounter::new("process_cpu_seconds_total", cpu_help)
                .expect("the name is one"),
            open_fds: gauge("process_open_fds", "Number of open file descriptors."),
            max_fds: gauge("process_max_fds", "Maximum number of open file descriptors."),
            virtual_bytes: gauge("process_virtual_memory_bytes", "Virtual memory size in bytes."),
            resident_bytes: gauge(
                "process_resident_memory_bytes",
                "Resident memory size in bytes.",
            ),
            start_time: gauge(
                "process_start_time_seconds",
                "Start time of the process since unix epoch in seconds.",
            ),
            threads: gauge("process_threads", "Number of OS threads in the process."),
        }
    }

    fn collectors(&self) -> [&dyn Collector; 7] {
        [
            &self.cpu_seconds,
            &self.open_fds,
            &self.max_fds,
            &self.virtual_bytes,
            &self.resident_bytes,
            &self.start_time,
            &self.threads,
        ]
    }

    /// Reads what can be read. A value that can't stays as it is.
    fn update(&self) {
        let set = |gauge: &IntGauge, value: Option<u64>| {
            if let Some(value) = value.and_then(|value| i64::try_from(value).ok()) {
                gauge.set(value);
            }
        };
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let open = fs::read_dir("/proc/self/fd").ok().map(|files| files.count() as u64);
        set(&self.open_fds, open);
        set(&self.max_fds, max_open_files(&read("/proc/self/limits")));
        set(&self.resident_bytes, resident_bytes(&read("/proc/self/status")));
        if let Some(stat) = Stat::parse(&read("/proc/self/stat")) {
            // Two readers at once may both add.
            let seconds =
                (stat.cpu_ticks / TICKS_PER_SECOND).saturating_sub(self.cpu_seconds.get());
            self.cpu_seconds.inc_by(seconds);
            set(&self.virtual_bytes, Some(stat.virtual_bytes));
            set(&self.threads, Some(stat.threads));
            let since_boot = stat.start_ticks / TICKS_PER_SECOND;
            set(&self.start_time, boot_time(&read("/proc/stat")).map(|boot| boot + since_boot));
        }
    }
}

impl Collector for ProcessCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.collectors().into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.update();
        self.collectors().into_iter().flat_map(Collector::collect).collect()
    }
}

/// What `/proc/self/stat` says. <https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html>
#[derive(Debug, PartialEq)]
struct Stat {
    cpu_ticks: u64,
    threads: u64,
    start_ticks: u64,
    virtual_bytes: u64,
}

impl Stat {
    fn parse(text: &str) -> Option<Self> {
        // The program's name, in brackets, may have blanks and brackets in it.
        let (_, after_name) = text.rsplit_once(')')?;
        let fields: Vec<_> = after_name.split_ascii_whitespace().collect();
        // The manual counts from 1, and the first two are gone.
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        Some(Self {
            cpu_ticks: field(14)? + field(15)?,
            threads: field(20)?,
            start_ticks: field(22)?,
            virtual_bytes: field(23)?,
        })
    }
}

/// The soft limit; none if there is no limit.
fn max_open_files(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

fn resident_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// Seconds since 1970.
fn boot_time(stat: &str) -> Option<u64> {
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_programs_name_may_look_like_fields() {
        let stat = "7 (a) b (c)) S 1 2 3 0 -1 4 5 6 7 8 150 50 0 0 20 0 9 0 1234 4096 10 11";
        let expected = Stat { cpu_ticks: 200, threads: 9, start_ticks: 1234, virtual_bytes: 4096 };
        assert_eq!(Stat::parse(stat), Some(expected));
        assert_eq!(Stat::parse("7 (a) S 1"), None);
    }

    #[test]
    fn this_process_is_measured() {
        let collector = ProcessCollector::new();
        assert_eq!(collector.collect().len(), 7);
        assert_eq!(collector.desc().len(), 7);
        assert!(collector.open_fds.get() >= 3);
        assert!(collector.max_fds.get() >= collector.open_fds.get());
        assert!(collector.resident_bytes.get() > 1 << 20);
        assert!(collector.virtual_bytes.get() >= collector.resident_bytes.get());
        assert!(collector.threads.get() >= 1);
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let age = now.as_secs().cast_signed() - collector.start_time.get();
        assert!((-2..3600).contains(&age), "{age} s");
    }

    #[test]
    fn no_limit_is_no_number() {
        let line = "Limit  Soft Limit\nMax open files            unlimited   unlimited   files\n";
        assert_eq!(max_open_files(line), None);
        assert_eq!(max_open_files(&line.replace("unlimited", "1024")), Some(1024));
    }
}
