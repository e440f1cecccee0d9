//! Faults between machines, played after the blocks of the pages: a port that is closed on either side, and a
//! machine that was cloned. Each scene checks what the users read.

use std::{net::IpAddr, path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};
use testbed::{cmd, wait_for};

use super::Machines;

/// The machine that holds the copy of the second one.
pub(super) const CLONE: &str = "third";
/// The port of the peers on the pages.
const PORT: u16 = 7_800;
/// Time limit for a peer to be told something.
const SOON: Duration = Duration::from_secs(60);

pub(super) fn play(machines: &Machines, bin: &Path) -> Result<()> {
    a_firewall_in_between(machines, bin)?;
    a_firewall_of_ones_own(machines, bin)?;
    a_clone(machines, bin)
}

/// The address of a machine's peer.
fn peer_at(machine: IpAddr) -> String {
    std::net::SocketAddr::new(machine, PORT).to_string()
}

/// The first machine drops what arrives for its peer. Both sides name the address and the remedy, and the
/// download ends well when the port is open.
fn a_firewall_in_between(machines: &Machines, bin: &Path) -> Result<()> {
    let (at, family) = (machines.net.address(1), machines.net.family());
    machines.shell(bin, "second", "peer daemon stop")?;
    machines.shell(
        bin,
        "first",
        &format!(
            "head -c 3000000 /dev/urandom > report.csv && peer upload report.csv g1
             ip {family} rule add pref 10 lookup local && ip {family} rule del pref 0
             ip {family} rule add blackhole pref 1 ipproto tcp dport {PORT}"
        ),
    )?;
    let told = machines.shell(bin, "second", "! peer download g1 report.csv ./out/ --timeout 15 2>&1")?;
    contains(&told, &format!("alice at {}: no answer; is a firewall in between?", peer_at(at)))?;
    let doctor = wait_for("the seeder is told", SOON, || {
        let text = machines.shell(bin, "first", "peer doctor || true")?;
        Ok(text.contains("could not reach this peer").then_some(text))
    })?;
    contains(&doctor, &format!("bob could not reach this peer at {}", peer_at(at)))?;
    contains(&doctor, "no answer; open the port in the firewalls, see --listen")?;
    machines.shell(bin, "first", &format!("ip {family} rule del pref 1"))?;
    machines.shell(bin, "second", "peer download g1 report.csv ./out/ --timeout 60")?;
    println!(
        "A firewall in between: both sides name {}; the download ended well when it was open",
        peer_at(at)
    );
    Ok(())
}

/// The second machine forbids connections to the port of peers.
fn a_firewall_of_ones_own(machines: &Machines, bin: &Path) -> Result<()> {
    let (at, family) = (machines.net.address(1), machines.net.family());
    machines.shell(bin, "first", "head -c 3000000 /dev/urandom > plan.csv && peer upload plan.csv g1")?;
    let told = machines.shell(
        bin,
        "second",
        &format!(
            "peer daemon stop
             ip {family} rule add prohibit pref 1 ipproto tcp dport {PORT}
             ! peer download g1 plan.csv ./out/ --timeout 9 2>&1
             ip {family} rule del pref 1"
        ),
    )?;
    let expected = format!(
        "alice at {}: this host does not permit the connection; allow it in this host's firewall",
        peer_at(at)
    );
    contains(&told, &expected)?;
    machines.shell(bin, "second", "peer download g1 plan.csv ./out/ --timeout 60")?;
    println!("{expected}");
    Ok(())
}

/// Two machines with one key. One of them stops within a minute, and says where the other one is.
fn a_clone(machines: &Machines, bin: &Path) -> Result<()> {
    let (from, to) = (machines.dir.join("second"), machines.dir.join(CLONE));
    let copied = cmd::command("cp", &["-a", "--no-target-directory"]).arg(from).arg(to).status();
    ensure!(copied.context("`cp` did not start")?.success(), "the second machine was not copied");
    machines.shell(bin, CLONE, "peer whoami")?;
    let (stopped, other, text) = wait_for("one of the two stops", SOON, || {
        for (one, other) in [("second", 3), (CLONE, 2)] {
            let text = machines.shell(bin, one, "peer whoami && peer status && peer doctor || true")?;
            if text.contains("--new-key") {
                return Ok(Some((one, other, text)));
            }
        }
        Ok(None)
    })?;
    contains(&text, "another daemon uses the key of this peer")?;
    contains(&text, &format!("from {}", machines.net.address(other)))?;
    machines.shell(
        bin,
        stopped,
        "peer login bob --new-key --password-stdin < bob.password && peer download g1 plan.csv ./again/",
    )?;
    println!("A clone: {stopped} stopped, and named {}", machines.net.address(other));
    Ok(())
}

fn contains(text: &str, expected: &str) -> Result<()> {
    ensure!(text.contains(expected), "{expected:?} is missing in: {text}");
    Ok(())
}
