//! Hooks: programs that run when something has happened. They tell others; they decide nothing.
//!
//! A hook runs without a shell, with what happened in variables `MINITORRENT_…`. Few run at a time and not for long.
//! What one prints goes to the log. Whether it fails changes nothing else.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use proto::domain::{FileName, GroupId};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    process::Command,
    sync::Semaphore,
};

/// Hooks that run at a time.
const AT_ONCE: usize = 4;
/// Hooks that run or wait. More are left out, and the log says so.
const MOST: usize = 256;
/// How long one may run.
const LIMIT: Duration = Duration::from_mins(5);
/// The bytes of its output that the log gets.
const MOST_OUTPUT: u64 = 16 << 10;

/// What has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A download is complete.
    Completed,
    /// A download has failed.
    Failed,
    /// A file was published in a group of the user.
    Published,
    /// The user has become a member of a group.
    Joined,
}

impl Event {
    fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Published => "published",
            Self::Joined => "joined",
        }
    }
}

/// The program and its arguments; empty for none.
pub(crate) type Line = Vec<String>;

/// The hooks of the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct HookLines {
    /// For [`Event::Completed`].
    pub completed: Line,
    /// For [`Event::Failed`].
    pub failed: Line,
    /// For [`Event::Published`].
    pub published: Line,
    /// For [`Event::Joined`].
    pub joined: Line,
}

/// What a hook is about.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub event: Event,
    pub group: GroupId,
    pub name: Option<FileName>,
    /// Where the file is or was to be.
    pub path: Option<PathBuf>,
}

/// Runs hooks. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Hooks {
    lines: Arc<HookLines>,
    running: Arc<Semaphore>,
    places: Arc<Semaphore>,
    /// Where they run.
    directory: Arc<Path>,
    limit: Duration,
}

impl Hooks {
    /// Hooks that run in this directory.
    pub(crate) fn new(lines: HookLines, directory: &Path) -> Self {
        Self {
            lines: Arc::new(lines),
            running: Arc::new(Semaphore::new(AT_ONCE)),
            places: Arc::new(Semaphore::new(MOST)),
            directory: directory.into(),
            limit: LIMIT,
        }
    }

    /// Runs the hook of the event, and the program that goes with what it is about, if there are any. Returns at once.
    pub(crate) fn run(&self, facts: &Facts, own: &[String]) {
        let line = match facts.event {
            Event::Completed => &self.lines.completed,
            Event::Failed => &self.lines.failed,
            Event::Published => &self.lines.published,
            Event::Joined => &self.lines.joined,
        };
        for line in [line.as_slice(), own].into_iter().filter(|line| !line.is_empty()) {
            let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
                tracing::warn!(hook = line[0], "too many hooks wait: this one is left out");
                continue;
            };
            let (hooks, line, facts) = (self.clone(), line.to_vec(), facts.clone());
            tokio::spawn(async move {
                let _place = place;
                // The semaphore is never closed.
                let _turn = hooks.running.acquire().await;
                hooks.run_one(&line, &facts).await;
            });
        }
    }

    async fn run_one(&self, line: &[String], facts: &Facts) {
        let (hook, event) = (&line[0], facts.event.as_str());
        let mut command = Command::new(hook);
        command.args(&line[1..]).current_dir(&self.directory);
        command.env("MINITORRENT_EVENT", event).env("MINITORRENT_GROUP", facts.group.as_str());
        command.env("MINITORRENT_NAME", facts.name.as_ref().map_or("", FileName::as_str));
        command.env("MINITORRENT_PATH", facts.path.as_deref().unwrap_or(Path::new("")));
        // A group of its own, so that what it starts can be ended with it.
        command.process_group(0).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) => return tracing::warn!(hook, event, %error, "a hook can't be started"),
        };
        let group = child.id().and_then(|id| rustix::process::Pid::from_raw(id.cast_signed()));
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let work = async { tokio::join!(child.wait(), log(hook, out), log(hook, err)).0 };
        match tokio::time::timeout(self.limit, work).await {
            Ok(Ok(status)) if status.success() => tracing::info!(hook, event, "a hook has ended"),
            Ok(Ok(status)) => tracing::warn!(hook, event, %status, "a hook has failed"),
            Ok(Err(error)) => tracing::warn!(hook, event, %error, "a hook can't be waited for"),
            Err(_) => {
                if let Some(group) = group {
                    // It may have ended by itself just now.
                    let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
                }
                tracing::warn!(
                    hook,
                    event,
                    seconds = self.limit.as_secs(),
                    "a hook took too long and was ended"
                );
            }
        }
    }
}

