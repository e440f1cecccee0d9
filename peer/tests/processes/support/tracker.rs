//! A tracker as a process of its own.

use std::{
    env,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Instant,
};

use super::{Done, PATIENCE, Peer, wait_within};

const TOLD: &str = "MINI_TORRENT_TEST_TRACKER";

/// Runs what the environment says as `tracker-svc` in this process, and then never returns.
pub(crate) fn become_one_if_told() {
    if let Ok(told) = env::var(TOLD) {
        let args = std::iter::once("tracker-svc").chain(told.split_whitespace()).map(Into::into);
        // The code is the process's own; `ExitCode` can't be looked into, only returned from `main`.
        let code = tracker_svc::cli::run_from(args);
        std::process::exit(i32::from(code));
    }
}

/// A running tracker. Killed when dropped.
pub(crate) struct Tracker {
    child: Child,
    pub(crate) url: String,
    dir: tempfile::TempDir,
    env: Vec<(&'static str, &'static str)>,
}

impl Tracker {
    /// Starts one on a free port with a fresh data directory.
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same, with settings as environment variables.
    pub(crate) fn start_with(env: &[(&'static str, &'static str)]) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let (child, url) = spawn(dir.path(), "127.0.0.1:0", env);
        Self { child, url, dir, env: env.to_vec() }
    }

    /// Everything that it keeps.
    pub(crate) fn data_dir(&self) -> &Path {
        self.dir.path()
    }

    /// What it logs to.
    pub(crate) fn log_file(&self) -> PathBuf {
        log_file(self.dir.path())
    }

    /// What it logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.log_file()).expect("a log")
    }

    /// The authority's certificate.
    pub(crate) fn ca(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// Kills it at once, as a crash would.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("the tracker is killed");
        self.child.wait().expect("the tracker is gone");
    }

    /// Starts it again on the same address and data directory.
    pub(crate) fn start_again(&mut self) {
        let address = self.url.trim_start_matches("https://").to_owned();
        (self.child, self.url) = spawn(self.dir.path(), &address, &self.env);
    }

    /// Runs an operator's command on the data directory; what it prints.
    pub(crate) fn operate(&self, command: &str, input: &str) -> String {
        let mut program = tracker_svc(self.dir.path(), command);
        program.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let done = Done::since(program.spawn().expect("it runs"), input, Instant::now());
        assert_eq!(done.code, 0, "{command}: {done:?}");
        done.stdout
    }

    /// A new user with a peer of their own, logged in.
    pub(crate) fn user(&self, name: &str) -> Peer {
        self.user_with(name, &[])
    }

    /// The same, with settings of the peer as environment variables.
    pub(crate) fn user_with(&self, name: &str, env: &[(&str, &str)]) -> Peer {
        let peer = Peer::new(self, name, env);
        peer.ok_with_password(&["create-user", name]);
        peer.ok_with_password(&["login", name]);
        peer
    }

    /// A group of these peers' users; the first owns it.
    pub(crate) fn group(&self, group: &str, peers: &[&Peer]) {
        let (owner, others) = peers.split_first().expect("an owner");
        owner.ok(&["create-group", group]);
        for other in others {
            other.ok(&["join-group", group]);
            owner.ok(&["accept-request", group, &other.user]);
        }
    }
}

impl Drop for Tracker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// This very binary, told to be `tracker-svc`.
fn tracker_svc(data_dir: &Path, command: &str) -> Command {
    let mut program = Command::new(env::current_exe().expect("this test's binary"));
    program.args(["tracker_process", "--exact", "--nocapture"]);
    program.env(TOLD, command).env("TRACKER_DATA_DIR", data_dir);
    program
}

fn log_file(data_dir: &Path) -> PathBuf {
    data_dir.with_extension("log")
}

fn spawn(data_dir: &Path, listen: &str, env: &[(&str, &str)]) -> (Child, String) {
    let log = std::fs::File::options().append(true).create(true).open(log_file(data_dir)).expect("a log");
    let mut child = tracker_svc(data_dir, &format!("serve --listen {listen}"))
        .envs(env.iter().copied())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .expect("the tracker starts");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let url = wait_within(PATIENCE, "the tracker listens", &mut || {
        let line = lines.next()?.expect("the tracker's output");
        // The test runner's own words come first, on the same line or before.
        line.split_once("listening ").map(|(_, url)| url.to_owned())
    });
    (child, url)
}
