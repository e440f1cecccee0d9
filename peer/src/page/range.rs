//! Which bytes a request for a file is about: the headers Range and If-Range (RFC 9110, section 14). Pure.

use std::ops::Range;

/// What to answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// All of it, with status 200.
    Whole,
    /// These bytes, with status 206.
    Bytes(Range<u64>),
    /// Nothing, with status 416: no byte of the file was asked for.
    Outside,
}

/// The part of a file of `size` bytes that a request asks for. Headers that are not understood, and more than one range,
/// mean the whole file. `tag` is the file's entity tag.
pub(super) fn part(range: Option<&str>, if_range: Option<&str>, tag: &str, size: u64) -> Part {
    if if_range.is_some_and(|known| known != tag) {
        return Part::Whole;
    }
    let Some((first, last)) = range.and_then(|range| range.strip_prefix("bytes=")?.trim().split_once('-'))
    else {
        return Part::Whole;
    };
    let bytes = match (number(first), number(last)) {
        (Some(first), Some(last)) if first <= last => first..last.saturating_add(1).min(size),
        (Some(first), None) if last.is_empty() => first..size,
        // The last so many bytes.
        (None, Some(count)) if first.is_empty() => size.saturating_sub(count)..size,
        _ => return Part::Whole,
    };
    if bytes.is_empty() { Part::Outside } else { Part::Bytes(bytes) }
}

/// A number of decimal digits alone. One that is too large counts as the largest.
fn number(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        for (range, expected) in [
            (None, Part::Whole),
            (Some("bytes=0-"), Part::Bytes(0..100)),
            (Some("bytes=0-0"), Part::Bytes(0..1)),
            (Some("bytes=10-19"), Part::Bytes(10..20)),
            (Some("bytes=99-99999999999999999999999"), Part::Bytes(99..100)),
            (Some("bytes=-1"), Part::Bytes(99..100)),
            (Some("bytes=-1000"), Part::Bytes(0..100)),
            (Some("bytes=100-"), Part::Outside),
            (Some("bytes=-0"), Part::Outside),
            (Some("bytes=18446744073709551615-18446744073709551615"), Part::Outside),
            // What a server may ignore.
            (Some("bytes=20-10"), Part::Whole),
            (Some("bytes=0-1,5-6"), Part::Whole),
            (Some("bytes=-"), Part::Whole),
            (Some("bytes=+1-2"), Part::Whole),
            (Some("bytes=a-b"), Part::Whole),
            (Some("lines=0-1"), Part::Whole),
            (Some("bytes"), Part::Whole),
        ] {
            assert_eq!(part(range, None, "\"t\"", 100), expected, "{range:?}");
        }
        assert_eq!(part(Some("bytes=0-"), None, "\"t\"", 0), Part::Outside);
    }

    #[test]
    fn a_range_of_another_version_is_the_whole() {
        let bytes = Some("bytes=1-1");
        assert_eq!(part(bytes, Some("\"t\""), "\"t\"", 9), Part::Bytes(1..2));
        for other in ["\"u\"", "W/\"t\"", "t", "Sun, 06 Nov 1994 08:49:37 GMT"] {
            assert_eq!(part(bytes, Some(other), "\"t\"", 9), Part::Whole, "{other}");
        }
    }
}
