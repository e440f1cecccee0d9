//! Our own tracker and peers, set up for a measurement. Every peer has its own user, and all users are in one
//! group.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::{lab::Lab, probe};
use testbed::{Host, Hosts as _, cmd, peer_json, processes::Processes, programs::Server, try_peer, wait_for};

/// The group of all users.
pub(crate) const GROUP: &str = "bench";
const PASSWORD: &str = "correct-horse-battery-9";

/// Time limit of a download.
const PATIENCE: Duration = Duration::from_secs(600);

/// A tracker and peers for a measurement. Peers are counted from 1.
pub(crate) struct Ours {
    pub(crate) hosts: Processes,
    peers: usize,
}

impl Ours {
    /// Starts `peers` peers on loopback, each with the account of a member.
    pub(crate) fn on_loopback(base: &Path, bin: &Path, peers: usize) -> Result<Self> {
        Self { hosts: Processes::on_loopback_in(base, bin, peers)?, peers }.accounts()
    }

    /// Starts `peers` peers in network namespaces, each with the account of a member.
    pub(crate) fn in_namespaces(base: &Path, bin: &Path, peers: usize) -> Result<Self> {
        Self { hosts: Processes::in_namespaces_in(base, bin, peers)?, peers }.accounts()
    }

    fn accounts(self) -> Result<Self> {
        for n in 1..=self.peers {
            let user = user(n);
            self.run(n, &["create-user", &user, "--password-stdin"])?;
            self.run(n, &["login", &user, "--password-stdin"])?;
            if n == 1 {
                self.run(1, &["create-group", GROUP])?;
            } else {
                self.run(n, &["join-group", GROUP])?;
                self.run(1, &["accept-request", GROUP, &user])?;
            }
        }
        Ok(self)
    }

    /// Runs a verb on a peer. Fails if its exit code is not 0.
    pub(crate) fn run(&self, n: usize, args: &[&str]) -> Result<String> {
        let answer = try_peer(&self.hosts, n, args, PASSWORD)?;
        if answer.code != 0 {
            bail!(
                "`peer {}` on peer{n} exited with {}: {}",
                args.join(" "),
                answer.code,
                answer.stderr.trim()
            );
        }
        Ok(answer.stdout)
    }

    /// Shares `path` under `name` on peer `n`.
    pub(crate) fn upload(&self, n: usize, path: &Path, name: &str) -> Result<()> {
        let path = path.to_string_lossy();
        self.run(n, &["upload", &path, GROUP, "--name", name]).map(drop)
    }

    /// Waits until peer `n` sees `count` seeders of `name` in the tracker's list.
    pub(crate) fn seeders(&self, n: usize, name: &str, count: u64) -> Result<()> {
        wait_for(&format!("{name} has {count} seeders"), Duration::from_secs(30), || {
            let files = peer_json(&self.hosts, n, &["list-files", GROUP])?;
            let files = files["files"].as_array().context("`files` is missing")?;
            let file = files.iter().find(|file| file["name"] == name);
            Ok(file.filter(|file| file["seeders"].as_u64() >= Some(count)).map(drop))
        })
    }

    /// Starts a program that requests `name` from peer 1 in `streams` streams, with the identity of peer `n`.
    /// It reads from all streams but one.
    pub(crate) fn stalled_reader(&self, lab: &Lab, n: usize, name: &str, streams: u32) -> Result<Server> {
        let socket = self.hosts.home(Host::Peer(n)).join("run/daemon.sock");
        let seeder = peer_json(&self.hosts, 1, &["status"])?;
        let text =
            |key: &str| seeder[key].as_str().with_context(|| format!("`{key}` is missing in {seeder}"));
        let mut command = Command::new(lab.data_path()?);
        command.arg("stall").arg(socket).arg(self.hosts.ca()).args([GROUP, name]);
        command.args([text("listen")?, text("tls_name")?, &streams.to_string()]);
        Server::start(&mut command)
    }

    fn copy_of(&self, n: usize, name: &str) -> PathBuf {
        self.hosts.files(Host::Peer(n)).join(name)
    }

