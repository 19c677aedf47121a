//! The keys of all images in the order in which browsers compare texts, and how they are packed.

use std::cmp::Ordering;
use std::ops::Range;

use serde::Serialize;

use crate::table::{TableError, TableReader};

/// Keys that are packed, and fetched, together.
pub(super) const KEYS_PER_PAGE: usize = 4096;

/// A part of a page of keys. Each key is two parts: how many UTF-16 units it shares with the one before,
/// and the rest.
#[derive(Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub(super) enum KeyPart {
    Shared(usize),
    Rest(String),
}

/// All keys of a table. The place of an image is its number in their order.
pub(super) struct SortedKeys {
    /// The keys by row, without anything between them.
    text: String,
    /// By row, where the key ends.
    ends: Vec<usize>,
    /// By place, the row.
    order: Vec<u32>,
}

impl SortedKeys {
    /// Reads and sorts the keys.
    pub(super) fn read(table: &TableReader) -> Result<Self, TableError> {
        let (mut text, mut ends) = (String::new(), Vec::with_capacity(table.rows()));
        for group in 0..table.groups() {
            for key in table.texts(group, "key")? {
                text.push_str(key.as_deref().unwrap_or_default());
                ends.push(text.len());
            }
        }
        let rows = u32::try_from(ends.len()).expect("a table has fewer than four billion rows");
        let mut this = Self { text, ends, order: Vec::new() };
        let mut order: Vec<u32> = (0..rows).collect();
        order.sort_by(|one, other| {
            in_browsers(this.of_row(*one as usize), this.of_row(*other as usize))
        });
        this.order = order;
        Ok(this)
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// By place, the row.
    pub(super) fn order(&self) -> &[u32] {
        &self.order
    }

    /// By row, the place.
    pub(super) fn places(&self) -> Vec<u32> {
        let mut places = vec![0; self.len()];
        for (place, row) in (0..).zip(&self.order) {
            places[*row as usize] = place;
        }
        places
    }

    /// The key of a row.
    pub(super) fn of_row(&self, row: usize) -> &str {
        let start = row.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.text[start..self.ends[row]]
    }

    fn of_place(&self, place: usize) -> &str {
        self.of_row(self.order[place] as usize)
    }

    /// The keys in their order.
    pub(super) fn in_order(&self) -> impl Iterator<Item = &str> {
        self.order.iter().map(|row| self.of_row(*row as usize))
    }

    /// The place of a key.
    pub(super) fn place_of(&self, key: &str) -> Option<u32> {
        let found = self.order.binary_search_by(|row| in_browsers(self.of_row(*row as usize), key));
        found.ok().and_then(|place| u32::try_from(place).ok())
    }

    fn page_places(&self) -> impl Iterator<Item = Range<usize>> {
        let starts = (0..self.len()).step_by(KEYS_PER_PAGE);
        starts.map(|start| start..self.len().min(start + KEYS_PER_PAGE))
    }

    /// The first key of each page.
    pub(super) fn first_of_pages(&self) -> Vec<String> {
        self.page_places().map(|places| self.of_place(places.start).to_owned()).collect()
    }

    /// The pages, packed.
    pub(super) fn pages(&self) -> impl Iterator<Item = Vec<KeyPart>> {
        self.page_places().map(|places| pack(places.map(|place| self.of_place(place))))
    }
}

fn pack<'a>(keys: impl Iterator<Item = &'a str>) -> Vec<KeyPart> {
    let (mut before, mut parts) = ("", Vec::new());
    for key in keys {
        let alike = key.chars().zip(before.chars()).take_while(|(one, other)| one == other);
        let (mut bytes, mut units) = (0, 0);
        for (character, _) in alike {
            bytes += character.len_utf8();
            units += character.len_utf16();
        }
        parts.extend([KeyPart::Shared(units), KeyPart::Rest(key[bytes..].to_owned())]);
        before = key;
    }
    parts
}

/// Compares by UTF-16 units, as browsers do. It differs from the order of bytes for characters beyond
/// U+FFFF alone: their units are below those of U+E000 to U+FFFF, and their bytes above.
fn in_browsers(one: &str, other: &str) -> Ordering {
    let differing = one.bytes().zip(other.bytes()).find(|(one, other)| one != other);
    let raised = |byte: u8| if matches!(byte, 0xEE | 0xEF) { byte + 0x10 } else { byte };
    differing.map_or(one.len().cmp(&other.len()), |(one, other)| raised(one).cmp(&raised(other)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::predictions::{COLUMNS, ImageRow};
    use crate::table::table_of;

    #[test]
    fn keys_are_in_the_order_of_browsers() {
        let mut keys = ["b", "a\u{ff5e}", "a\u{1f600}", "a", "aé", "a\u{e000}", "a\u{d7ff}", "a-b"];
        keys.sort_by(|one, other| in_browsers(one, other));
        assert!(keys.is_sorted_by(|one, other| one.encode_utf16().lt(other.encode_utf16())));
    }

    #[test]
    fn keys_have_places_and_pages_are_packed() {
        let names = ["b/é\u{1f600}x.jpg", "a/1.jpg", "b/é\u{1f600}y.jpg", "a/10.jpg"];
        let rows = names.map(|name| ImageRow { key: name.to_owned(), ..ImageRow::default() });
        let keys = SortedKeys::read(&table_of(rows, COLUMNS)).unwrap();
        assert_eq!(keys.order(), [1, 3, 0, 2]);
        assert_eq!(keys.places(), [2, 0, 3, 1]);
        assert_eq!(keys.place_of("a/10.jpg"), Some(1));
        assert_eq!(keys.place_of("a/2.jpg"), None);
        assert_eq!(keys.first_of_pages(), ["a/1.jpg"]);
        let pages: Vec<_> =
            keys.pages().map(|page| serde_json::to_string(&page).unwrap()).collect();
        let packed = "[0,\"a/1.jpg\",3,\"0.jpg\",0,\"b/é\u{1f600}x.jpg\",5,\"y.jpg\"]";
        assert_eq!(pages, [packed]);
    }
}
