//! The columns of all images that the page sorts and filters by: names as numbers, and numbers rounded to
//! 16 bits.

use std::collections::HashMap;

use crate::table::{TableError, TableReader};

/// Names and their numbers, from 1.
#[derive(Debug, Default)]
pub(super) struct Dictionary {
    numbers: HashMap<String, u32>,
    names: Vec<String>,
}

impl Dictionary {
    fn number_of(&mut self, name: String) -> u32 {
        if let Some(number) = self.numbers.get(&name) {
            return *number;
        }
        self.names.push(name.clone());
        let number = u32::try_from(self.names.len()).expect("fewer names than rows");
        self.numbers.insert(name, number);
        number
    }

    /// The name of a number; none for 0.
    pub(super) fn name(&self, number: u32) -> Option<&str> {
        self.names.get(number.checked_sub(1)? as usize).map(String::as_str)
    }

    /// The names, that of number 1 first.
    pub(super) fn into_names(self) -> Vec<String> {
        self.names
    }
}

/// A column of numbers of the table.
#[derive(Clone, Copy, Debug)]
pub(super) enum NumberColumn {
    /// Rounded to a 65,535th of its range.
    Rounded(&'static str),
    /// Whole numbers.
    Whole(&'static str),
}

/// The columns that a reader may sort by, if the table has them.
pub(super) const NUMBERS: [NumberColumn; 17] = [
    NumberColumn::Rounded("probability"),
    NumberColumn::Rounded("label_probability"),
    NumberColumn::Rounded("margin"),
    NumberColumn::Rounded("entropy"),
    NumberColumn::Rounded("brightness"),
    NumberColumn::Rounded("contrast"),
    NumberColumn::Rounded("blur"),
    NumberColumn::Rounded("chroma"),
    NumberColumn::Rounded("information"),
    NumberColumn::Rounded("border"),
    NumberColumn::Rounded("blocking"),
    NumberColumn::Rounded("map_entropy"),
    NumberColumn::Rounded("map_border_share"),
    NumberColumn::Whole("width"),
    NumberColumn::Whole("height"),
    NumberColumn::Whole("bytes"),
    NumberColumn::Whole("camera_year"),
];

/// A column of numbers for the page.
#[derive(Debug)]
pub(super) struct Numbers {
    pub(super) name: &'static str,
    pub(super) kind: &'static str,
    /// What 0 means, and what 1 adds; none if a number means itself.
    pub(super) scale: Option<[f32; 2]>,
    /// By place, little-endian.
    pub(super) bytes: Vec<u8>,
}

/// Reads columns in the order of the page.
pub(super) struct ColumnReader<'a> {
    pub(super) table: &'a TableReader,
    /// By place, the row.
    pub(super) order: &'a [u32],
}

impl ColumnReader<'_> {
    /// The numbers of the names of a column, by place; 0 for a row without a name. `rename` is told the row
    /// of each name.
    pub(super) fn names(
        &self,
        column: &str,
        dictionary: &mut Dictionary,
        rename: impl Fn(usize, String) -> String,
    ) -> Result<Vec<u32>, TableError> {
        let mut numbers = Vec::with_capacity(self.order.len());
        for group in 0..self.table.groups() {
            for name in self.table.texts(group, column)? {
                let name = name.map(|name| rename(numbers.len(), name));
                numbers.push(name.map_or(0, |name| dictionary.number_of(name)));
            }
        }
        Ok(self.in_order(&numbers))
    }

    /// A column of numbers; none if the table does not have it, or no row has a number.
    pub(super) fn numbers(&self, column: NumberColumn) -> Result<Option<Numbers>, TableError> {
        let (NumberColumn::Rounded(name) | NumberColumn::Whole(name)) = column;
        if !self.table.has_column(name) {
            return Ok(None);
        }
        Ok(match column {
            NumberColumn::Rounded(name) => self.rounded(name, &self.table.all_floats(name)?),
            NumberColumn::Whole(name) => {
                let mut numbers = Vec::with_capacity(self.order.len());
                for group in 0..self.table.groups() {
                    numbers.extend(self.table.integers(group, name)?);
                }
                self.whole(name, &numbers)
            }
        })
    }

    fn rounded(&self, name: &'static str, values: &[f32]) -> Option<Numbers> {
        let finite = || values.iter().copied().filter(|value| value.is_finite());
        let (least, most) = finite()
            .fold((f32::MAX, f32::MIN), |(least, most), value| (least.min(value), most.max(value)));
        if least > most {
            return None;
        }
        let step = (most - least) / f32::from(u16::MAX - 1);
        let round = |value: f32| match value.is_finite() {
            true if step > 0.0 => ((value - least) / step).round().min(65_534.0) as u16,
            true => 0,
            false => u16::MAX,
        };
        let rounded: Vec<u16> = values.iter().map(|value| round(*value)).collect();
        let bytes = self.in_order(&rounded).into_iter().flat_map(u16::to_le_bytes).collect();
        Some(Numbers { name, kind: "u16", scale: Some([least, step]), bytes })
    }

    fn whole(&self, name: &'static str, values: &[Option<i64>]) -> Option<Numbers> {
        let _some = values.iter().flatten().next()?;
        let bounded = |value: &Option<i64>| {
            value.map_or(u32::MAX, |value| u32::try_from(value.max(0)).unwrap_or(u32::MAX - 1))
        };
        let whole: Vec<u32> = values.iter().map(bounded).collect();
        let bytes = self.in_order(&whole).into_iter().flat_map(u32::to_le_bytes).collect();
        Some(Numbers { name, kind: "u32", scale: None, bytes })
    }

    fn in_order<T: Copy>(&self, by_row: &[T]) -> Vec<T> {
        self.order.iter().map(|row| by_row[*row as usize]).collect()
    }
}
