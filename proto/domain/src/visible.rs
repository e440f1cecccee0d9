//! Which characters of a text can be shown as they are, by Unicode properties. One rule for names and for printing:
//! a name must not hold a hidden character, and a hidden character is printed escaped.
//!
//! A character is hidden when one of these holds:
//! - its General_Category is Cc, Cf, Cs, Co, Cn, Zl or Zp (controls, formats, private use, unassigned, line ends);
//! - it is Default_Ignorable_Code_Point, Bidi_Control or Noncharacter_Code_Point;
//! - it is White_Space and not the plain space: no-break, narrow and ideographic spaces look like one;
//! - its glyph is blank by definition ([`BLANK`]);
//! - it is a combining mark at the start of the text, where it would sit on whatever stands before the text.
//!
//! Some scripts and emoji need characters that are ignorable elsewhere. They are visible in the places where they
//! change what is shown, and hidden in all others:
//! - ZWJ and ZWNJ directly after a virama, as in RFC 5892, appendix A (Devanagari, Sinhala, Malayalam), and directly
//!   before one (Bengali ya-phalaa);
//! - ZWNJ between two letters of a cursive script (Persian, Urdu), also after a letter that would not have joined:
//!   people type it there;
//! - ZWJ between two pictographs, and U+FE0E or U+FE0F after an emoji or in a keycap.
//!
//! Two names that differ by these alone are one name ([`super::names::fold`]). Hidden everywhere: Mongolian variation
//! selectors, ideographic variation selectors and the tag characters of subdivision flags. Their scripts can be read
//! without them.

use std::{borrow::Cow, fmt::Write as _};

use icu_properties::{
    CodePointMapData, CodePointSetData,
    props::{
        BidiControl, DefaultIgnorableCodePoint, Emoji, EmojiModifier, ExtendedPictographic, GeneralCategory,
        JoiningType, NoncharacterCodePoint, WhiteSpace,
    },
};
use unicode_normalization::char::{canonical_combining_class, is_combining_mark};

/// Characters without ink that no property tells apart: the braille blank, the object replacement character, the
/// null notehead, the blank hieroglyphs and the Khitan filler.
const BLANK: [char; 6] = ['\u{2800}', '\u{fffc}', '\u{13441}', '\u{13442}', '\u{16fe4}', '\u{1d159}'];

const ZWNJ: char = '\u{200c}';
const ZWJ: char = '\u{200d}';
/// Ends a keycap: a digit, U+FE0F, and this.
const KEYCAP: char = '\u{20e3}';
/// Canonical_Combining_Class of a virama.
const VIRAMA: u8 = 9;

/// The hidden characters of a text, each with its byte offset.
pub fn hidden(text: &str) -> impl Iterator<Item = (usize, char)> {
    let mut after_hidden = false;
    text.char_indices().filter(move |&(at, c)| {
        after_hidden = if matches!(c, ' '..='~') {
            false // Most of all text: there is nothing to look up.
        } else if at == 0 && is_combining_mark(c) {
            true
        } else {
            // What follows a hidden character will follow an escape.
            is_hidden(c) && (after_hidden || !is_in_place(&text[..at], c, &text[at + c.len_utf8()..]))
        };
        after_hidden
    })
}

/// The text with each hidden character as its Rust escape, such as `\u{202e}`. Nothing in it can steer a terminal.
pub fn escape(text: &str) -> Cow<'_, str> {
    replace(text, |c| c.escape_default().to_string())
}

/// The same for a JSON text, with the escapes of JSON, such as `\u202e`: the value stays what it is.
pub fn escape_json(json: &str) -> Cow<'_, str> {
    replace(json, |c| {
        let mut out = String::new();
        for unit in c.encode_utf16(&mut [0; 2]) {
            // Writing to a string can't fail.
            let _ = write!(out, "\\u{unit:04x}");
        }
        out
    })
}

/// Whether `c` is Default_Ignorable_Code_Point.
pub(super) fn is_ignorable(c: char) -> bool {
    CodePointSetData::new::<DefaultIgnorableCodePoint>().contains(c)
}

fn replace(text: &str, with: impl Fn(char) -> String) -> Cow<'_, str> {
    let mut out = String::new();
    let mut copied = 0;
    for (at, c) in hidden(text) {
        out += &text[copied..at];
        out += &with(c);
        copied = at + c.len_utf8();
    }
    if copied == 0 { Cow::Borrowed(text) } else { Cow::Owned(out + &text[copied..]) }
}

/// Whether `c` is hidden wherever it does not change what is shown.
fn is_hidden(c: char) -> bool {
    use GeneralCategory as Gc;

    let category = CodePointMapData::<Gc>::new().get(c);
    matches!(
        category,
        Gc::Control
            | Gc::Format
            | Gc::Surrogate
            | Gc::PrivateUse
            | Gc::Unassigned
            | Gc::LineSeparator
            | Gc::ParagraphSeparator
    ) || is_ignorable(c)
        || CodePointSetData::new::<BidiControl>().contains(c)
        || CodePointSetData::new::<NoncharacterCodePoint>().contains(c)
        || (c != ' ' && CodePointSetData::new::<WhiteSpace>().contains(c))
        || BLANK.contains(&c)
}

