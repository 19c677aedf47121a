//! Entity tags, compared: whether two of them may be of the same content.
//!
//! Used for images, and for results. Does not ask stores. Upstream: listings and answers of
//! [`store`](crate::store).

/// The part of an entity tag that tells the content, wherever the store told it.
///
/// A tag may be quoted in an answer and not in a listing (Azure), and be called weak on its way
/// (`W/"…"`). That of a local file, if `is_local` is true, begins with its inode, which is another
/// after the folder was copied or mounted anew; behind it come the time of the last change and the
/// size.
///
/// ```
/// use camshaft_common::entity_tag::comparable;
///
/// assert_eq!(comparable("W/\"5d41-2\"", false), comparable("5d41-2", false));
/// assert_eq!(comparable("\"1f-5a-3\"", true), comparable("\"20-5a-3\"", true));
/// ```
#[must_use]
pub fn comparable(etag: &str, is_local: bool) -> &str {
    let etag = etag.strip_prefix("W/").unwrap_or(etag).trim_matches('"');
    match etag.split_once('-') {
        Some((_inode, rest)) if is_local => rest,
        _ => etag,
    }
}
