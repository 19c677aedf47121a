//! The few images that stand for many: what the page needs to show one.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::table::{TableError, TableReader};

/// An image that is shown as an example.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct ImageExample {
    pub(crate) key: String,
    /// The path below OUT of the overlay of its first explanation.
    pub(crate) overlay: Option<String>,
    /// When its result was written.
    #[serde(skip)]
    pub(crate) finished_at: DateTime<Utc>,
}

/// Reads the images of these rows, by row.
pub(crate) fn read_examples(
    table: &TableReader,
    rows: impl IntoIterator<Item = u32>,
) -> Result<HashMap<u32, ImageExample>, TableError> {
    let mut rows: Vec<u32> = rows.into_iter().collect();
    rows.sort_unstable();
    rows.dedup();
    let mut examples = HashMap::with_capacity(rows.len());
    for rows in table.groups_of(&rows) {
        let mut keys = table.texts(rows.group, "key")?;
        let mut overlays = table.texts(rows.group, "overlay")?;
        let finished = table.integers(rows.group, "finished_at")?;
        for (row, at) in rows.iter() {
            let example = ImageExample {
                key: keys[at].take().unwrap_or_default(),
                overlay: overlays[at].take(),
                finished_at: finished[at]
                    .and_then(DateTime::from_timestamp_millis)
                    .unwrap_or_default(),
            };
            examples.insert(row, example);
        }
    }
    Ok(examples)
}
