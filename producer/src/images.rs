//! Images on their way in: SOURCE, lists of keys, and which images have a result in OUT.

pub mod list_file;
pub mod list_lines;
pub mod selection;
pub mod source;
