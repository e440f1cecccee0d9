//! A tracker and peers as plain processes, either on loopback or each in a network namespace of its own,
//! where a host can be cut off.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use crate::{Ended, Host, Hosts, cmd, wait_for};

/// Time limit for a service to answer, or to end.
const PATIENCE: Duration = Duration::from_secs(15);
/// The mount options of a small disk, which is easy to fill. They must match xtask/assets/small-volumes.yml.
const SMALL: &str = "size=24m,mode=0700";

/// One service.
struct Service {
    host: Host,
    /// The host whose directory it works in. It is its own unless a volume was lent.
    volume: Host,
    child: Option<Child>,
    /// Environment variables besides those of every service.
    environment: Vec<(&'static str, String)>,
}

/// The hosts as processes.
pub struct Processes {
    /// The directory of all files. It is removed at the end unless `keep` is set.
    dir: PathBuf,
    /// The directory of the binaries.
    bin: PathBuf,
    network: Network,
    services: Vec<Service>,
    tracker_address: String,
    /// Directories that are file systems of their own.
    mounts: Vec<PathBuf>,
    keep: bool,
}

/// The network between the services.
enum Network {
    Loopback,
    /// Namespaces called `PREFIX-tracker`, `PREFIX-peer1`, …, connected by `PREFIX-switch`.
    Namespaces {
        prefix: String,
    },
}

impl Processes {
    /// Starts a tracker and `peers` peers on loopback ports that the kernel picks.
    pub fn on_loopback(bin: &Path, peers: usize) -> Result<Self> {
        Self::start_all(bin, &std::env::temp_dir(), peers, Network::Loopback, &[])
    }

    /// As [`Processes::on_loopback`], with all files in a subdirectory of `base`.
    pub fn on_loopback_in(base: &Path, bin: &Path, peers: usize) -> Result<Self> {
        Self::start_all(bin, base, peers, Network::Loopback, &[])
    }

    /// Starts a tracker and `peers` peers, each in a network namespace of its own. Needs root.
    pub fn in_namespaces(bin: &Path, peers: usize) -> Result<Self> {
        Self::in_namespaces_in(&std::env::temp_dir(), bin, peers)
    }

    /// As [`Processes::in_namespaces`], with all files in a subdirectory of `base`.
    pub fn in_namespaces_in(base: &Path, bin: &Path, peers: usize) -> Result<Self> {
        let network = Network::namespaces();
        Self::start_all(bin, base, peers, network, &[])
    }

    /// As [`Processes::in_namespaces`], with disks of [`SMALL`] as the volumes of the hosts in `small`.
    pub fn with_small_disks(bin: &Path, peers: usize, small: &[Host]) -> Result<Self> {
        Self::start_all(bin, &std::env::temp_dir(), peers, Network::namespaces(), small)
    }

    /// Whether this machine lets us create network namespaces. Fails if it does and creating one fails.
    pub fn namespaces_work() -> Result<bool> {
        if !cmd::installed("ip", &["-Version"])? {
            return Ok(false);
        }
        let probe = format!("mini{}-probe", std::process::id());
        let made = cmd::output(cmd::command("ip", &["netns", "add", &probe]), b"")?;
        let stderr = String::from_utf8_lossy(&made.stderr);
        if made.status.success() {
            return cmd::capture(cmd::command("ip", &["netns", "del", &probe])).map(|_| true);
        }
        if ["Operation not permitted", "Permission denied"].iter().any(|why| stderr.contains(why)) {
            return Ok(false);
        }
        bail!("network namespaces are permitted here, and none can be made: {}", stderr.trim())
    }

    fn start_all(bin: &Path, base: &Path, peers: usize, network: Network, small: &[Host]) -> Result<Self> {
        let dir = base.join(format!("minitorrent-{}", std::process::id()));
        if dir.exists() {
            bail!("{} is there already: remove it", dir.display());
        }
        let hosts: Vec<Host> = std::iter::once(Host::Tracker).chain((1..=peers).map(Host::Peer)).collect();
        let services = hosts.iter().map(|&host| Service::new(host, host)).collect();
        let mut processes = Self {
            dir,
            bin: bin.to_owned(),
            network,
            services,
            tracker_address: "127.0.0.1:0".to_owned(),
            mounts: Vec::new(),
            keep: false,
        };
        processes.network.set_up(&hosts)?;
        for &host in small {
            processes.mount_small(host)?;
        }
        for &host in &hosts {
            fs::create_dir_all(processes.files(host))?;
        }
        if matches!(processes.network, Network::Namespaces { .. }) {
            processes.tracker_address = format!("{}:7700", address(Host::Tracker));
            // The tracker starts last, because a missing tracker must not be an error for a peer.
            for host in hosts.into_iter().rev() {
                processes.start(host)?;
            }
            return Ok(processes);
        }
        for host in hosts {
            processes.start(host)?;
        }
        Ok(processes)
    }

