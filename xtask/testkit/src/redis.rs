//! A Redis server of the machine's package, on a Unix socket in a directory of its own.

use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use crate::wait::wait_for;

/// The file that a server writes when it is told to, and reads when it starts.
const DUMP: &str = "dump.rdb";

/// A running server without persistence. It is killed when dropped.
pub struct Redis {
    dir: tempfile::TempDir,
    child: Child,
}

impl Redis {
    /// Starts a server. Panics on a machine without `redis-server`.
    pub fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let child = Self::spawn(&dir).expect("redis-server is installed: apt-get install redis-server");
        let server = Self { dir, child };
        server.wait();
        server
    }

    fn spawn(dir: &tempfile::TempDir) -> std::io::Result<Child> {
        let socket = socket(dir).display().to_string();
        Command::new("redis-server")
            .args(["--port", "0", "--unixsocket", &socket, "--save", "", "--appendonly", "no"])
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
    }

    fn wait(&self) {
        wait_for("redis answers", || (self.try_call(&["PING"]) == "PONG").then_some(()));
    }

    /// The path of its socket, for a relay.
    pub fn socket(&self) -> String {
        socket(&self.dir).display().to_string()
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("unix://{}", self.socket())
    }

    /// Sends a command, and returns the answer.
    pub fn call(&self, args: &[&str]) -> String {
        let answer = self.try_call(args);
        assert!(!answer.starts_with("ERR") && !answer.contains("Could not connect"), "{args:?}: {answer}");
        answer
    }

    fn try_call(&self, args: &[&str]) -> String {
        let output = Command::new("redis-cli").arg("-s").arg(socket(&self.dir)).args(args).output();
        let output = output.expect("redis-cli runs");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Suspends it: it answers nothing, and its connections stay open.
    pub fn freeze(&self) {
        self.signal("STOP");
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.signal("CONT");
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status();
        assert!(sent.expect("kill runs").success());
    }

    /// Kills it at once. What it held is gone.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Keeps what it holds now, for [`Self::start_stale`].
    pub fn keep(&self) {
        assert_eq!(self.call(&["SAVE"]), "OK");
        std::fs::rename(self.dir.path().join(DUMP), self.kept()).unwrap();
    }

    /// Starts it again with what was kept, as a replica that takes over and lags behind.
    pub fn start_stale(&mut self) {
        std::fs::rename(self.kept(), self.dir.path().join(DUMP)).unwrap();
        self.start_again();
        std::fs::remove_file(self.dir.path().join(DUMP)).unwrap();
    }

    fn kept(&self) -> PathBuf {
        self.dir.path().join("kept.rdb")
    }

    /// Starts it again, empty, at the same address.
    pub fn start_again(&mut self) {
        self.child = Self::spawn(&self.dir).expect("it starts again");
        self.wait();
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn socket(dir: &tempfile::TempDir) -> PathBuf {
    dir.path().join("redis.sock")
}
