//! The services of docker-compose.yml, unchanged, under a project name of their own and started from nothing.

use std::{
    collections::HashMap,
    net::TcpListener,
    path::PathBuf,
    process::{Command, Output},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use super::{Ended, Host, Hosts, cmd, images, wait_for};

const PROJECT: &str = "minitorrent-e2e";
const COMPOSE: &str = "docker-compose.yml";
/// The container of the host that another host's volume was lent to.
const LENT: &str = "minitorrent-e2e-lent";

/// The services that are the hosts.
#[derive(Clone, Copy)]
struct Services {
    tracker: &'static str,
    /// The names of the peers without their numbers.
    peer: &'static str,
    /// The services to bring up, and what they need. Empty for all without a profile.
    up: &'static [&'static str],
}

const ONE_TRACKER: Services = Services { tracker: "tracker", peer: "peer", up: &[] };
const CLUSTER: Services =
    Services { tracker: "tracker1", peer: "member", up: &["member1", "member2", "member3"] };

impl Services {
    fn name(self, host: Host) -> String {
        match host {
            Host::Tracker => self.tracker.to_owned(),
            Host::Peer(n) => format!("{}{n}", self.peer),
        }
    }
}

/// The hosts as containers.
pub struct Containers {
    bases: images::Bases,
    services: Services,
    /// The compose file and the files that override parts of it.
    files: &'static [&'static str],
    peers: usize,
    port: u16,
    /// Container ids.
    ids: HashMap<Host, String>,
    ca: PathBuf,
}

impl Containers {
    /// Brings up docker-compose.yml from nothing and waits until all services are healthy.
    pub fn up(bases: images::Bases, peers: usize) -> Result<Self> {
        let mut hosts = Self::new(bases, peers, &[COMPOSE], ONE_TRACKER)?;
        // One peer starts before the tracker has ever run. It has nothing to connect to, and no CA yet.
        let early = Host::Peer(peers);
        cmd::run(hosts.compose(&["up", "--detach", "--no-build", "--no-deps", &early.to_string()]))?;
        hosts.know(early)?;
        hosts.healthy(early)?;
        println!("  {early} is up before the tracker");
        hosts.up_again()?;
        Ok(hosts)
    }

    /// As [`Containers::up`], with small volumes for the tracker and peer2, which are easy to fill.
    pub fn with_small_volumes(bases: images::Bases, peers: usize) -> Result<Self> {
        let files = &[COMPOSE, "xtask/assets/small-volumes.yml"];
        let mut hosts = Self::new(bases, peers, files, ONE_TRACKER)?;
        hosts.up_again()?;
        // A volume in memory takes no content from the image. Docker created this directory for it, owned by
        // root.
        let mend = "rmdir files && mkdir files";
        let peer = hosts.id(Host::Peer(2))?;
        cmd::capture(cmd::command("docker", &["exec", "--workdir", "/data", peer, "sh", "-c", mend]))?;
        Ok(hosts)
    }

    /// Brings up the profile `cluster`: three trackers with one name, their stores, and three peers.
    pub fn cluster(bases: images::Bases) -> Result<Self> {
        let mut hosts = Self::new(bases, CLUSTER.up.len(), &[COMPOSE], CLUSTER)?;
        hosts.up_again()?;
        Ok(hosts)
    }

    /// Kills the container of a service that is none of the hosts.
    pub fn kill_service(&self, name: &str) -> Result<()> {
        cmd::capture(cmd::command("docker", &["kill", &self.container(name)?])).map(drop)
    }

    /// Starts the container of a service that is none of the hosts, and waits until it is healthy.
    pub fn start_service(&self, name: &str) -> Result<()> {
        let id = self.container(name)?;
        cmd::capture(cmd::command("docker", &["start", &id]))?;
        is_healthy(name, &id)
    }

