//! A tracker in a process of its own: what it costs can be measured, and that it lives can be seen.
//!
//! [`Tracker`] is also what watches over every test: a bystander calls it from its start to [`Tracker::finish`], which
//! looks at the memory and at what is left, and which no test can forget.

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    process::Stdio,
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    sync::oneshot,
    time::{sleep, timeout},
};

use super::client::Client;

const PATIENCE: Duration = Duration::from_secs(20);
/// The most memory, in bytes, that anything sent here may make the tracker take at once, besides that of passwords being
/// hashed at the same time. 1,500 connections at once take 52 MiB, a thousand claims of large messages 21, all else next to
/// none.
const ROOM: u64 = 64 << 20;
/// What the hash of one password takes.
const HASH: u64 = 19 << 20;
/// The bystander's pace: often enough to notice, too seldom to matter.
const PACE: Duration = Duration::from_millis(100);

pub(crate) struct Tracker {
    pub(crate) addr: SocketAddr,
    /// Empty without TLS.
    pub(crate) ca: String,
    pub(crate) dir: tempfile::TempDir,
    child: Child,
    secrets: Mutex<Vec<String>>,
    bystander: Option<Bystander>,
    /// Bytes of memory at the start.
    base: u64,
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
        let (said, addr) = line.split_once("://").unwrap_or_else(|| panic!("listening, not {line:?}"));
        let addr = addr.parse().unwrap();
        let ca = if said.ends_with("https") {
            fs::read_to_string(dir.path().join("data/ca.pem")).unwrap()
        } else {
            String::new()
        };
        let mut tracker = Self { addr, ca, dir, child, secrets: Mutex::default(), bystander: None, base: 0 };
        tracker.bystander = Some(Bystander::of(&tracker).await);
        tracker.base = tracker.peak_rss();
        tracker
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

    /// Checks what must hold after every test: the process lives, took no more memory than it may, and served others.
    pub(crate) async fn finish(mut self) {
        assert!(self.child.try_wait().unwrap().is_none(), "the tracker died: {}", self.log());
        self.bystander.take().expect("it was not finished before").was_served().await;
        Client::anonymous(&self).await.is_served().await;
        // The memory of one hash was there at the start.
        let hashing = (thread::available_parallelism().map_or(1, usize::from) / 2).saturating_sub(1) as u64;
        let grown = self.peak_rss() - self.base;
        assert!(grown < ROOM + hashing * HASH, "{grown} bytes more than at the start");
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

impl Drop for Tracker {
    fn drop(&mut self) {
        if thread::panicking() {
            // What a failed test leaves to go by; the directory goes.
            eprintln!("the tracker, {:?}, said:\n{}", self.child.try_wait(), self.log());
            return;
        }
        assert!(self.bystander.is_none(), "a test ends without having called `finish`");
    }
}

/// Somebody else, who is to be served whatever a test does. On a thread of its own: a test that keeps its own thread busy
/// is not the tracker's fault.
struct Bystander {
    over: oneshot::Sender<()>,
    thread: thread::JoinHandle<()>,
}

impl Bystander {
    /// Returns once it has been served.
    async fn of(tracker: &Tracker) -> Self {
        let (ready, served) = oneshot::channel();
        let (over, mut end) = oneshot::channel();
        let (addr, ca) = (tracker.addr, tracker.ca.clone());
        let watch = async move {
            let client = Client::of(addr, &ca, None).await;
            client.is_served().await;
            // Whoever started it waits for that.
            let _ = ready.send(());
            while timeout(PACE, &mut end).await.is_err() {
                client.is_served_within(PATIENCE).await;
            }
        };
        let thread = thread::spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(watch);
        });
        served.await.expect("a bystander is served at the start");
        Self { over, thread }
    }

    /// Fails unless each of its calls was answered in time.
    async fn was_served(self) {
        // It is gone already if it was not served.
        let _ = self.over.send(());
        let ended = tokio::task::spawn_blocking(|| self.thread.join()).await.expect("it only waits");
        assert!(ended.is_ok(), "a bystander was not served, see above");
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
