//! The trial of the packages: installation, use, upgrade, removal and purge on one Debian machine. alice works
//! with the peer of the service, and bob with one of his own.

use std::{path::Path, time::Duration};

use anyhow::{Result, ensure};
use testbed::{scenario::scene, wait_for};

use crate::{
    machine::Machine,
    make,
    programs::{PEER, PROGRAMS, Program, TRACKER},
};

const ALICE: &str = "runuser -u minitorrent-peer -- peer --home /var/lib/minitorrent-peer/home";
const BOB: &str = "runuser -u bob -- peer --home /srv/bob/peer --tracker https://127.0.0.1:7700 --ca /etc/minitorrent/ca.pem";
const HEALTH: &str =
    "tracker-svc health --tracker https://127.0.0.1:7700 --ca /var/lib/minitorrent-tracker/ca.pem";
/// What the operator changes in the settings. Both have to survive an upgrade.
const CHANGED: [(&str, &str); 2] = [
    ("/etc/minitorrent/peer.toml", "tracker = \"https://127.0.0.1:7700\""),
    ("/etc/minitorrent/tracker.toml", "ticket_ttl = \"20m\""),
];
const SOON: Duration = Duration::from_secs(20);

/// Plays the trial with the packages in two directories.
pub(crate) fn play(packages: &Path, upgrade: &Path) -> Result<()> {
    scene("A Debian machine");
    let machine = Machine::boot()?;
    let result = story(&machine, packages, upgrade);
    if result.is_err() {
        println!("\n{}", machine.run("journalctl --no-pager --lines 60 -u 'minitorrent-*'")?);
    }
    result
}

fn story(machine: &Machine, packages: &Path, upgrade: &Path) -> Result<()> {
    scene("Installation: the tracker serves, and the peer waits for its settings");
    let first = take(machine, packages, "/srv/first")?;
    install(machine, &first)?;
    installed(machine)?;
    healthy(machine)?;
    scene("Settings, accounts, a group, a file");
    configure(machine)?;
    share(machine)?;
    scene("Upgrade: both services are restarted; settings, accounts and shares are as before");
    let second = take(machine, upgrade, "/srv/second")?;
    upgraded(machine, &second)?;
    download(machine)?;
    scene("Removal: the programs are gone; settings and data stay, and another installation finds them");
    removed(machine)?;
    install(machine, &first)?;
    healthy(machine)?;
    machine.run("systemctl start minitorrent-peer")?;
    shared(machine)?;
    scene("Purge: nothing is left but the users and the operator's own files");
    purged(machine)?;
    println!("\nthe packages were installed, used, upgraded, removed and purged");
    Ok(())
}

/// Copies the packages of a directory to the machine. Returns their paths there.
fn take(machine: &Machine, from: &Path, into: &str) -> Result<String> {
    machine.run(&format!("mkdir {into}"))?;
    let mut paths = Vec::new();
    for program in &PROGRAMS {
        paths.push(machine.take(&make::deb_of(program, from)?, into)?);
    }
    Ok(paths.join(" "))
}

fn install(machine: &Machine, packages: &str) -> Result<()> {
    // dpkg fails where a package is missing that these depend on.
    let said = machine.run(&format!("dpkg --install {packages} 2>&1"))?;
    println!("  {}", said.trim().replace('\n', "\n  "));
    Ok(())
}

fn state(machine: &Machine, program: &Program) -> Result<String> {
    let name = program.package;
    let state =
        machine.output(&format!("systemctl is-active {name} || true; systemctl is-enabled {name}"))?;
    Ok(String::from_utf8_lossy(&state.stdout).trim().replace('\n', " "))
}

/// Checks what is on the machine after the first installation.
fn installed(machine: &Machine) -> Result<()> {
    for (program, expected) in [(TRACKER, "active enabled"), (PEER, "inactive disabled")] {
        let Program { name, package, settings, .. } = program;
        let found = state(machine, &program)?;
        ensure!(found == expected, "{package} should be {expected}, and is {found}");
        let pages = format!(
            "test -x /usr/bin/{name}; test -s /usr/share/man/man1/{name}.1.gz; \
             bash -n /usr/share/bash-completion/completions/{name}; \
             test -s /usr/share/zsh/vendor-completions/_{name}; \
             test -s /usr/share/fish/vendor_completions.d/{name}.fish; getent passwd {package}"
        );
        machine.run(&pages)?;
        let depends = machine.run(&format!("dpkg-query --show --showformat '${{Depends}}' {package}"))?;
        ensure!(
            depends.contains("libc6 (>= "),
            "{package} depends on {depends:?}, and on no version of libc6"
        );
        let conffiles = machine.run(&format!("dpkg-query --show --showformat '${{Conffiles}}' {package}"))?;
        ensure!(conffiles.contains(settings), "{settings} is no conffile of {package}: {conffiles:?}");
        println!("  {package}: {found}; depends on {depends}");
    }
    Ok(())
}

fn healthy(machine: &Machine) -> Result<()> {
    wait_for("the tracker is healthy", SOON, || {
        let asked = machine.output(HEALTH)?;
        Ok(asked.status.success().then_some(()))
    })?;
    let owner = machine.run("stat --format '%U %a' /var/lib/minitorrent-tracker")?;
    ensure!(owner.trim() == "minitorrent-tracker 700", "the data directory is {owner}");
    println!("  the tracker is healthy");
    Ok(())
}

