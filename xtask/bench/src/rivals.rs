//! The BitTorrent clients that ours is compared with. Each runs as its users would run it on a local network:
//! without DHT and encryption, with pieces of the same size and the same file.

use std::{
    ffi::OsStr,
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use super::announce::Announce;
use testbed::{cmd, wait_for};

/// Time limit for each step of a rival.
const PATIENCE: Duration = Duration::from_secs(120);

/// Interval between two checks whether a rival has finished. It is below the resolution that the comparison
/// needs.
const TICK: Duration = Duration::from_millis(2);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rival {
    Aria2,
    Libtorrent,
    Rqbit,
}

pub(crate) const ALL: [Rival; 3] = [Rival::Aria2, Rival::Libtorrent, Rival::Rqbit];

impl Rival {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Aria2 => "aria2",
            Self::Libtorrent => "libtorrent",
            Self::Rqbit => "rqbit",
        }
    }

    /// Whether the rival can run here.
    pub(crate) fn installed(self) -> bool {
        match self {
            Self::Aria2 => cmd::works("aria2c", &["--version"]),
            Self::Libtorrent => python().is_some(),
            Self::Rqbit => cmd::works("rqbit", &["--version"]),
        }
    }

    /// The command that seeds the file in `dir`, or that downloads it to `dir` and creates `marker` when it
    /// is complete.
    fn command(self, swarm: &Swarm, dir: &Path, port: u16, seed: bool, marker: &Path) -> Result<Command> {
        let torrent = swarm.torrent.as_os_str();
        Ok(match self {
            Self::Aria2 => {
                let mut command = Command::new("aria2c");
                command.args(["--enable-dht=false", "--enable-dht6=false", "--bt-enable-lpd=false"]);
                command.args(["--enable-peer-exchange=false", "--seed-ratio=0.0", "--file-allocation=none"]);
                command.args(["--no-conf=true", "--quiet=true", "--check-certificate=false"]);
                command.args([format!("--listen-port={port}"), format!("--dir={}", dir.display())]);
                command.args(["--bt-seed-unverified=true", "--allow-overwrite=true"]);
                if !seed {
                    let script = swarm.base.join("aria2-is-done");
                    fs::write(&script, "#!/bin/sh\n: >\"$BENCH_MARKER\"\n")?;
                    cmd::capture(cmd::command("chmod", &["+x", &script.to_string_lossy()]))?;
                    command.arg(format!("--on-bt-download-complete={}", script.display()));
                    command.env("BENCH_MARKER", marker);
                }
                command.arg(torrent);
                command
            }
            Self::Libtorrent => {
                let mut command = Command::new(python().context("there is no python3 with libtorrent")?);
                command.arg(cmd::root().join("xtask/assets/libtorrent-peer.py"));
                command.args([torrent, dir.as_os_str(), OsStr::new(&port.to_string()), marker.as_os_str()]);
                command.args(seed.then_some("seed"));
                command
            }
            Self::Rqbit => {
                let mut command = Command::new("rqbit");
                command.args(["--disable-dht", "--disable-upnp-port-forward", "--http-api-listen-addr"]);
                command.args([
                    format!("127.0.0.1:{}", port + 500),
                    "--listen-port".to_owned(),
                    port.to_string(),
                ]);
                command.args(["download", "--overwrite", "--output-folder"]).arg(dir);
                command.args((!seed).then_some("--exit-on-finish"));
                command.arg(torrent);
                command
            }
        })
    }
}

/// A Python that has libtorrent. Where several Pythons are installed, often only the system's has it.
fn python() -> Option<&'static str> {
    ["python3", "/usr/bin/python3"]
        .into_iter()
        .find(|python| cmd::works(python, &["-c", "import libtorrent"]))
}

/// One file, its .torrent, and a tracker for it.
pub(crate) struct Swarm {
    base: PathBuf,
    source: PathBuf,
    torrent: PathBuf,
    announce: Announce,
}

/// Processes that are killed when this is dropped.
struct Running(Vec<Child>);

impl Drop for Running {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Swarm {
    /// Creates a swarm for `source`. The program `data_path` writes the .torrent next to `source`; `base` is
    /// for all other files.
    pub(crate) fn new(data_path: &Path, base: &Path, source: &Path) -> Result<Self> {
        let announce = Announce::start(Ipv4Addr::LOCALHOST)?;
        let torrent = source.with_extension("torrent");
        let mut command = Command::new(data_path);
        command.arg("torrent").arg(source).arg(announce.url()).arg(&torrent);
        cmd::capture(command)?;
        Ok(Self { base: base.to_owned(), source: source.to_owned(), torrent, announce })
    }

    /// Starts `leechers` processes at once. Returns the time until all of them have the file from `seeders`.
    pub(crate) fn race(
        &self,
        rival: Rival,
        seeders: u16,
        leechers: u16,
        before: impl Fn(),
    ) -> Result<Duration> {
        self.announce.clear();
        // These ports are below the kernel's ephemeral range.
        let ports = 20_100 + 10 * rival as u16;
        let mut running = Running(Vec::new());
        let source = self.source.parent().context("the source has no folder")?;
        for n in 0..seeders {
            let marker = self.base.join(format!("seeds-{n}"));
            let command = rival.command(self, source, ports + n, true, &marker)?;
            running.0.push(spawn(command)?);
        }
        wait_for(&format!("{} seeds", rival.name()), PATIENCE, || {
            if let Some(status) = running.0.iter_mut().find_map(|child| child.try_wait().ok().flatten()) {
                bail!("{} ended ({status}) instead of seeding", rival.name());
            }
            Ok((self.announce.count() >= usize::from(seeders)).then_some(()))
        })?;

        let mut waiting = Vec::new();
        for n in 0..leechers {
            let (dir, marker) = (self.base.join(format!("leecher-{n}")), self.base.join(format!("done-{n}")));
            let _ = fs::remove_dir_all(&dir);
            let _ = fs::remove_file(&marker);
            fs::create_dir_all(&dir)?;
            waiting.push((
                dir.clone(),
                marker.clone(),
                rival.command(self, &dir, ports + 5 + n, false, &marker)?,
            ));
        }
        before();
        let start = Instant::now();
        let mut leeching = Running(Vec::new());
        let mut markers = Vec::new();
        for (dir, marker, command) in waiting {
            leeching.0.push(spawn(command)?);
            markers.push((dir, marker));
        }
        for (child, (_, marker)) in leeching.0.iter_mut().zip(&markers) {
            while !marker.exists() {
                if let Some(status) = child.try_wait()? {
                    if !status.success() {
                        bail!("{} ended ({status})", rival.name());
                    }
                    break;
                }
                if start.elapsed() > PATIENCE {
                    bail!("{} did not finish within {} s", rival.name(), PATIENCE.as_secs());
                }
                std::thread::sleep(TICK);
            }
        }
        let took = start.elapsed();
        drop(leeching);
        for (dir, _) in &markers {
            self.check(dir)?;
            fs::remove_dir_all(dir)?;
        }
        Ok(took)
    }

    /// Checks that the copy has the full length.
    fn check(&self, dir: &Path) -> Result<()> {
        let copy = dir.join(self.source.file_name().context("the source has no name")?);
        let (expected, found) = (fs::metadata(&self.source)?.len(), fs::metadata(&copy)?.len());
        if expected != found {
            bail!("{} has {found} bytes instead of {expected}", copy.display());
        }
        Ok(())
    }
}

fn spawn(mut command: Command) -> Result<Child> {
    let line = cmd::line(&command);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().with_context(|| format!("`{line}` did not start"))
}
