//! Blocks for several machines. Each machine is a network namespace with a home directory of its own. Virtual
//! Ethernet links connect them.
//!
//! The first machine that the pages name is 10.0.0.1, the second 10.0.0.2, and so on. Each block has its own
//! shell, and processes that it leaves running continue. `scp FILE… USER@ADDRESS:` copies into the other
//! machine's home.
//!
//! The blocks run once in each [`Net`].
//!
//! - [`scenes`]: faults between the machines, after the blocks.

mod scenes;

use std::{
    fs::{self, File},
    net::IpAddr,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context as _, Result, bail};
use testbed::{cmd, processes::Processes};

use super::block::{Block, LIMIT, run_in_home};

const NO_NAMESPACES: &str =
    "no network namespaces were found: the blocks of the pages that need two machines were not run";

/// The lines at the start of each block.
const PRELUDE: &str = r#"set -euo pipefail
scp() { local to=${!##*@}; to=${to%:}; cp -- "${@:1:$#-1}" "../${to//[\[\]]/}/"; }
"#;

/// A network between the machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Net {
    /// IPv4, word by word.
    V4,
    /// IPv6, with `fd00::N` for `10.0.0.N`.
    V6,
    /// Both families. Over IPv4 the second machine reaches the tracker and not the first one's peer, so that
    /// pieces flow over IPv6.
    Both,
    /// The first machine has a second interface, and the others are connected to that one only. Its own peer
    /// uses the tracker by 127.0.0.1.
    SecondInterface,
}

impl Net {
    const ALL: [Self; 4] = [Self::V4, Self::V6, Self::Both, Self::SecondInterface];

    /// The text of a block in this network.
    fn text(self, block: &Block) -> String {
        let text = &block.text;
        match self {
            Self::V4 | Self::Both => text.clone(),
            Self::V6 => text
                .replace("https://10.0.0.1", "https://[fd00::1]")
                .replace("@10.0.0.2:", "@[fd00::2]:")
                .replace("10.0.0.", "fd00::"),
            Self::SecondInterface => {
                let text = text.replace("--tls-name 10.0.0.1", "--tls-name 10.0.0.1 --tls-name 10.1.0.1");
                // The two machines have the tracker at different addresses, so their configurations differ.
                text.lines().map(second_interface).collect()
            }
        }
    }

    /// The address at which the others reach the machine with this number.
    fn address(self, number: u8) -> IpAddr {
        match self {
            Self::V4 => [10, 0, 0, number].into(),
            Self::V6 | Self::Both => [0xfd00, 0, 0, 0, 0, 0, 0, number.into()].into(),
            Self::SecondInterface => [10, 1, 0, number].into(),
        }
    }

    /// The addresses of the machine with this number, with their interfaces.
    fn addresses(self, number: usize) -> Vec<(&'static str, String)> {
        let (v4, v6) = (format!("10.0.0.{number}/24"), format!("fd00::{number}/64"));
        match (self, number) {
            (Self::V4, _) => vec![("eth0", v4)],
            (Self::V6, _) => vec![("eth0", v6)],
            (Self::Both, _) => vec![("eth0", v4), ("eth0", v6)],
            (Self::SecondInterface, 1) => vec![("eth0", v4), ("eth1", format!("10.1.0.{number}/24"))],
            (Self::SecondInterface, _) => vec![("eth1", format!("10.1.0.{number}/24"))],
        }
    }
}

/// A line of a block where the machines share the second interface of the first one only.
fn second_interface(line: &str) -> String {
    match line {
        copy if copy.starts_with("scp ") => {
            format!("{copy}\nsed -i 's/10[.]0[.]0[.]1/127.0.0.1/' ~/.config/minitorrent-peer/config.toml\n")
        }
        mv if mv.contains("mv config.toml") => {
            format!("sed -i 's/10[.]0[.]0[.]/10.1.0./' config.toml\n{mv}\n")
        }
        line => format!("{line}\n"),
    }
}

/// Runs the blocks in order, with the binaries in `bin`. Returns the reason if they could not be run.
pub(super) fn run(bin: &Path, blocks: &[Block]) -> Result<Option<&'static str>> {
    if blocks.is_empty() {
        return Ok(None);
    }
    if !Processes::namespaces_work()? {
        return Ok(Some(NO_NAMESPACES));
    }
    let mut names: Vec<&str> = Vec::new();
    for name in blocks.iter().filter_map(|block| block.host.as_deref()) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names.push(scenes::CLONE);
    for net in Net::ALL {
        let machines = Machines::start(&names, net)?;
        for block in blocks {
            machines.run(bin, block).with_context(|| format!("{net:?}"))?;
        }
        if matches!(net, Net::V4 | Net::V6) {
            let shell = |name: &str, script: &str| machines.shell(bin, name, script);
            let addresses = [1, 2, 3].map(|number| net.address(number));
            let ground = scenes::Ground { homes: &machines.dir, addresses, shell: &shell };
            scenes::play(&ground).with_context(|| format!("{net:?}"))?;
        }
        println!(
            "{} blocks of the pages ran without an error on {} machines: {net:?}",
            blocks.len(),
            names.len()
        );
    }
    Ok(None)
}

/// The machines. When this is dropped, they are removed with all processes on them.
struct Machines {
    /// The directory that contains a home for each machine, and a link to each home named by the machine's
    /// address.
    dir: PathBuf,
    prefix: String,
    names: Vec<String>,
    net: Net,
}

