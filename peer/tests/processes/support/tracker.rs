//! A tracker as a process of its own.

use std::{
    env,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use super::{PATIENCE, Peer, wait_within};

const TOLD: &str = "MINI_TORRENT_TEST_TRACKER";

/// Runs a tracker in this process if the environment says so, and then never returns.
pub(crate) fn become_one_if_told() {
    if let Some(listen) = env::var_os(TOLD) {
        let args = ["tracker-svc".into(), "serve".into(), "--listen".into(), listen];
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
}

impl Tracker {
    /// Starts one on a free port with a fresh data directory.
    pub(crate) fn start() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let (child, url) = spawn(dir.path(), "127.0.0.1:0");
        Self { child, url, dir }
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
        (self.child, self.url) = spawn(self.dir.path(), &address);
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

fn spawn(data_dir: &Path, listen: &str) -> (Child, String) {
    let log = std::fs::File::options()
        .append(true)
        .create(true)
        .open(data_dir.with_extension("log"))
        .expect("a log");
    let mut child = Command::new(env::current_exe().expect("this test's binary"))
        .args(["tracker_process", "--exact", "--nocapture"])
        .env(TOLD, listen)
        .env("TRACKER_DATA_DIR", data_dir)
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
