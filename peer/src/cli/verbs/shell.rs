//! The shell: verbs, one a line, spelled in either way.

use std::{
    io::{self, IsTerminal as _},
    path::PathBuf,
};

use clap::Parser as _;
use proto::durable::{self, Readers};
use rustyline::error::ReadlineError;

use crate::cli::{
    Context,
    args::{Cli, Verb},
    exit::{Exit, Failure},
    interrupt, render, run as run_verb,
};

/// Lines of the shell that are remembered.
const HISTORY: usize = 1_000;

/// Reads and does verbs until the end of the input, `exit` or `quit`. Typed by a person, it ends well; read from a file,
/// it ends as the last verb did.
pub(super) async fn run(context: &Context) -> Result<Exit, Failure> {
    if context.in_shell {
        return Err(Failure::usage("this is the shell already"));
    }
    let interactive = io::stdin().is_terminal();
    let mut lines = if interactive { Lines::typed(context)? } else { Lines::Piped(io::stdin().lines()) };
    let mut last = Exit::Done;
    while let Some(line) = lines.next()? {
        let words = match split(&line) {
            Ok(words) => words,
            Err(message) => {
                last = refuse(context, &message);
                continue;
            }
        };
        match words.first().map(String::as_str) {
            None => continue,
            Some(word) if word.starts_with('#') => continue,
            Some("exit" | "quit") => break,
            Some("help" | "?") if words.len() == 1 => {
                render::line("the verbs of `peer --help`, one a line; exit or Ctrl-D ends");
                continue;
            }
            Some(_) => last = one(context, words).await,
        }
        lines.keep(&line);
    }
    lines.close();
    Ok(if interactive { Exit::Done } else { last })
}

fn refuse(context: &Context, message: &str) -> Exit {
    let failure = Failure::usage(message);
    context.style.failure(&failure);
    failure.exit
}

/// One verb, with the shell's own home and tracker unless the line says otherwise. Ctrl-C ends the verb, not the shell.
async fn one(context: &Context, words: Vec<String>) -> Exit {
    let arguments = ["peer".to_owned()].into_iter().chain(words);
    let mut cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            let asked = !error.use_stderr();
            // There is nowhere to tell that it can't be told.
            let _ = error.print();
            return if asked { Exit::Done } else { Exit::Usage };
        }
    };
    inherit(context, &mut cli);
    let own_interrupt = matches!(cli.verb, Verb::Download { .. });
    let work = Box::pin(run_verb(cli, true));
    if own_interrupt {
        return work.await;
    }
    tokio::select! {
        exit = work => exit,
        () = interrupt() => Exit::Interrupted,
    }
}

/// Flags given to the shell hold for its lines.
fn inherit(context: &Context, cli: &mut Cli) {
    let config = &context.config;
    let global = &mut cli.global;
    global.home = global.home.take().or_else(|| config.home_given.clone());
    global.config = global.config.take().or_else(|| config.config_file_given.clone());
    global.json |= config.json;
    global.quiet |= config.quiet;
    global.no_autostart |= config.no_autostart;
    let flag = |name: &str| {
        let shown = config.shown.iter().find(|shown| shown.name == name)?;
        (shown.origin == proto::settings::Origin::Flag).then(|| shown.value.clone())
    };
    global.tracker = global.tracker.take().or_else(|| flag("tracker"));
    global.ca = global.ca.take().or_else(|| flag("ca"));
    global.ca_sha256 = global.ca_sha256.take().or_else(|| flag("ca_sha256"));
    global.timeout = global.timeout.take().or_else(|| flag("timeout"));
}

/// Where lines come from.
enum Lines {
    Typed { editor: Box<rustyline::DefaultEditor>, history: PathBuf, kept: Vec<String> },
    Piped(io::Lines<io::StdinLock<'static>>),
}

impl Lines {
    fn typed(context: &Context) -> Result<Self, Failure> {
        let failed = |error: ReadlineError| Failure::daemon(format!("the terminal: {error}"));
        let settings = rustyline::Config::builder().max_history_size(HISTORY).map_err(failed)?.build();
        let mut editor = Box::new(rustyline::DefaultEditor::with_config(settings).map_err(failed)?);
        let history = context.config.home.history_file();
        // Without one that can be read, the shell starts with none.
        let kept = durable::read_if_there(&history).ok().flatten().unwrap_or_default();
        let kept: Vec<String> = String::from_utf8_lossy(&kept).lines().map(str::to_owned).collect();
        for line in &kept {
            editor.add_history_entry(line).map_err(failed)?;
        }
        Ok(Self::Typed { editor, history, kept })
    }

    fn next(&mut self) -> Result<Option<String>, Failure> {
        match self {
            Self::Piped(lines) => {
                lines.next().transpose().map_err(|error| Failure::io("standard input", &error))
            }
            Self::Typed { editor, .. } => loop {
                match editor.readline("peer> ") {
                    Ok(line) => return Ok(Some(line)),
                    Err(ReadlineError::Interrupted) => {}
                    Err(ReadlineError::Eof) => return Ok(None),
                    Err(error) => return Err(Failure::daemon(format!("the terminal: {error}"))),
                }
            },
        }
    }

    /// Remembers a line, unless it holds a password.
    fn keep(&mut self, line: &str) {
        if let Self::Typed { editor, kept, .. } = self
            && !may_hold_password(line)
        {
            // A line that is not remembered can be typed again.
            let _ = editor.add_history_entry(line);
            kept.push(line.to_owned());
        }
    }

    fn close(&mut self) {
        if let Self::Typed { history, kept, .. } = self {
            let last = kept.split_off(kept.len().saturating_sub(HISTORY)).join("\n");
            // No home yet, or no room in it: the next shell starts with what there was.
            let _ = durable::write(history, last.as_bytes(), Readers::Owner);
        }
    }
}

fn may_hold_password(line: &str) -> bool {
    let words = split(line).unwrap_or_default();
    words
        .iter()
        .any(|word| matches!(word.as_str(), "login" | "create-user" | "create_user" | "change-password"))
}

/// Takes a line apart: blanks separate, quotes and backslashes hold together as in a shell, and nothing is expanded.
fn split(line: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (Some(open), c) if c == open => quote = None,
            (None | Some('"'), '\\') => {
                let next = chars.next().ok_or("a backslash ends the line")?;
                word.get_or_insert_default().push(next);
            }
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    if let Some(open) = quote {
        return Err(format!("a {open} is not closed"));
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_apart_as_in_a_shell() {
        for (line, words) in [
            ("", &[][..]),
            ("  list_groups  ", &["list_groups"]),
            ("upload_file 'my movie.mp4' g1", &["upload_file", "my movie.mp4", "g1"]),
            (r#"login u1 "pass \"word\" '""#, &["login", "u1", "pass \"word\" '"]),
            (r"a\ b c\\d", &["a b", r"c\d"]),
            (r"'a\b' ''", &[r"a\b", ""]),
            ("x'y'z", &["xyz"]),
        ] {
            assert_eq!(
                split(line).as_deref(),
                Ok(&words.iter().map(ToString::to_string).collect::<Vec<_>>()[..]),
                "{line}"
            );
        }
        for line in ["'a", "\"a", "a\\"] {
            assert!(split(line).is_err(), "{line}");
        }
    }

    #[test]
    fn passwords_are_not_remembered() {
        for line in ["login u p", "create_user u p", " --json create-user u p"] {
            assert!(may_hold_password(line), "{line}");
        }
        assert!(!may_hold_password("list_files g1"));
    }
}