/// Writes the first lines of what a hook prints to the log, and reads the rest, so that the hook is not held up.
async fn log(hook: &str, output: Option<impl AsyncRead + Unpin>) {
    let Some(mut output) = output else { return };
    let mut text = Vec::new();
    // What can't be read has ended.
    let _ = (&mut output).take(MOST_OUTPUT).read_to_end(&mut text).await;
    for line in String::from_utf8_lossy(&text).lines() {
        tracing::info!(hook, line, "a hook says");
    }
    let _ = tokio::io::copy(&mut output, &mut tokio::io::sink()).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Line {
        ["/bin/sh", "-c", script].map(str::to_owned).to_vec()
    }

    fn facts(event: Event) -> Facts {
        Facts {
            event,
            group: "our films".parse().expect("a group"),
            name: Some("a'b $(c).mp4".parse().expect("a name")),
            path: Some("/data/a'b $(c).mp4".into()),
        }
    }

    async fn read_when_there(path: &Path) -> String {
        loop {
            match tokio::fs::read_to_string(path).await {
                Ok(text) if text.ends_with('\n') => return text,
                _ => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    }

    #[tokio::test]
    async fn a_hook_gets_the_facts_as_they_are() {
        let directory = tempfile::tempdir().expect("a directory");
        let script = r#"printf '%s|%s|%s|%s\n' "$MINITORRENT_EVENT" "$MINITORRENT_GROUP" "$MINITORRENT_NAME" "$MINITORRENT_PATH""#;
        let lines = HookLines { completed: sh(&format!("{script} > all")), ..HookLines::default() };
        let hooks = Hooks::new(lines, directory.path());
        hooks.run(&facts(Event::Joined), &[]);
        hooks.run(&facts(Event::Completed), &sh(&format!("{script} > own")));
        for name in ["all", "own"] {
            let told = read_when_there(&directory.path().join(name)).await;
            assert_eq!(told, "completed|our films|a'b $(c).mp4|/data/a'b $(c).mp4\n", "{name}");
        }
    }

    #[tokio::test]
    async fn one_that_fails_or_hangs_holds_up_no_other() {
        let directory = tempfile::tempdir().expect("a directory");
        let hooks =
            Hooks { limit: Duration::from_millis(300), ..Hooks::new(HookLines::default(), directory.path()) };
        for _ in 0..AT_ONCE {
            hooks.run(&facts(Event::Failed), &sh("sleep 1000 & sleep 1000"));
        }
        hooks.run(&facts(Event::Failed), &["/no/such/program".to_owned()]);
        hooks.run(&facts(Event::Failed), &sh("yes | head -c 1000000; exit 3"));
        hooks.run(&facts(Event::Failed), &sh("echo done > after"));
        assert_eq!(read_when_there(&directory.path().join("after")).await, "done\n");
        // There is room again for as many as before.
        while hooks.places.available_permits() < MOST {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        for _ in 0..MOST {
            hooks.run(&facts(Event::Failed), &sh("sleep 1000"));
        }
        assert_eq!(hooks.places.available_permits(), 0);
        hooks.run(&facts(Event::Failed), &sh("echo x > never"));
        assert!(!directory.path().join("never").exists());
    }
}
