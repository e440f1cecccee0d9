//! All that is printed: results on standard output as text or JSON, notes and errors on standard error.
//!
//! - `lists`, `downloads`: what a verb found, both ways.
//! - `live`: what is redrawn in place while something runs.

mod downloads;
mod lists;
mod live;

use std::io::{self, Write as _};

use serde_json::{Value, json};

pub(super) use self::{
    downloads::{download_json, download_text, downloads, given, percent},
    lists::{checks, files, groups, members, requests, shares, standing, status},
};
use super::exit::Failure;

/// How results are printed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Style {
    /// One JSON object a result.
    pub(super) json: bool,
    /// No notes, no progress.
    pub(super) quiet: bool,
}

/// Writes a line to standard output. A reader that has left is no error: there is nobody to tell.
pub(super) fn line(text: &str) {
    let mut out = io::stdout().lock();
    if let Err(error) = writeln!(out, "{text}").and_then(|()| out.flush())
        && error.kind() == io::ErrorKind::BrokenPipe
    {
        std::process::exit(0);
    }
}

/// Writes a note for people to standard error.
pub(super) fn note(text: &str) {
    // There is nowhere to tell that it can't be told.
    let _ = writeln!(io::stderr().lock(), "{text}");
}

impl Style {
    /// Prints a result: the object, or what people read. Nothing is printed for an empty text.
    pub(super) fn result(self, object: &Value, text: &str) {
        if self.json {
            line(&object.to_string());
        } else if !text.is_empty() {
            line(text.trim_end_matches('\n'));
        }
    }

    /// Prints that something was done: quiet people know by the exit code.
    pub(super) fn done(self, object: &Value, text: &str) {
        self.result(object, if self.quiet { "" } else { text });
    }

    /// Prints a failure.
    pub(super) fn failure(self, failure: &Failure) {
        if self.json {
            let Failure { code, reason, message, .. } = failure;
            note(&json!({"error": {"code": code, "reason": reason, "message": message}}).to_string());
        } else {
            note(&format!("peer: {}", escape(&failure.message)));
        }
    }
}

/// Text that can't do anything to a terminal: what is not plain is written as its escape.
pub(super) fn escape(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut out, c| {
        let harmless = c == '\n' || !(c.is_control() || is_direction(c));
        if harmless {
            out.push(c);
        } else {
            out.extend(c.escape_default());
        }
        out
    })
}

/// A name on one line.
pub(super) fn name(text: &str) -> String {
    escape(text).replace('\n', "\\n")
}

fn is_direction(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{2069}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
}

/// A moment as RFC 3339, or nothing.
pub(super) fn time(at: Option<prost_types::Timestamp>) -> Value {
    let at = at.and_then(|at| jiff::Timestamp::new(at.seconds, 0).ok());
    at.map_or(Value::Null, |at| at.to_string().into())
}

fn time_text(at: Option<prost_types::Timestamp>) -> String {
    time(at).as_str().map(str::to_owned).unwrap_or_else(|| "-".into())
}

/// Empty text is no value.
fn optional(text: &str) -> Value {
    if text.is_empty() { Value::Null } else { text.into() }
}

/// Columns, left-aligned but for those that hold numbers, separated by two spaces.
pub(super) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let widths: Vec<usize> = (0..head.len())
        .map(|column| {
            let cells = rows.iter().map(|row| row[column].chars().count());
            cells.chain([head[column].len()]).max().unwrap_or_default()
        })
        .collect();
    let write = |out: &mut String, cells: &mut dyn Iterator<Item = &str>| {
        let mut row = String::new();
        for (cell, width) in cells.zip(&widths) {
            let pad = width - cell.chars().count();
            row.extend([cell, &" ".repeat(pad), "  "]);
        }
        out.push_str(row.trim_end());
        out.push('\n');
    };
    let mut out = String::new();
    write(&mut out, &mut head.iter().copied());
    for row in rows {
        write(&mut out, &mut row.iter().map(String::as_str));
    }
    out
}

/// Bytes in lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_printed_can_steer_a_terminal() {
        assert_eq!(name("a\u{1b}[31mb\u{202e}c\nd"), "a\\u{1b}[31mb\\u{202e}c\\nd");
        assert_eq!(name("größe ☺"), "größe ☺");
    }

    #[test]
    fn columns_line_up() {
        let rows = [vec!["a".to_owned(), "1".to_owned()], vec!["größer".to_owned(), "22".to_owned()]];
        assert_eq!(table(&["NAME", "N"], &rows), "NAME    N\na       1\ngrößer  22\n");
    }

    #[test]
    fn times_are_rfc_3339() {
        let at = Some(prost_types::Timestamp { seconds: 0, nanos: 5 });
        assert_eq!(time(at), json!("1970-01-01T00:00:00Z"));
        assert_eq!(time(None), Value::Null);
    }
}
