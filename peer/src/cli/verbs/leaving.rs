//! What others lose when this peer stops serving: asks first, refuses, or hands it over.

use std::{
    io::{self, IsTerminal as _, Write as _},
    time::Duration,
};

use proto::pb;

use crate::{
    cli::{args::Leaving, context::Context, exit::Failure, link::Daemon, render},
    units,
};

/// How long the daemon may take to find out. If the tracker is away, nobody knows.
const LIMIT: Duration = Duration::from_secs(4);
/// The time between two looks while the rest is handed over.
const LOOK: Duration = Duration::from_secs(1);
/// The number of looks in a row that may fail.
const PATIENCE: u32 = 30;
/// The most files that are named.
const NAMED: usize = 5;

/// Checks that others do not lose what they fetch from this peer: all of it, that of a group, or one file.
///
/// # Errors
/// Fails when they would, and the user does not want that.
pub(super) async fn check(
    context: &Context,
    daemon: &Daemon,
    leaving: &Leaving,
    group: Option<&str>,
    name: Option<&str>,
) -> Result<(), Failure> {
    if leaving.yes || (context.config.yes && !leaving.drain) {
        return Ok(());
    }
    let request = pb::ListLastCopiesRequest {
        group_id: group.unwrap_or_default().to_owned(),
        name: name.unwrap_or_default().to_owned(),
        copies: leaving.copies.unwrap_or(1),
        drain: leaving.drain,
    };
    let look = async || {
        let found = async { daemon.control().list_last_copies(request.clone()).await };
        let found = tokio::time::timeout(LIMIT, found).await;
        found.ok().and_then(Result::ok).map(|found| found.into_inner().files)
    };
    // If that fails, the verb itself says what is wrong.
    let Some(mut files) = look().await else { return Ok(()) };
    if leaving.drain {
        let bar = context.style.bar("handing over", 0);
        let mut failures = 0;
        while !files.is_empty() {
            tokio::time::sleep(LOOK).await;
            match look().await {
                Some(found) => (files, failures) = (found, 0),
                None if failures < PATIENCE => failures += 1,
                None => {
                    let message =
                        "nobody knows any more who has what: the daemon or its tracker does not answer";
                    return Err(Failure::last_copy(message));
                }
            }
        }
        bar.clear();
        return Ok(());
    }
    let Some(text) = told(&files) else { return Ok(()) };
    if context.config.json || !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Err(Failure::last_copy(format!(
            "{text}; `--drain` hands it over first, `--yes` goes on at once"
        )));
    }
    let read = tokio::task::spawn_blocking(move || {
        let mut out = io::stderr().lock();
        write!(out, "{text}. Go on all the same? [y/N] ").and_then(|()| out.flush())?;
        let mut line = String::new();
        io::stdin().read_line(&mut line).map(|_| line.trim().to_lowercase())
    });
    let answer = context.typing.during(read).await.map_err(io::Error::other).and_then(|line| line);
    match answer.map_err(|error| Failure::io("the terminal", &error))?.as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(Failure::last_copy("nothing was stopped")),
    }
}

/// What is at risk, in one line.
fn told(files: &[pb::LastCopy]) -> Option<String> {
    if files.is_empty() {
        return None;
    }
    let one = |file: &pb::LastCopy| {
        let (name, group) = (render::name(&file.name), render::name(&file.group_id));
        format!("{} fetching {name} of {group}", units::count(file.fetching as usize, "other peer"))
    };
    let mut named: Vec<_> = files.iter().take(NAMED).map(one).collect();
    if files.len() > NAMED {
        named.push(format!("{} more", units::count(files.len() - NAMED, "file")));
    }
    Some(format!("others would lose the only copy: {}", named.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_at_risk_is_named() {
        let file = |name: &str, fetching| pb::LastCopy {
            group_id: "g1".into(),
            name: name.into(),
            copies: 0,
            fetching,
        };
        assert_eq!(told(&[]), None);
        assert_eq!(
            told(&[file("a", 1), file("b", 30)]).as_deref(),
            Some(
                "others would lose the only copy: 1 other peer fetching a of g1, 30 other peers fetching b of g1"
            )
        );
        let many: Vec<_> = (0..9).map(|number| file(&number.to_string(), 1)).collect();
        assert!(told(&many).is_some_and(|text| text.ends_with("4 files more")));
    }
}