/// Whether `c` stands where it changes what is shown, between the texts `before` and `after` it.
fn is_in_place(before: &str, c: char, after: &str) -> bool {
    let (Some(last), next) = (before.chars().next_back(), after.chars().next()) else {
        return false;
    };
    match c {
        ZWNJ => is_virama(last) || next.is_some_and(|next| is_virama(next) || joins(last) && joins(next)),
        ZWJ => {
            let pictograph = |c| CodePointSetData::new::<ExtendedPictographic>().contains(c);
            let modifier = |c| CodePointSetData::new::<EmojiModifier>().contains(c);
            is_virama(last)
                || next.is_some_and(|next| {
                    is_virama(next)
                        || pictograph(next)
                            && (pictograph(last) || modifier(last) || is_emoji_variation(before))
                })
        }
        '\u{fe0e}' | '\u{fe0f}' if last.is_ascii() => next == Some(KEYCAP) && is_emoji(last),
        '\u{fe0e}' | '\u{fe0f}' => is_emoji(last),
        _ => false,
    }
}

/// Whether a text ends with an emoji and U+FE0F.
fn is_emoji_variation(text: &str) -> bool {
    text.strip_suffix('\u{fe0f}').and_then(|text| text.chars().next_back()).is_some_and(is_emoji)
}

fn is_emoji(c: char) -> bool {
    CodePointSetData::new::<Emoji>().contains(c)
}

fn is_virama(c: char) -> bool {
    canonical_combining_class(c) == VIRAMA
}

/// Whether `c` is a letter of a cursive script.
fn joins(c: char) -> bool {
    matches!(
        CodePointMapData::<JoiningType>::new().get(c),
        JoiningType::DualJoining | JoiningType::LeftJoining | JoiningType::RightJoining
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn is_clean(text: &str) -> bool {
        hidden(text).next().is_none()
    }

    /// Has no glyph, by the tables of other crates.
    fn has_no_glyph(c: char) -> bool {
        c.is_control()
            || (c.is_whitespace() && c != ' ')
            || unicode_security::skeleton(&c.to_string()).next().is_none()
    }

    #[test]
    fn every_character_without_a_glyph_is_hidden() {
        for c in (0..=char::MAX as u32).filter_map(char::from_u32) {
            let text = format!("a{c}b");
            let noncharacter = c as u32 & 0xfffe == 0xfffe || ('\u{fdd0}'..='\u{fdef}').contains(&c);
            let private = matches!(c, '\u{e000}'..='\u{f8ff}' | '\u{f0000}'..);
            if has_no_glyph(c) || noncharacter || private {
                assert!(!is_clean(&text), "U+{:04X}", c as u32);
            }
            // Letters, digits and punctuation of every script stay.
            if c.is_alphanumeric() && !has_no_glyph(c) && !BLANK.contains(&c) {
                assert!(is_clean(&text), "U+{:04X}", c as u32);
            }
            assert_eq!(hidden(&escape(&text)).next(), None, "U+{:04X}", c as u32);
            assert_eq!(hidden(&escape_json(&text)).next(), None, "U+{:04X}", c as u32);
        }
    }

    #[test]
    fn joiners_and_variation_selectors_are_visible_where_they_matter() {
        let shown = [
            "می\u{200c}خواهم",
            "کار\u{200c}های",
            "ශ\u{dca}\u{200d}රී",
            "क\u{94d}\u{200d}ष",
            "क\u{94d}\u{200c}ष",
            "അവന\u{d4d}\u{200d}",
            "র\u{200d}\u{9cd}যাব",
            "❤\u{fe0f}",
            "1\u{fe0f}\u{20e3}",
            "👨\u{200d}👩\u{200d}👧",
            "👩\u{1f3fd}\u{200d}🚀",
            "🏳\u{fe0f}\u{200d}🌈",
        ];
        for text in shown {
            assert!(is_clean(text), "{text:?}: {:?}", hidden(text).collect::<Vec<_>>());
        }
        let not_shown = [
            "a\u{200c}b",
            "a\u{200d}b",
            "می\u{200c}",
            "\u{200c}می",
            "क\u{94d}\u{200d}\u{200d}ष",
            "a\u{fe0f}",
            "1\u{fe0f}",
            "1\u{fe0f}2",
            "❤\u{fe0f}\u{fe0f}",
            "👨\u{200d}a",
            "👨\u{200d}",
            "a\u{fe0f}\u{200d}👧",
            "𠀋\u{e0100}",
            "ᠠ\u{180b}",
            "🏴\u{e0067}\u{e007f}",
        ];
        for text in not_shown {
            assert!(!is_clean(text), "{text:?}");
        }
    }

    #[test]
    fn a_mark_at_the_start_would_change_what_stands_before() {
        assert_eq!(escape("\u{301}a\u{301}"), "\\u{301}a\u{301}");
    }

    proptest! {
        #[test]
        fn nothing_hidden_is_left_in_what_is_printed(text in any::<String>(), extra in "[\u{200c}\u{200d}\u{fe0f}\u{34f}👨ک1क\u{94d}\n]*") {
            let text = text + &extra;
            prop_assert!(is_clean(&escape(&text)));
            let json = serde_json::to_string(&text).expect("a string");
            let escaped = escape_json(&json);
            prop_assert!(is_clean(&escaped));
            prop_assert_eq!(serde_json::from_str::<String>(&escaped).expect("JSON"), text);
        }
    }
}
