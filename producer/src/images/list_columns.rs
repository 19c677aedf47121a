//! Which columns of a list hold keys and labels.

use camshaft_common::printable::shortened;
use camshaft_common::run::RunRecord;

/// The columns as the user names them: `--key-column` and `--label-column`, a name or a number from
/// 1.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListColumns {
    /// The column of keys.
    pub key: Option<String>,
    /// The column of labels.
    pub label: Option<String>,
}

impl ListColumns {
    /// The columns that the user named when the run was started.
    pub(crate) fn of_run(record: &RunRecord) -> Self {
        Self { key: record.key_column.clone(), label: record.label_column.clone() }
    }

    /// True if the user names no column.
    pub(crate) fn is_empty(&self) -> bool {
        self.key.is_none() && self.label.is_none()
    }
}

/// What columns of keys are called, without case and separators, in the singular. If several are
/// there, the first in this order counts.
const KEY_NAMES: [&str; 22] = [
    "key",
    "path",
    "filepath",
    "imagepath",
    "imgpath",
    "relativepath",
    "relpath",
    "filename",
    "imagefilename",
    "imagefile",
    "imagename",
    "imgname",
    "image",
    "img",
    "file",
    "uri",
    "imageuri",
    "url",
    "imageurl",
    "imageid",
    "imgid",
    "id",
];

/// What columns of labels are called, in the same way.
const LABEL_NAMES: [&str; 13] = [
    "label",
    "class",
    "classname",
    "labelname",
    "classlabel",
    "category",
    "categoryname",
    "target",
    "y",
    "labelid",
    "labelindex",
    "classid",
    "classindex",
];

/// What columns of splits are called, in the same way: they say which images are to train on.
const SPLIT_NAMES: [&str; 2] = ["split", "subset"];

/// The positions of the columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FoundColumns {
    pub(crate) key: usize,
    pub(crate) label: Option<usize>,
    pub(crate) split: Option<usize>,
}

/// Why the columns of a list are not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ColumnsError {
    /// No column is called as columns of keys are.
    #[error(
        "it begins with {header:?}, which is neither a key nor a header that is understood; call the \
         columns key and label, say with --key-column and --label-column which they are (by name or \
         number), or, if every line is one key, write the line key above them"
    )]
    NotUnderstood {
        /// The first line.
        header: String,
    },
    /// There is no column of that name or number.
    #[error("it has no column {column:?}; its columns are {columns}")]
    NoSuchColumn {
        /// The name or number.
        column: String,
        /// The columns that it has.
        columns: String,
    },
    /// It is JSON, but not JSON Lines.
    #[error("it is one JSON document; write JSON Lines, an object with key and label on each line")]
    JsonDocument,
    /// A line of JSON Lines is no object. Blank lines are not counted.
    #[error("its line {line} is not a JSON object: {error}")]
    NotJson {
        /// Counted from 1.
        line: u64,
        /// Why.
        error: String,
    },
    /// Two columns have the same name.
    #[error(
        "it has two columns {name:?}; say with --key-column and --label-column which one counts, by its number"
    )]
    TwoColumns {
        /// The name.
        name: String,
    },
}

