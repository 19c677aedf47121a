//! What a forward pass takes and gives, and how its results lie in memory: one piece on the device,
//! which comes back by one copy.
//!
//! Owns the public types of a pass, and the layout of its results. Running a pass is
//! [`slots`](crate::slots)' work. Downstream: [`engine`](crate::engine)'s callers.

use camshaft_kernels::{STAGES, StageOutput};

use crate::error::CudaError;
use crate::memory::ALIGNMENT;
use crate::network::{DeviceHead, DeviceNetwork};
use crate::weight_layout::IMAGE_CHANNELS;

/// The images of a batch. Their number follows from the length.
#[derive(Clone, Copy, Debug)]
pub enum PassInput<'a> {
    /// Pixels as they are in the image: `[N, H, W, 3]`.
    Pixels(&'a [u8]),
    /// The network's input: `[N, 3, H, W]`, scaled and normalised.
    Scaled(&'a [f32]),
}

impl PassInput<'_> {
    /// The number of images.
    ///
    /// # Errors
    /// If there are none, too many, or a part of one.
    pub(crate) fn images(
        &self,
        network: &DeviceNetwork,
        most_images: usize,
    ) -> Result<usize, CudaError> {
        let length = match self {
            Self::Pixels(pixels) => pixels.len(),
            Self::Scaled(values) => values.len(),
        };
        let image = IMAGE_CHANNELS * network.height * network.width;
        let images = length / image;
        if length.is_multiple_of(image) && (1..=most_images).contains(&images) {
            return Ok(images);
        }
        Err(CudaError::Failed {
            operation: "taking a batch".to_owned(),
            reason: format!("{length} values are not 1 to {most_images} images of {image} values"),
        })
    }

    /// Bytes of all its values.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Pixels(pixels) => pixels.len(),
            Self::Scaled(values) => size_of_val(*values),
        }
    }
}

/// What a forward pass is to give besides logits, pooled features and maps of the top classes.
#[derive(Clone, Copy, Debug, Default)]
pub struct PassRequest<'a> {
    /// The stages whose outputs are wanted.
    pub stages: [bool; STAGES],
    /// The class of each image whose map is wanted besides the top class's; empty if none is.
    pub labels: &'a [Option<usize>],
}

impl PassRequest<'_> {
    /// The labels as the kernels take them: one for each image of a batch of `bucket`, -1 for none.
    ///
    /// # Errors
    /// If there are labels, but not one for each of `images`, or one is not a class.
    pub(crate) fn label_numbers(
        &self,
        images: usize,
        bucket: usize,
        classes: usize,
    ) -> Result<Vec<i32>, CudaError> {
        let fits = self.labels.is_empty() || self.labels.len() == images;
        if !fits || self.labels.iter().flatten().any(|&label| label >= classes) {
            return Err(CudaError::Failed {
                operation: "taking a batch's labels".to_owned(),
                reason: format!("{:?} for {images} images of {classes} classes", self.labels),
            });
        }
        let mut numbers: Vec<i32> = self
            .labels
            .iter()
            .map(|label| label.map_or(-1, |label| i32::try_from(label).unwrap_or(-1)))
            .collect();
        numbers.resize(bucket, -1);
        Ok(numbers)
    }
}

/// What a forward pass gives. All numbers are f32.
#[derive(Clone, Debug, PartialEq)]
pub struct PassOutput {
    /// `[N, K]`.
    pub logits: Vec<f32>,
    /// The last stage's output, averaged over positions: `[N, C]`.
    pub pooled: Vec<f32>,
    /// The class of the largest logit of each image, the first of equal ones: `[N]`.
    pub tops: Vec<usize>,
    /// The maps of each image's top class and label, rectified: `[N, 2, H × W]`; the second is zero
    /// if there is no label.
    pub maps: Vec<f32>,
    /// The outputs of the stages that were asked for.
    pub stages: [Option<StageOutput>; STAGES],
}

