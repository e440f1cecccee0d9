//! Pages of lists.

use data_encoding::BASE64URL_NOPAD;
use proto::domain::{
    FileName, GroupId, Name as _, PeerId,
    limits::{DEFAULT_PAGE, MAX_PAGE},
};

use crate::error::TrackerError;

/// Maximum length of a cursor, in bytes: the length of a group's name.
const MAX_CURSOR: usize = 256;

/// The number of entries in a page. 0 means the default. A number above the maximum means the maximum.
pub(super) fn size(asked: u32) -> u32 {
    if asked == 0 { DEFAULT_PAGE } else { asked.min(MAX_PAGE) }
}

/// The start of a page: after a stored name, or after a row's number.
pub(super) trait Cursor: Sized {
    /// Parses a cursor.
    fn read(text: &str) -> Option<Self>;
}

impl Cursor for i64 {
    fn read(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

impl Cursor for GroupId {
    fn read(text: &str) -> Option<Self> {
        Self::stored(text).ok()
    }
}

impl Cursor for FileName {
    fn read(text: &str) -> Option<Self> {
        Self::stored(text).ok()
    }
}

impl Cursor for PeerId {
    fn read(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

/// The cursor in a page token, or `None` for the first page.
///
/// # Errors
/// Fails if the tracker did not issue the token.
pub(super) fn cursor<T: Cursor>(token: &str) -> Result<Option<T>, TrackerError> {
    let bad = TrackerError::Invalid("page_token was not issued by this tracker");
    if token.is_empty() {
        return Ok(None);
    }
    if token.len() > MAX_CURSOR * 2 {
        return Err(bad);
    }
    let bytes = BASE64URL_NOPAD.decode(token.as_bytes()).ok();
    let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
    match text.as_deref().and_then(T::read) {
        Some(cursor) => Ok(Some(cursor)),
        None => Err(bad),
    }
}

/// The token of the page after `last`. Empty if this page was not full.
pub(super) fn next<T: std::fmt::Display>(page: usize, size: u32, last: Option<T>) -> String {
    match last {
        Some(last) if page >= size as usize => BASE64URL_NOPAD.encode(last.to_string().as_bytes()),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use proto::domain::GroupId;

    use super::*;

    #[test]
    fn tokens_survive_and_forgeries_do_not() {
        let group: GroupId = "Größe 1".parse().expect("a group name");
        let token = next(2, 2, Some(&group));
        assert_eq!(cursor::<GroupId>(&token).expect("ours"), Some(group.clone()));
        assert_eq!(next(1, 2, Some(&group)), "");
        assert_eq!(cursor::<i64>("").expect("none"), None);
        let long = "A".repeat(1_000);
        for bad in ["=", "?", "//", &token, &long] {
            assert!(cursor::<i64>(bad).is_err(), "{bad:.20}");
        }
        assert_eq!((size(0), size(7), size(u32::MAX)), (100, 7, 1_000));
    }
}
