//! Faults between machines, played after the blocks of the pages: a port that is closed on either side, and a
//! machine that was cloned. Each scene checks what the users read.

use std::{net::IpAddr, path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};
use testbed::{cmd, wait_for};

/// The machine that holds the copy of the second one.
pub(super) const CLONE: &str = "third";
/// The port of the peers on the pages.
const PORT: u16 = 7_800;
/// Time limit for a peer to be told something.
const SOON: Duration = Duration::from_secs(60);

/// The machines.
pub(super) struct Ground<'a> {
    /// The directory that contains the home of each machine.
    pub(super) homes: &'a Path,
    /// The addresses of the first, the second and the third machine.
    pub(super) addresses: [IpAddr; 3],
    /// Runs a script on the machine with this name, and returns its output.
    pub(super) shell: &'a dyn Fn(&str, &str) -> Result<String>,
}

pub(super) fn play(ground: &Ground<'_>) -> Result<()> {
    a_firewall_in_between(ground)?;
    a_firewall_of_ones_own(ground)?;
    a_clone(ground)
}

impl Ground<'_> {
    /// The address of the first machine's peer.
    fn seeder(&self) -> std::net::SocketAddr {
        std::net::SocketAddr::new(self.addresses[0], PORT)
    }

    /// The flag of `ip` for the family of the addresses.
    fn family(&self) -> &'static str {
        if self.addresses[0].is_ipv4() { "-4" } else { "-6" }
    }
}

/// The first machine drops what arrives for its peer. Both sides name the address and the remedy, and the
/// download ends well when the port is open.
fn a_firewall_in_between(ground: &Ground<'_>) -> Result<()> {
    let (at, family, shell) = (ground.seeder(), ground.family(), ground.shell);
    shell("second", "peer daemon stop")?;
    shell(
        "first",
        &format!(
            "head -c 3000000 /dev/urandom > report.csv && peer upload report.csv g1
             ip {family} rule add pref 10 lookup local && ip {family} rule del pref 0
             ip {family} rule add blackhole pref 1 ipproto tcp dport {PORT}"
        ),
    )?;
    let told = shell("second", "! peer download g1 report.csv ./out/ --timeout 15 2>&1")?;
    contains(&told, &format!("alice at {at}: no answer; is a firewall in between?"))?;
    let doctor = wait_for("the seeder is told", SOON, || {
        let text = shell("first", "peer doctor || true")?;
        Ok(text.contains("could not reach this peer").then_some(text))
    })?;
    contains(&doctor, &format!("bob could not reach this peer at {at}"))?;
    contains(&doctor, "no answer; open the port in the firewalls, see --listen")?;
    shell("first", &format!("ip {family} rule del pref 1"))?;
    shell("second", "peer download g1 report.csv ./out/ --timeout 60")?;
    println!("A firewall in between: both sides name {at}; the download ended well when it was open");
    Ok(())
}

/// The second machine forbids connections to the port of peers.
fn a_firewall_of_ones_own(ground: &Ground<'_>) -> Result<()> {
    let (at, family, shell) = (ground.seeder(), ground.family(), ground.shell);
    shell("first", "head -c 3000000 /dev/urandom > plan.csv && peer upload plan.csv g1")?;
    let told = shell(
        "second",
        &format!(
            "peer daemon stop
             ip {family} rule add prohibit pref 1 ipproto tcp dport {PORT}
             ! peer download g1 plan.csv ./out/ --timeout 9 2>&1
             ip {family} rule del pref 1"
        ),
    )?;
    let expected =
        format!("alice at {at}: this host does not permit the connection; allow it in this host's firewall");
    contains(&told, &expected)?;
    shell("second", "peer download g1 plan.csv ./out/ --timeout 60")?;
    println!("{expected}");
    Ok(())
}

/// Two machines with one key. One of them stops within a minute, and says where the other one is.
fn a_clone(ground: &Ground<'_>) -> Result<()> {
    let (from, to) = (ground.homes.join("second"), ground.homes.join(CLONE));
    let copied = cmd::command("cp", &["-a", "--no-target-directory"]).arg(from).arg(to).status();
    ensure!(copied.context("`cp` did not start")?.success(), "the second machine was not copied");
    let shell = ground.shell;
    shell(CLONE, "peer whoami")?;
    let (stopped, other, text) = wait_for("one of the two stops", SOON, || {
        for (one, other) in [("second", ground.addresses[2]), (CLONE, ground.addresses[1])] {
            let text = shell(one, "peer whoami && peer status && peer doctor || true")?;
            if text.contains("--new-key") {
                return Ok(Some((one, other, text)));
            }
        }
        Ok(None)
    })?;
    contains(&text, "another daemon uses the key of this peer")?;
    contains(&text, &format!("from {other}"))?;
    shell(
        stopped,
        "peer login bob --new-key --password-stdin < bob.password && peer download g1 plan.csv ./again/",
    )?;
    println!("A clone: {stopped} stopped, and named {other}");
    Ok(())
}

fn contains(text: &str, expected: &str) -> Result<()> {
    ensure!(text.contains(expected), "{expected:?} is missing in: {text}");
    Ok(())
}
