//! Examples of each wrong cell of the confusion matrix, so that every cell leads to images.
//!
//! Upstream: the finished table, and the classes that the matrix shows. Downstream: the page.

use std::collections::HashMap;

use super::run_overview::Confusion;
use crate::predictions::{ImageExample, read_examples};
use crate::table::{TableError, TableReader};

/// The examples of a cell, the surest ones.
const EXAMPLES: usize = 6;

/// A wrong cell of the matrix and some of its images.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ConfusedCell {
    /// The index of the label's class.
    pub(crate) row: usize,
    /// The index of the predicted class.
    pub(crate) column: usize,
    pub(crate) examples: Vec<ImageExample>,
}

/// Reads the examples of all wrong cells that have images, row by row.
pub(crate) fn read_confused(
    table: &TableReader,
    confusion: &Confusion,
) -> Result<Vec<ConfusedCell>, TableError> {
    let index: HashMap<&str, usize> =
        confusion.classes.iter().enumerate().map(|(at, name)| (&**name, at)).collect();
    let side = confusion.classes.len();
    // By cell, probabilities and rows.
    let mut surest: Vec<Vec<(f32, u32)>> = vec![Vec::new(); side * side];
    let mut start = 0_u32;
    for group in 0..table.groups() {
        let (labels, predicted) =
            (table.texts(group, "label_class")?, table.texts(group, "predicted")?);
        let probabilities = table.floats(group, "probability")?;
        for ((label, predicted), (probability, row)) in
            labels.iter().zip(&predicted).zip(probabilities.into_iter().zip(start..))
        {
            let find = |name: &Option<String>| index.get(name.as_deref()?).copied();
            let (Some(label), Some(predicted)) = (find(label), find(predicted)) else { continue };
            if label != predicted {
                let cell = &mut surest[label * side + predicted];
                let at = cell.partition_point(|(other, _)| *other >= probability);
                if at < EXAMPLES {
                    cell.insert(at, (probability, row));
                    cell.truncate(EXAMPLES);
                }
            }
        }
        start += u32::try_from(table.rows_in_group(group)).expect("a row group is small");
    }
    let rows = surest.iter().flatten().map(|(_, row)| *row);
    let named = read_examples(table, rows)?;
    let cells = surest.iter().enumerate().filter(|(_, cell)| !cell.is_empty());
    let cells = cells.map(|(at, cell)| ConfusedCell {
        row: at / side,
        column: at % side,
        examples: cell.iter().map(|(_, row)| named[row].clone()).collect(),
    });
    Ok(cells.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::predictions::{COLUMNS, ImageRow, LabelMeaning, RowPrediction};
    use crate::table::table_of;

    #[test]
    fn every_wrong_cell_has_its_surest_images() {
        let rows = (0..40).map(|at| {
            let label = ["cat", "dog"][at % 2];
            let class = if at % 4 == 0 { "dog" } else { label };
            let predicted = RowPrediction {
                labels: vec![class.to_owned()],
                probabilities: vec![at as f32 / 40.0],
                ..RowPrediction::default()
            };
            ImageRow {
                key: format!("{at}.jpg"),
                meaning: LabelMeaning::Class(at % 2, label.to_owned()),
                predicted: Some(predicted),
                ..ImageRow::default()
            }
        });
        let table = table_of(rows, COLUMNS);
        let classes = vec!["dog".to_owned(), "cat".to_owned()];
        let confusion = Confusion { classes, counts: Vec::new(), left_out: 0 };
        let cells = read_confused(&table, &confusion).unwrap();
        let [cell] = &cells[..] else { panic!("dogs are all right: {cells:?}") };
        assert_eq!((cell.row, cell.column), (1, 0));
        let keys: Vec<_> = cell.examples.iter().map(|example| &*example.key).collect();
        assert_eq!(keys, ["36.jpg", "32.jpg", "28.jpg", "24.jpg", "20.jpg", "16.jpg"]);
    }
}
