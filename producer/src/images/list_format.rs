//! What kind of list a file is, by its first lines: one key a line, a table with columns, or JSON
//! Lines.
//!
//! A file of another format is refused before any of its lines is taken for a key. Upstream: the
//! first lines of the list. Downstream: [`list_lines`](crate::images::list_lines).

use serde_json::{Map, Value};

use crate::images::list_columns::{
    ColumnsError, FoundColumns, ListColumns, choose, is_known_name, not_understood, number,
    resembles_key_name,
};
use crate::images::list_fields::split;

/// The delimiters of tables.
pub(crate) const DELIMITERS: [char; 4] = [',', ';', '\t', '|'];

/// How a list is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListFormat {
    /// Each line is a key, with the commas and spaces in it.
    Keys,
    /// Each record has fields.
    Table(TableFormat),
    /// Each line is a JSON object.
    JsonLines {
        /// The field with the key.
        key: String,
        /// The field with the label.
        label: Option<String>,
        /// The field that says what an image is for.
        split: Option<String>,
        /// The number of fields.
        fields: usize,
    },
}

/// A table of comma-separated values and the like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableFormat {
    /// What separates fields; nothing if there is one column.
    pub(crate) delimiter: Option<char>,
    /// The number of columns.
    pub(crate) width: usize,
    pub(crate) columns: FoundColumns,
    /// True if the first line names the columns and no image.
    pub(crate) has_header: bool,
}

impl ListFormat {
    /// Recognises a list by its first lines, which are whole. `is_json_lines` if its name says so.
    ///
    /// # Errors
    /// If the columns of keys and labels are not known.
    pub fn recognise(
        lines: &str,
        is_json_lines: bool,
        wanted: &ListColumns,
    ) -> Result<Self, ColumnsError> {
        let lines = lines.trim_start_matches('\u{feff}').lines();
        let lines: Vec<_> = lines.filter(|line| !line.trim().is_empty()).collect();
        let Some(first) = lines.first() else { return Ok(Self::Keys) };
        let start = first.trim_start();
        let inside = start.strip_prefix('{').map(str::trim_start);
        if is_json_lines || inside.is_some_and(|inside| inside.starts_with(['"', '}'])) {
            return json_lines(&lines, wanted);
        }
        // No name of a file. The lines of a JSON document would be taken for keys.
        if matches!(start.trim_end(), "[" | "{" | "[{" | "[]") || start.starts_with("[{\"") {
            return Err(ColumnsError::JsonDocument);
        }
        if !wanted.is_empty() {
            return table_with_columns(&lines, wanted);
        }
        if let Some(table) = table_with_header(first)? {
            return Ok(Self::Table(table));
        }
        if lines.iter().all(|line| is_quoted(line)) {
            let columns = FoundColumns { key: 0, label: None, split: None };
            let table = TableFormat { delimiter: None, width: 1, columns, has_header: false };
            return Ok(Self::Table(table));
        }
        if is_unknown_table(&lines)
            || is_unknown_column(&lines)
            || has_spaces_for_delimiters(&lines)
        {
            return Err(not_understood(first));
        }
        Ok(Self::Keys)
    }
}

impl ListFormat {
    /// How many columns the list has if it has more than keys, and none of labels.
    pub(crate) fn columns_without_labels(&self) -> Option<usize> {
        match self {
            Self::Table(TableFormat {
                width, columns: FoundColumns { label: None, .. }, ..
            }) => Some(*width).filter(|width| *width > 1),
            Self::JsonLines { label: None, fields, .. } => {
                Some(*fields).filter(|fields| *fields > 1)
            }
            _ => None,
        }
    }
}

/// The fields of JSON Lines with keys and labels. An object may lack a label, so that the first alone
/// does not name all fields.
fn json_lines(lines: &[&str], wanted: &ListColumns) -> Result<ListFormat, ColumnsError> {
    let mut names = Vec::new();
    for (number, line) in (1..).zip(lines) {
        let object = serde_json::from_str::<Map<String, Value>>(line);
        let object = object
            .map_err(|error| ColumnsError::NotJson { line: number, error: error.to_string() })?;
        for name in object.into_iter().map(|(name, _)| name) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
    }
    // The fields of an object have no order.
    for wanted in [&wanted.key, &wanted.label].into_iter().flatten() {
        if number(wanted).is_some() && !names.contains(wanted) {
            let (column, columns) = (wanted.clone(), names.join(", "));
            return Err(ColumnsError::NoSuchColumn { column, columns });
        }
    }
    let FoundColumns { key, label, split } = choose(&names, wanted, lines[0])?;
    Ok(ListFormat::JsonLines {
        key: names[key].clone(),
        label: label.map(|label| names[label].clone()),
        split: split.map(|split| names[split].clone()),
        fields: names.len(),
    })
}

