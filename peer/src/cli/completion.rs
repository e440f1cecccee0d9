//! Completion of verbs, flags, groups, users, files and downloads, in bash, zsh, fish and `peer shell`.
//!
//! A shell runs `peer` with the variable `COMPLETE` and the words of the line, by the protocol of
//! `clap_complete`'s dynamic completion. Without words, the answer is the script that the shell sources.
//!
//! - `words`: the words of a line as typed, with their quotes.
//! - `facts`: what the daemon knows: groups, users, files, downloads.
//! - `scripts`: what a shell sources.
//!
//! A completion starts no daemon, prints no error, and takes a second at most: what is not known by then is left
//! out. Names come from other users. Those with hidden characters are left out, and all others are quoted, so
//! that a shell takes a name as one word and never as a command.

mod facts;
mod scripts;
mod words;

use std::{
    ffi::{OsStr, OsString},
    io::Write as _,
    path::Path,
    sync::Arc,
};

use clap::{Arg, Command, CommandFactory as _, FromArgMatches as _};
use clap_complete::engine::{
    self, ArgValueCandidates, ArgValueCompleter, CompletionCandidate, PathCompleter, ValueCompleter as _,
};
use proto::domain::visible;

use self::{
    facts::{Ask, Facts},
    scripts::Shell,
    words::{Quote, Typed},
};
use super::{
    args::{Cli, Global},
    resolve,
};
use crate::config::Config;

/// The environment variable that names the shell whose line is to be completed.
const COMPLETE: &str = "COMPLETE";
/// The position of the word to complete.
const INDEX: &str = "_CLAP_COMPLETE_INDEX";
/// What stands between two candidates.
const SEPARATOR: &str = "_CLAP_IFS";

/// The script of a shell that gets its candidates from this program.
pub(super) fn script_of(shell: clap_complete::Shell) -> Option<&'static str> {
    Shell::of_path(&shell.to_string()).map(scripts::script)
}

/// Answers a shell that completes a line. Returns false if no shell asked.
pub(super) fn answer(arguments: &[OsString]) -> bool {
    let Some(shell) = std::env::var(COMPLETE).ok().and_then(|name| Shell::of_path(&name)) else {
        return false;
    };
    let separator = arguments.iter().position(|argument| argument == "--");
    let words = separator.and_then(|at| arguments.get(at + 1..)).unwrap_or_default();
    let out = if words.is_empty() { scripts::script(shell).to_owned() } else { candidates(shell, words) };
    // A shell that does not read its completions has no use for an error.
    let _ = std::io::stdout().lock().write_all(out.as_bytes());
    true
}

/// The candidates for a shell's line, as that shell reads them.
fn candidates(shell: Shell, words: &[OsString]) -> String {
    let variable = |name| std::env::var(name).ok();
    let index = match shell {
        Shell::Fish => words.len() - 1,
        Shell::Bash | Shell::Zsh => variable(INDEX).and_then(|text| text.parse().ok()).unwrap_or_default(),
    };
    let Some(line) = Line::of(shell, words, index) else { return String::new() };
    let found = line.complete(None);
    let write = |candidate: &CompletionCandidate| {
        let value = candidate.get_value().to_string_lossy();
        let help = candidate.get_help().map(|help| help.to_string());
        let help = help.as_deref().and_then(|help| help.lines().next());
        match (shell, help) {
            (Shell::Bash, _) => line.current.quoted(value.strip_prefix(&line.kept)?),
            (Shell::Zsh, None) => Some(zsh(&value)),
            (Shell::Zsh, Some(help)) => Some(format!("{}:{}", zsh(&value), help.replace('\\', "\\\\"))),
            (Shell::Fish, None) => Some(value.into_owned()),
            (Shell::Fish, Some(help)) => Some(format!("{value}\t{help}")),
        }
    };
    let written: Vec<String> = found.iter().filter_map(write).collect();
    match shell {
        Shell::Fish => written.iter().map(|one| format!("{one}\n")).collect(),
        Shell::Bash | Shell::Zsh => written.join(&variable(SEPARATOR).unwrap_or_else(|| "\n".to_owned())),
    }
}

/// A value as zsh's `_describe` takes it: a colon begins the description.
fn zsh(value: &str) -> String {
    value.replace('\\', "\\\\").replace(':', "\\:")
}

/// Completes the last word of a line of `peer shell`. Returns where that word begins, in bytes, and what may stand
/// in its place, quoted.
pub(super) fn complete_in_shell(config: &Config, before_cursor: &str) -> (usize, Vec<String>) {
    let mut words = words::split(before_cursor);
    let (start, current) = words.pop().unwrap_or_default();
    let mut typed = vec!["peer".to_owned()];
    typed.extend(words.into_iter().map(|(_, word)| word.with_home()));
    let index = typed.len();
    typed.push(current.text.clone());
    // The candidate takes the place of the opening quote too.
    let current = Typed { open: Quote::None, ..current };
    let line =
        Line { words: typed.into_iter().map(Into::into).collect(), index, current, kept: String::new() };
    let found = line.complete(Some(config.clone()));
    let quoted =
        found.iter().filter_map(|one| line.current.quoted(&one.get_value().to_string_lossy())).collect();
    (start, quoted)
}

/// A line whose word at `index` is to be completed.
#[derive(Debug)]
struct Line {
    /// The program and its arguments, without quotes.
    words: Vec<OsString>,
    index: usize,
    /// The word at `index` as it was typed.
    current: Typed,
    /// The part of the word at `index` that the shell keeps: bash ends a word at `=`.
    kept: String,
}

