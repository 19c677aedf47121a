//! The byte order mark that some programs write before UTF-8.

use std::io::BufRead;

pub(crate) const BOM: &[u8] = b"\xef\xbb\xbf";

/// Leaves the mark out, if there is one.
pub(crate) fn skip_bom(reader: &mut impl BufRead) -> std::io::Result<()> {
    if reader.fill_buf()?.starts_with(BOM) {
        reader.consume(BOM.len());
    }
    Ok(())
}
