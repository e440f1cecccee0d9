//! Text that fits a terminal: measured in columns, shortened, and coloured.

use std::io::IsTerminal;

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

/// What stands for the characters that were left out.
const CUT: char = '…';

/// The number of columns that a text takes. Wide characters take two.
pub(super) fn columns(text: &str) -> usize {
    text.width()
}

/// The start of the text that takes at most `most` columns.
fn start(text: &str, most: usize) -> &str {
    let mut used = 0;
    let end = text.char_indices().find(|(_, c)| {
        used += c.width().unwrap_or(0);
        used > most
    });
    end.map_or(text, |(at, _)| &text[..at])
}

/// The end of the text that takes at most `most` columns.
fn end(text: &str, most: usize) -> &str {
    let mut used = 0;
    let start = text.char_indices().rev().find(|(_, c)| {
        used += c.width().unwrap_or(0);
        used > most
    });
    start.map_or(text, |(at, c)| &text[at + c.len_utf8()..])
}

/// Cuts a text at its end so that it takes at most `most` columns.
pub(super) fn clip(text: &str, most: usize) -> String {
    if columns(text) <= most {
        return text.to_owned();
    }
    let kept = start(text, most.saturating_sub(1));
    if most == 0 { String::new() } else { format!("{kept}{CUT}") }
}

/// Shortens a name in its middle so that it takes at most `most` columns. The end of a name says what kind of
/// file it is.
pub(super) fn shorten(name: &str, most: usize) -> String {
    if columns(name) <= most || most < 3 {
        return clip(name, most);
    }
    let after = (most - 1) / 2;
    let (first, last) = (start(name, most - 1 - after), end(name, after));
    format!("{first}{CUT}{last}")
}

/// Pads a text with spaces to so many columns.
pub(super) fn pad(text: &str, width: usize) -> String {
    format!("{text}{}", " ".repeat(width.saturating_sub(columns(text))))
}

/// The size of the terminal in columns and rows. Where the terminal does not say it, the environment does.
pub(super) fn terminal_size(terminal: impl std::os::fd::AsFd) -> (usize, usize) {
    let told = rustix::termios::tcgetwinsize(terminal).ok();
    let from_env = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let known = |told: Option<u16>, name, default| {
        told.filter(|told| *told > 0).map(usize::from).or_else(|| from_env(name)).unwrap_or(default)
    };
    (known(told.map(|size| size.ws_col), "COLUMNS", 80), known(told.map(|size| size.ws_row), "LINES", 24))
}

/// Whether colours are used there: on a terminal that has them, unless `NO_COLOR` says otherwise.
pub(super) fn has_colours(stream: &impl IsTerminal) -> bool {
    let unset = |name: &str| std::env::var_os(name).is_none_or(|value| value.is_empty());
    stream.is_terminal() && unset("NO_COLOR") && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Colours the word or mark at the start of each line that has a meaning: the state of a download, or the
/// result of a check.
pub(super) fn paint(text: &str) -> String {
    const GREEN: u8 = 32;
    const YELLOW: u8 = 33;
    const RED: u8 = 31;
    const CYAN: u8 = 36;
    const MARKS: [(&str, u8); 10] = [
        ("[C]", GREEN),
        ("[D]", CYAN),
        ("[V]", CYAN),
        ("[Q]", YELLOW),
        ("[W]", YELLOW),
        ("[S]", YELLOW),
        ("[F]", RED),
        ("ok ", GREEN),
        ("warning ", YELLOW),
        ("bad ", RED),
    ];
    let line = |line: &str| match MARKS.iter().find(|(mark, _)| line.starts_with(mark)) {
        Some((mark, colour)) => format!("\x1b[{colour}m{mark}\x1b[0m{}", &line[mark.len()..]),
        None => line.to_owned(),
    };
    text.split('\n').map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_measured_and_kept() {
        assert_eq!(columns("größe"), 5);
        assert_eq!(columns("日本"), 4);
        assert_eq!(columns("e\u{301}"), 1);
        assert_eq!(clip("movie.mp4", 9), "movie.mp4");
        assert_eq!(clip("movie.mp4", 6), "movie…");
        assert_eq!(clip("日本語", 4), "日…", "half a character does not fit");
        assert_eq!(shorten("a long movie.mp4", 11), "a lon…e.mp4");
        assert_eq!(shorten("日本語日本語.mp4", 9), "日本….mp4");
        assert_eq!(pad("日本", 6), "日本  ");
        for name in ["movie.mp4", "日本語日本語日本語.mp4", "e\u{301}e\u{301}e\u{301}e\u{301}.txt", ""]
        {
            for most in 0..40 {
                assert!(columns(&shorten(name, most)) <= most, "{name} in {most}");
                assert!(columns(&clip(name, most)) <= most, "{name} in {most}");
            }
        }
    }

    #[test]
    fn marks_are_coloured_and_names_are_not() {
        assert_eq!(paint("[C] [g1] [F].mp4"), "\x1b[32m[C]\x1b[0m [g1] [F].mp4");
        assert_eq!(paint("no downloads"), "no downloads");
        assert_eq!(paint("[F] a\n    bob  [C]"), "\x1b[31m[F]\x1b[0m a\n    bob  [C]");
    }
}