impl Line {
    /// Reads the words of a shell. `None` if there is no word at `index`.
    fn of(shell: Shell, words: &[OsString], index: usize) -> Option<Self> {
        let mut words: Vec<String> = words.iter().map(|word| word.to_string_lossy().into_owned()).collect();
        if words.len() == index {
            words.push(String::new());
        }
        let mut index = index;
        let mut kept = String::new();
        if shell == Shell::Bash {
            (words, index, kept) = words::join_at_equals(words, index);
        }
        // fish takes off the quotes of all words that are complete.
        let typed: Vec<Typed> = words
            .iter()
            .enumerate()
            .map(|(at, word)| match shell {
                Shell::Fish if at != index => {
                    Typed { text: word.clone(), tilde: word.starts_with('~'), ..Typed::default() }
                }
                Shell::Bash | Shell::Zsh | Shell::Fish => Typed::of(word),
            })
            .collect();
        let current = typed.get(index)?.clone();
        let before = typed.iter().take(index).map(Typed::with_home);
        let words = before.chain([current.text.clone()]).map(Into::into).collect();
        Some(Self { words, index, current, kept })
    }

    /// What may stand at the place of the word. `config` is what holds unless the line names another home.
    fn complete(&self, config: Option<Config>) -> Vec<CompletionCandidate> {
        let facts = Arc::new(self.facts(config));
        let mut command = completed(&Cli::command(), &facts);
        let directory = resolve::directory();
        let directory = Some(directory.as_path()).filter(|path| *path != Path::new(""));
        let found = engine::complete(&mut command, self.words.clone(), self.index, directory);
        let mut found = found.unwrap_or_default();
        found.retain(|one| visible::hidden(&one.get_value().to_string_lossy()).next().is_none());
        // A word that is not begun is rather a name than one of many flags.
        let is_flag = |one: &CompletionCandidate| one.get_value().as_encoded_bytes().starts_with(b"-");
        if self.current.text.is_empty() && !found.iter().all(is_flag) {
            found.retain(|one| !is_flag(one));
        }
        found
    }

    /// Whom to ask about the arguments of this line.
    fn facts(&self, config: Option<Config>) -> Facts {
        let before = self.words.get(..self.index).unwrap_or_default();
        let matches = Cli::command().ignore_errors(true).try_get_matches_from(before).ok();
        let global = matches.as_ref().and_then(|matches| Global::from_arg_matches(matches).ok());
        let global = global.unwrap_or_default();
        let group = matches.as_ref().and_then(|matches| {
            let (_, verb) = matches.subcommand()?;
            verb.try_get_one::<String>("group").ok().flatten().cloned()
        });
        let config = match config {
            Some(config) if global.home.is_none() => Some(config),
            _ => resolve::config(&global, None).ok(),
        };
        Facts { config, group, after_dashes: before.iter().any(|word| word == "--") }
    }
}

/// The command with a completion for each argument that the daemon knows about.
fn completed(command: &Command, facts: &Arc<Facts>) -> Command {
    let mut command = command.clone();
    command.build();
    command.mut_subcommands(|verb| {
        let name = verb.get_name().to_owned();
        let verb = verb.mut_subcommands(|inner| with_arguments(inner, &name, facts));
        with_arguments(verb, &name, facts)
    })
}

fn with_arguments(verb: Command, name: &str, facts: &Arc<Facts>) -> Command {
    let asked = |arg: &Arg| if arg.is_positional() { ask(name, arg.get_id().as_str()) } else { None };
    verb.mut_args(|arg| match asked(&arg) {
        None => arg,
        // Some of them are paths.
        Some(ask) if arg.get_id() == "names" || name == "upload" => {
            let facts = Arc::clone(facts);
            arg.add(ArgValueCompleter::new(move |word: &OsStr| {
                let typed = word.to_string_lossy();
                let mut found = facts.candidates(ask);
                found.retain(|one| one.get_value().to_string_lossy().starts_with(&*typed));
                found.extend(PathCompleter::any().complete(word));
                found
            }))
        }
        Some(ask) => {
            let facts = Arc::clone(facts);
            arg.add(ArgValueCandidates::new(move || facts.candidates(ask)))
        }
    })
}

/// What to ask the daemon for an argument of a verb.
fn ask(verb: &str, argument: &str) -> Option<Ask> {
    let ask = match (argument, verb) {
        ("group", "create-group") => return None,
        ("group", "join-group") => Ask::AllGroups,
        (
            "group",
            "list-requests" | "requests" | "accept-request" | "reject-request" | "remove-member" | "invite"
            | "list-invites" | "revoke-invite",
        ) => Ask::ManagedGroups,
        ("group", "transfer-group" | "delete-group" | "set-role") => Ask::OwnedGroups,
        ("token", "revoke-token") => Ask::Tokens,
        ("group", "stop-share") => Ask::GroupsOf(&Ask::Shares),
        ("group", "verify" | "update" | "cat") => Ask::GroupsOf(&Ask::Copies),
        ("group", "unsubscribe") => Ask::Subscriptions,
        ("group", "stop-download" | "explain") => Ask::GroupsOf(&Ask::RunningDownloads),
        ("group", "resume-download") => Ask::GroupsOf(&Ask::EndedDownloads),
        ("group", _) => Ask::Groups,
        ("user", "accept-request" | "reject-request") => Ask::Requests,
        ("user", "remove-member" | "transfer-group" | "set-role") => Ask::OtherMembers,
        ("name", "stop-share") => Ask::Shares,
        ("name", "verify" | "update" | "cat") => Ask::Copies,
        ("name", "stop-download" | "explain") => Ask::RunningDownloads,
        ("name", "resume-download") => Ask::EndedDownloads,
        ("name" | "names", _) => Ask::Files,
        _ => return None,
    };
    Some(ask)
}
