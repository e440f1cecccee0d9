//! The rules for names. Bad names are refused, never repaired: a member sees what was published.
//!
//! - A username is short ASCII text.
//! - The names of groups and files are in normalization form C and hold no [hidden character](super::visible).
//! - A group's name also obeys the rules against [look-alikes](super::look_alike).

use unicode_normalization::is_nfc;

pub use super::fold::fold;
use super::{
    limits::{MAX_FILE_NAME, MAX_GROUP_BYTES, MAX_GROUP_CHARS, TOKEN_NAME_LENGTH, USERNAME_LENGTH},
    look_alike, visible,
};

/// The reason why a name is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not a username.
    #[error("a username is 3-32 of a-z, 0-9, '_', '.', '-', and starts with a letter or digit")]
    Username,
    /// Not the name of a token.
    #[error("a token's name is 1-32 of a-z, 0-9, '_', '.', '-', and starts with a letter or digit")]
    Token,
    /// Empty.
    #[error("a name must not be empty")]
    Empty,
    /// Too long.
    #[error("a name is too long: at most 255 bytes for a file, 64 characters and 256 bytes for a group")]
    TooLong,
    /// A character that is invisible, or changes the display of the text around it.
    #[error(
        "a name must not hold U+{:04X} in that place: it can't be seen, looks like a space, or changes how the text \
         around it is shown",
        u32::from(*.0)
    )]
    Hidden(char),
    /// A word that mixes scripts whose letters look alike.
    #[error(
        "a word in a group's name must not mix scripts that look alike, such as Latin and Cyrillic; separate them by a \
         space or a hyphen"
    )]
    MixedScripts,
    /// Not in Unicode normalization form C.
    #[error("a name must be in Unicode normalization form C")]
    NotNfc,
    /// Not a single path component.
    #[error("a name must be a single path component, without '/', '\\' or ':'")]
    Path,
    /// Space at an end, or a dot at the end.
    #[error("a name must not start or end with a space, nor end with a dot")]
    Edges,
    /// A group's name starts with a dash.
    #[error("a group's name must not start with '-', which marks an option on command lines")]
    Dash,
    /// Reserved by a common file system, or by Mini Torrent.
    #[error("this name is reserved")]
    Reserved,
}

/// Checks a username.
///
/// # Errors
/// [`NameError::Username`].
pub fn check_username(name: &str) -> Result<(), NameError> {
    if USERNAME_LENGTH.contains(&name.len()) && is_short_ascii(name) {
        Ok(())
    } else {
        Err(NameError::Username)
    }
}

/// Checks the name of a token.
///
/// # Errors
/// [`NameError::Token`].
pub fn check_token(name: &str) -> Result<(), NameError> {
    if TOKEN_NAME_LENGTH.contains(&name.len()) && is_short_ascii(name) {
        Ok(())
    } else {
        Err(NameError::Token)
    }
}

fn is_short_ascii(name: &str) -> bool {
    let first = name.bytes().next();
    first.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_.-".contains(&b))
}

/// Checks a group's name.
///
/// # Errors
/// The first rule that the name violates.
pub fn check_group(name: &str) -> Result<(), NameError> {
    check_group_form(name)?;
    if name.starts_with('-') {
        return Err(NameError::Dash);
    }
    check_visible(name)?;
    if look_alike::mixed_word(name).is_some() {
        return Err(NameError::MixedScripts);
    }
    Ok(())
}

/// Checks the part of [`check_group`] that also applies to stored names. A stored name may contain characters
/// that an earlier, laxer rule allowed.
///
/// # Errors
/// The first rule that the name violates.
pub(super) fn check_group_form(name: &str) -> Result<(), NameError> {
    if name.len() > MAX_GROUP_BYTES || name.chars().count() > MAX_GROUP_CHARS {
        return Err(NameError::TooLong);
    }
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    if name.contains(['/', '\\']) {
        return Err(NameError::Path);
    }
    if name.starts_with(' ') || name.ends_with(' ') {
        return Err(NameError::Edges);
    }
    Ok(())
}

/// Checks a file's name: a single path component that is safe on every common file system.
///
/// # Errors
/// The first rule that the name violates.
pub fn check_file(name: &str) -> Result<(), NameError> {
    check_file_form(name)?;
    check_visible(name)
}

