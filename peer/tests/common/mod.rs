//! Real `peer` processes, each test with homes of its own.

#![allow(dead_code, reason = "each test file uses its part")]

use std::{
    ffi::OsStr,
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

/// Longest that anything may take before a test gives up on it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// One peer's home. Its daemon ends with it.
pub(crate) struct Peer {
    home: PathBuf,
    env: Vec<(String, String)>,
}

/// How a verb ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
    pub(crate) took: Duration,
}

impl Peer {
    /// A peer whose home is `name` in `directory`, with these variables in its environment.
    pub(crate) fn new(directory: &Path, name: &str, env: &[(&str, &str)]) -> Self {
        let env = env.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Self { home: directory.join(name), env }
    }

    pub(crate) fn home(&self) -> &Path {
        &self.home
    }

    /// The command with these arguments, nothing of this process's own settings about it.
    pub(crate) fn command<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_peer"));
        for (key, _) in std::env::vars_os() {
            if key.to_string_lossy().starts_with("PEER_") {
                command.env_remove(key);
            }
        }
        let directory = self.home.parent().expect("a home has a parent");
        command
            .args(arguments)
            .current_dir(directory)
            .env("PEER_HOME", &self.home)
            .env("PEER_LISTEN", "127.0.0.1:0");
        command.envs(self.env.iter().map(|(key, value)| (key, value)));
        command.stdin(Stdio::null());
        command
    }

    /// Runs a verb to its end.
    pub(crate) fn run(&self, line: &str) -> Ended {
        self.run_with(line, "")
    }

    /// Runs a verb that reads `input`.
    pub(crate) fn run_with(&self, line: &str, input: &str) -> Ended {
        let arguments: Vec<&str> = line.split_whitespace().collect();
        let mut command = self.command(&arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let started = Instant::now();
        let mut child = command.spawn().expect("the peer starts");
        // A verb that reads nothing may have ended already.
        let _ = child.stdin.take().expect("it was piped").write_all(input.as_bytes());
        ended(child, started)
    }

    /// Runs a verb that must succeed, and returns what it printed.
    #[track_caller]
    pub(crate) fn ok(&self, line: &str) -> String {
        let ended = self.run(line);
        assert_eq!(ended.code, 0, "peer {line}: {ended:?}{}", self.log());
        ended.out
    }

    /// Runs a verb with `--json` that must succeed, and returns its object.
    #[track_caller]
    pub(crate) fn json(&self, line: &str) -> Value {
        let out = self.ok(&format!("{line} --json"));
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("peer {line} --json: {error}: {out}"))
    }

    /// Runs a verb that must end with this code, and returns its error's reason.
    #[track_caller]
    pub(crate) fn fails(&self, line: &str, code: i32) -> String {
        let ended = self.run(&format!("{line} --json"));
        assert_eq!(ended.code, code, "peer {line}: {ended:?}{}", self.log());
        let last = ended.err.lines().last().unwrap_or_default();
        let error: Value =
            serde_json::from_str(last).unwrap_or_else(|error| panic!("peer {line}: {error}: {last}"));
        error["error"]["reason"].as_str().expect("a reason").to_owned()
    }

    /// Makes an account and logs in.
    #[track_caller]
    pub(crate) fn join_as(&self, user: &str, password: &str) {
        for verb in ["create-user", "login"] {
            let ended = self.run_with(&format!("{verb} {user} --password-stdin"), password);
            assert_eq!(ended.code, 0, "{verb} {user}: {ended:?}{}", self.log());
        }
    }

    /// Starts a daemon in the foreground, and returns it with the line that it printed.
    pub(crate) fn daemon(&self, more: &[&str]) -> (Foreground, String) {
        let arguments: Vec<&str> = ["daemon"].iter().chain(more).copied().collect();
        let mut command = self.command(&arguments);
        let mut child =
            command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("the daemon starts");
        let mut line = String::new();
        let mut out = BufReader::new(child.stdout.take().expect("it was piped"));
        out.read_line(&mut line).expect("a line");
        (Foreground { child, out }, line.trim_end().to_owned())
    }

    /// The daemon's log, for messages of tests.
    pub(crate) fn log(&self) -> String {
        let log = std::fs::read_to_string(self.home.join("daemon.log")).unwrap_or_default();
        format!("\n--- {}\n{log}---", self.home.join("daemon.log").display())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // There may be none.
        let _ = self.command(&["daemon", "stop"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
}

/// A daemon in the foreground; killed if a test leaves it behind.
pub(crate) struct Foreground {
    child: Child,
    out: BufReader<std::process::ChildStdout>,
}

impl Foreground {
    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("process ids fit")
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.pid()).expect("a process id");
        rustix::process::kill_process(pid, signal).expect("it can be signalled");
    }

    /// Waits for the end: its exit code and what else it printed.
    pub(crate) fn end(mut self) -> (Option<i32>, String) {
        let status = wait(&mut self.child);
        let mut rest = String::new();
        std::io::Read::read_to_string(&mut self.out, &mut rest).expect("text");
        (status.code(), rest)
    }
}

impl Drop for Foreground {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn wait(child: &mut Child) -> std::process::ExitStatus {
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("a child of ours") {
            return status;
        }
        assert!(started.elapsed() < PATIENCE, "it does not end");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits for a verb's end.
pub(crate) fn ended(child: Child, started: Instant) -> Ended {
    let Output { status, stdout, stderr } = child.wait_with_output().expect("a child of ours");
    Ended {
        code: status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&stdout).into_owned(),
        err: String::from_utf8_lossy(&stderr).into_owned(),
        took: started.elapsed(),
    }
}

/// Waits until `condition` holds.
#[track_caller]
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