/// Where the results of a batch lie, in bytes from the start of their memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ResultLayout {
    pub(crate) logits: usize,
    pub(crate) pooled: usize,
    pub(crate) maps: usize,
    /// i32.
    pub(crate) tops: usize,
    /// Size of all.
    pub(crate) bytes: usize,
}

impl ResultLayout {
    /// The layout for a batch of `images`.
    pub(crate) fn new(images: usize, head: &DeviceHead) -> Self {
        let mut end = 0;
        let mut place = |values: usize| {
            let start = end;
            end += (images * values * size_of::<f32>()).next_multiple_of(ALIGNMENT);
            start
        };
        let logits = place(head.classes);
        let pooled = place(head.channels);
        let maps = place(2 * head.positions);
        let tops = place(1);
        Self { logits, pooled, maps, tops, bytes: end }
    }

    /// The results of the first `images` images, without stages, from the bytes of all.
    pub(crate) fn read(&self, bytes: &[u8], images: usize, head: &DeviceHead) -> PassOutput {
        let floats = |start: usize, values: usize| {
            let bytes = &bytes[start..][..images * values * size_of::<f32>()];
            bytes.as_chunks().0.iter().map(|&value| f32::from_ne_bytes(value)).collect()
        };
        let tops = &bytes[self.tops..][..images * size_of::<i32>()];
        let tops = tops.as_chunks().0.iter().map(|&top| i32::from_ne_bytes(top));
        PassOutput {
            logits: floats(self.logits, head.classes),
            pooled: floats(self.pooled, head.channels),
            maps: floats(self.maps, 2 * head.positions),
            // Without any number among its logits an image has no top class.
            tops: tops.map(|top| usize::try_from(top).unwrap_or(0)).collect(),
            stages: [const { None }; STAGES],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::tests::imagined_network;

    #[test]
    fn results_are_read_from_where_they_lie() {
        let head = DeviceHead {
            classes: 3,
            channels: 8,
            positions: 2,
            ..imagined_network([1; STAGES], 64).head
        };
        let layout = ResultLayout::new(4, &head);
        assert!(layout.bytes >= 4 * 4 * (3 + 8 + 4 + 1));
        let mut bytes = vec![0u8; layout.bytes];
        let mut write = |start: usize, count: usize, first: f32| {
            for index in 0..count {
                let value = first + index as f32;
                bytes[start + 4 * index..][..4].copy_from_slice(&value.to_ne_bytes());
            }
        };
        write(layout.logits, 12, 100.0);
        write(layout.pooled, 32, 200.0);
        write(layout.maps, 16, 300.0);
        for (index, top) in [2i32, 0, 1, -1].into_iter().enumerate() {
            bytes[layout.tops + 4 * index..][..4].copy_from_slice(&top.to_ne_bytes());
        }
        let output = layout.read(&bytes, 3, &head);
        assert_eq!((output.logits.len(), output.logits[8]), (9, 108.0));
        assert_eq!((output.pooled.len(), output.pooled[23]), (24, 223.0));
        assert_eq!((output.maps.len(), output.maps[11]), (12, 311.0));
        assert_eq!(output.tops, [2, 0, 1]);
    }

    #[test]
    fn missing_labels_are_negative() {
        let request = PassRequest { labels: &[Some(3), None], ..PassRequest::default() };
        assert_eq!(request.label_numbers(2, 4, 5).unwrap(), [3, -1, -1, -1]);
        assert_eq!(PassRequest::default().label_numbers(2, 2, 5).unwrap(), [-1, -1]);
        assert!(request.label_numbers(3, 4, 5).is_err());
        assert!(request.label_numbers(2, 4, 3).is_err());
    }

    #[test]
    fn a_batch_is_whole_images() {
        let network = imagined_network([1; STAGES], 64);
        let values = vec![0u8; 3 * 64 * 64 * 3];
        assert_eq!(PassInput::Pixels(&values).images(&network, 4).unwrap(), 3);
        assert!(PassInput::Pixels(&values).images(&network, 2).is_err());
        assert!(PassInput::Pixels(&values[1..]).images(&network, 4).is_err());
        assert!(PassInput::Scaled(&[]).images(&network, 4).is_err());
    }
}
