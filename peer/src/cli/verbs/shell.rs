//! The shell: one verb on each line, in either spelling.

use std::{
    io::{self, IsTerminal as _},
    path::PathBuf,
    pin::Pin,
};

use clap::Parser as _;
use program::durable::{self, Readers};
use rustyline::{
    CompletionType, Helper, completion::Completer, error::ReadlineError, highlight::Highlighter,
    hint::Hinter, validate::Validator,
};

use crate::{
    cli::{
        args::{Cli, Verb},
        completion,
        context::{Context, interrupt},
        exit::{Exit, Failure},
        render,
    },
    config::Config,
};

/// A function that runs one verb to its end.
pub(in crate::cli) type RunVerb<'a> = &'a dyn Fn(Cli) -> Pin<Box<dyn Future<Output = Exit>>>;

/// The number of lines that the shell's history keeps.
const HISTORY: usize = 1_000;

/// Reads and runs verbs until the end of the input, `exit` or `quit`. The shell returns success when it is
/// used from a terminal. When it reads a file, it returns the exit code of the last verb.
pub(in crate::cli) async fn run(context: &Context, run_verb: RunVerb<'_>) -> Result<Exit, Failure> {
    if context.in_shell {
        return Err(Failure::usage("the shell is already running"));
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
                render::line(
                    "type the verbs of `peer --help`, one on each line; `exit` or Ctrl-D ends the shell",
                );
                continue;
            }
            Some(_) => last = one(context, words, run_verb).await,
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

/// Runs one verb, with the shell's own home and tracker unless the line names others. Ctrl-C ends the verb,
/// not the shell.
async fn one(context: &Context, words: Vec<String>, run_verb: RunVerb<'_>) -> Exit {
    let arguments = ["peer".to_owned()].into_iter().chain(words);
    let mut cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            let asked = !error.use_stderr();
            // If standard error can't be written, the failure can't be reported anywhere.
            let _ = error.print();
            return if asked { Exit::Done } else { Exit::Usage };
        }
    };
    inherit(context, &mut cli);
    let own_interrupt = matches!(cli.verb, Verb::Download { .. } | Verb::Get { .. });
    let work = run_verb(cli);
    if own_interrupt {
        return work.await;
    }
    tokio::select! {
        exit = work => exit,
        () = interrupt() => Exit::Interrupted,
    }
}

/// Applies the flags of the shell to one of its lines.
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
        (shown.origin == program::settings::Origin::Flag).then(|| shown.value.clone())
    };
    global.tracker = global.tracker.take().or_else(|| flag("tracker"));
    global.ca = global.ca.take().or_else(|| flag("ca"));
    global.ca_sha256 = global.ca_sha256.take().or_else(|| flag("ca_sha256"));
    global.timeout = global.timeout.take().or_else(|| flag("timeout"));
}

type Editor = rustyline::Editor<Completion, rustyline::history::DefaultHistory>;

/// What the tab key does.
struct Completion(Config);

impl Completer for Completion {
    type Candidate = String;

    fn complete(
        &self,
        line: &str,
        cursor: usize,
        _: &rustyline::Context<'_>,
    ) -> rustyline::Result<(usize, Vec<String>)> {
        let before = line.get(..cursor).unwrap_or(line);
        let (start, mut found) = completion::complete_in_shell(&self.0, before);
        if let [only] = found.as_mut_slice()
            && !only.ends_with(['/', '='])
        {
            only.push(' ');
        }
        Ok((start, found))
    }
}

impl Helper for Completion {}
impl Highlighter for Completion {}
impl Validator for Completion {}
impl Hinter for Completion {
    type Hint = String;
}

