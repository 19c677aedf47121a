//! What this process's threads do with the cores: how long they computed, and how long they were ready
//! to and had no core. By kind of work, so that one sees what the network has to share.
//!
//! Owns the kinds of work and how their threads are called. The numbers are the kernel's own: they cost
//! nothing until somebody reads them. Only Linux has them; elsewhere all times are zero. Upstream:
//! [`cores`](crate::cores), which starts the threads. Downstream: [`cpu_metrics`](crate::cpu_metrics).

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;
use std::{fs, io};

use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};
use tracing::debug;

/// The name of the thread that owns the device and the weights.
pub(crate) const MODEL_THREAD: &str = "model";

/// A kind of work that computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// The network, and what the model's own thread does around it.
    Network,
    /// Drawing, and what else computes beside the network.
    Drawing,
    /// Decoding images, and measuring them.
    Decoding,
    /// Everything else: requests, messages, records.
    Other,
}

impl Work {
    /// All kinds.
    pub(crate) const ALL: [Self; 4] = [Self::Network, Self::Drawing, Self::Decoding, Self::Other];

    /// Its name, in metrics and in the names of its threads.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Network => "network",
            Self::Drawing => "drawing",
            Self::Decoding => "decoding",
            Self::Other => "other",
        }
    }

    /// The name of its thread number `index`. Linux keeps 15 bytes of it.
    pub(crate) fn thread_name(self, index: usize) -> String {
        format!("{}-{index}", self.name())
    }

    fn of_thread(name: &str) -> Self {
        let kind = name.trim_end().split('-').next().unwrap_or_default();
        match kind {
            MODEL_THREAD => Self::Network,
            _ => Self::ALL.into_iter().find(|work| work.name() == kind).unwrap_or(Self::Other),
        }
    }
}

/// What became of a thread's time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ThreadTimes {
    /// It computed.
    pub(crate) computed: Duration,
    /// It was ready to compute, and all cores were taken.
    pub(crate) without_core: Duration,
}

impl ThreadTimes {
    /// Reads a thread's `schedstat`: nanoseconds that it computed, and that it waited for a core.
    /// <https://docs.kernel.org/scheduler/sched-stats.html>, `/proc/<pid>/schedstat`
    fn parse(schedstat: &str) -> Option<Self> {
        let mut numbers = schedstat.split_ascii_whitespace().map(str::parse::<u64>);
        let mut next = || Some(Duration::from_nanos(numbers.next()?.ok()?));
        Some(Self { computed: next()?, without_core: next()? })
    }

    /// The time since it was `before`. A thread that has less now is another one with its number.
    fn since(self, before: Self) -> Self {
        if self.computed < before.computed {
            return self;
        }
        Self {
            computed: self.computed - before.computed,
            without_core: self.without_core.saturating_sub(before.without_core),
        }
    }
}

/// The times of all kinds of work since this was made, threads that have ended included.
#[derive(Debug, Default)]
pub(crate) struct WorkTimes {
    /// The threads that there were at the last reading, by their numbers.
    threads: HashMap<String, ThreadTimes>,
    sums: [ThreadTimes; Work::ALL.len()],
}

impl WorkTimes {
    /// Reads the times of the threads that there are. What a thread does between the last reading
    /// and its end is missing. If they can't be read, for instance since too many files are open,
    /// the next reading has this time, too.
    pub(crate) fn read(&mut self) {
        match threads() {
            Ok(threads) => self.note(threads),
            Err(error) => debug!(%error, "the threads' times can't be read now"),
        }
    }

    /// The times of one kind of work at the last reading.
    pub(crate) fn of(&self, work: Work) -> ThreadTimes {
        self.sums[work as usize]
    }

    fn note(&mut self, threads: impl IntoIterator<Item = (String, Work, ThreadTimes)>) {
        let mut now = HashMap::new();
        for (number, work, times) in threads {
            let before = self.threads.get(&number).copied().unwrap_or_default();
            let more = times.since(before);
            let sum = &mut self.sums[work as usize];
            sum.computed += more.computed;
            sum.without_core += more.without_core;
            now.insert(number, times);
        }
        self.threads = now;
    }
}

/// The number, work and times of each thread of this process; none if the system has no such times.
fn threads() -> io::Result<Vec<(String, Work, ThreadTimes)>> {
    let folders = match fs::read_dir("/proc/self/task") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        folders => folders?,
    };
    let mut threads = Vec::new();
    for folder in folders {
        let folder = folder?;
        let times = match work_and_times(&folder.path()) {
            Err(error) if has_ended(&error) => continue,
            times => times?,
        };
        if let (Ok(number), Some((work, times))) = (folder.file_name().into_string(), times) {
            threads.push((number, work, times));
        }
    }
    Ok(threads)
}