    fn new(
        bases: images::Bases,
        peers: usize,
        files: &'static [&'static str],
        services: Services,
    ) -> Result<Self> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let ca = std::env::temp_dir().join(format!("{PROJECT}-{}.pem", std::process::id()));
        let hosts = Self { bases, services, files, peers, port, ids: HashMap::new(), ca };
        hosts.clear();
        Ok(hosts)
    }

    /// Brings everything up again after a `down` that kept the volumes.
    pub fn up_again(&mut self) -> Result<()> {
        let up = self.compose(&[&["up", "--detach", "--no-build"], self.services.up].concat());
        cmd::capture(up).map_err(|error| error.context(self.unhealthy()))?;
        for host in std::iter::once(Host::Tracker).chain((1..=self.peers).map(Host::Peer)) {
            self.know(host)?;
            self.healthy(host)?;
        }
        // The engine starts a service again that ended, so a fault at the start would not be seen otherwise.
        for id in containers()?.lines() {
            let restarts = inspect(id, "{{.RestartCount}}")?;
            if restarts != "0" {
                let log = text(&cmd::output(cmd::command("docker", &["logs", "--tail", "20", id]), b"")?);
                bail!("{} ended {restarts} times at its start\n{log}", inspect(id, "{{.Name}}")?);
            }
        }
        let pem = cmd::capture(self.command(Host::Tracker, &["cat", "/data/ca.pem"]))?;
        std::fs::write(&self.ca, pem)?;
        Ok(())
    }

    /// The state of each container that is not healthy, with its last check and the end of its log.
    fn unhealthy(&self) -> String {
        let shown = "{{.Name}} {{.State.Status}}, exit code {{.State.ExitCode}}, {{.RestartCount}} restarts{{with .State.Health}}, {{.Status}}{{range .Log}}; {{.Output}}{{end}}{{end}}";
        let ids = containers().unwrap_or_else(|error| error.to_string());
        let states = ids.lines().filter_map(|id| {
            let state = inspect(id, shown).unwrap_or_else(|error| error.to_string());
            let log = || cmd::output(cmd::command("docker", &["logs", "--tail", "10", id]), b"");
            (!state.contains(", healthy")).then(|| match log() {
                Ok(log) => format!("{state}\n{}", text(&log)),
                Err(error) => format!("{state}\n{error:#}"),
            })
        });
        format!("not all containers became healthy\n{}", states.collect::<String>())
    }

    fn know(&mut self, host: Host) -> Result<()> {
        let id = self.container(&self.services.name(host))?;
        self.ids.insert(host, id);
        Ok(())
    }

    /// The container's id of a service, which may have ended.
    fn container(&self, service: &str) -> Result<String> {
        let id = cmd::capture(self.compose(&["ps", "--all", "--quiet", service]))?.trim().to_owned();
        if id.is_empty() {
            bail!("{service} has no container");
        }
        Ok(id)
    }

    /// Checks that each container runs as an unprivileged user, with a read-only root and a memory limit, and
    /// that peers see only the CA's certificate of the tracker and can't write there.
    pub fn check_confinement(&self) -> Result<()> {
        let shown = "{{.Config.User}} {{.HostConfig.ReadonlyRootfs}} {{.HostConfig.Privileged}} {{.HostConfig.CapDrop}} {{.HostConfig.Memory}}";
        for &host in self.ids.keys() {
            let found = self.inspect(host, shown)?;
            let memory = found.rsplit(' ').next().and_then(|bytes| bytes.parse().ok());
            if !found.starts_with("10001:10001 true false [ALL] ")
                || memory.is_none_or(|bytes: u64| bytes == 0)
            {
                bail!("{host} is not confined as it should be: {found}");
            }
            self.refuses(host, &["touch", "/probe"])?;
            if host != Host::Tracker {
                self.refuses(host, &["touch", "/ca/probe"])?;
                let seen = cmd::capture(self.command(host, &["ls", "-A", "/ca"]))?;
                if seen.trim() != "ca.pem" {
                    bail!("{host} should see the CA's certificate alone: {seen:?}");
                }
            }
        }
        let published = cmd::capture(cmd::command("docker", &["port", self.id(Host::Tracker)?]))?;
        if published.lines().any(|line| !line.contains("-> 127.0.0.1:")) {
            bail!("the tracker's port should be published on 127.0.0.1 alone: {published}");
        }
        println!(
            "  no root, no way to write but to volumes, memory limited; the tracker is published on 127.0.0.1"
        );
        Ok(())
    }

    fn refuses(&self, host: Host, argv: &[&str]) -> Result<()> {
        if cmd::capture(self.command(host, argv)).is_ok() {
            bail!("`{}` should not work on {host}", argv.join(" "));
        }
        Ok(())
    }

    /// Stops all services and removes the containers, but not the volumes. Returns the time that took.
    pub fn down(&self) -> Result<Duration> {
        let start = Instant::now();
        cmd::run(self.compose(&["down", "--timeout", "15"]))?;
        Ok(start.elapsed())
    }

    fn compose(&self, args: &[&str]) -> Command {
        let files: Vec<&str> = self.files.iter().flat_map(|file| ["--file", *file]).collect();
        // Without their profile, the dependencies of its services are not known.
        let profile: &[&str] = if self.services.up.is_empty() { &[] } else { &["--profile", "cluster"] };
        let project = ["--project-name", PROJECT];
        let mut command = images::compose(&[&project, &files[..], profile, args].concat());
        command.envs(self.bases.iter().map(|(key, value)| (key, value)));
        command.env("TRACKER_HOST_PORT", self.port.to_string());
        command
    }

    fn id(&self, host: Host) -> Result<&str> {
        self.ids.get(&host).map(String::as_str).with_context(|| format!("{host} has no container"))
    }

    fn inspect(&self, host: Host, format: &str) -> Result<String> {
        inspect(self.id(host)?, format)
    }

    fn healthy(&self, host: Host) -> Result<()> {
        is_healthy(&host.to_string(), self.id(host)?)
    }

    /// Removes everything that an earlier run may have left.
    fn clear(&self) {
        let _ = cmd::output(cmd::command("docker", &["rm", "--force", "--volumes", LENT]), b"");
        // Also what belongs to a profile.
        let down = ["--profile", "cluster", "down", "--volumes", "--remove-orphans", "--timeout", "5"];
        let _ = cmd::capture(self.compose(&down));
    }

    fn network(&self, host: Host, verb: &[&str]) -> Result<()> {
        let network = format!("{PROJECT}_default");
        cmd::capture(cmd::command("docker", &[&["network"], verb, &[&network, self.id(host)?]].concat()))
            .map(drop)
    }
}

