//! Where a story is played: one tracker and a few peers that can be told things, stopped, killed and cut off.
//!
//! - [`processes`]: plain processes on loopback, or each in a network namespace of its own.
//! - [`containers`]: docker-compose.yml as it is.

pub(crate) mod containers;
pub(crate) mod processes;

use std::{
    fmt, fs,
    path::Path,
    process::{Command, Output},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::cmd;

/// Who is on stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Host {
    Tracker,
    /// Counted from 1.
    Peer(usize),
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tracker => f.write_str("tracker"),
            Self::Peer(n) => write!(f, "peer{n}"),
        }
    }
}

/// How a host's service ended.
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) took: Duration,
}

/// A tracker and peers. Whatever it started is gone when it is dropped.
pub(crate) trait Stage {
    /// For the person who watches.
    fn describe(&self) -> String;
    /// A command that runs on `host`, in the folder where its files are.
    fn command(&self, host: Host, argv: &[&str]) -> Command;
    /// grpcurl with `flags`, towards the tracker, with `words` after the address.
    fn grpcurl(&self, flags: &[&str], words: &[&str]) -> Command;
    /// Starts a service that isn't running, and waits until it answers.
    fn start(&mut self, host: Host) -> Result<()>;
    /// SIGTERM, then waits.
    fn stop(&mut self, host: Host) -> Result<Ended>;
    /// SIGKILL.
    fn kill(&mut self, host: Host) -> Result<()>;
    /// Takes the host off the network. What it has open stays open.
    fn cut(&mut self, host: Host) -> Result<()>;
    /// Brings it back, perhaps at another address.
    fn heal(&mut self, host: Host) -> Result<()>;
    /// Makes a host `to` of another name and address with the volume of `from`; its service isn't started.
    fn lend(&mut self, from: Host, to: Host) -> Result<()>;
    /// The tracker as its own host reaches it.
    fn tracker_url(&self) -> String;
    /// What the service of a host logged so far.
    fn log(&self, host: Host) -> Result<String>;
}

/// What a command answered.
pub(crate) struct Answer {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Answer {
    fn of(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        // Ended by a signal: as a shell would say it, near enough.
        let code = output.status.code().unwrap_or(128);
        Self { code, stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }

    /// What `--json` printed.
    pub(crate) fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.stdout).with_context(|| format!("not JSON: {:?}", self.stdout))
    }
}

/// Runs `peer ARGS` on peer `n` and gives the answer, whatever it is. A new process each time, as a person would.
pub(crate) fn try_peer(stage: &dyn Stage, n: usize, args: &[&str], stdin: &str) -> Result<Answer> {
    let argv = [&["peer"], args].concat();
    Ok(Answer::of(&cmd::output(stage.command(Host::Peer(n), &argv), stdin.as_bytes())?))
}

/// Shows the line, runs it and requires its exit code.
pub(crate) fn peer_exits(
    stage: &dyn Stage,
    code: i32,
    n: usize,
    args: &[&str],
    stdin: &str,
) -> Result<Answer> {
    let answer = try_peer(stage, n, args, stdin)?;
    let shown = if code == 0 { String::new() } else { format!("    # exit {code}") };
    println!("  peer{n}$ peer {}{shown}", args.join(" "));
    if answer.code != code {
        let (stdout, stderr) = (answer.stdout.trim(), answer.stderr.trim());
        bail!(
            "`peer {}` on peer{n} exited with {}, not {code}\n{stdout}\n{stderr}",
            args.join(" "),
            answer.code
        );
    }
    Ok(answer)
}

/// Shows the line, runs it and requires success.
pub(crate) fn peer(stage: &dyn Stage, n: usize, args: &[&str]) -> Result<Answer> {
    peer_exits(stage, 0, n, args, "")
}

/// The JSON that a verb prints with `--json`; not shown.
pub(crate) fn peer_json(stage: &dyn Stage, n: usize, args: &[&str]) -> Result<Value> {
    let answer = try_peer(stage, n, &[args, &["--json"]].concat(), "")?;
    if answer.code != 0 {
        bail!(
            "`peer {} --json` on peer{n} exited with {}: {}",
            args.join(" "),
            answer.code,
            answer.stderr.trim()
        );
    }
    answer.json()
}

/// Copies a file into the folder of `host`.
pub(crate) fn put(stage: &dyn Stage, host: Host, from: &Path, name: &str) -> Result<()> {
    let mut command = stage.command(host, &["sh", "-c", "cat >\"$1\"", "sh", name]);
    let file = fs::File::open(from).with_context(|| format!("{} can't be opened", from.display()))?;
    let status = command.stdin(file).status()?;
    if !status.success() {
        bail!("{} could not be copied to {host} ({status})", from.display());
    }
    Ok(())
}

/// Whether the file at `path` on `host` holds the same bytes as the one here.
pub(crate) fn same(stage: &dyn Stage, host: Host, path: &str, here: &Path) -> Result<bool> {
    let there = cmd::capture(stage.command(host, &["sha256sum", path]))?;
    let mut command = cmd::command("sha256sum", &[]);
    command.arg(here);
    let here = cmd::capture(command)?;
    Ok(there.split_whitespace().next() == here.split_whitespace().next())
}

/// Writes to a host's volume until nothing more fits.
pub(crate) fn fill(stage: &dyn Stage, host: Host) -> Result<()> {
    let full = "cat /dev/zero >fill";
    let answer = Answer::of(&cmd::output(stage.command(host, &["sh", "-c", full]), b"")?);
    if !answer.stderr.contains("No space left") {
        bail!("{host}'s volume should be full by now: {}", answer.stderr.trim());
    }
    Ok(())
}

/// Takes that away again.
pub(crate) fn unfill(stage: &dyn Stage, host: Host) -> Result<()> {
    cmd::capture(stage.command(host, &["rm", "fill"])).map(drop)
}

/// Asks again and again until there is an answer, for at most `limit`.
pub(crate) fn wait_for<T>(
    what: &str,
    limit: Duration,
    mut ask: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        let answer = ask();
        match answer {
            Ok(Some(answer)) => return Ok(answer),
            _ if start.elapsed() < limit => thread::sleep(Duration::from_millis(100)),
            Ok(None) => bail!("{what}: not within {} s", limit.as_secs()),
            Err(error) => return Err(error.context(format!("{what}: not within {} s", limit.as_secs()))),
        }
    }
}