fn work_and_times(thread: &Path) -> io::Result<Option<(Work, ThreadTimes)>> {
    // The name may be cut within a character.
    let name = fs::read(thread.join("comm"))?;
    let work = Work::of_thread(&String::from_utf8_lossy(&name));
    let times = fs::read_to_string(thread.join("schedstat"))?;
    Ok(ThreadTimes::parse(&times).map(|times| (work, times)))
}

/// True if a thread's files say that it is no longer there.
fn has_ended(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
        || error.raw_os_error() == Some(Errno::SRCH.raw_os_error())
}

/// A thread at the moment at which it began with something.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BusyThread {
    number: i32,
    computed: Duration,
}

impl BusyThread {
    /// The calling thread, now.
    pub(crate) fn this() -> Self {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        // It counts up from zero.
        let computed =
            Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32);
        Self { number: this_thread(), computed }
    }

    /// True if the thread is ready to compute and has computed for less than `time` since then: then
    /// others have taken the cores.
    pub(crate) fn lacks_a_core(self, time: Duration) -> bool {
        let read = |file| fs::read_to_string(format!("/proc/self/task/{}/{file}", self.number));
        let (Ok(stat), Ok(times)) = (read("stat"), read("schedstat")) else { return false };
        let computed = ThreadTimes::parse(&times).map(|times| times.computed);
        let computed = computed.map(|computed| computed.saturating_sub(self.computed));
        is_ready(&stat) && computed.is_some_and(|computed| computed < time)
    }
}

/// True if a thread's `stat` says that it computes, or would if it had a core.
/// <https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html>
fn is_ready(stat: &str) -> bool {
    // Its name, in brackets, may have blanks and brackets in it.
    stat.rsplit_once(')').is_some_and(|(_, after_name)| after_name.trim_start().starts_with('R'))
}

#[cfg(target_os = "linux")]
fn this_thread() -> i32 {
    rustix::thread::gettid().as_raw_pid()
}

/// No thread has this number.
#[cfg(not(target_os = "linux"))]
fn this_thread() -> i32 {
    0
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;
    use std::time::Instant;

    use super::*;

    fn times(computed: u64, without_core: u64) -> ThreadTimes {
        let [computed, without_core] = [computed, without_core].map(Duration::from_nanos);
        ThreadTimes { computed, without_core }
    }

    #[test]
    fn a_thread_is_known_by_its_name() {
        for work in Work::ALL {
            assert_eq!(Work::of_thread(&format!("{}\n", work.thread_name(127))), work);
            assert!(work.thread_name(127).len() <= 15);
        }
        assert_eq!(Work::of_thread("model\n"), Work::Network);
        assert_eq!(Work::of_thread("tokio-rt-worker\n"), Work::Other);
    }

    #[test]
    fn what_the_kernel_says_is_read() {
        assert_eq!(ThreadTimes::parse("196802100 57595 6\n"), Some(times(196_802_100, 57_595)));
        assert_eq!(ThreadTimes::parse("7"), None);
        assert!(is_ready("7 (a) S (b) R 1 2 3"));
        assert!(!is_ready("7 (a) R (b) S 1 2 3"));
    }

    #[test]
    fn threads_that_end_still_count() {
        let mut all = WorkTimes::default();
        let network = |number: &str, times| (number.to_owned(), Work::Network, times);
        all.note([network("1", times(10, 1)), network("2", times(20, 2))]);
        all.note([network("1", times(15, 1))]);
        // Another thread has got the number of one that has ended.
        all.note([network("1", times(18, 2)), network("2", times(4, 3))]);
        assert_eq!(all.of(Work::Network), times(10 + 20 + 5 + 3 + 4, 1 + 2 + 1 + 3));
        assert_eq!(all.of(Work::Drawing), ThreadTimes::default());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_thread_that_waits_for_something_lacks_no_core() {
        let (ready, is_ready) = mpsc::channel();
        let (done, forever) = mpsc::channel::<()>();
        let waiting = thread::Builder::new().name(Work::Decoding.thread_name(0)).spawn(move || {
            let spinning = Instant::now();
            while spinning.elapsed() < Duration::from_millis(20) {}
            ready.send(BusyThread::this()).unwrap();
            forever.recv().unwrap_err();
        });
        let thread = is_ready.recv().unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        while thread.lacks_a_core(Duration::MAX) {
            assert!(Instant::now() < deadline, "it waits");
            thread::yield_now();
        }
        let mut all = WorkTimes::default();
        all.read();
        assert!(all.of(Work::Decoding).computed > Duration::ZERO);
        // This one computes, and has done so for more than nothing.
        let this = BusyThread::this();
        assert!(this.lacks_a_core(Duration::MAX) && !this.lacks_a_core(Duration::ZERO));
        drop(done);
        waiting.unwrap().join().unwrap();
    }
}
