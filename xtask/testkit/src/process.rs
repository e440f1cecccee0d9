//! The tracker as a process, with a directory of its own.

use std::{
    env,
    fmt::Display,
    fs,
    io::Write as _,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

pub use testbed::programs::{Gone, Server};

/// Returns a command that runs `tracker-svc` with these arguments.
pub type Program = fn(&[&str]) -> Command;

/// A running tracker. It is killed when dropped.
pub struct TrackerProcess {
    program: Program,
    settings: Vec<(String, String)>,
    dir: tempfile::TempDir,
    server: Server,
}

impl TrackerProcess {
    /// Starts `program` on a free port and an empty data directory, with settings as environment variables.
    pub fn start(program: Program, settings: &[(&str, &str)]) -> Self {
        let settings: Vec<_> =
            settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let dir = tempfile::tempdir().unwrap();
        let server = serve(program, dir.path(), "127.0.0.1:0", &settings);
        Self { program, settings, dir, server }
    }

    /// Starts it again on the same address and data directory.
    pub fn start_again(&mut self) {
        self.server = serve(self.program, self.dir.path(), &self.address().to_string(), &self.settings);
    }

    /// Kills it at once, as a crash would.
    pub fn kill(&mut self) {
        self.server.kill().expect("the tracker is killed");
    }

    /// Sends it a signal by name, such as `TERM`, and waits for its end.
    pub fn end(&mut self, signal: &str) -> Gone {
        self.server.end(signal).expect("it ends")
    }

    /// As [`Self::end`], for a test that has connections of its own to the tracker: its other tasks go on
    /// meanwhile, so the connections can close.
    pub async fn end_meanwhile(&mut self, signal: &str) -> Gone {
        let start = Instant::now();
        self.server.signal(signal).expect("it gets the signal");
        while self.is_running() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.server.wait(start).expect("it ends")
    }

    /// Whether the process goes on.
    pub fn is_running(&mut self) -> bool {
        self.server.is_running().expect("a child of ours")
    }

    /// Where it serves, as `https://ADDRESS`, or `http://ADDRESS` without TLS.
    pub fn url(&self) -> &str {
        self.server.address()
    }

    /// Where it serves.
    pub fn address(&self) -> SocketAddr {
        let (_, address) = self.url().split_once("://").expect("a URL");
        address.parse().expect("an address")
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.server.pid()
    }

    /// Its data directory.
    pub fn data_dir(&self) -> PathBuf {
        data_dir(self.dir.path())
    }

    /// The path of the authority's certificate.
    pub fn ca_file(&self) -> PathBuf {
        self.data_dir().join("ca.pem")
    }

    /// The path of its log.
    pub fn log_file(&self) -> PathBuf {
        log_file(self.dir.path())
    }

    /// What it logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    /// Runs a command of the operator that reads `input`.
    pub fn operate(&self, args: &[&str], input: &str) -> Output {
        let mut command = (self.program)(args);
        command.env("TRACKER_DATA_DIR", self.data_dir());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the tracker's program runs");
        // It may end without reading.
        let _ = child.stdin.take().expect("a pipe").write_all(input.as_bytes());
        child.wait_with_output().expect("it ends")
    }
}

fn serve(program: Program, dir: &Path, listen: &str, settings: &[(String, String)]) -> Server {
    let log = fs::File::options().append(true).create(true).open(log_file(dir)).expect("a log");
    let mut command = program(&["serve", "--listen", listen]);
    command.env("TRACKER_DATA_DIR", data_dir(dir)).stderr(log);
    command.envs(settings.iter().map(|(name, value)| (name, value)));
    let started = Server::start(&mut command);
    started.unwrap_or_else(|error| {
        panic!("{error:#}: {}", fs::read_to_string(log_file(dir)).unwrap_or_default())
    })
}

fn data_dir(dir: &Path) -> PathBuf {
    dir.join("data")
}

fn log_file(dir: &Path) -> PathBuf {
    dir.join("log")
}

/// Returns a command that runs the binary at `path`, without any setting of a tracker from this environment.
pub fn binary(path: &str, args: &[&str]) -> Command {
    let mut command = Command::new(path);
    for (name, _) in env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"TRACKER_")) {
        command.env_remove(name);
    }
    command.args(args).stdin(Stdio::null());
    command
}

/// The memory that a process holds now, in bytes.
pub fn rss(pid: impl Display) -> u64 {
    let statm = fs::read_to_string(format!("/proc/{pid}/statm")).expect("it lives");
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).expect("a number") * 4096
}

/// The most memory that a process held at once since its start, in bytes.
pub fn peak_rss(pid: impl Display) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it lives");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a line");
    line.trim_end_matches(" kB").trim().parse::<u64>().expect("a number") * 1024
}
