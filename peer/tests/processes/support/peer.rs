//! A peer: a home, its daemon, and the verbs that run on it.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{Tracker, wait_for};

pub(crate) const PASSWORD: &str = "nine lemons roll uphill\n";

/// The output of a verb and how it ended.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) took: Duration,
}

impl Done {
    /// Feeds `input` to a child that was started at `started`, and waits until the child ends.
    pub(crate) fn since(mut child: Child, input: &str, started: Instant) -> Self {
        if let Some(mut stdin) = child.stdin.take() {
            // The child may end without reading.
            let _ = stdin.write_all(input.as_bytes());
        }
        let output = child.wait_with_output().expect("it ends");
        Self { took: started.elapsed(), ..output.into() }
    }

    /// Returns the reason of the error that `--json` printed.
    pub(crate) fn reason(&self) -> String {
        let last = self.stderr.lines().last().unwrap_or_default();
        let error: Value = serde_json::from_str(last).unwrap_or_else(|error| panic!("{error}: {self:?}"));
        error["error"]["reason"].as_str().expect("a reason").to_owned()
    }

    /// Returns the object that `--json` printed.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(self.stdout.trim()).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

impl From<Output> for Done {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            took: Duration::ZERO,
        }
    }
}

/// A peer's home. Its daemon ends when this is dropped.
pub(crate) struct Peer {
    pub(crate) user: String,
    dir: tempfile::TempDir,
    env: Vec<(String, String)>,
}

impl Peer {
    /// Creates a new home. No daemon runs yet.
    pub(crate) fn new(tracker: &Tracker, user: &str, env: &[(&str, &str)]) -> Self {
        let (tracker, ca) = (tracker.url(), tracker.ca().display().to_string());
        let known = [("PEER_TRACKER", tracker), ("PEER_CA", ca.as_str())];
        Self::alone(user, &[&known, env].concat())
    }

    /// Creates a new home whose tracker is set only by `env`.
    pub(crate) fn alone(user: &str, env: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let home = dir.path().join("home").display().to_string();
        // Most tests that stop a peer do so to see what others do then.
        let all = [("PEER_HOME", home.as_str()), ("PEER_LISTEN", "127.0.0.1:0"), ("PEER_YES", "1")];
        let all =
            all.iter().chain(env).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Self { user: user.to_owned(), dir, env: all }
    }

