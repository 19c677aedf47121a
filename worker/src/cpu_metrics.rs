//! Metrics of the cores: what their time went to, and how long threads that were ready had none.
//!
//! Owns the two metrics, which are read from the kernel when somebody asks for them. Upstream:
//! [`thread_times`](crate::thread_times).

use std::sync::Arc;

use parking_lot::Mutex;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{CounterVec, Opts};
use tracing::debug;

use crate::thread_times::{Work, WorkTimes};

const CPU_SECONDS: &str = "camshaft_cpu_seconds_total";
const CPU_WAIT_SECONDS: &str = "camshaft_cpu_wait_seconds_total";

/// Processor time by kind of work. Clones share their numbers.
#[derive(Clone, Debug)]
pub(crate) struct CpuCollector {
    computed: CounterVec,
    without_core: CounterVec,
    times: Arc<Mutex<WorkTimes>>,
}

impl CpuCollector {
    /// Of the calling process. Its threads so far count from their start.
    pub(crate) fn new() -> Self {
        let counters = |name, help| {
            CounterVec::new(Opts::new(name, help), &["work"]).expect("the name is one")
        };
        Self {
            computed: counters(CPU_SECONDS, "Processor time of threads, by kind of work"),
            without_core: counters(
                CPU_WAIT_SECONDS,
                "Time in which threads were ready and had no core, by kind of work",
            ),
            times: Arc::default(),
        }
    }

    /// Reads the times now. Threads that end soon count from then on.
    pub(crate) fn read(&self) {
        let mut times = self.times.lock();
        times.read();
        for work in Work::ALL {
            let now = times.of(work);
            for (counters, now) in
                [(&self.computed, now.computed), (&self.without_core, now.without_core)]
            {
                let counter = counters.with_label_values(&[work.name()]);
                counter.inc_by((now.as_secs_f64() - counter.get()).max(0.0));
            }
        }
    }

    /// Logs what the cores' time went to. For programs that nobody asks for metrics.
    pub(crate) fn log(&self) {
        self.read();
        let seconds = |counters: &CounterVec, work: Work| {
            (counters.with_label_values(&[work.name()]).get() * 1000.0).round() / 1000.0
        };
        for work in Work::ALL {
            debug!(
                work = work.name(),
                computed_seconds = seconds(&self.computed, work),
                without_core_seconds = seconds(&self.without_core, work),
                "processor time"
            );
        }
    }
}

impl Collector for CpuCollector {
    fn desc(&self) -> Vec<&Desc> {
        [&self.computed, &self.without_core].into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.read();
        [&self.computed, &self.without_core].into_iter().flat_map(Collector::collect).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_work_has_its_time() {
        let collector = CpuCollector::new();
        for family in collector.collect() {
            assert_eq!(family.get_metric().len(), Work::ALL.len());
        }
        let before = collector.computed.with_label_values(&["other"]).get();
        collector.log();
        // Nothing counts twice.
        assert!(collector.computed.with_label_values(&["other"]).get() >= before);
        assert_eq!(collector.desc().len(), 2);
    }
}