impl Machines {
    fn start(names: &[&str], net: Net) -> Result<Self> {
        let prefix = format!("pages{}", std::process::id());
        let dir = std::env::temp_dir().join(format!("minitorrent-{prefix}"));
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        let machines = Self { dir, prefix, names, net };
        let switch = machines.namespace("switch");
        ip(&["netns", "add", &switch])?;
        // A bridge for each interface.
        for bridge in ["eth0", "eth1"] {
            ip(&["-n", &switch, "link", "add", bridge, "type", "bridge"])?;
            ip(&["-n", &switch, "link", "set", bridge, "up"])?;
        }
        for (at, name) in machines.names.iter().enumerate() {
            machines.plug_in(name, at + 1)?;
        }
        Ok(machines)
    }

    fn plug_in(&self, name: &str, number: usize) -> Result<()> {
        let (switch, own) = (self.namespace("switch"), self.namespace(name));
        ip(&["netns", "add", &own])?;
        let addresses = self.net.addresses(number);
        for interface in ["eth0", "eth1"] {
            let theirs = addresses.iter().filter(|(at, _)| *at == interface).map(|(_, address)| address);
            let theirs: Vec<_> = theirs.collect();
            if theirs.is_empty() {
                continue;
            }
            let plug = format!("{name}-{interface}");
            let veth = ["type", "veth", "peer", "name", interface, "netns", &own];
            ip(&[&["-n", &switch, "link", "add", &plug][..], &veth].concat())?;
            ip(&["-n", &switch, "link", "set", &plug, "master", interface, "up"])?;
            ip(&["-n", &own, "link", "set", interface, "up"])?;
            for address in theirs {
                // Without `nodad`, an IPv6 address can't be used for a second.
                let nodad: &[&str] = if address.contains(':') { &["nodad"] } else { &[] };
                ip(&[&["-n", &own, "address", "add", address, "dev", interface], nodad].concat())?;
            }
        }
        ip(&["-n", &own, "link", "set", "lo", "up"])?;
        if self.net == Net::Both && number > 1 {
            // A firewall on this machine refuses the peers' port over IPv4.
            let route = ["route", "add", "prohibit", "10.0.0.0/24", "table", "100"];
            ip(&[&["-n", &own][..], &route].concat())?;
            let rule = ["rule", "add", "pref", "1", "ipproto", "tcp", "dport", "7800", "table", "100"];
            ip(&[&["-n", &own][..], &rule].concat())?;
        }
        fs::create_dir_all(self.dir.join(name))?;
        for address in [format!("10.0.0.{number}"), format!("fd00::{number}")] {
            std::os::unix::fs::symlink(name, self.dir.join(address)).context("a machine's address")?;
        }
        Ok(())
    }

    fn namespace(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
    }

    fn run(&self, bin: &Path, block: &Block) -> Result<()> {
        let name = block.host.as_deref().context("a block without a machine")?;
        let text = self
            .shell(bin, name, &self.net.text(block))
            .with_context(|| format!("a block of {}", block.page))?;
        print!("{text}");
        Ok(())
    }

    /// Runs a script on a machine and returns its output.
    fn shell(&self, bin: &Path, name: &str, script: &str) -> Result<String> {
        let (home, log) = (self.dir.join(name), self.dir.join("log"));
        let script = format!("{PRELUDE}{script}");
        let mut command = cmd::command(
            "ip",
            &["netns", "exec", &self.namespace(name), "timeout", LIMIT, "bash", "-c", &script],
        );
        run_in_home(&mut command, bin, &home);
        // The output goes to a file. A pipe would stay open as long as the processes that the script leaves
        // running.
        let out = File::create(&log)?;
        command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
        let status = command.status().context("`ip netns exec` did not start")?;
        let text = fs::read_to_string(&log)?;
        if !status.success() {
            bail!("a script failed on {name} ({status}): {}", text.trim());
        }
        Ok(text)
    }
}

impl Drop for Machines {
    fn drop(&mut self) {
        for name in self.names.iter().map(String::as_str).chain(["switch"]) {
            let namespace = self.namespace(name);
            let kill = format!("ip netns pids {namespace} | xargs -r kill -KILL");
            let _ = cmd::capture(cmd::command("sh", &["-c", &kill]));
            let _ = ip(&["netns", "del", &namespace]);
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn ip(args: &[&str]) -> Result<()> {
    cmd::capture(cmd::command("ip", args)).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(net: Net, text: &str) -> String {
        net.text(&Block { page: "p.md".to_owned(), host: None, text: text.to_owned() })
    }

    #[test]
    fn the_addresses_of_the_pages_become_those_of_the_network() {
        let page = "serve --tls-name 10.0.0.1\ntracker = \"https://10.0.0.1:7700\"\nscp a bob@10.0.0.2:\n";
        assert_eq!(text(Net::V4, page), page);
        assert_eq!(
            text(Net::V6, page),
            "serve --tls-name fd00::1\ntracker = \"https://[fd00::1]:7700\"\nscp a bob@[fd00::2]:\n"
        );
        let second = text(Net::SecondInterface, page);
        assert!(second.starts_with("serve --tls-name 10.0.0.1 --tls-name 10.1.0.1\n"), "{second}");
        assert!(second.contains("/127.0.0.1/"), "{second}");
        assert!(text(Net::SecondInterface, "mv config.toml x\n").starts_with("sed "));
    }
}
