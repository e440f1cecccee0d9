//! The hosts of a test: one tracker and a few peers. Commands can run on each host, and each can be stopped,
//! killed and cut off from the network.
//!
//! - [`processes`]: plain processes on loopback, or each in a network namespace of its own.
//! - [`containers`]: the services of docker-compose.yml, from the images that [`images`] makes.
//! - [`programs`]: the programs that the hosts run.
//! - [`scenario`]: the scenes that several commands play on the hosts.
//! - [`classroom`]: many who join by one link and subscribe.
//! - [`cmd`]: runs any other program.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "printing is what these commands do")]
#![allow(clippy::disallowed_methods, reason = "nothing here is async: a thread may sleep between two polls")]

pub mod classroom;
pub mod cmd;
pub mod containers;
pub mod images;
pub mod processes;
pub mod programs;
pub mod scenario;

use std::{
    fmt, fs,
    path::Path,
    process::{Command, Output},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

/// A host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    /// The tracker.
    Tracker,
    /// A peer, counted from 1.
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
pub struct Ended {
    /// The exit code, or `None` if a signal ended it.
    pub code: Option<i32>,
    /// The time from the signal to the end.
    pub took: Duration,
}

/// A tracker and peers. Everything that it started is removed when it is dropped.
pub trait Hosts {
    /// A description for the person who watches.
    fn describe(&self) -> String;
    /// Returns a command that runs on `host`, in the directory of its files.
    fn command(&self, host: Host, argv: &[&str]) -> Command;
    /// Returns a grpcurl command towards the tracker, with `flags` before and `words` after the address.
    fn grpcurl(&self, flags: &[&str], words: &[&str]) -> Command;
    /// Starts a service that isn't running, and waits until it answers.
    fn start(&mut self, host: Host) -> Result<()>;
    /// Sends SIGTERM and waits for the end.
    fn stop(&mut self, host: Host) -> Result<Ended>;
    /// Sends SIGKILL.
    fn kill(&mut self, host: Host) -> Result<()>;
    /// Takes the host off the network. Its open connections stay open.
    fn cut(&mut self, host: Host) -> Result<()>;
    /// Reconnects the host to the network, perhaps at another address.
    fn heal(&mut self, host: Host) -> Result<()>;
    /// Creates a host `to` with another name and address and the volume of `from`. Does not start its
    /// service.
    fn lend(&mut self, from: Host, to: Host) -> Result<()>;
    /// The URL of the tracker on its own host.
    fn tracker_url(&self) -> String;
    /// Returns the log of a host's service so far.
    fn log(&self, host: Host) -> Result<String>;
}

/// The exit code and the output of a command.
pub struct Answer {
    /// The exit code.
    pub code: i32,
    /// What it printed on stdout.
    pub stdout: String,
    /// What it printed on stderr.
    pub stderr: String,
}

impl Answer {
    fn of(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        // A process that a signal ended has no code. A shell would report 128 plus the signal's number.
        let code = output.status.code().unwrap_or(128);
        Self { code, stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }

    /// Parses the output of a verb with `--json`.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.stdout).with_context(|| format!("not JSON: {:?}", self.stdout))
    }
}

/// Runs `peer ARGS` on peer `n` as a new process and returns its answer, whatever the exit code.
pub fn try_peer(hosts: &dyn Hosts, n: usize, args: &[&str], stdin: &str) -> Result<Answer> {
    let argv = [&["peer"], args].concat();
    Ok(Answer::of(&cmd::output(hosts.command(Host::Peer(n), &argv), stdin.as_bytes())?))
}

/// Prints the command, runs it and requires this exit code.
pub fn peer_exits(hosts: &dyn Hosts, code: i32, n: usize, args: &[&str], stdin: &str) -> Result<Answer> {
    let answer = try_peer(hosts, n, args, stdin)?;
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

/// Prints the command, runs it and requires success.
pub fn peer(hosts: &dyn Hosts, n: usize, args: &[&str]) -> Result<Answer> {
    peer_exits(hosts, 0, n, args, "")
}

/// Returns the JSON that a verb prints with `--json`. Does not print the command.
pub fn peer_json(hosts: &dyn Hosts, n: usize, args: &[&str]) -> Result<Value> {
    let answer = try_peer(hosts, n, &[args, &["--json"]].concat(), "")?;
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

/// Copies a file into the directory of `host`.
pub fn put(hosts: &dyn Hosts, host: Host, from: &Path, name: &str) -> Result<()> {
    let mut command = hosts.command(host, &["sh", "-c", "cat >\"$1\"", "sh", name]);
    let file = fs::File::open(from).with_context(|| format!("{} can't be opened", from.display()))?;
    let status = command.stdin(file).status()?;
    if !status.success() {
        bail!("{} could not be copied to {host} ({status})", from.display());
    }
    Ok(())
}

/// Whether the file at `path` on `host` has the same bytes as the local file `here`.
pub fn same(hosts: &dyn Hosts, host: Host, path: &str, here: &Path) -> Result<bool> {
    let there = cmd::capture(hosts.command(host, &["sha256sum", path]))?;
    let mut command = cmd::command("sha256sum", &[]);
    command.arg(here);
    let here = cmd::capture(command)?;
    Ok(there.split_whitespace().next() == here.split_whitespace().next())
}

/// Writes to a host's volume until it is full.
pub fn fill(hosts: &dyn Hosts, host: Host) -> Result<()> {
    let full = "cat /dev/zero >fill";
    let answer = Answer::of(&cmd::output(hosts.command(host, &["sh", "-c", full]), b"")?);
    if !answer.stderr.contains("No space left") {
        bail!("{host}'s volume should be full by now: {}", answer.stderr.trim());
    }
    Ok(())
}

/// Removes what [`fill`] wrote.
pub fn unfill(hosts: &dyn Hosts, host: Host) -> Result<()> {
    cmd::capture(hosts.command(host, &["rm", "fill"])).map(drop)
}

/// Polls until there is an answer, for at most `limit`.
pub fn wait_for<T>(what: &str, limit: Duration, mut ask: impl FnMut() -> Result<Option<T>>) -> Result<T> {
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
