//! How long each step of a pass takes. Costs nothing where nobody asks.

use std::fmt;
use std::time::{Duration, Instant};

/// A step of a pass and the time it took.
#[derive(Clone, Debug, PartialEq)]
pub struct StepTime {
    /// torchvision's name of the layer (`layer2.0.conv2`, `layer2.0.downsample`), or what else
    /// was done.
    pub name: String,
    /// Multiplications and additions, each counted; 0 where there are none to speak of.
    pub flop: f64,
    /// Wall time of the thread.
    pub time: Duration,
}

/// Notes steps, if it is to.
#[derive(Debug, Default)]
pub(crate) struct Clock(Option<Vec<StepTime>>);

impl Clock {
    pub(crate) fn running() -> Self {
        Self(Some(Vec::new()))
    }

    pub(crate) fn time<R>(
        &mut self,
        name: fmt::Arguments<'_>,
        flop: f64,
        work: impl FnOnce() -> R,
    ) -> R {
        let Some(steps) = &mut self.0 else { return work() };
        let started = Instant::now();
        let result = work();
        steps.push(StepTime { name: name.to_string(), flop, time: started.elapsed() });
        result
    }

    /// Steps of the same name added up, in the order in which they first came.
    pub(crate) fn steps(self) -> Vec<StepTime> {
        let mut sums: Vec<StepTime> = Vec::new();
        for step in self.0.unwrap_or_default() {
            match sums.iter_mut().find(|sum| sum.name == step.name) {
                Some(sum) => {
                    sum.flop += step.flop;
                    sum.time += step.time;
                }
                None => sums.push(step),
            }
        }
        sums
    }
}