    /// Sets an environment variable for everything that runs from now on.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.env.push((name.to_owned(), value.to_owned()));
    }

    /// A path in this peer's own directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_peer"));
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PEER_")) {
            command.env_remove(name);
        }
        command.args(args).current_dir(self.dir.path()).stdin(Stdio::null());
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs a verb.
    pub(crate) fn run(&self, args: &[&str]) -> Done {
        self.run_with(args, "")
    }

    /// Runs a verb that reads `input`.
    pub(crate) fn run_with(&self, args: &[&str], input: &str) -> Done {
        let started = Instant::now();
        Done::since(self.spawn(args), input, started)
    }

    /// Runs a verb that is given as a line.
    pub(crate) fn line(&self, line: &str) -> Done {
        self.run(&words(line))
    }

    /// Runs verbs in the shell.
    pub(crate) fn shell(&self, lines: &[&str]) -> Done {
        self.run_with(&["shell"], &lines.join("\n"))
    }

    /// Starts a verb.
    pub(crate) fn spawn(&self, args: &[&str]) -> Child {
        let mut command = self.command(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("the peer runs")
    }

    /// Runs a verb, given as a line, that must succeed. Returns the object that it prints.
    #[track_caller]
    pub(crate) fn json(&self, line: &str) -> Value {
        self.ok(&words(&format!("{line} --json"))).json()
    }

    /// Runs a verb, given as a line, that must end with that exit code. Returns the reason of its error.
    #[track_caller]
    pub(crate) fn refused(&self, code: i32, line: &str) -> String {
        self.fails(code, &words(&format!("{line} --json"))).reason()
    }

    /// Returns the daemon's log.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.path("home/daemon.log")).unwrap_or_default()
    }

    /// Starts a daemon in the foreground. Returns also the line that it prints.
    pub(crate) fn daemon(&self, args: &[&str]) -> (Foreground, String) {
        Foreground::start(self.command(&[&["daemon"], args].concat()))
    }

    /// Runs a verb that must succeed.
    pub(crate) fn ok(&self, args: &[&str]) -> Done {
        let done = self.run(args);
        assert_eq!(done.code, 0, "{} {args:?}: {done:?}", self.user);
        done
    }

    /// Runs a verb that must end with that exit code.
    pub(crate) fn fails(&self, code: i32, args: &[&str]) -> Done {
        let done = self.run(args);
        assert_eq!(done.code, code, "{} {args:?}: {done:?}", self.user);
        done
    }

    /// Runs a verb with a password on standard input.
    pub(crate) fn with_password(&self, args: &[&str], password: &str) -> Done {
        self.run_with(&[args, &["--password-stdin"]].concat(), password)
    }

    /// As [`Self::with_password`] with this user's password. The verb must succeed.
    pub(crate) fn ok_with_password(&self, args: &[&str]) -> Done {
        let done = self.with_password(args, PASSWORD);
        assert_eq!(done.code, 0, "{} {args:?}: {done:?}", self.user);
        done
    }

    /// Puts a file of pseudo-random bytes into this peer's directory and shares it.
    pub(crate) fn shares(&self, group: &str, name: &str, bytes: usize, seed: u64) -> PathBuf {
        let path = self.path(name);
        super::make_file(&path, bytes, seed);
        self.ok(&["upload", &path.display().to_string(), group]);
        path
    }

    /// Shares a copy of a file that the group already has.
    pub(crate) fn seeds_copy(&self, group: &str, original: &Path) -> PathBuf {
        let path = self.path(&original.file_name().expect("a name").to_string_lossy());
        fs::copy(original, &path).expect("copied");
        self.ok(&["upload", &path.display().to_string(), group]);
        path
    }

    /// Starts a download into `out/` and returns where the file will be.
    pub(crate) fn starts(&self, group: &str, name: &str) -> PathBuf {
        self.ok(&["download", group, name, "out/", "-d"]);
        self.path("out").join(name)
    }

    /// Returns the download as `show-downloads --json` shows it.
    pub(crate) fn download(&self, group: &str, name: &str) -> Option<Value> {
        let shown = self.ok(&["show-downloads", "--json"]).json();
        let downloads = shown["downloads"].as_array().expect("a list").clone();
        downloads.into_iter().find(|download| download["group"] == group && download["name"] == name)
    }

    /// Waits until a download is complete. Returns its state then.
    pub(crate) fn waits_until_complete(&self, group: &str, name: &str) -> Value {
        wait_for("the download completes", || {
            let download = self.download(group, name)?;
            assert_ne!(download["state"], "failed", "{download}");
            (download["state"] == "complete").then_some(download)
        })
    }

    /// Waits until at least `bytes` bytes are verified, and fewer than all.
    pub(crate) fn waits_until_midway(&self, group: &str, name: &str, bytes: u64) -> u64 {
        wait_for("the download is under way", || {
            let download = self.download(group, name)?;
            let (done, size) = (download["done_bytes"].as_u64()?, download["size"].as_u64()?);
            assert!(size == 0 || done < size, "it was over before anything could be done to it: {download}");
            (done >= bytes).then_some(done)
        })
    }

    /// Returns the bytes of a file that this peer has sent.
    pub(crate) fn uploaded(&self, group: &str, name: &str) -> u64 {
        let shown = self.ok(&["list-shares", "--json"]).json();
        let shares = shown["shares"].as_array().expect("a list");
        let of = shares.iter().find(|share| share["group"] == group && share["name"] == name);
        of.and_then(|share| share["uploaded_bytes"].as_u64()).unwrap_or(0)
    }

    /// Kills the daemon at once, as a crash would.
    pub(crate) fn kill_daemon(&self) {
        kill(self.daemon_pid().expect("a daemon runs"));
    }

    pub(crate) fn daemon_pid(&self) -> Option<u64> {
        let done = self.run(&["status", "--json"]);
        if done.code == 10 { None } else { done.json()["pid"].as_u64() }
    }
}

/// A daemon in the foreground. Killed when dropped.
pub(crate) struct Foreground {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Foreground {
    /// Starts the daemon. Returns also the line that it prints.
    pub(crate) fn start(mut command: Command) -> (Self, String) {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it starts");
        let mut out = BufReader::new(child.stdout.take().expect("piped"));
        let mut line = String::new();
        out.read_line(&mut line).expect("text");
        (Self { child, out }, line.trim_end().to_owned())
    }

    /// The id of its process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("it can be signalled");
    }

    /// Waits until it ends. Returns the rest of its output.
    pub(crate) fn end(mut self) -> (ExitStatus, String) {
        let mut rest = String::new();
        self.out.read_to_string(&mut rest).expect("text");
        (self.child.wait().expect("a child of ours"), rest)
    }
}

impl Drop for Foreground {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.command(&["daemon", "stop"]).output();
    }
}

fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

/// Sends a process a signal.
pub(crate) fn signal_process(pid: u64, signal: rustix::process::Signal) {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw).expect("an id");
    rustix::process::kill_process(pid, signal).expect("it can be signalled");
}

/// Kills a process at once, and waits until it is gone.
pub(crate) fn kill(pid: u64) {
    signal_process(pid, rustix::process::Signal::KILL);
    wait_for("the process is gone", || (!is_alive(pid)).then_some(()));
}

/// Whether any thread of the process runs or is still ending. Until then, its sockets stay open. A zombie counts as
/// gone: it only waits for its parent.
fn is_alive(pid: u64) -> bool {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let mut states = threads.filter_map(|thread| fs::read_to_string(thread.path().join("stat")).ok());
    states.any(|stat| !stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['Z', 'X'])))
}
