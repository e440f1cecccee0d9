//! Which names are let in. Bad names are refused, never repaired: what a member sees is what was published.

use unicode_normalization::{UnicodeNormalization, is_nfc};

use super::limits::{MAX_FILE_NAME, MAX_GROUP_BYTES, MAX_GROUP_CHARS, USERNAME_LENGTH};

/// Why a name is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not a username.
    #[error("a username is 3-32 of a-z, 0-9, '_', '.', '-', and starts with a letter or digit")]
    Username,
    /// Empty.
    #[error("a name must not be empty")]
    Empty,
    /// Too long.
    #[error("a name is too long: at most 255 bytes for a file, 64 characters and 256 bytes for a group")]
    TooLong,
    /// Control, bidirectional or invisible characters.
    #[error("a name must not hold control, direction or invisible characters")]
    Invisible,
    /// Not in Unicode normalization form C.
    #[error("a name must be in Unicode normalization form C")]
    NotNfc,
    /// A path rather than a name.
    #[error("a name must be a single path component, without '/', '\\' or ':'")]
    Path,
    /// Space at an end, or a dot at the end.
    #[error("a name must not start or end with a space, nor end with a dot")]
    Edges,
    /// Reserved by a common file system, or by Mini Torrent.
    #[error("that name is reserved")]
    Reserved,
}

/// Checks a username.
///
/// # Errors
/// [`NameError::Username`].
pub fn check_username(name: &str) -> Result<(), NameError> {
    let first = name.bytes().next();
    let good = USERNAME_LENGTH.contains(&name.len())
        && first.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_.-".contains(&b));
    if good { Ok(()) } else { Err(NameError::Username) }
}

/// Checks a group's name.
///
/// # Errors
/// The first thing that is wrong with it.
pub fn check_group(name: &str) -> Result<(), NameError> {
    if name.len() > MAX_GROUP_BYTES || name.chars().count() > MAX_GROUP_CHARS {
        return Err(NameError::TooLong);
    }
    check_visible(name)?;
    if name.contains(['/', '\\']) {
        return Err(NameError::Path);
    }
    if name.starts_with(char::is_whitespace) || name.ends_with(char::is_whitespace) {
        return Err(NameError::Edges);
    }
    Ok(())
}

/// Checks a file's name: a single path component that is safe on every common file system.
///
/// # Errors
/// The first thing that is wrong with it.
pub fn check_file(name: &str) -> Result<(), NameError> {
    if name.len() > MAX_FILE_NAME {
        return Err(NameError::TooLong);
    }
    check_visible(name)?;
    if name == "." || name == ".." || name.contains(['/', '\\', ':']) {
        return Err(NameError::Path);
    }
    if name.starts_with(char::is_whitespace) || name.ends_with(char::is_whitespace) || name.ends_with('.') {
        return Err(NameError::Edges);
    }
    if is_reserved(name) {
        return Err(NameError::Reserved);
    }
    Ok(())
}

/// What decides whether two names of one group are the same: Unicode NFKC with case folded.
pub fn fold(name: &str) -> String {
    let folded: String = caseless::default_case_fold_str(&name.nfkc().collect::<String>());
    folded.nfkc().collect()
}

fn check_visible(name: &str) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    if name.chars().any(is_invisible) {
        return Err(NameError::Invisible);
    }
    if !is_nfc(name) {
        return Err(NameError::NotNfc);
    }
    Ok(())
}

fn is_invisible(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{00ad}' | '\u{061c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{2064}' | '\u{2066}'..='\u{2069}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
}

fn is_reserved(name: &str) -> bool {
    let lower = name.to_lowercase();
    if lower.starts_with(".minitorrent") {
        return true;
    }
    let stem = lower.split('.').next().unwrap_or_default().trim_end();
    match stem {
        "con" | "prn" | "aux" | "nul" | "conin$" | "conout$" => true,
        _ => {
            let digit = stem.strip_prefix("com").or_else(|| stem.strip_prefix("lpt"));
            matches!(digit, Some("0" | "1" | "2" | "3" | "4" | "5" | "6" | "7" | "8" | "9" | "¹" | "²" | "³"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usernames() {
        for good in ["abc", "user1", "0-a_b.c", &"a".repeat(32)] {
            assert_eq!(check_username(good), Ok(()));
        }
        for bad in ["", "ab", &"a".repeat(33), "User", "a b c", "ab😀", "аbc", "ab\0", "../x", "-abc"] {
            assert_eq!(check_username(bad), Err(NameError::Username), "{bad:?}");
        }
    }

    #[test]
    fn groups() {
        for good in ["g1", "Team Größe", &"x".repeat(64)] {
            assert_eq!(check_group(good), Ok(()));
        }
        let bidi = "a\u{202e}b";
        for bad in [
            "",
            " ",
            "   ",
            &"x".repeat(65),
            &"😀".repeat(65),
            bidi,
            "\u{200d}",
            "a\nb",
            "a\u{1b}[1m",
            "a/b",
            "e\u{301}",
        ] {
            assert!(check_group(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn files() {
        for good in ["movie.mp4", "größe ☺.txt", &"x".repeat(255), ".hidden", "con-cert.mp3", "a.b.c"] {
            assert_eq!(check_file(good), Ok(()), "{good:?}");
        }
        let bad = [
            "",
            ".",
            "..",
            "/etc/passwd",
            "a/b",
            "a\\b",
            "C:x",
            "\\\\h\\s",
            "a\0",
            "a\n",
            "a\r",
            "a\t",
            "\u{7f}",
            "\u{85}",
            "\u{1b}",
            "gpj\u{202e}.exe",
            "a\u{200b}",
            "\u{feff}a",
            "a\u{2066}",
            "e\u{301}",
            "CON",
            "nul.txt",
            "a.",
            "a ",
            " a",
            ".minitorrent",
            ".MiniTorrent-x.part",
            "COM1",
            "lpt9.log",
        ];
        for bad in bad {
            assert!(check_file(bad).is_err(), "{bad:?}");
        }
        assert_eq!(check_file(&"x".repeat(256)), Err(NameError::TooLong));
        assert_eq!(check_file(&"😀".repeat(255)), Err(NameError::TooLong));
    }

    #[test]
    fn the_same_name_in_other_letters_folds_alike() {
        for (a, b) in [("A", "a"), ("ß", "SS"), ("ａ", "a"), ("ﬁ", "FI")] {
            assert_eq!(fold(a), fold(b));
        }
        assert_ne!(fold("a"), fold("b"));
    }
}