/// The table that a line is the header of: of the delimiters that make it one, the one that makes
/// most columns.
fn table_with_header(first: &str) -> Result<Option<TableFormat>, ColumnsError> {
    let mut best: Option<TableFormat> = None;
    let mut problem = None;
    for delimiter in DELIMITERS {
        let Ok(names) = split(first, Some(delimiter)) else { continue };
        if names.iter().any(|name| is_file_name(name)) {
            continue;
        }
        let columns = match choose(&names, &ListColumns::default(), first) {
            Ok(columns) => columns,
            Err(error @ ColumnsError::TwoColumns { .. }) => {
                problem = Some(error);
                continue;
            }
            Err(_) => continue,
        };
        let width = names.len();
        if best.as_ref().is_none_or(|best| best.width < width) {
            let delimiter = Some(delimiter).filter(|_| width > 1);
            best = Some(TableFormat { delimiter, width, columns, has_header: true });
        }
    }
    match (best, problem) {
        (None, Some(problem)) => Err(problem),
        (best, _) => Ok(best),
    }
}

/// A table whose columns the user names, by names in its header or by numbers.
fn table_with_columns(lines: &[&str], wanted: &ListColumns) -> Result<ListFormat, ColumnsError> {
    let first = lines[0];
    let mut problem = None;
    for delimiter in by_width(lines) {
        let Ok(names) = split(first, delimiter) else { continue };
        match choose(&names, wanted, first) {
            Ok(columns) => {
                let has_header = is_header(lines, delimiter, &names, columns, wanted);
                let width = names.len();
                let table = TableFormat { delimiter, width, columns, has_header };
                return Ok(ListFormat::Table(table));
            }
            Err(error) => {
                problem.get_or_insert(error);
            }
        }
    }
    Err(problem.unwrap_or_else(|| not_understood(first)))
}

/// The delimiters, the one that makes most columns first, and last none.
fn by_width(lines: &[&str]) -> Vec<Option<char>> {
    let width = |delimiter: &char| split(lines[0], Some(*delimiter)).map_or(0, |names| names.len());
    let mut delimiters: Vec<_> =
        DELIMITERS.into_iter().filter(|delimiter| width(delimiter) > 1).collect();
    // A sort that keeps the order of equals: a comma before a semicolon.
    delimiters.sort_by_key(|delimiter| {
        (!has_same_width(lines, *delimiter), std::cmp::Reverse(width(delimiter)))
    });
    delimiters.into_iter().map(Some).chain([None]).collect()
}

/// True if all lines have the same number of fields.
fn has_same_width(lines: &[&str], delimiter: char) -> bool {
    let mut widths =
        lines.iter().map(|line| split(line, Some(delimiter)).map_or(0, |fields| fields.len()));
    let first = widths.next();
    widths.all(|width| Some(width) == first)
}

/// True if the first line names the columns. It does if the user or this program knows a column by
/// its name, or if only the following lines have names of files as keys.
fn is_header(
    lines: &[&str],
    delimiter: Option<char>,
    names: &[String],
    columns: FoundColumns,
    wanted: &ListColumns,
) -> bool {
    let key = &names[columns.key];
    if is_file_name(key) || key.contains('/') {
        return false;
    }
    let by_name = |wanted: &Option<String>, at: Option<usize>| {
        wanted.as_ref().is_some_and(|wanted| number(wanted) != at)
    };
    let named = by_name(&wanted.key, Some(columns.key)) || by_name(&wanted.label, columns.label);
    // A label may be `y`, for yes.
    let is_label_name = |name: &String| name.len() > 1 && is_known_name(name);
    let known = is_known_name(key) || columns.label.is_some_and(|at| is_label_name(&names[at]));
    let file_follows = lines.iter().skip(1).any(|line| {
        let fields = split(line, delimiter).unwrap_or_default();
        fields.get(columns.key).is_some_and(|key| is_file_name(key) || key.contains('/'))
    });
    named || known || file_follows
}