    /// Starts `peer download` on peer `n`.
    pub(crate) fn download(&self, n: usize, name: &str) -> Result<Child> {
        let mut command: Command =
            self.hosts.command(Host::Peer(n), &["peer", "download", GROUP, name, "./", "--quiet"]);
        let log = fs::File::create(self.hosts.dir().join(format!("download{n}.log")))?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        command.spawn().context("peer did not start")
    }

    /// Starts all these downloads at once. Returns the time until the last of them has ended.
    pub(crate) fn race(&self, leechers: &[usize], name: &str) -> Result<Duration> {
        let start = Instant::now();
        let mut children = Vec::new();
        for &n in leechers {
            children.push((n, self.download(n, name)?));
        }
        for (n, child) in &mut children {
            let status = wait_quickly(child)?;
            if !status.success() {
                let log = fs::read_to_string(self.hosts.dir().join(format!("download{n}.log")))?;
                bail!("peer{n}'s download of {name} ended ({status}): {}", log.trim());
            }
        }
        Ok(start.elapsed())
    }

    /// Returns the bytes of `name` that peer `n` received from each user.
    pub(crate) fn shares(&self, n: usize, name: &str) -> Result<Vec<(String, u64)>> {
        let all = peer_json(&self.hosts, n, &["show-downloads"])?;
        let downloads = all["downloads"].as_array().context("`downloads` is missing")?;
        let found = downloads.iter().find(|download| download["name"] == name);
        let sources = found.and_then(|found| found["sources"].as_array()).context("no such download")?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Ok(sources
            .iter()
            .map(|source| (text(&source["user"]), source["bytes"].as_u64().unwrap_or(0)))
            .collect())
    }

    /// Checks these peers' copies of `name` and removes them.
    pub(crate) fn check_and_forget(&self, leechers: &[usize], name: &str, original: &Path) -> Result<()> {
        for &n in leechers {
            let copy = self.copy_of(n, name);
            let mut compare = cmd::command("cmp", &[]);
            compare.arg(original).arg(&copy);
            cmd::capture(compare).with_context(|| format!("peer{n}'s copy is not the file"))?;
            self.run(n, &["stop-share", GROUP, name])?;
            fs::remove_file(copy)?;
        }
        Ok(())
    }

    /// As [`Self::check_and_forget`], for a folder that peer `n` has.
    pub(crate) fn check_and_forget_folder(&self, n: usize, name: &str, original: &Path) -> Result<()> {
        let copy = self.copy_of(n, name);
        let mut compare = cmd::command("diff", &["-rq"]);
        compare.arg(original).arg(&copy);
        cmd::capture(compare).with_context(|| format!("peer{n}'s copy is not the folder"))?;
        self.run(n, &["stop-share", GROUP, name])?;
        Ok(fs::remove_dir_all(copy)?)
    }

    /// Unpublishes `name`, so that no peer shares or lists it any more.
    pub(crate) fn unpublish(&self, name: &str) -> Result<()> {
        self.run(1, &["unpublish", GROUP, name]).map(drop)
    }

    /// The processor time that the daemons of these peers have used so far.
    pub(crate) fn cpu_time(&self, peers: &[usize]) -> Result<Duration> {
        let mut all = Duration::ZERO;
        for &n in peers {
            all += probe::cpu_time(self.hosts.pid(Host::Peer(n))?)?;
        }
        Ok(all)
    }

    /// The peak resident memory of a peer's daemon, in MiB.
    pub(crate) fn peak_memory(&self, n: usize) -> Result<f64> {
        probe::peak_memory(self.hosts.pid(Host::Peer(n))?)
    }
}

pub(crate) fn user(n: usize) -> String {
    format!("user{n}")
}

/// Waits for a process to end, up to the time limit.
fn wait_quickly(child: &mut Child) -> Result<std::process::ExitStatus> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if start.elapsed() > PATIENCE {
            child.kill()?;
            bail!("a download did not end within {} s", PATIENCE.as_secs());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}
