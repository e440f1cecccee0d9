//! Everything that is printed: results on standard output as text or JSON, notes and errors on standard
//! error.
//!
//! - `lists`, `downloads`: results, as text and as JSON.
//! - `fit`: columns, shortening and colours.
//! - `live`: output that is redrawn in place while something runs.

mod downloads;
mod fit;
mod lists;
mod live;

use std::{
    borrow::Cow,
    io::{self, Write as _},
    path::Path,
    sync::OnceLock,
};

use proto::domain::visible;
use serde_json::{Value, json};

pub(super) use self::{
    downloads::{
        download_json, download_line, download_view, downloads_json, downloads_text, given, percent, state,
        taken,
    },
    lists::{
        checks, entries, files, groups, invites, members, peers, requests, shares, standing, status,
        subscriptions, token_json, tokens, who,
    },
};
use super::exit::{Exit, Failure};
use crate::paths;

/// The way in which results are printed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Style {
    /// Print one JSON object for each result.
    pub(super) json: bool,
    /// Print no notes and no progress.
    pub(super) quiet: bool,
}

/// Writes a line to standard output as it is. Text with names from others goes through [`Style::result`]. If
/// the reader has closed the pipe, it has seen enough, and the process ends with exit code 0. If the output
/// can't be written for another reason, the process ends with exit code 1.
pub(super) fn line(text: &str) {
    line_of(text, false);
}

fn line_of(text: &str, json: bool) {
    let mut out = io::stdout().lock();
    let Err(error) = writeln!(out, "{text}").and_then(|()| out.flush()) else { return };
    if error.kind() == io::ErrorKind::BrokenPipe {
        std::process::exit(0);
    }
    let failure = Failure { exit: Exit::Other, ..Failure::io("standard output", &error) };
    Style { json, quiet: false }.failure(&failure);
    std::process::exit(Exit::Other as i32);
}

/// Writes bytes to standard output as they are. If the reader has closed the pipe, it has seen enough, and the process
/// ends with exit code 0.
///
/// # Errors
/// Fails when the output can't be written for another reason.
pub(super) fn bytes(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let written = out.write_all(bytes).and_then(|()| out.flush());
    if written.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::BrokenPipe) {
        std::process::exit(0);
    }
    written
}

/// Writes a note for the user to standard error.
pub(super) fn note(text: &str) {
    write_note(&escape(text));
}

fn write_note(text: &str) {
    // If standard error can't be written, the failure can't be reported anywhere.
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// The home that remedies name, because it was given on the command line.
static HOME: OnceLock<String> = OnceLock::new();

/// Lets all remedies that are printed name this home, so that they can be pasted.
pub(super) fn hints_name(home: &Path) {
    // It is set once, before anything is printed.
    let _ = HOME.set(paths::word(home.display()));
}

/// The text with the home in each command that it names.
fn with_home(text: &str) -> Cow<'_, str> {
    match HOME.get() {
        Some(home) => text.replace("`peer ", &format!("`peer --home {home} ")).into(),
        None => text.into(),
    }
}

impl Style {
    /// Prints a result: the object, or the text for users. Prints nothing for an empty text.
    pub(super) fn result(self, object: &Value, text: &str) {
        if self.json {
            line_of(&visible::escape_json(&object.to_string()), true);
        } else if !text.is_empty() {
            line(&escape(&with_home(text.trim_end_matches('\n'))));
        }
    }

    /// As [`Self::result`], with colours at the start of its lines where the terminal has them.
    pub(super) fn painted(self, object: &Value, text: &str) {
        if self.json || !fit::has_colours(&io::stdout()) {
            self.result(object, text);
        } else {
            line(&fit::paint(&escape(&with_home(text.trim_end_matches('\n')))));
        }
    }

    /// Prints that something was done. With `--quiet`, only the exit code says so.
    pub(super) fn done(self, object: &Value, text: &str) {
        self.result(object, if self.quiet { "" } else { text });
    }

    /// Prints a failure.
    pub(super) fn failure(self, failure: &Failure) {
        let message = with_home(&failure.message);
        if self.json {
            let Failure { code, reason, .. } = failure;
            let object = json!({"error": {"code": code, "reason": reason, "message": message}});
            write_note(&visible::escape_json(&object.to_string()));
        } else {
            note(&format!("peer: {message}"));
        }
    }
}

/// Escapes the [hidden characters](visible) of a text, but not its line ends.
pub(super) fn escape(text: &str) -> String {
    text.split('\n').map(visible::escape).collect::<Vec<_>>().join("\n")
}

/// Escapes a name for output on one line.
pub(super) fn name(text: &str) -> String {
    visible::escape(text).into_owned()
}

/// Returns a moment as RFC 3339, or null.
pub(super) fn time(at: Option<prost_types::Timestamp>) -> Value {
    let at = at.and_then(|at| jiff::Timestamp::new(at.seconds, 0).ok());
    at.map_or(Value::Null, |at| at.to_string().into())
}

fn time_text(at: Option<prost_types::Timestamp>) -> String {
    time(at).as_str().map(str::to_owned).unwrap_or_else(|| "-".into())
}

/// Returns null for an empty text.
fn optional(text: &str) -> Value {
    if text.is_empty() { Value::Null } else { text.into() }
}

/// Lays out columns, separated by two spaces. Columns are left-aligned, except for those that hold numbers.
pub(super) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let widths: Vec<usize> = (0..head.len())
        .map(|column| {
            let cells = rows.iter().map(|row| fit::columns(&row[column]));
            cells.chain([head[column].len()]).max().unwrap_or_default()
        })
        .collect();
    let write = |out: &mut String, cells: &mut dyn Iterator<Item = &str>| {
        let mut row = String::new();
        for (cell, width) in cells.zip(&widths) {
            row += &fit::pad(cell, *width);
            row += "  ";
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

/// Returns bytes in lower-case hexadecimal.
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
        assert_eq!(name("a\u{3164}b\u{34f}\u{e0041}"), "a\\u{3164}b\\u{34f}\\u{e0041}");
        assert_eq!(escape("می\u{200c}خواهم\na\u{206a}"), "می\u{200c}خواهم\na\\u{206a}");
    }

    #[test]
    fn columns_line_up() {
        let rows = [vec!["a".to_owned(), "1".to_owned()], vec!["größer".to_owned(), "22".to_owned()]];
        assert_eq!(table(&["NAME", "N"], &rows), "NAME    N\na       1\ngrößer  22\n");
        let wide = [vec!["日本".to_owned(), "1".to_owned()]];
        assert_eq!(table(&["NAME", "N"], &wide), "NAME  N\n日本  1\n");
    }

    #[test]
    fn times_are_rfc_3339() {
        let at = Some(prost_types::Timestamp { seconds: 0, nanos: 5 });
        assert_eq!(time(at), json!("1970-01-01T00:00:00Z"));
        assert_eq!(time(None), Value::Null);
    }
}