/// True for what must be a table although its header is not understood: every line has the same
/// number of fields, two or more, and the first line as a whole is not the name of a file. Names of
/// files with commas may have the same number of them, too.
fn is_unknown_table(lines: &[&str]) -> bool {
    let first = lines[0];
    // No key has a tab.
    let is_table = |delimiter: char| {
        first.contains(delimiter)
            && (delimiter == '\t' || (!is_file_name(first) && has_same_width(lines, delimiter)))
    };
    DELIMITERS.into_iter().any(is_table)
}

/// True for one field in quotes.
fn is_quoted(line: &str) -> bool {
    let line = line.trim();
    line.len() > 1 && line.starts_with('"') && line.ends_with('"') && split(line, None).is_ok()
}

/// True if every line has the name of a file, and then more: `a.jpg 281`.
fn has_spaces_for_delimiters(lines: &[&str]) -> bool {
    lines.iter().all(|line| !is_file_name(line) && line.split_whitespace().any(is_file_name))
}

/// True for a first line that must be the name of a column: it sounds like one, and all other lines
/// are names of files.
fn is_unknown_column(lines: &[&str]) -> bool {
    let (first, others) = (lines[0], &lines[1..]);
    !is_file_name(first)
        && !first.contains('/')
        && resembles_key_name(first)
        && !others.is_empty()
        && others.iter().all(|line| is_file_name(line))
}