fn configure(machine: &Machine) -> Result<()> {
    for (file, line) in CHANGED {
        let key = line.split(' ').next().unwrap_or_default();
        machine.run(&format!("sed -i 's|^{key} = .*|{line}|' {file}; grep -qxF '{line}' {file}"))?;
    }
    machine.run("install -m 644 /var/lib/minitorrent-tracker/ca.pem /etc/minitorrent/")?;
    machine.run("systemctl restart minitorrent-tracker && systemctl enable --now minitorrent-peer")?;
    healthy(machine)
}

fn share(machine: &Machine) -> Result<()> {
    machine.run("echo 'the long password of alice' >/srv/alice.password")?;
    for verb in ["create-user", "login"] {
        machine.run(&format!("{ALICE} {verb} alice --password-stdin </srv/alice.password"))?;
    }
    let refused = machine.output("peer --home /var/lib/minitorrent-peer/home status")?;
    let why = String::from_utf8_lossy(&refused.stderr).into_owned();
    ensure!(
        !refused.status.success() && why.contains("belongs to user id"),
        "root's verb should be refused: {why:?}"
    );
    println!("  as root, a verb says: {}", why.trim());
    machine.run(&format!("{ALICE} create-group g1"))?;
    machine.run(&format!("head -c 5000000 /dev/urandom >/srv/film.mp4; {ALICE} upload /srv/film.mp4 g1"))?;
    machine.run(
        "echo 'the long password of bob' | tracker-svc user create bob --data-dir /var/lib/minitorrent-tracker",
    )?;
    shared(machine)
}

/// Checks that alice's session and share are there.
fn shared(machine: &Machine) -> Result<()> {
    wait_for("alice's file has a seeder", SOON, || {
        let listed = machine.run(&format!("{ALICE} list-files g1 --json"))?;
        let listed: serde_json::Value = serde_json::from_str(&listed)?;
        let file = &listed["files"][0];
        Ok((file["name"] == "film.mp4" && file["seeders"] == 1).then_some(()))
    })?;
    println!("  alice is logged in and shares film.mp4");
    Ok(())
}

fn upgraded(machine: &Machine, packages: &str) -> Result<()> {
    let run = "systemctl show --property MainPID --value";
    let before = PROGRAMS.each_ref().map(|program| machine.run(&format!("{run} {}", program.package)));
    install(machine, packages)?;
    for (program, before) in PROGRAMS.iter().zip(before) {
        let name = program.package;
        let (found, before, now) =
            (state(machine, program)?, before?, machine.run(&format!("{run} {name}"))?);
        ensure!(found == "active enabled", "after the upgrade, {name} is {found}");
        ensure!(before != now, "{name} still runs as process {}", now.trim());
        println!("  {name}: process {} before, {} now", before.trim(), now.trim());
    }
    for (file, line) in CHANGED {
        machine.run(&format!("grep -qxF '{line}' {file}"))?;
    }
    healthy(machine)?;
    shared(machine)
}

/// bob joins and downloads what alice shares.
fn download(machine: &Machine) -> Result<()> {
    machine.run("useradd --system bob; install -d -o bob -m 700 /srv/bob")?;
    machine.run(&format!("echo 'the long password of bob' | {BOB} login bob --password-stdin"))?;
    machine.run(&format!("{BOB} join-group g1; {ALICE} accept-request g1 bob"))?;
    machine.run(&format!("{BOB} download g1 film.mp4 /srv/bob/; cmp /srv/film.mp4 /srv/bob/film.mp4"))?;
    machine.run(&format!("{BOB} daemon stop"))?;
    println!("  bob has film.mp4");
    Ok(())
}

fn removed(machine: &Machine) -> Result<()> {
    machine.run("dpkg --remove minitorrent-tracker minitorrent-peer 2>&1")?;
    for program in &PROGRAMS {
        let Program { name, package, settings, .. } = program;
        let found = state(machine, program)?;
        ensure!(found.starts_with("inactive"), "{package} is {found} after its removal");
        machine.run(&format!(
            "test ! -e /usr/bin/{name}; test -e /etc/minitorrent/{settings}; test -e /var/lib/{package}"
        ))?;
    }
    machine.run("test -s /var/lib/minitorrent-tracker/tracker.db").map(drop)
}

fn purged(machine: &Machine) -> Result<()> {
    machine.run("dpkg --purge minitorrent-tracker minitorrent-peer 2>&1")?;
    let find = "find / -xdev '(' -path /proc -o -path /sys -o -path /srv ')' -prune \
                -o '(' -name '*minitorrent*' -o -name 'tracker-svc*' -o -name 'peer.*' ')' -print";
    let left = machine.run(find)?;
    ensure!(left.trim() == "/etc/minitorrent", "left after the purge:\n{left}");
    let own = machine.run("ls /etc/minitorrent")?;
    ensure!(own.trim() == "ca.pem", "left after the purge in /etc/minitorrent:\n{own}");
    println!("  left: /etc/minitorrent/ca.pem, which the operator put there");
    Ok(())
}