/// Checks the part of [`check_file`] that also applies to stored names. A stored name may contain characters
/// that an earlier, laxer rule allowed.
///
/// # Errors
/// The first rule that the name violates.
pub(super) fn check_file_form(name: &str) -> Result<(), NameError> {
    if name.len() > MAX_FILE_NAME {
        return Err(NameError::TooLong);
    }
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    if name.contains('\0') {
        return Err(NameError::Hidden('\0'));
    }
    if name == "." || name == ".." || name.contains(['/', '\\', ':']) {
        return Err(NameError::Path);
    }
    if name.starts_with(' ') || name.ends_with([' ', '.']) {
        return Err(NameError::Edges);
    }
    if is_reserved(name) {
        return Err(NameError::Reserved);
    }
    Ok(())
}

fn check_visible(name: &str) -> Result<(), NameError> {
    if let Some((_, c)) = visible::hidden(name).next() {
        return Err(NameError::Hidden(c));
    }
    if !is_nfc(name) {
        return Err(NameError::NotNfc);
    }
    Ok(())
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
            "-g",
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

    /// Code points that are invisible, or look like others. All three kinds of names refuse them.
    const NOT_SEEN: &str = "\u{0}\u{1b}\u{85}\u{a0}\u{ad}\u{34f}\u{61c}\u{115f}\u{1160}\u{1680}\u{17b4}\u{17b5}\u{180b}\
        \u{180e}\u{180f}\u{2000}\u{200b}\u{200c}\u{200d}\u{200e}\u{2028}\u{2029}\u{202e}\u{202f}\u{205f}\u{2060}\
        \u{2065}\u{2069}\u{206a}\u{206f}\u{2800}\u{3000}\u{3164}\u{e000}\u{fdd0}\u{fe00}\u{fe0f}\u{feff}\u{ffa0}\
        \u{fff0}\u{fff9}\u{fffc}\u{ffff}\u{1bca0}\u{1d159}\u{1d173}\u{1fffe}\u{e0001}\u{e0041}\u{e0100}\u{f0000}\
        \u{10ffff}";

    #[test]
    fn what_is_not_seen_is_in_no_name() {
        for c in NOT_SEEN.chars() {
            for name in [format!("ab{c}cd"), format!("abc{c}"), format!("{c}abc"), c.to_string()] {
                let point = u32::from(c);
                assert!(check_username(&name).is_err(), "U+{point:04X}");
                assert_eq!(check_group(&name), Err(NameError::Hidden(c)), "U+{point:04X}");
                assert_eq!(check_file(&name), Err(NameError::Hidden(c)), "U+{point:04X}");
            }
        }
    }

    #[test]
    fn names_of_every_script_are_allowed() {
        let good = [
            "Größe ☺",
            "Ελληνικά",
            "Команда",
            "Հայերեն",
            "שָׁלוֹם",
            "العَرَبِيَّة",
            "می\u{200c}خواهم",
            "हिन्दी क\u{94d}\u{200d}ष",
            "বাংলা র\u{200d}\u{9cd}যাব",
            "தமிழ்",
            "മലയാളം",
            "ශ\u{dca}\u{200d}රී",
            "ภาษาไทย",
            "ພາສາລາວ",
            "བོད་ཡིག",
            "မြန်မာ",
            "ქართული",
            "한국어",
            "አማርኛ",
            "ᏣᎳᎩ",
            "ភាសាខ្មែរ",
            "ᠮᠣᠩᠭᠣᠯ",
            "日本語 ひらがな カタカナ",
            "中文",
            "𐌀𐌁𐌂",
            "👨\u{200d}👩\u{200d}👧 ❤\u{fe0f}",
        ];
        for name in good {
            assert_eq!(check_group(name), Ok(()), "{name}");
            assert_eq!(check_file(name), Ok(()), "{name}");
        }
    }

    #[test]
    fn a_groups_words_do_not_mix_scripts() {
        assert_eq!(check_group("p\u{430}ypal"), Err(NameError::MixedScripts));
        assert_eq!(check_group("Клуб VIP"), Ok(()));
        assert_eq!(check_file("отчётQ3.pdf"), Ok(()));
    }

    #[test]
    fn names_that_differ_by_what_is_not_seen_are_one() {
        for (a, b) in [("می\u{200c}خواهم", "میخواهم"), ("❤\u{fe0f}", "❤"), ("क\u{94d}\u{200d}ष", "क\u{94d}ष")]
        {
            assert_eq!(fold(a), fold(b));
        }
    }

    #[test]
    fn the_same_name_in_other_letters_folds_alike() {
        for (a, b) in [("A", "a"), ("ß", "SS"), ("ａ", "a"), ("ﬁ", "FI")] {
            assert_eq!(fold(a), fold(b));
        }
        assert_ne!(fold("a"), fold("b"));
    }
}