/// The ids of all containers of the project, one in each line.
fn containers() -> Result<String> {
    let of_project = format!("label=com.docker.compose.project={PROJECT}");
    cmd::capture(cmd::command("docker", &["ps", "--all", "--quiet", "--filter", &of_project]))
}

fn inspect(id: &str, format: &str) -> Result<String> {
    Ok(cmd::capture(cmd::command("docker", &["inspect", "-f", format, id]))?.trim().to_owned())
}

/// What a program wrote to both outputs.
fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn is_healthy(name: &str, id: &str) -> Result<()> {
    wait_for(&format!("{name} is healthy"), Duration::from_secs(60), || {
        Ok((inspect(id, "{{.State.Health.Status}}")? == "healthy").then_some(()))
    })
}

impl Hosts for Containers {
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
        if self.inspect(host, "{{.Name}}")? == format!("/{LENT}") {
            cmd::capture(self.command(host, &["touch", "/tmp/go"]))?;
            return wait_for(&format!("{host} answers"), Duration::from_secs(30), || {
                Ok(cmd::capture(self.command(host, &["peer", "status", "-q"])).ok().map(drop))
            });
        }
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

    fn lend(&mut self, from: Host, to: Host) -> Result<()> {
        let (data, network, name) =
            (format!("{PROJECT}_{from}:/data"), format!("{PROJECT}_default"), to.to_string());
        let ca = format!("{PROJECT}_ca:/ca:ro");
        // The container waits for a file before it starts the daemon. So it has an address of its own while
        // the other host still runs.
        let script = "until [ -e /tmp/go ]; do sleep 0.1; done; exec peer daemon";
        let mut argv = vec!["run", "--detach", "--name", LENT, "--hostname", &name];
        argv.extend(["--network", &network, "--network-alias", &name, "--volume", &data, "--volume", &ca]);
        argv.extend(["--read-only", "--tmpfs", "/tmp:mode=1777", "--cap-drop", "ALL"]);
        argv.extend(["--env", "PEER_TRACKER=https://tracker:7700", "--env", "PEER_CA=/ca/ca.pem"]);
        argv.extend(["--env", "PEER_NO_AUTOSTART=1", "--entrypoint", "sh", images::PEER, "-c", script]);
        let id = cmd::capture(cmd::command("docker", &argv))?.trim().to_owned();
        self.ids.insert(to, id);
        Ok(())
    }

    fn tracker_url(&self) -> String {
        "https://127.0.0.1:7700".to_owned()
    }

    fn log(&self, host: Host) -> Result<String> {
        Ok(text(&cmd::output(cmd::command("docker", &["logs", self.id(host)?]), b"")?))
    }
}

impl Drop for Containers {
    fn drop(&mut self) {
        self.clear();
        let _ = std::fs::remove_file(&self.ca);
    }
}