    /// Sets an environment variable of a host's service, from its next start on.
    pub fn set(&mut self, host: Host, name: &'static str, value: String) -> Result<()> {
        let environment = &mut self.service(host)?.environment;
        environment.retain(|(known, _)| *known != name);
        environment.push((name, value));
        Ok(())
    }

    /// The process id of a host's service.
    pub fn pid(&self, host: Host) -> Result<u32> {
        let service = self.services.iter().find(|service| service.host == host);
        let child = service.and_then(|service| service.child.as_ref());
        child.map(Child::id).with_context(|| format!("{host} isn't running"))
    }

    /// Limits the uplink of a host to `bits` per second. Fails if the host has no namespace.
    pub fn shape(&self, host: Host, bits: u64) -> Result<()> {
        let name =
            self.network.namespace(host).context("only a host in a namespace has a link of its own")?;
        let rate = format!("{bits}bit");
        let tbf = ["tbf", "rate", &rate, "burst", "16kb", "latency", "100ms"];
        let argv = [&["netns", "exec", &name, "tc", "qdisc", "replace", "dev", "eth0", "root"], &tbf[..]];
        ip(&argv.concat())
    }

    /// Returns the bytes that a host has sent on its link. Fails if the host has no namespace.
    pub fn sent(&self, host: Host) -> Result<u64> {
        let name =
            self.network.namespace(host).context("only a host in a namespace has a link of its own")?;
        let argv = ["netns", "exec", &name, "cat", "/sys/class/net/eth0/statistics/tx_bytes"];
        Ok(cmd::capture(cmd::command("ip", &argv))?.trim().parse()?)
    }

    /// Leaves everything running when this is dropped.
    pub fn keep(&mut self) {
        self.keep = true;
    }

    /// The directory of all files.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The directory with all state of a host.
    fn volume(&self, host: Host) -> PathBuf {
        let service = self.services.iter().find(|service| service.host == host);
        self.dir.join(service.map_or(host, |service| service.volume).to_string())
    }

    fn mount_small(&mut self, host: Host) -> Result<()> {
        let folder = self.volume(host);
        fs::create_dir_all(&folder)?;
        let mut mount = cmd::command("mount", &["-t", "tmpfs", "-o", SMALL, "tmpfs"]);
        mount.arg(&folder);
        cmd::capture(mount)?;
        self.mounts.push(folder);
        Ok(())
    }

    /// The directory in which a host's commands run.
    pub fn files(&self, host: Host) -> PathBuf {
        self.volume(host).join("files")
    }

    /// The path of the CA's certificate.
    pub fn ca(&self) -> PathBuf {
        self.volume(Host::Tracker).join("data/ca.pem")
    }

    /// The home of a peer.
    pub fn home(&self, host: Host) -> PathBuf {
        self.volume(host).join("home")
    }

    /// Process ids of all running services.
    pub fn pids(&self) -> Vec<u32> {
        self.services.iter().filter_map(|service| service.child.as_ref().map(Child::id)).collect()
    }

    fn service(&mut self, host: Host) -> Result<&mut Service> {
        self.services
            .iter_mut()
            .find(|service| service.host == host)
            .with_context(|| format!("there is no {host}"))
    }

    fn child(&mut self, host: Host) -> Result<&mut Child> {
        self.service(host)?.child.as_mut().with_context(|| format!("{host} isn't running"))
    }

    fn output(&self, host: Host, what: &str) -> PathBuf {
        self.dir.join(format!("{host}.{what}"))
    }

