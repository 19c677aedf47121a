//! How long each step of a forward pass takes. A pass that is not profiled pays nothing.

use std::fmt;
use std::time::{Duration, Instant};

/// A step of a forward pass and the time it took.
#[derive(Clone, Debug, PartialEq)]
pub struct StepTime {
    /// torchvision's name of the layer, as in `layer2.0.conv2` or `layer2.0.downsample`, or the
    /// name of a step that is no layer, as in `read out`.
    pub name: String,
    /// Multiplications plus additions; 0 for steps that compute next to nothing.
    pub flop: f64,
    /// Wall time of the thread.
    pub time: Duration,
}

/// Times steps, if it was made by [`StepTimer::running`].
#[derive(Debug, Default)]
pub(crate) struct StepTimer(Option<Vec<StepTime>>);

impl StepTimer {
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

    /// The steps in the order of their first run. Steps of one name are added up.
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
