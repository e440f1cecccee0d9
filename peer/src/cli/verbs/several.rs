//! Verbs on several files at once. Each file is handled even if another one fails, each failure is named, and the
//! exit code is that of the first failure, in the order in which the files were named.

use std::cell::RefCell;

use futures_util::stream::{self, StreamExt as _};
use proto::{pb, reason::Reason};
use serde_json::{Value, json};

use crate::{
    cli::{
        context::Context,
        exit::{Exit, Failure},
        hints, render,
    },
    patterns::{Exceptions, Patterns},
    units,
};

/// The downloads of one call that run at a time. The daemon takes more, but each needs connections and memory.
pub(super) const AT_ONCE: usize = 8;

/// How the files of one call ended so far.
pub(super) struct Ends<'a> {
    context: &'a Context,
    group: &'a str,
    /// What the objects are called in JSON.
    plural: &'static str,
    all: usize,
    objects: Vec<Value>,
    /// The first failure, by the number of its file.
    first: Option<(usize, Exit)>,
    failed: usize,
}

impl<'a> Ends<'a> {
    /// No file of `all` has ended.
    pub(super) fn new(context: &'a Context, group: &'a str, plural: &'static str, all: usize) -> Self {
        Self { context, group, plural, all, objects: Vec::new(), first: None, failed: 0 }
    }

    /// The number of files that have ended.
    pub(super) fn count(&self) -> usize {
        self.objects.len() + self.failed
    }

    /// Notes the end of a file. Prints its line, or its failure with the name that it was given by.
    pub(super) async fn note(&mut self, number: usize, given: &str, end: Result<(Value, String), Failure>) {
        match end {
            Ok((object, text)) => {
                if !self.context.style.json {
                    self.context.style.done(&object, &text);
                }
                self.objects.push(object);
            }
            Err(failure) => {
                let mut failure = hints::about(failure, Some(self.group), self.context).await;
                if !failure.message.contains(given) {
                    failure.message = format!("{}: {}", render::name(given), failure.message);
                }
                self.context.style.failure(&failure);
                self.failed += 1;
                if self.first.is_none_or(|(first, _)| number < first) {
                    self.first = Some((number, failure.exit));
                }
            }
        }
    }

    /// Prints the objects, and returns the exit code.
    pub(super) fn finish(self) -> Exit {
        if self.context.style.json {
            self.context.style.result(&json!({self.plural: self.objects}), "");
        } else if self.failed > 0 && !self.context.style.quiet {
            render::note(&format!("{} of {} failed", self.failed, units::count(self.all, "file")));
        }
        self.first.map_or(Exit::Done, |(_, exit)| exit)
    }
}

/// What is shown of several downloads while they run.
#[derive(Debug, Default)]
pub(super) struct Board {
    /// The running downloads, by number.
    running: RefCell<std::collections::BTreeMap<usize, pb::Download>>,
}

impl Board {
    /// Notes the state of a download.
    pub(super) fn set(&self, number: usize, download: pb::Download) {
        self.running.borrow_mut().insert(number, download);
    }

    /// Removes a download that has ended.
    pub(super) fn remove(&self, number: usize) {
        self.running.borrow_mut().remove(&number);
    }

    /// The first of the downloads that run.
    pub(super) fn first(&self) -> Option<pb::Download> {
        self.running.borrow().values().next().cloned()
    }

    /// The number of downloads that run.
    pub(super) fn count(&self) -> usize {
        self.running.borrow().len()
    }

    /// The downloads, one on each line, and how many files are done.
    pub(super) fn text(&self, done: usize, all: usize, width: usize) -> String {
        let running = self.running.borrow();
        let mut text: String = running.values().map(|one| render::download_line(one, width) + "\n").collect();
        let rate = units::rate(running.values().map(|one| one.rate).sum());
        text += &format!("{done} of {} done  {rate}", units::count(all, "file"));
        text
    }
}

/// Runs a task for each of the names, at most [`AT_ONCE`] at a time, in order. Yields each one's number and outcome.
pub(super) fn each<'a, T, F>(
    names: &'a [String],
    task: impl Fn(usize, &'a str) -> F + 'a,
) -> impl futures_util::Stream<Item = (usize, T)> + 'a
where
    F: Future<Output = T> + 'a,
    T: 'a,
{
    stream::iter(names.iter().enumerate())
        .map(move |(number, name)| {
            let task = task(number, name);
            async move { (number, task.await) }
        })
        .buffer_unordered(AT_ONCE)
}

/// Which of the names match one of the patterns.
///
/// # Errors
/// Fails when a pattern is malformed, or when no name matches.
pub(super) fn matching(names: Vec<String>, patterns: &[String]) -> Result<Vec<String>, Failure> {
    let all = Patterns::new(patterns, Exceptions::Allowed).map_err(Failure::usage)?;
    let found: Vec<_> = names.into_iter().filter(|name| all.pick(name, false)).collect();
    if found.is_empty() {
        let patterns = patterns.join(" ");
        return Err(Failure::of(
            Reason::FileNotFound,
            format!("no file of the group matches {patterns}; `peer list-files GROUP` lists them"),
        ));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn patterns_pick_names() {
        let all = || names(&["a.mp4", "b.MP4", "c.srt", "[x].mp4"]);
        let pick = |patterns: &[&str]| matching(all(), &names(patterns));
        assert_eq!(pick(&["*.mp4"]), Ok(names(&["a.mp4", "[x].mp4"])));
        assert_eq!(pick(&["*.srt", "b*"]), Ok(names(&["b.MP4", "c.srt"])));
        assert_eq!(pick(&["*.mp4", "!a*"]), Ok(names(&["[x].mp4"])));
        assert_eq!(pick(&["*.iso"]).map_err(|failure| failure.exit), Err(Exit::NotFound));
        assert_eq!(pick(&["a[".to_owned().as_str()]).map_err(|failure| failure.exit), Err(Exit::Usage));
    }

    #[test]
    fn a_board_shows_what_runs_and_how_much_is_done() {
        let board = Board::default();
        for (number, name) in [(4, "e"), (2, "c")] {
            board.set(number, pb::Download { name: name.into(), size: 10, ..Default::default() });
        }
        let text = board.text(3, 9, 80);
        assert!(text.starts_with("[Q] [] c  0%") && text.ends_with("3 of 9 files done  0 B/s"), "{text}");
        board.remove(2);
        assert_eq!((board.first().map(|one| one.name), board.count()), (Some("e".into()), 1));
    }
}