    /// Waits for the `listening` line and returns its address.
    fn listening(&mut self, host: Host) -> Result<String> {
        let out = self.output(host, "out");
        let log = self.output(host, "log");
        let child = self.child(host)?;
        wait_for(&format!("{host} says that it listens"), PATIENCE, || {
            if let Some(status) = child.try_wait()? {
                bail!("{host} ended ({status}): {}", fs::read_to_string(&log).unwrap_or_default());
            }
            let text = fs::read_to_string(&out).unwrap_or_default();
            Ok(text.lines().find_map(|line| line.strip_prefix("listening https://")).map(str::to_owned))
        })
    }
}

impl Service {
    fn new(host: Host, volume: Host) -> Self {
        Self { host, volume, child: None, environment: Vec::new() }
    }
}

impl Network {
    fn namespaces() -> Self {
        Self::Namespaces { prefix: format!("mini{}", std::process::id()) }
    }

    fn namespace(&self, host: Host) -> Option<String> {
        match self {
            Self::Loopback => None,
            Self::Namespaces { prefix } => Some(format!("{prefix}-{host}")),
        }
    }

    /// Creates a bridge in a namespace of its own, so that the machine's own network stays as it is, and a
    /// link to each host.
    fn set_up(&self, hosts: &[Host]) -> Result<()> {
        let Self::Namespaces { prefix } = self else { return Ok(()) };
        let switch = format!("{prefix}-switch");
        ip(&["netns", "add", &switch])?;
        ip(&["-n", &switch, "link", "add", "bridge", "type", "bridge"])?;
        ip(&["-n", &switch, "link", "set", "bridge", "up"])?;
        // Where the machine filters bridged packets, each packet would pass through the filters. No switch
        // does that.
        for key in ["iptables", "ip6tables", "arptables"] {
            let setting = format!("net.bridge.bridge-nf-call-{key}=0");
            let _ = ip(&["netns", "exec", &switch, "sysctl", "-q", "-w", &setting]);
        }
        hosts.iter().try_for_each(|&host| self.plug_in(host))
    }

    fn plug_in(&self, host: Host) -> Result<()> {
        let Self::Namespaces { prefix } = self else { return Ok(()) };
        let (switch, name, plug) = (format!("{prefix}-switch"), format!("{prefix}-{host}"), host.to_string());
        ip(&["netns", "add", &name])?;
        ip(&["-n", &switch, "link", "add", &plug, "type", "veth", "peer", "name", "eth0", "netns", &name])?;
        ip(&["-n", &switch, "link", "set", &plug, "master", "bridge"])?;
        ip(&["-n", &switch, "link", "set", &plug, "up"])?;
        ip(&["-n", &name, "address", "add", &format!("{}/24", address(host)), "dev", "eth0"])?;
        ip(&["-n", &name, "link", "set", "eth0", "up"])?;
        ip(&["-n", &name, "link", "set", "lo", "up"])
    }

    fn tear_down(&self, hosts: &[Host]) {
        let Self::Namespaces { prefix } = self else { return };
        for name in hosts.iter().map(ToString::to_string).chain(["switch".to_owned()]) {
            let _ = ip(&["netns", "del", &format!("{prefix}-{name}")]);
        }
    }
}

fn ip(args: &[&str]) -> Result<()> {
    cmd::capture(cmd::command("ip", args)).map(drop)
}

/// The address of a host in its namespace.
fn address(host: Host) -> String {
    match host {
        Host::Tracker => "10.77.0.1".to_owned(),
        Host::Peer(n) => format!("10.77.0.{}", 10 + n),
    }
}

impl Hosts for Processes {
    fn describe(&self) -> String {
        let network = match self.network {
            Network::Loopback => "plain processes on loopback",
            Network::Namespaces { .. } => "processes in network namespaces",
        };
        format!("{network}, in {}", self.dir.display())
    }

    fn command(&self, host: Host, argv: &[&str]) -> Command {
        let (program, args) =
            argv.split_first().map_or(("true", &[][..]), |(program, args)| (*program, args));
        let own = self.bin.join(program);
        let program = if own.is_file() { own.to_string_lossy().into_owned() } else { program.to_owned() };
        let mut command = match self.network.namespace(host) {
            None => Command::new(program),
            Some(namespace) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", &namespace, &program]);
                command
            }
        };
        command.args(args).current_dir(self.files(host));
        command
            .env("PEER_TRACKER", self.tracker_url())
            .env("PEER_CA", self.ca())
            .env("PEER_HOME", self.home(host));
        command
            .env("PEER_NO_AUTOSTART", "1")
            .env("PEER_YES", "1")
            .env("TRACKER_DATA_DIR", self.volume(Host::Tracker).join("data"));
        // Our binaries come first in PATH, for scripts that call them.
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{}:{path}", self.bin.display()));
        command
    }

