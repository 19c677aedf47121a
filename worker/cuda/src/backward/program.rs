//! The way back from a head to a layer, as a list of steps over a few areas of memory that hold
//! gradients. It is the chain rule for a list of operations, whatever network it is of.
//!
//! Owns which step comes when, and which area holds what. Addresses and batch sizes are not known
//! here. Upstream: [`operations`](crate::operations) and [`layer_cut`](crate::layer_cut).

use std::collections::{HashMap, HashSet};

use crate::layer_cut::CutPlace;
use crate::operations::{BufferId, Operation, OperationList};

/// One step back. Areas are counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BackwardStep {
    /// Sets the gradient in an area to zero wherever a ReLU's output is zero.
    Mask { gradient: usize, output: BufferId },
    /// From the gradient of an operation's output to that of its input. The operation is a
    /// convolution or a max-pooling, without what follows it.
    Through { operation: usize, from: usize, to: usize },
    /// Adds one gradient of a value to another.
    Add { to: usize, from: usize, value: BufferId },
}

/// The way back to a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BackwardProgram {
    pub(super) steps: Vec<BackwardStep>,
    /// The area in which the gradient of the last stage's output is at the start.
    pub(super) start: usize,
    /// The area in which the gradient of [`CutPlace::output`] is at the end, in front of its ReLU
    /// if the layer is a convolution.
    pub(super) end: usize,
    /// Values of each area, for one image.
    pub(super) areas: Vec<usize>,
}

impl BackwardProgram {
    /// The way back to the layer at `place`. `relu` says whether the layer is a convolution that a
    /// ReLU follows.
    pub(super) fn new(list: &OperationList, place: &CutPlace, relu: bool) -> Self {
        let mut builder = ProgramBuilder {
            list,
            gradients: HashMap::new(),
            free: Vec::new(),
            areas: Vec::new(),
            steps: Vec::new(),
        };
        let start = builder.area_for(list.features());
        builder.gradients.insert(list.features(), start);
        let depending = depending(list, place);
        for operation in (place.after..list.operations.len()).rev() {
            builder.go_back_through(operation, &depending);
        }
        let end = builder.gradients.remove(&place.output).expect("the logits depend on the layer");
        if relu {
            builder.steps.push(BackwardStep::Mask { gradient: end, output: place.output });
        }
        Self { steps: builder.steps, start, end, areas: builder.areas }
    }
}

/// The values that depend on the layer's output, itself among them.
fn depending(list: &OperationList, place: &CutPlace) -> HashSet<BufferId> {
    let mut depending = HashSet::from([place.output]);
    for operation in &list.operations[place.after..] {
        if operation.inputs().any(|input| depending.contains(&input)) {
            depending.insert(operation.output());
        }
    }
    depending
}

struct ProgramBuilder<'a> {
    list: &'a OperationList,
    /// The area of each value's gradient. It is complete once all operations that read the value
    /// are behind us.
    gradients: HashMap<BufferId, usize>,
    /// Areas that hold nothing any more.
    free: Vec<usize>,
    areas: Vec<usize>,
    steps: Vec<BackwardStep>,
}

impl ProgramBuilder<'_> {
    /// An area that holds nothing, with room for the gradient of a value.
    fn area_for(&mut self, value: BufferId) -> usize {
        let values = self.list.shape(value).values();
        let area = self.free.pop().unwrap_or_else(|| {
            self.areas.push(0);
            self.areas.len() - 1
        });
        self.areas[area] = self.areas[area].max(values);
        area
    }

    /// Adds the gradient in an area to that of a value. The area is the value's now, or free.
    fn add(&mut self, value: BufferId, from: usize) {
        match self.gradients.get(&value) {
            Some(&to) => {
                self.steps.push(BackwardStep::Add { to, from, value });
                self.free.push(from);
            }
            None => {
                self.gradients.insert(value, from);
            }
        }
    }

    fn go_back_through(&mut self, operation: usize, depending: &HashSet<BufferId>) {
        let list = self.list;
        let step = &list.operations[operation];
        // Nothing that the layer has a part in reads a value without a gradient.
        let Some(gradient) = self.gradients.remove(&step.output()) else { return };
        let (input, residual) = match *step {
            Operation::Convolution { input, residual, relu, output, .. } => {
                if relu {
                    self.steps.push(BackwardStep::Mask { gradient, output });
                }
                (input, residual)
            }
            Operation::MaxPool { input, .. } => (input, None),
        };
        if depending.contains(&input) {
            let to = self.area_for(input);
            self.steps.push(BackwardStep::Through { operation, from: gradient, to });
            self.add(input, to);
        }
        // The residual's gradient is that of the sum, which nothing else needs from here on.
        match residual.filter(|residual| depending.contains(residual)) {
            Some(residual) => self.add(residual, gradient),
            None => self.free.push(gradient),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer_cut::Cut;
    use crate::network::tests::imagined_network;
    use crate::operations::operations;

    fn program(list: &OperationList, cut: Cut, relu: bool) -> BackwardProgram {
        BackwardProgram::new(list, &CutPlace::find(cut, list).unwrap(), relu)
    }

    #[test]
    fn there_is_nothing_to_do_behind_the_last_block() {
        let list = operations(&imagined_network([1, 1, 1, 2], 64));
        let last = program(&list, Cut::Block(3, 1), false);
        assert_eq!((last.steps.as_slice(), last.start, last.end), ([].as_slice(), 0, 0));
        assert_eq!(last.areas, [list.shape(list.features()).values()]);
    }

    #[test]
    fn a_blocks_input_has_the_gradients_of_its_path_and_of_its_sum() {
        let list = operations(&imagined_network([1, 1, 1, 2], 64));
        let block = &list.blocks[3][1];
        let [first, second, third] = [0, 1, 2].map(|place| block.path.start + place);
        let output = |operation: usize| list.operations[operation].output();
        let before = program(&list, Cut::Block(3, 0), false);
        let expected = [
            BackwardStep::Mask { gradient: 0, output: output(third) },
            BackwardStep::Through { operation: third, from: 0, to: 1 },
            BackwardStep::Mask { gradient: 1, output: output(second) },
            BackwardStep::Through { operation: second, from: 1, to: 2 },
            BackwardStep::Mask { gradient: 2, output: output(first) },
            BackwardStep::Through { operation: first, from: 2, to: 1 },
            BackwardStep::Add { to: 0, from: 1, value: block.input },
        ];
        assert_eq!(before.steps, expected);
        assert_eq!(before.end, 0);
    }

    #[test]
    fn a_shortcuts_gradient_does_not_go_through_the_path() {
        let list = operations(&imagined_network([1; 4], 64));
        let shortcut = program(&list, Cut::Shortcut(3, 0), false);
        let output = list.blocks[3][0].output;
        assert_eq!(shortcut.steps, [BackwardStep::Mask { gradient: 0, output }]);
        assert_eq!(shortcut.end, 0);
    }

    #[test]
    fn three_areas_are_enough_for_any_layer() {
        let list = operations(&imagined_network([3, 4, 6, 3], 96));
        for cut in [Cut::Stem, Cut::Block(0, 0), Cut::Path(1, 0, 0), Cut::Path(2, 3, 1)] {
            let program = program(&list, cut, true);
            assert!(program.areas.len() <= 3, "{cut:?}: {:?}", program.areas);
            let last = program.steps.last();
            assert!(matches!(last, Some(BackwardStep::Mask { .. })), "{cut:?}");
        }
    }
}
