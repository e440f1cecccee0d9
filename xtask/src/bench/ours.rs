//! Our own tracker and peers, set up for a measurement: every peer its own user, all in one group.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::{
    lab::{Lab, Server},
    probe,
};
use crate::{
    cmd,
    stage::{Host, Stage as _, peer_json, processes::Processes, try_peer, wait_for},
};

const GROUP: &str = "bench";
const PASSWORD: &str = "correct-horse-battery-9";

/// How long a download may take at most.
const PATIENCE: Duration = Duration::from_secs(600);

/// See the module. Peers are counted from 1.
pub(crate) struct Ours {
    pub(crate) stage: Processes,
    peers: usize,
}

impl Ours {
    /// `peers` peers on loopback, with a member's account each.
    pub(crate) fn on_loopback(base: &Path, bin: &Path, peers: usize) -> Result<Self> {
        Self { stage: Processes::on_loopback_in(base, bin, peers)?, peers }.accounts()
    }

    /// `peers` peers in namespaces.
    pub(crate) fn in_namespaces(base: &Path, bin: &Path, peers: usize) -> Result<Self> {
        Self { stage: Processes::in_namespaces_in(base, bin, peers)?, peers }.accounts()
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

    /// Runs a verb on a peer; fails unless it succeeds.
    pub(crate) fn run(&self, n: usize, args: &[&str]) -> Result<String> {
        let answer = try_peer(&self.stage, n, args, PASSWORD)?;
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

    /// Peer `n` shares `path` under `name`.
    pub(crate) fn upload(&self, n: usize, path: &Path, name: &str) -> Result<()> {
        let path = path.to_string_lossy();
        self.run(n, &["upload", &path, GROUP, "--name", name]).map(drop)
    }

    /// Waits until the tracker lists `name` with so many seeders, as peer `n` sees it.
    pub(crate) fn seeders(&self, n: usize, name: &str, count: u64) -> Result<()> {
        wait_for(&format!("{name} has {count} seeders"), Duration::from_secs(30), || {
            let files = peer_json(&self.stage, n, &["list-files", GROUP])?;
            let files = files["files"].as_array().context("`files` is missing")?;
            let file = files.iter().find(|file| file["name"] == name);
            Ok(file.filter(|file| file["seeders"].as_u64() >= Some(count)).map(drop))
        })
    }

    /// A program that asks peer 1 for `name`, as peer `n`, in `streams` streams, and reads from all of them but one.
    pub(crate) fn stalled_reader(&self, lab: &Lab, n: usize, name: &str, streams: u32) -> Result<Server> {
        let socket = self.stage.home(Host::Peer(n)).join("run/daemon.sock");
        let seeder = peer_json(&self.stage, 1, &["status"])?;
        let text =
            |key: &str| seeder[key].as_str().with_context(|| format!("`{key}` is missing in {seeder}"));
        let mut command = Command::new(&lab.data_path);
        command.arg("stall").arg(socket).arg(self.stage.ca()).args([GROUP, name]);
        command.args([text("listen")?, text("tls_name")?, &streams.to_string()]);
        Server::start(&mut command)
    }

    fn copy_of(&self, n: usize, name: &str) -> PathBuf {
        self.stage.files(Host::Peer(n)).join(name)
    }

    /// Starts `peer download` on peer `n`.
    pub(crate) fn download(&self, n: usize, name: &str) -> Result<Child> {
        let mut command: Command =
            self.stage.command(Host::Peer(n), &["peer", "download", GROUP, name, "./", "--quiet"]);
        let log = fs::File::create(self.stage.dir().join(format!("download{n}.log")))?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        command.spawn().context("peer did not start")
    }

    /// The time from the start of all these downloads at once until the last of them has ended.
    pub(crate) fn race(&self, leechers: &[usize], name: &str) -> Result<Duration> {
        let start = Instant::now();
        let mut children = Vec::new();
        for &n in leechers {
            children.push((n, self.download(n, name)?));
        }
        for (n, child) in &mut children {
            let status = wait_quickly(child)?;
            if !status.success() {
                let log = fs::read_to_string(self.stage.dir().join(format!("download{n}.log")))?;
                bail!("peer{n}'s download of {name} ended ({status}): {}", log.trim());
            }
        }
        Ok(start.elapsed())
    }

    /// Bytes that peer `n` got of `name` from each user.
    pub(crate) fn shares(&self, n: usize, name: &str) -> Result<Vec<(String, u64)>> {
        let all = peer_json(&self.stage, n, &["show-downloads"])?;
        let downloads = all["downloads"].as_array().context("`downloads` is missing")?;
        let found = downloads.iter().find(|download| download["name"] == name);
        let sources = found.and_then(|found| found["sources"].as_array()).context("no such download")?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Ok(sources
            .iter()
            .map(|source| (text(&source["user"]), source["bytes"].as_u64().unwrap_or(0)))
            .collect())
    }

    /// Checks the copies that these peers got of `name`, and takes them away again.
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

    /// Nobody shares or lists `name` any more.
    pub(crate) fn unpublish(&self, name: &str) -> Result<()> {
        self.run(1, &["unpublish", GROUP, name]).map(drop)
    }

    /// Processor time of these peers' daemons so far.
    pub(crate) fn cpu_time(&self, peers: &[usize]) -> Result<Duration> {
        let mut all = Duration::ZERO;
        for &n in peers {
            all += probe::cpu_time(self.stage.pid(Host::Peer(n))?)?;
        }
        Ok(all)
    }

    /// The most memory that a peer's daemon has had resident, in MiB.
    pub(crate) fn peak_memory(&self, n: usize) -> Result<f64> {
        probe::peak_memory(self.stage.pid(Host::Peer(n))?)
    }
}

pub(crate) fn user(n: usize) -> String {
    format!("user{n}")
}

/// Waits for a process, with a limit.
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
