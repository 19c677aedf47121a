//! Where the buffers of a forward pass lie in one piece of memory, planned once for the largest
//! batch. Buffers that are never needed at the same time share their place.
//!
//! Owns the plan alone: offsets. The memory is a [slot](crate::slots)'s. Upstream: the
//! [operations](crate::operations).

use std::cmp::Reverse;

use crate::memory::ALIGNMENT;
use crate::number_format::NumberFormat;
use crate::operations::{BufferId, OperationList};

/// A buffer's size, and the steps between which it is needed, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Need {
    bytes: usize,
    first: usize,
    last: usize,
}

impl Need {
    fn overlaps(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

/// The places of all buffers.
#[derive(Clone, Debug)]
pub(crate) struct BufferPlan {
    offsets: Vec<usize>,
    images_offset: usize,
    bytes: usize,
}

impl BufferPlan {
    /// Plans for `images` images, whose values, before they are the network's input, take
    /// `image_bytes` each.
    pub(crate) fn new(
        list: &OperationList,
        format: NumberFormat,
        images: usize,
        image_bytes: usize,
    ) -> Self {
        let mut needs = needs(list, |values| images * values * format.bytes());
        // The first step reads them, and nothing later does.
        needs.push(Need { bytes: images * image_bytes, first: 0, last: 0 });
        let (mut offsets, bytes) = place(&needs);
        let images_offset = offsets.pop().expect("the images' place");
        Self { offsets, images_offset, bytes }
    }

    /// The offset of a buffer.
    pub(crate) fn offset(&self, buffer: BufferId) -> usize {
        self.offsets[buffer.0]
    }

    /// The offset of the images' own values.
    pub(crate) fn images_offset(&self) -> usize {
        self.images_offset
    }

    /// The size of the memory.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

/// What each buffer needs. Step 0 makes the network's input, step `i + 1` is operation `i`, and the
/// step after them is the head.
fn needs(list: &OperationList, bytes: impl Fn(usize) -> usize) -> Vec<Need> {
    let mut needs: Vec<Need> = list
        .buffers
        .iter()
        .map(|shape| Need { bytes: bytes(shape.values()), first: 0, last: 0 })
        .collect();
    for (step, operation) in (1..).zip(&list.operations) {
        let output = &mut needs[operation.output().0];
        (output.first, output.last) = (step, step);
        for input in operation.inputs() {
            needs[input.0].last = step;
        }
    }
    needs[list.features().0].last = list.operations.len() + 1;
    needs
}

/// Places the largest first, each at the lowest offset at which nothing lies that is needed at the
/// same time. Returns the offsets and the size of all.
fn place(needs: &[Need]) -> (Vec<usize>, usize) {
    let mut order: Vec<usize> = (0..needs.len()).collect();
    order.sort_by_key(|&index| Reverse(needs[index].bytes));
    let mut offsets = vec![0; needs.len()];
    // Offset and end of what is placed, by the need's index.
    let mut placed: Vec<(usize, usize, usize)> = Vec::new();
    let mut total = 0;
    for index in order {
        let need = needs[index];
        let mut in_the_way: Vec<(usize, usize)> = placed
            .iter()
            .filter(|&&(other, ..)| needs[other].overlaps(need))
            .map(|&(_, start, end)| (start, end))
            .collect();
        in_the_way.sort_unstable();
        let mut offset = 0;
        for (start, end) in in_the_way {
            if offset + need.bytes <= start {
                break;
            }
            offset = offset.max(end);
        }
        let end = (offset + need.bytes).next_multiple_of(ALIGNMENT);
        offsets[index] = offset;
        placed.push((index, offset, end));
        total = total.max(end);
    }
    (offsets, total)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::tests::imagined_network;
    use crate::operations::operations;

    /// Checks that no two needs share a byte at the same time.
    fn check(needs: &[Need], offsets: &[usize], total: usize) {
        for (index, (&need, &offset)) in needs.iter().zip(offsets).enumerate() {
            assert_eq!(offset % ALIGNMENT, 0);
            assert!(offset + need.bytes <= total);
            for (&other, &other_offset) in needs.iter().zip(offsets).skip(index + 1) {
                let apart = offset + need.bytes <= other_offset
                    || other_offset + other.bytes <= offset
                    || !need.overlaps(other);
                assert!(apart, "{need:?} at {offset} and {other:?} at {other_offset}");
            }
        }
    }

    #[test]
    fn buffers_needed_at_the_same_time_lie_apart() {
        for blocks in [[1, 1, 1, 1], [3, 4, 6, 3], [2, 1, 3, 2]] {
            let list = operations(&imagined_network(blocks, 96));
            let needs = needs(&list, |values| 3 * values);
            let (offsets, total) = place(&needs);
            check(&needs, &offsets, total);
        }
    }

    #[test]
    fn a_resnet50_takes_a_few_of_its_largest_buffers() {
        let list = operations(&imagined_network([3, 4, 6, 3], 224));
        let (images, image_bytes) = (64, 3 * 224 * 224 * 4);
        let plan = BufferPlan::new(&list, NumberFormat::F16, images, image_bytes);
        let most = list.buffers.iter().map(|shape| shape.values()).max().unwrap();
        let largest = images * most * 2;
        // Input, output, a residual and what lies between them; not one for each operation.
        assert!(plan.bytes() >= 2 * largest && plan.bytes() <= 4 * largest, "{}", plan.bytes());
        // The images lie beside the input that is made of them.
        let input = plan.offset(list.input);
        let input_end = input + images * list.shape(list.input).values() * 2;
        let images_end = plan.images_offset() + images * image_bytes;
        assert!(images_end <= input || input_end <= plan.images_offset());
        assert!(images_end <= plan.bytes());
    }

    #[test]
    fn an_output_stays_until_its_last_reader() {
        let list = operations(&imagined_network([2, 1, 1, 1], 64));
        let needs = needs(&list, |values| values);
        for (step, operation) in (1..).zip(&list.operations) {
            assert_eq!(needs[operation.output().0].first, step);
            assert!(operation.inputs().all(|input| needs[input.0].last >= step));
        }
        assert_eq!(needs[list.features().0].last, list.operations.len() + 1);
    }
}