/// True if a text ends like the name of a file: `.jpg`.
fn is_file_name(text: &str) -> bool {
    let name = text.trim().rsplit('/').next().unwrap_or_default();
    name.rsplit_once('.').is_some_and(|(stem, extension)| {
        !stem.is_empty()
            && (1..=5).contains(&extension.len())
            && extension.bytes().all(|byte| byte.is_ascii_alphanumeric())
            && extension.bytes().any(|byte| byte.is_ascii_alphabetic())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recognised(lines: &str, wanted: &ListColumns) -> Result<ListFormat, ColumnsError> {
        ListFormat::recognise(lines, false, wanted)
    }

    fn table(lines: &str, wanted: &ListColumns) -> (Option<char>, usize, Option<usize>, bool) {
        match recognised(lines, wanted) {
            Ok(ListFormat::Table(TableFormat { delimiter, columns, has_header, .. })) => {
                (delimiter, columns.key, columns.label, has_header)
            }
            other => panic!("{lines:?} is {other:?}"),
        }
    }

    fn columns(key: Option<&str>, label: Option<&str>) -> ListColumns {
        ListColumns { key: key.map(str::to_owned), label: label.map(str::to_owned) }
    }

    #[test]
    fn headers_are_known_with_any_delimiter() {
        let usual = ListColumns::default();
        for (lines, expected) in [
            ("key,label\na.jpg,cat\n", (Some(','), 0, Some(1), true)),
            ("\u{feff}Filename;Label\r\na.jpg;cat\r\n", (Some(';'), 0, Some(1), true)),
            ("class\tpath\ncat\ta.jpg\n", (Some('\t'), 1, Some(0), true)),
            ("\n\n\"file_name\" , \"class\"\na.jpg,cat\n", (Some(','), 0, Some(1), true)),
            ("filename;caption, long;label\n", (Some(';'), 0, Some(2), true)),
            ("filename\na.jpg\n", (None, 0, None, true)),
            (",filename,label\n0,a.jpg,cat\n", (Some(','), 1, Some(2), true)),
        ] {
            assert_eq!(table(lines, &usual), expected, "{lines:?}");
        }
    }

    #[test]
    fn plain_keys_stay_keys() {
        for lines in [
            "",
            "cat/a.jpg\ndog/b, c.jpg\n",
            "dog/b, c.jpg\n",
            "smith, john.jpg\ndoe, jane.jpg\n",
            "image, 1.jpg\nimage, 2.jpg\n",
            "a b; c.png\n",
            "README\na.jpg\nb.jpg\n",
            "00a1\n00a2\n",
            "{x}.jpg\n",
            "no extension, here\nand none\n",
            "\"quoted.jpg\n",
        ] {
            assert_eq!(
                recognised(lines, &ListColumns::default()),
                Ok(ListFormat::Keys),
                "{lines:?}"
            );
        }
    }

    #[test]
    fn a_header_that_is_not_understood_is_shown() {
        for lines in [
            "photo,breed\na.jpg,cat\n",
            "photo;breed\na.jpg;cat\n",
            "photo\tbreed\na.jpg\tcat\n",
            "a.jpg,cat\nb.jpg,dog\n",
            "a.jpg\tcat\n",
            "photo_name\na.jpg\nb.jpg\n",
            "000123,cat\n000124,dog\n",
            "cat/a.jpg 0\ndog/b c.jpg 1\n",
            "\"a.jpg\",\"cat\"\n",
        ] {
            let error = recognised(lines, &ListColumns::default()).unwrap_err().to_string();
            let first = format!("{:?}", lines.lines().next().unwrap());
            assert!(error.contains(&first), "{lines:?}: {error}");
        }
    }

    #[test]
    fn quoted_keys_need_no_header() {
        let quoted = "\"a, b.jpg\"\n\"c.jpg\"\n";
        assert_eq!(table(quoted, &ListColumns::default()), (None, 0, None, false));
    }

    #[test]
    fn named_and_numbered_columns_do_not_need_a_known_header() {
        let by_name = columns(Some("photo"), Some("breed"));
        let by_number = columns(Some("1"), Some("2"));
        for lines in ["photo,breed\na.jpg,cat\n", "photo,breed\n00a1,cat\n"] {
            assert_eq!(table(lines, &by_name), (Some(','), 0, Some(1), true), "{lines:?}");
        }
        let with_header = "photo;breed\na.jpg;cat\n";
        assert_eq!(table(with_header, &by_number), (Some(';'), 0, Some(1), true));
        let without = "a.jpg\tcat\nb.jpg\tdog\n";
        assert_eq!(table(without, &by_number), (Some('\t'), 0, Some(1), false));
        assert_eq!(table("000123,cat\n", &by_number), (Some(','), 0, Some(1), false));
        assert_eq!(table("000123,y\n", &by_number), (Some(','), 0, Some(1), false));
        assert_eq!(table("img_id,cat\n", &by_number), (Some(','), 0, Some(1), true));
        let swapped = columns(Some("2"), Some("1"));
        assert_eq!(table("cat,a.jpg\n", &swapped), (Some(','), 1, Some(0), false));
        assert_eq!(table("a, b.jpg\n", &columns(Some("2"), None)), (Some(','), 1, None, false));
        let only_label = columns(None, Some("breed"));
        assert_eq!(table("key,breed\n", &only_label), (Some(','), 0, Some(1), true));
        assert!(recognised("a.jpg,cat\n", &columns(None, Some("2"))).is_err());
        assert!(recognised("a.jpg,cat\n", &columns(Some("3"), None)).is_err());
    }

    #[test]
    fn json_lines_are_known_by_their_first_line_or_name() {
        let usual = ListColumns::default();
        let json = |key: &str, label: Option<&str>| {
            let label = label.map(str::to_owned);
            Ok(ListFormat::JsonLines { key: key.to_owned(), label, split: None, fields: 2 })
        };
        let first = "{\"file_name\": \"a.jpg\"}\n";
        let lines = "{\"file_name\": \"a.jpg\", \"label\": 3}\n";
        assert_eq!(recognised(lines, &usual), json("file_name", Some("label")));
        // The first object may lack a label.
        assert_eq!(recognised(&[first, lines].concat(), &usual), json("file_name", Some("label")));
        let problem = |lines: &str| recognised(lines, &usual).unwrap_err().to_string();
        let not_a_number =
            problem(&[lines, "{\"file_name\": \"b.jpg\", \"label\": NaN}\n"].concat());
        assert!(not_a_number.contains("line 2 is not a JSON object"), "{not_a_number}");
        for document in
            ["{\n \"images\": [\n", "[\n {\"file_name\": \"a.jpg\"}\n", "[{\"a\": 1}]\n"]
        {
            assert!(problem(document).contains("write JSON Lines"), "{document}");
        }
        let other = "{\"photo\": \"a.jpg\", \"breed\": \"pug\"}\n";
        let error = recognised(other, &usual).unwrap_err().to_string();
        assert!(error.contains("photo"), "{error}");
        let named = columns(Some("photo"), Some("breed"));
        assert_eq!(recognised(other, &named), json("photo", Some("breed")));
        assert!(recognised(other, &columns(Some("1"), None)).is_err());
        assert!(recognised("{\"key\": \"a.jpg\"\n", &usual).is_err());
        assert!(ListFormat::recognise("a.jpg\n", true, &usual).is_err());
    }
}
