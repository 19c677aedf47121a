//! Parses metrics in Prometheus' text format.

use std::collections::BTreeMap;

/// A worker's metrics at one moment.
#[derive(Clone, Debug)]
pub struct Scrape {
    /// The key is the name with its labels, as the text has it: `name{label="value"}`.
    samples: BTreeMap<String, f64>,
}

impl Scrape {
    /// Parses the text of `GET /metrics`.
    ///
    /// # Panics
    /// If a line is not a sample.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        let sample = |line: &str| {
            let (name, value) = line.rsplit_once(' ').expect("a sample has a value");
            (name.to_owned(), value.parse().expect("a value is a number"))
        };
        Self { samples: lines.map(sample).collect() }
    }

    /// The value of a sample, given its name with its labels.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn value(&self, sample: &str) -> f64 {
        let value = self.samples.get(sample).copied();
        value.unwrap_or_else(|| panic!("no {sample} among {:#?}", self.samples))
    }

    /// True if the metric has a sample with any labels. For a histogram, its count is such a
    /// sample.
    #[must_use]
    pub fn has(&self, metric: &str) -> bool {
        let names = self.samples.keys().map(|sample| sample.split('{').next().unwrap_or(sample));
        let count = format!("{metric}_count");
        names.into_iter().any(|name| name == metric || name == count)
    }

    /// The names of all metrics. A histogram's three names count as one.
    #[must_use]
    pub fn metrics(&self) -> Vec<&str> {
        let names = self.samples.keys().map(|sample| sample.split('{').next().unwrap_or(sample));
        let mut names: Vec<_> = names
            .map(|name| {
                let parts = ["_bucket", "_sum", "_count"];
                parts.iter().find_map(|part| name.strip_suffix(part)).unwrap_or(name)
            })
            .collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// The labels of a metric's first sample, after the `{`.
    #[must_use]
    pub fn labels(&self, metric: &str) -> Option<&str> {
        self.samples.keys().find_map(|sample| sample.strip_prefix(metric)?.strip_prefix('{'))
    }
}