    fn grpcurl(&self, flags: &[&str], words: &[&str]) -> Command {
        let ca = self.ca();
        let ca = ca.to_string_lossy();
        let argv = [&["grpcurl", "-cacert", &ca], flags, &[self.tracker_address.as_str()], words].concat();
        self.command(Host::Tracker, &argv)
    }

    fn start(&mut self, host: Host) -> Result<()> {
        let tracker_address = self.tracker_address.clone();
        let argv = match (host, &self.network) {
            (Host::Tracker, Network::Loopback) => vec!["tracker-svc", "serve", "--listen", &tracker_address],
            (Host::Tracker, Network::Namespaces { .. }) => {
                let name = tracker_address.split(':').next().unwrap_or_default();
                vec!["tracker-svc", "serve", "--listen", &tracker_address, "--tls-name", name]
            }
            (Host::Peer(_), _) => vec!["peer", "daemon"],
        };
        let mut command = self.command(host, &argv);
        if matches!(self.network, Network::Loopback) {
            command.env("PEER_LISTEN", "127.0.0.1:0");
        }
        command.envs(self.service(host)?.environment.iter().map(|(name, value)| (name, value)));
        let log = fs::File::options().create(true).append(true).open(self.output(host, "log"))?;
        let out = fs::File::create(self.output(host, "out"))?;
        command.stdin(Stdio::null()).stdout(out).stderr(log);
        // A Ctrl-C in the terminal must reach this program and not the services that it manages.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let child = command.spawn().with_context(|| format!("{host} did not start"))?;
        self.service(host)?.child = Some(child);
        let listening = self.listening(host)?;
        if host == Host::Tracker {
            self.tracker_address = listening;
        }
        Ok(())
    }

    fn stop(&mut self, host: Host) -> Result<Ended> {
        let start = Instant::now();
        let child = self.child(host)?;
        cmd::capture(cmd::command("sh", &["-c", &format!("kill -TERM {}", child.id())]))?;
        let status = wait_for(&format!("{host} ends"), PATIENCE, || Ok(child.try_wait()?))?;
        self.service(host)?.child = None;
        Ok(Ended { code: status.code(), took: start.elapsed() })
    }

    fn kill(&mut self, host: Host) -> Result<()> {
        let child = self.child(host)?;
        child.kill()?;
        child.wait()?;
        self.service(host)?.child = None;
        Ok(())
    }

    fn cut(&mut self, host: Host) -> Result<()> {
        match &self.network {
            Network::Namespaces { prefix } => {
                ip(&["-n", &format!("{prefix}-switch"), "link", "set", &host.to_string(), "down"])
            }
            // Loopback can't be cut. A stopped process is as silent as a host that is cut off.
            Network::Loopback => {
                let pid = self.child(host)?.id();
                cmd::capture(cmd::command("sh", &["-c", &format!("kill -STOP {pid}")])).map(drop)
            }
        }
    }

    fn heal(&mut self, host: Host) -> Result<()> {
        match &self.network {
            Network::Namespaces { prefix } => {
                ip(&["-n", &format!("{prefix}-switch"), "link", "set", &host.to_string(), "up"])
            }
            Network::Loopback => {
                let pid = self.child(host)?.id();
                cmd::capture(cmd::command("sh", &["-c", &format!("kill -CONT {pid}")])).map(drop)
            }
        }
    }

    fn lend(&mut self, from: Host, to: Host) -> Result<()> {
        self.services.push(Service::new(to, from));
        self.network.plug_in(to)
    }

    fn tracker_url(&self) -> String {
        format!("https://{}", self.tracker_address)
    }

    fn log(&self, host: Host) -> Result<String> {
        Ok(fs::read_to_string(self.output(host, "log"))?)
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        if self.keep {
            return;
        }
        for child in self.services.iter_mut().filter_map(|service| service.child.as_mut()) {
            let _ = child.kill();
            let _ = child.wait();
        }
        let hosts: Vec<Host> = self.services.iter().map(|service| service.host).collect();
        self.network.tear_down(&hosts);
        for folder in &self.mounts {
            let mut unmount = cmd::command("umount", &[]);
            unmount.arg(folder);
            let _ = cmd::capture(unmount);
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}
