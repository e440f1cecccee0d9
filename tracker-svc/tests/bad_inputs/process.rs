//! A tracker in a process of its own: what it costs can be measured, and that it lives can be seen.

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    process::Stdio,
    sync::Mutex,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    time::{sleep, timeout},
};

use super::client::Client;

const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Tracker {
    pub(crate) addr: SocketAddr,
    pub(crate) ca: String,
    pub(crate) dir: tempfile::TempDir,
    child: Child,
    secrets: Mutex<Vec<String>>,
}

impl Tracker {
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// Starts with further arguments, on a free port and an empty data directory.
    pub(crate) async fn start_with(args: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut child = command(dir.path(), &["serve", "--listen", "127.0.0.1:0"])
            .args(args)
            .stdout(Stdio::piped())
            .stderr(fs::File::create(dir.path().join("log")).unwrap())
            .spawn()
            .expect("the tracker's binary runs");
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = timeout(PATIENCE, lines.next_line()).await.expect("ready in time").unwrap();
        let Some(line) = line else { panic!("no line: {}", log(dir.path())) };
        let (_, addr) = line.split_once("://").unwrap_or_else(|| panic!("listening, not {line:?}"));
        let addr = addr.parse().unwrap();
        let ca = fs::read_to_string(dir.path().join("data/ca.pem")).unwrap_or_default();
        Self { addr, ca, dir, child, secrets: Mutex::default() }
    }

    /// Runs an operator's command on the data directory.
    pub(crate) async fn operate(&self, args: &[&str]) {
        let output = command(self.dir.path(), args).output().await.unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// The audit log, one JSON object a line.
    pub(crate) async fn audit(&self) -> String {
        let output = command(self.dir.path(), &["audit", "--json"]).output().await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Bytes of memory that the process holds now.
    pub(crate) fn rss(&self) -> u64 {
        let statm = fs::read_to_string(format!("/proc/{}/statm", self.pid())).unwrap();
        statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
    }

    /// The most memory that it held at once since its start, in bytes.
    pub(crate) fn peak_rss(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim_end_matches(" kB").trim().parse::<u64>().unwrap() * 1024
    }

    /// Files and sockets that the process has open now.
    pub(crate) fn open_files(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap().count()
    }

    pub(crate) fn data_dir(&self) -> std::path::PathBuf {
        self.dir.path().join("data")
    }

    pub(crate) fn log(&self) -> String {
        log(self.dir.path())
    }

    /// Text that must never be found in the log or on disk.
    pub(crate) fn keep_secret(&self, secret: &str) {
        self.secrets.lock().unwrap().push(secret.to_owned());
    }

    fn pid(&self) -> u32 {
        self.child.id().expect("the tracker lives")
    }

    /// Checks what must hold after every test.
    pub(crate) async fn finish(mut self) {
        assert!(self.child.try_wait().unwrap().is_none(), "the tracker died: {}", self.log());
        Client::anonymous(&self).await.is_served().await;
        let pid = rustix::process::Pid::from_child_id(self.pid());
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let ended = timeout(Duration::from_secs(12), self.child.wait()).await;
        let status = ended.expect("SIGTERM ends it within 10 s").unwrap();
        let log = self.log();
        assert!(status.success(), "{status}: {log}");
        for word in ["panicked", "internal fault", "RUST_BACKTRACE"] {
            assert!(!log.contains(word), "{word:?} in the log: {log}");
        }
        for secret in self.secrets.lock().unwrap().iter() {
            assert!(!log.contains(secret.as_str()), "a secret in the log");
            for file in fs::read_dir(self.dir.path().join("data")).unwrap() {
                let path = file.unwrap().path();
                let held = path.is_file() && holds(&path, secret.as_bytes());
                assert!(!held, "a secret in {}", path.display());
            }
        }
    }
}

trait FromChild {
    fn from_child_id(id: u32) -> Self;
}

impl FromChild for rustix::process::Pid {
    fn from_child_id(id: u32) -> Self {
        Self::from_raw(i32::try_from(id).unwrap()).unwrap()
    }
}

/// Runs the program to its end.
pub(crate) async fn run(args: &[&str], environment: &[(&str, &str)]) -> std::process::Output {
    let mut command = program();
    command.args(args).envs(environment.iter().copied());
    let ended = timeout(PATIENCE, command.output()).await;
    ended.unwrap_or_else(|_| panic!("it goes on: {args:?}")).unwrap()
}

fn command(dir: &Path, args: &[&str]) -> Command {
    let mut command = program();
    command.args(args).arg("--data-dir").arg(dir.join("data"));
    command
}

/// The tracker's binary, with nothing of this environment that would configure it.
fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tracker-svc"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"TRACKER_"))
    {
        command.env_remove(name);
    }
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}

fn log(dir: &Path) -> String {
    fs::read_to_string(dir.join("log")).unwrap_or_default()
}

fn holds(path: &Path, needle: &[u8]) -> bool {
    fs::read(path).unwrap().windows(needle.len()).any(|window| window == needle)
}

/// Waits until `condition` holds, and fails when that takes longer than `patience`.
pub(crate) async fn until(patience: Duration, what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !condition().await {
        assert!(start.elapsed() < patience, "not within {patience:?}: {what}");
        // Polls a condition of another process.
        sleep(Duration::from_millis(50)).await;
    }
}
