//! A tracker in a separate process, so that its memory can be measured and its survival checked.
//!
//! [`Tracker`] also watches every test. A bystander calls it from its start until [`Tracker::finish`], which
//! checks the memory and the remains. No test can skip it.

use std::{
    fs,
    net::SocketAddr,
    ops::Deref,
    path::Path,
    process::{Command, Output},
    sync::Mutex,
    thread,
    time::Duration,
};

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use testkit::{
    bystander::Bystander,
    process::{self, Program, TrackerProcess, binary, peak_rss},
};

use super::client::Client;

const PATIENCE: Duration = Duration::from_secs(20);
/// Maximum memory, in bytes, that any input here may cost the tracker at once, apart from passwords that are
/// hashed at the same time. 1,500 concurrent connections take 52 MiB, a thousand claims of large messages 21,
/// and everything else almost none.
const ROOM: u64 = 64 << 20;
/// Memory of one password hash.
const HASH: u64 = 19 << 20;
/// What each tracker here may map for data, in bytes. The kernel refuses it more, and it then aborts.
const DATA: u64 = 256 << 20;

pub(crate) struct Tracker {
    process: TrackerProcess,
    pub(crate) addr: SocketAddr,
    /// Empty if the tracker serves without TLS.
    pub(crate) ca: String,
    secrets: Mutex<Vec<String>>,
    bystander: Option<Bystander>,
    /// Bytes of memory at the start.
    base: u64,
}

impl Tracker {
    pub(crate) async fn start() -> Self {
        Self::start_as(program, &[]).await
    }

    /// Starts with settings, as environment variables.
    pub(crate) async fn start_with(settings: &[(&str, &str)]) -> Self {
        Self::start_as(program, settings).await
    }

    /// Starts this program as the tracker.
    pub(crate) async fn start_as(program: Program, settings: &[(&str, &str)]) -> Self {
        let process = TrackerProcess::start(program, settings);
        let limit = Rlimit { current: Some(DATA), maximum: Some(DATA) };
        let pid = Pid::from_raw(process.pid().cast_signed());
        prlimit(pid, Resource::Data, limit).expect("its memory can be limited");
        let addr = process.address();
        let ca = if process.url().starts_with("https") {
            fs::read_to_string(process.ca_file()).unwrap()
        } else {
            String::new()
        };
        let authority = ca.clone();
        let connect = async move || Client::of(addr, &authority, None).await;
        let call = async |client: &Client| client.is_served_within(PATIENCE).await;
        let bystander = Some(Bystander::start(connect, call).await);
        let base = peak_rss(process.pid());
        Self { process, addr, ca, secrets: Mutex::default(), bystander, base }
    }

    /// Runs an operator's command on the data directory. Returns its output.
    pub(crate) fn operate(&self, args: &[&str]) -> String {
        let output = self.process.operate(args, "");
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// The audit log, one JSON object per line.
    pub(crate) fn audit(&self) -> String {
        self.operate(&["audit", "--json"])
    }

    /// Memory that the process holds now, in bytes.
    pub(crate) fn rss(&self) -> u64 {
        process::rss(self.pid())
    }

    /// Peak memory of the process since its start, in bytes.
    pub(crate) fn peak_rss(&self) -> u64 {
        peak_rss(self.pid())
    }

    /// Number of files and sockets that the process has open now.
    pub(crate) fn open_files(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap().count()
    }

    /// Registers text that must never appear in the log or on disk.
    pub(crate) fn keep_secret(&self, secret: &str) {
        self.secrets.lock().unwrap().push(secret.to_owned());
    }

    /// Checks the promises that hold after every test: the process runs, took no more memory than allowed,
    /// and served others.
    pub(crate) async fn finish(mut self) {
        assert!(self.process.is_running(), "the tracker died: {}", self.log());
        self.bystander.take().expect("it was not finished before").was_served().await;
        Client::anonymous(&self).await.is_served().await;
        // The memory of one hash existed at the start.
        let hashing = (thread::available_parallelism().map_or(1, usize::from) / 2).saturating_sub(1) as u64;
        let grown = self.peak_rss() - self.base;
        assert!(grown < ROOM + hashing * HASH, "{grown} bytes more than at the start");
        let gone = self.process.end_meanwhile("TERM").await;
        let log = self.log();
        assert!(gone.status.success(), "{}: {log}", gone.status);
        assert!(gone.took < Duration::from_secs(12), "SIGTERM ends it within 10 s, not {:?}", gone.took);
        for word in ["panicked", "internal fault", "RUST_BACKTRACE"] {
            assert!(!log.contains(word), "{word:?} in the log: {log}");
        }
        for secret in self.secrets.lock().unwrap().iter() {
            assert!(!log.contains(secret.as_str()), "a secret in the log");
            for file in fs::read_dir(self.data_dir()).unwrap() {
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
            // Evidence for a failed test. The directory is removed.
            eprintln!("the tracker (running: {}) said:\n{}", self.process.is_running(), self.log());
            return;
        }
        assert!(self.bystander.is_none(), "a test ends without having called `finish`");
    }
}

impl Deref for Tracker {
    type Target = TrackerProcess;

    fn deref(&self) -> &TrackerProcess {
        &self.process
    }
}

/// The tracker's binary.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_tracker-svc");

fn program(args: &[&str]) -> Command {
    binary(BINARY, args)
}

/// Runs the program to its end.
pub(crate) fn run(args: &[&str], environment: &[(&str, &str)]) -> Output {
    program(args).envs(environment.iter().copied()).output().unwrap()
}

fn holds(path: &Path, needle: &[u8]) -> bool {
    fs::read(path).unwrap().windows(needle.len()).any(|window| window == needle)
}
