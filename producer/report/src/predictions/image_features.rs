//! What can be said of an image in one number, whatever it shows: its light, size, shape and so on.
//!
//! Owns which numbers there are, how they are read from `predictions.parquet`, and the words for
//! more and less of them. Downstream: the slices of a data set, and the drift between two.

use crate::table::{TableError, TableReader};

/// A number of each image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ImageFeature {
    Brightness,
    Contrast,
    Blur,
    Chroma,
    /// The square root of the number of pixels.
    Size,
    /// Width over height.
    Aspect,
    /// Bytes of the file for each pixel.
    BytesPerPixel,
    /// The share of the picture that is a border of one shade.
    Border,
    /// The year in which the camera says it took the picture.
    CameraYear,
}

impl ImageFeature {
    pub(crate) const ALL: [Self; 9] = [
        Self::Brightness,
        Self::Contrast,
        Self::Blur,
        Self::Chroma,
        Self::Size,
        Self::Aspect,
        Self::BytesPerPixel,
        Self::Border,
        Self::CameraYear,
    ];

    /// Its word in tables and texts.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Brightness => "brightness",
            Self::Contrast => "contrast",
            Self::Blur => "blur",
            Self::Chroma => "chroma",
            Self::Size => "size",
            Self::Aspect => "aspect",
            Self::BytesPerPixel => "bytes per pixel",
            Self::Border => "border",
            Self::CameraYear => "camera year",
        }
    }

    /// What an image is that has less of it, and one that has more.
    pub(crate) fn less_and_more(self) -> [&'static str; 2] {
        match self {
            Self::Brightness => ["darker", "brighter"],
            Self::Contrast => ["lower in contrast", "higher in contrast"],
            Self::Blur => ["sharper", "more blurred"],
            Self::Chroma => ["less colourful", "more colourful"],
            Self::Size => ["smaller", "larger"],
            Self::Aspect => ["narrower", "wider"],
            Self::BytesPerPixel => ["more compressed", "less compressed"],
            Self::Border => ["with less border", "with more border"],
            Self::CameraYear => ["older", "newer"],
        }
    }

    /// A value as text.
    pub(crate) fn text(self, value: f32) -> String {
        match self {
            Self::Size => format!("{value:.0} pixels a side"),
            Self::CameraYear => format!("{value:.0}"),
            _ => format!("{value:.2}"),
        }
    }

    /// The value of each row, NaN for a row without. None if the table doesn't have the columns, or
    /// no row has a value.
    pub(crate) fn read(self, table: &TableReader) -> Result<Option<Vec<f32>>, TableError> {
        let mut all = Vec::with_capacity(table.rows());
        let needed: &[&str] = match self {
            Self::Size | Self::Aspect => &["width", "height"],
            Self::BytesPerPixel => &["bytes", "width", "height"],
            Self::CameraYear => &["camera_year"],
            _ => &[self.name()],
        };
        if !needed.iter().all(|column| table.has_column(column)) {
            return Ok(None);
        }
        for group in 0..table.groups() {
            all.extend(self.read_group(table, group)?);
        }
        // An image without pixels would be infinitely wide.
        all.iter_mut().filter(|value| value.is_infinite()).for_each(|value| *value = f32::NAN);
        Ok(all.iter().any(|value| !value.is_nan()).then_some(all))
    }

    fn read_group(self, table: &TableReader, group: usize) -> Result<Vec<f32>, TableError> {
        let numbers = |name| -> Result<Vec<f32>, TableError> {
            let whole = table.integers(group, name)?.into_iter();
            Ok(whole.map(|number| number.map_or(f32::NAN, |number| number as f32)).collect())
        };
        let of_sides = |read: &dyn Fn(f32, f32) -> f32| -> Result<Vec<f32>, TableError> {
            let sides = numbers("width")?.into_iter().zip(numbers("height")?);
            Ok(sides.map(|(width, height)| read(width, height)).collect())
        };
        match self {
            Self::Size => of_sides(&|width, height| (width * height).sqrt()),
            Self::Aspect => of_sides(&|width, height| width / height),
            Self::BytesPerPixel => {
                let pixels = of_sides(&|width, height| width * height)?;
                Ok(numbers("bytes")?.iter().zip(pixels).map(|(bytes, of)| bytes / of).collect())
            }
            Self::CameraYear => numbers("camera_year"),
            _ => table.floats(group, self.name()),
        }
    }
}