/// A column's name without case and separators.
fn plain(name: &str) -> String {
    name.chars().filter(|letter| letter.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

/// A column's name without case, separators and the `s` of a plural.
fn singular(name: &str) -> String {
    let mut name = plain(name);
    if name.ends_with('s') && !name.ends_with("ss") {
        name.pop();
    }
    name
}

/// True if columns of keys or of labels are called so.
pub(crate) fn is_known_name(name: &str) -> bool {
    let name = singular(name);
    KEY_NAMES.iter().chain(&LABEL_NAMES).any(|known| *known == name)
}

/// True for a name that is probably a column's and not an image's: `photo_name`.
pub(crate) fn resembles_key_name(name: &str) -> bool {
    let name = plain(name);
    ["file", "path", "image", "img", "name", "photo", "pic", "url", "uri", "key"]
        .iter()
        .any(|word| name.contains(word))
}

/// The position of the first of the known names that a column has.
fn find_known(names: &[String], known: &[&str]) -> Result<Option<usize>, ColumnsError> {
    let spell =
        |spelling: fn(&str) -> String| names.iter().map(|name| spelling(name)).collect::<Vec<_>>();
    let spellings = [spell(plain), spell(singular)];
    for (wanted, spelled) in
        known.iter().flat_map(|wanted| spellings.each_ref().map(|s| (wanted, s)))
    {
        let mut found = (0..names.len()).filter(|&at| spelled[at] == *wanted);
        match (found.next(), found.next()) {
            (Some(_), Some(second)) => {
                return Err(ColumnsError::TwoColumns { name: names[second].clone() });
            }
            (Some(only), None) => return Ok(Some(only)),
            (None, _) => {}
        }
    }
    Ok(None)
}

/// The position of the column that the user names: its name as it is, its name in other case, or
/// its number from 1.
fn find_named(names: &[String], wanted: &str) -> Result<usize, ColumnsError> {
    let wanted = wanted.trim();
    let all = |is_it: &dyn Fn(&str) -> bool| -> Vec<usize> {
        (0..names.len()).filter(|&at| is_it(&names[at])).collect()
    };
    for found in [all(&|name| name == wanted), all(&|name| plain(name) == plain(wanted))] {
        match found[..] {
            [] => {}
            [at] => return Ok(at),
            [at, ..] => return Err(ColumnsError::TwoColumns { name: names[at].clone() }),
        }
    }
    number(wanted).filter(|at| *at < names.len()).ok_or_else(|| ColumnsError::NoSuchColumn {
        column: wanted.to_owned(),
        columns: names.join(", "),
    })
}

/// The position that a number from 1 stands for.
pub(crate) fn number(text: &str) -> Option<usize> {
    text.trim().parse::<usize>().ok()?.checked_sub(1)
}

/// The columns among those called `names`, by what the user says or else by their names.
///
/// # Errors
/// If the user names a column that is not there, or if no column is called as columns of keys are.
/// `header` is what the error shows.
pub(crate) fn choose(
    names: &[String],
    wanted: &ListColumns,
    header: &str,
) -> Result<FoundColumns, ColumnsError> {
    let key = match &wanted.key {
        Some(wanted) => Some(find_named(names, wanted)?),
        None => find_known(names, &KEY_NAMES)?,
    };
    let key = key.ok_or_else(|| not_understood(header))?;
    let label = match &wanted.label {
        Some(wanted) => Some(find_named(names, wanted)?),
        None => find_known(names, &LABEL_NAMES)?.filter(|label| *label != key),
    };
    // Only trainings read it: two such columns are no reason to refuse a list.
    let split = find_known(names, &SPLIT_NAMES).unwrap_or_default();
    let split = split.filter(|split| *split != key && Some(*split) != label);
    Ok(FoundColumns { key, label, split })
}

/// The error about a list that begins with a line that is not understood.
pub(crate) fn not_understood(line: &str) -> ColumnsError {
    const SHOWN: usize = 200;
    ColumnsError::NotUnderstood { header: shortened(line, SHOWN).into_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(header: &str, wanted: &ListColumns) -> Result<(usize, Option<usize>), ColumnsError> {
        let names: Vec<_> = header.split(',').map(|name| name.trim().to_owned()).collect();
        choose(&names, wanted, header).map(|found| (found.key, found.label))
    }

    #[test]
    fn columns_are_found_by_their_usual_names() {
        for (header, key, label) in [
            ("key,label", 0, Some(1)),
            ("label,key", 1, Some(0)),
            ("Filename,Class", 0, Some(1)),
            ("file_name,category", 0, Some(1)),
            ("id,image_path,target", 1, Some(2)),
            ("id,y", 0, Some(1)),
            ("img,class_name", 0, Some(1)),
            ("FilePath,width,height", 0, None),
            ("image,url,label", 0, Some(2)),
            ("file", 0, None),
            ("class id,filepaths,labels,data set", 1, Some(2)),
            ("labels,label,path", 2, Some(1)),
            ("class_id,Images", 1, Some(0)),
        ] {
            assert_eq!(chosen(header, &ListColumns::default()), Ok((key, label)), "{header}");
        }
        let error = chosen("photo,breed", &ListColumns::default()).unwrap_err().to_string();
        assert!(error.contains("photo,breed") && error.contains("--key-column"), "{error}");
        let error = chosen("key,label,Label", &ListColumns::default()).unwrap_err().to_string();
        assert!(error.contains("two columns"), "{error}");
    }

    #[test]
    fn the_user_names_columns_by_name_or_number() {
        let wanted = |key: &str, label: &str| ListColumns {
            key: Some(key.to_owned()).filter(|key| !key.is_empty()),
            label: Some(label.to_owned()).filter(|label| !label.is_empty()),
        };
        assert_eq!(chosen("photo,breed,label", &wanted("photo", "breed")), Ok((0, Some(1))));
        assert_eq!(chosen("Photo Name,breed", &wanted("photo_name", "2")), Ok((0, Some(1))));
        assert_eq!(chosen("2,1", &wanted("1", "2")), Ok((1, Some(0))), "names before numbers");
        assert_eq!(chosen("key,breed,label", &wanted("", "breed")), Ok((0, Some(1))));
        for (key, label) in [("0", ""), ("3", ""), ("picture", ""), ("1", "9")] {
            let error = chosen("photo,breed", &wanted(key, label)).unwrap_err().to_string();
            assert!(error.contains("its columns are photo, breed"), "{error}");
        }
    }
}
