//! Which images have the same file.

use crate::table::{TableError, TableReader};

/// By row, the first 128 bits of its file's SHA-256, which tell files apart; none if the digest is not
/// known.
pub(crate) fn read_file_digests(table: &TableReader) -> Result<Vec<Option<u128>>, TableError> {
    let mut digests = Vec::with_capacity(table.rows());
    for group in 0..table.groups() {
        digests.extend(table.texts(group, "digest")?.into_iter().map(|digest| {
            let digest = digest?;
            u128::from_str_radix(digest.strip_prefix("sha256:")?.get(..32)?, 16).ok()
        }));
    }
    Ok(digests)
}
