//! The input of a batch while it is explained: as it was given, and scaled once a method needs that.

use std::cell::OnceCell;

use candle_core::{Result, Tensor};

use crate::network::inference::{PassInput, PixelInput};

/// A batch's input. Most methods need it only once, for the pass that predicts.
pub(super) struct BatchInput<'a> {
    given: PassInput<'a>,
    images: usize,
    pixels: &'a PixelInput,
    scaled: OnceCell<Tensor>,
}

impl<'a> BatchInput<'a> {
    /// The input of `images` images. `pixels` says what bytes mean.
    pub(super) fn new(given: PassInput<'a>, images: usize, pixels: &'a PixelInput) -> Self {
        let scaled = match given {
            PassInput::Scaled(values) => OnceCell::from(values.clone()),
            PassInput::Pixels(_) => OnceCell::new(),
        };
        Self { given, images, pixels, scaled }
    }

    /// As it was given.
    pub(super) fn given(&self) -> PassInput<'a> {
        self.given
    }

    /// Calls `run` with one image as a batch of its own.
    pub(super) fn with_image<T>(
        &self,
        image: usize,
        run: impl FnOnce(PassInput<'_>) -> Result<T>,
    ) -> Result<T> {
        match self.given {
            PassInput::Pixels(bytes) => {
                let size = self.pixels.image_bytes();
                run(PassInput::Pixels(&bytes[image * size..][..size]))
            }
            PassInput::Scaled(values) => run(PassInput::Scaled(&values.narrow(0, image, 1)?)),
        }
    }

    /// The number of images.
    pub(super) fn images(&self) -> usize {
        self.images
    }

    /// `[N, 3, H, W]`, f32, scaled.
    pub(super) fn scaled(&self) -> Result<&Tensor> {
        if let (None, PassInput::Pixels(bytes)) = (self.scaled.get(), self.given) {
            let scaled = self.pixels.scale(bytes)?;
            return Ok(self.scaled.get_or_init(|| scaled));
        }
        Ok(self.scaled.get().expect("values that were given are scaled"))
    }
}
