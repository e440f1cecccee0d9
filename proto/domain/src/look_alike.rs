//! The rules against group names that people would mistake for one another.
//!
//! Every user of a tracker can make a group, and users join a group by its name. So two rules of Unicode's UTS #39
//! apply to the names of groups, in addition to the rules for all names:
//! - A word is in one script. Latin beside one other script is allowed ("LG전자", "Tシャツ", "เกมPC"), but not beside
//!   Cyrillic, Greek or a script that is not in common use: a word that mixes those is usually made to be misread. A
//!   word ends at every character that is not a letter, mark or digit, so "Клуб VIP", "IT-отдел" and "IFN-γ" are fine.
//! - No two groups of a tracker have the same [`skeleton`]: Cyrillic "сор" is refused where Latin "cop" exists. A word
//!   that is made of look-alikes only is refused for no other reason, because "хор" and "оса" are real words.
//!
//! An ASCII character counts as looking like itself only, so "team1" and "teaml" are two groups.
//!
//! Neither rule applies to files: only members list and fetch them, each is shown with its publisher, and names such as
//! "отчётQ3.pdf" are common. Usernames are ASCII.

use unicode_normalization::UnicodeNormalization as _;
use unicode_security::{RestrictionLevel, RestrictionLevelDetection as _, mixed_script::AugmentedScriptSet};

use super::{fold::fold, visible::is_ignorable};

/// The first word of a text that mixes scripts in a way that the rule does not allow.
pub(super) fn mixed_word(text: &str) -> Option<&str> {
    let is_in_word =
        |c: char| c.is_alphanumeric() || unicode_normalization::char::is_combining_mark(c) || is_ignorable(c);
    text.split(|c| !is_in_word(c)).find(|word| {
        AugmentedScriptSet::for_str(word).is_empty()
            && !word.check_restriction_level(RestrictionLevel::ModeratelyRestrictive)
    })
}

/// A key that is equal for two names that people would mistake for each other: every character that is not ASCII is
/// replaced by the one it looks like, and case is folded.
pub fn skeleton(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for c in name.nfkd().filter(|c| !is_ignorable(*c)) {
        if c.is_ascii() {
            out.push(c);
        } else {
            out.extend(unicode_security::skeleton(c.encode_utf8(&mut [0; 4])));
        }
    }
    fold(&out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_in_one_script() {
        let good = [
            "paypal",
            "Größe",
            "Клуб VIP",
            "IT-отдел",
            "хор",
            "оса",
            "Tシャツ",
            "第1章テスト",
            "LG전자",
            "T恤",
            "เกมPC",
            "בGoogle",
            "πρόγραμμα",
            "IFN-γ",
            "می\u{200c}خواهم",
            "ශ\u{dca}\u{200d}රී ලංකා",
            "ᚠᚢᚦ",
            "ᓄᓇᕗᑦ",
            "❤\u{fe0f} fans",
        ];
        for text in good {
            assert_eq!(mixed_word(text), None, "{text}");
        }
        let bad =
            [("my p\u{430}ypal", "p\u{430}ypal"), ("gοogle", "gοogle"), ("Тeam", "Тeam"), ("fooᚠ", "fooᚠ")];
        for (text, word) in bad {
            assert_eq!(mixed_word(text), Some(word), "{text}");
        }
    }

    #[test]
    fn names_that_look_alike_have_one_skeleton() {
        for (a, b) in [
            ("cop", "сор"),
            ("TEAM", "ТЕАМ"),
            ("Team", "ТЕАМ"),
            ("ОК", "ok"),
            ("スー", "ス一"),
            ("❤", "❤\u{fe0f}"),
        ] {
            assert_eq!(skeleton(a), skeleton(b), "{a} {b}");
        }
        for (a, b) in
            [("team1", "teaml"), ("g0", "go"), ("modern", "modem"), ("cafe", "café"), ("дом", "dom")]
        {
            assert_ne!(skeleton(a), skeleton(b), "{a} {b}");
        }
    }
}