/// The source of the lines.
enum Lines {
    Typed { editor: Box<Editor>, history: PathBuf, kept: Vec<String> },
    Piped(io::Lines<io::StdinLock<'static>>),
}

impl Lines {
    fn typed(context: &Context) -> Result<Self, Failure> {
        let failed = |error: ReadlineError| Failure::daemon(format!("the terminal can't be read: {error}"));
        let settings = rustyline::Config::builder().max_history_size(HISTORY).map_err(failed)?;
        let settings = settings.completion_type(CompletionType::List).build();
        let mut editor = Box::new(Editor::with_config(settings).map_err(failed)?);
        editor.set_helper(Some(Completion(context.config.clone())));
        let history = context.config.home.history_file();
        // If the history can't be read, the shell starts with an empty one.
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
                    Err(error) => {
                        return Err(Failure::daemon(format!("the terminal can't be read: {error}")));
                    }
                }
            },
        }
    }

    /// Adds a line to the history, unless it may hold a password or an invitation.
    fn keep(&mut self, line: &str) {
        if let Self::Typed { editor, kept, .. } = self
            && !may_hold_secret(line)
        {
            // A failure does no harm: the line can be typed again.
            let _ = editor.add_history_entry(line);
            kept.push(line.to_owned());
        }
    }

    fn close(&mut self) {
        if let Self::Typed { history, kept, .. } = self {
            let last = kept.split_off(kept.len().saturating_sub(HISTORY)).join("\n");
            // This fails when there is no home yet, or no room in it. The next shell then starts with the old
            // history.
            let _ = durable::write(history, last.as_bytes(), Readers::Owner);
        }
    }
}

fn may_hold_secret(line: &str) -> bool {
    let words = split(line).unwrap_or_default();
    words.iter().any(|word| {
        matches!(word.as_str(), "login" | "create-user" | "create_user" | "change-password")
            || word.starts_with("minitorrent:")
    })
}

/// Splits a line into words as a shell does. Nothing is expanded but `~`.
fn split(line: &str) -> Result<Vec<String>, String> {
    let backslashes = line.len() - line.trim_end_matches('\\').len();
    if backslashes % 2 == 1 {
        return Err("the line ends with a backslash; add the character that it escapes".to_owned());
    }
    let line = with_home_directory(line, std::env::var("HOME").ok().as_deref());
    shell_words::split(&line).map_err(|_| "the line has an unclosed quote".to_owned())
}

/// Replaces each `~` that stands alone or before a `/`, unquoted at the start of a word, by the user's home
/// directory.
fn with_home_directory(line: &str, home: Option<&str>) -> String {
    let Some(home) = home.map(shell_words::quote) else { return line.to_owned() };
    let mut out = String::new();
    let (mut quote, mut escaped, mut at_start) = (None, false, true);
    let mut rest = line.chars().peekable();
    while let Some(c) = rest.next() {
        let ends = rest.peek().is_none_or(|next| next.is_whitespace() || *next == '/');
        if c == '~' && at_start && ends {
            out += &home;
        } else {
            out.push(c);
        }
        match (c, quote) {
            _ if escaped => escaped = false,
            ('\\', None | Some('"')) => escaped = true,
            ('\'' | '"', None) => quote = Some(c),
            (c, Some(open)) if c == open => quote = None,
            _ => {}
        }
        at_start = quote.is_none() && !escaped && c.is_whitespace();
    }
    out
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
    fn a_tilde_is_the_home_directory() {
        for (line, expanded) in [
            ("upload ~/movie.mp4 g1", "upload /users/ann/movie.mp4 g1"),
            ("download g1 n ~", "download g1 n /users/ann"),
            ("upload '~/a' \"~/b\" \\~/c a~/d ~bob/e", "upload '~/a' \"~/b\" \\~/c a~/d ~bob/e"),
        ] {
            assert_eq!(with_home_directory(line, Some("/users/ann")), expanded);
        }
        assert_eq!(with_home_directory("~/a", Some("/my home")), "'/my home'/a");
        assert_eq!(with_home_directory("~/a", None), "~/a");
    }

    #[test]
    fn passwords_are_not_remembered() {
        for line in ["login u p", "create_user u p", " --json create-user u p"] {
            assert!(may_hold_secret(line), "{line}");
        }
        assert!(may_hold_secret("join minitorrent://t:1/g1#f.s --user u"));
        assert!(!may_hold_secret("list_files g1"));
    }
}
