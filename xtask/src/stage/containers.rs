//! docker-compose.yml as it is, under a project name of its own, from clean.

use std::{
    collections::HashMap,
    net::TcpListener,
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use super::{Ended, Host, Stage, wait_for};
use crate::{cmd, images};

const PROJECT: &str = "minitorrent-e2e";

/// See the module.
pub(crate) struct Containers {
    bases: images::Bases,
    port: u16,
    /// Container ids.
    ids: HashMap<Host, String>,
    ca: PathBuf,
}

impl Containers {
    /// Brings up everything from nothing, and waits until all are healthy.
    pub(crate) fn up(bases: images::Bases, peers: usize) -> Result<Self> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let ca = std::env::temp_dir().join(format!("{PROJECT}-{}.pem", std::process::id()));
        let mut stage = Self { bases, port, ids: HashMap::new(), ca };
        cmd::capture(stage.compose(&["down", "--volumes", "--remove-orphans", "--timeout", "15"]))?;
        stage.up_again(peers)?;
        Ok(stage)
    }

    /// After a `down` that kept the volumes.
    pub(crate) fn up_again(&mut self, peers: usize) -> Result<()> {
        cmd::run(self.compose(&["up", "--detach", "--no-build"]))?;
        for host in std::iter::once(Host::Tracker).chain((1..=peers).map(Host::Peer)) {
            let id = cmd::capture(self.compose(&["ps", "--quiet", &host.to_string()]))?.trim().to_owned();
            if id.is_empty() {
                bail!("{host} has no container");
            }
            self.ids.insert(host, id);
            self.healthy(host)?;
        }
        let pem = cmd::capture(self.command(Host::Tracker, &["cat", "/data/ca.pem"]))?;
        std::fs::write(&self.ca, pem)?;
        Ok(())
    }

    /// Stops all and removes the containers; the volumes stay. The time it took.
    pub(crate) fn down(&self) -> Result<Duration> {
        let start = Instant::now();
        cmd::run(self.compose(&["down", "--timeout", "15"]))?;
        Ok(start.elapsed())
    }

    fn compose(&self, args: &[&str]) -> Command {
        let mut command = images::compose(&[&["--project-name", PROJECT], args].concat());
        command.envs(self.bases.iter().map(|(key, value)| (key, value)));
        command.env("TRACKER_HOST_PORT", self.port.to_string());
        command
    }

    fn id(&self, host: Host) -> Result<&str> {
        self.ids.get(&host).map(String::as_str).with_context(|| format!("{host} has no container"))
    }

    fn inspect(&self, host: Host, format: &str) -> Result<String> {
        Ok(cmd::capture(cmd::command("docker", &["inspect", "-f", format, self.id(host)?]))?
            .trim()
            .to_owned())
    }

    fn healthy(&self, host: Host) -> Result<()> {
        wait_for(&format!("{host} is healthy"), Duration::from_secs(60), || {
            Ok((self.inspect(host, "{{.State.Health.Status}}")? == "healthy").then_some(()))
        })
    }

    fn network(&self, host: Host, verb: &[&str]) -> Result<()> {
        let network = format!("{PROJECT}_default");
        cmd::capture(cmd::command("docker", &[&["network"], verb, &[&network, self.id(host)?]].concat()))
            .map(drop)
    }
}

impl Stage for Containers {
    fn describe(&self) -> String {
        format!("containers of docker-compose.yml, project {PROJECT}")
    }

    fn command(&self, host: Host, argv: &[&str]) -> Command {
        let id = self.ids.get(&host).map_or("none", String::as_str);
        cmd::command("docker", &[&["exec", "--interactive", id], argv].concat())
    }

    fn grpcurl(&self, flags: &[&str], words: &[&str]) -> Command {
        let ca = self.ca.to_string_lossy();
        let address = format!("127.0.0.1:{}", self.port);
        cmd::command("grpcurl", &[&["-cacert", &ca], flags, &[&address], words].concat())
    }

    fn start(&mut self, host: Host) -> Result<()> {
        cmd::capture(cmd::command("docker", &["start", self.id(host)?]))?;
        self.healthy(host)
    }

    fn stop(&mut self, host: Host) -> Result<Ended> {
        let start = Instant::now();
        cmd::capture(cmd::command("docker", &["stop", "--time", "15", self.id(host)?]))?;
        let took = start.elapsed();
        let code = self.inspect(host, "{{.State.ExitCode}}")?;
        Ok(Ended { code: code.parse().ok(), took })
    }

    fn kill(&mut self, host: Host) -> Result<()> {
        cmd::capture(cmd::command("docker", &["kill", self.id(host)?])).map(drop)
    }

    fn cut(&mut self, host: Host) -> Result<()> {
        self.network(host, &["disconnect", "--force"])
    }

    fn heal(&mut self, host: Host) -> Result<()> {
        self.network(host, &["connect", "--alias", &host.to_string()])
    }

    fn small_disk(&self) -> Option<&'static str> {
        Some("/tmp")
    }

    fn logs(&self) -> Result<String> {
        let mut all = String::new();
        for id in self.ids.values() {
            let output = cmd::output(cmd::command("docker", &["logs", id]), b"")?;
            all.push_str(&String::from_utf8_lossy(&output.stdout));
            all.push_str(&String::from_utf8_lossy(&output.stderr));
        }
        Ok(all)
    }
}

impl Drop for Containers {
    fn drop(&mut self) {
        let _ = cmd::capture(self.compose(&["down", "--volumes", "--remove-orphans", "--timeout", "5"]));
        let _ = std::fs::remove_file(&self.ca);
    }
}
