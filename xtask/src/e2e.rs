//! The end-to-end test: real programs on several hosts, with the faults of a real network. A host is cut off
//! and comes back, a host is killed, a volume moves to another host, the tracker is restarted, disks are
//! full, and everything is stopped and started again.
//!
//! Where a Docker engine answers, the test builds the images and runs docker-compose.yml, and fails if it
//! can't. Without an engine it says so and runs the same scenario in network namespaces, or in plain processes
//! where namespaces are not permitted.

mod cluster;
mod disks;
mod faults;
mod logs;
mod steps;

use std::path::Path;

use anyhow::{Result, bail};
use testbed::{
    Host, Hosts,
    classroom::{Class, play as play_class},
    containers::Containers,
    images, peer, peer_exits, peer_json,
    processes::Processes,
    programs,
    scenario::{self, GROUP, USERS, scene},
    try_peer, wait_for,
};

use self::steps::{BIG, LAST, LATER, LONG, PEERS, SOON, arrives, ends_well, midway, share};
use crate::{
    grpcurl::{self, Grpcurl},
    readme,
};

const NO_ENGINE: &str =
    "no Docker engine was found: docker-compose.yml is NOT tested; the scenario ran in network namespaces";
const NO_GRPCURL: &str =
    "grpcurl or openssl is not installed: no method of the tracker was called with grpcurl";
const NO_NAMESPACES: &str = "no Docker engine and no network namespaces were found: docker-compose.yml is NOT tested, no connection was cut and no disk was filled; the scenario ran in plain processes";

const NO_CLASSROOM: &str = "no network namespaces were found: no classroom was played";
/// The teacher's uplink decides how long it takes.
const CLASS: Class = Class { students: 30, bytes: 64 << 20, uplink: Some(50_000_000) };

/// Runs the test. Returns the reason if a part could not be run here; all other parts have passed.
pub(crate) fn run(args: &[&str]) -> Result<Option<String>> {
    let with_containers = match args {
        [] => images::engine_answers()?,
        ["--processes"] => false,
        // With the images as they are, for work on the story.
        ["--cluster"] => return cluster::play(Vec::new()).map(|()| None),
        _ => bail!("e2e knows --processes and --cluster, not {args:?}"),
    };
    let mut left_out = Vec::new();
    if !grpcurl::available()? {
        left_out.push(NO_GRPCURL);
    }
    if with_containers {
        in_containers()?;
        if Processes::namespaces_work()? {
            classroom(&images::programs()?)?;
        } else {
            left_out.push(NO_CLASSROOM);
        }
    } else {
        let bin = programs::build(true)?;
        let why = if Processes::namespaces_work()? {
            play(&mut Processes::in_namespaces(&bin, PEERS)?)?;
            disks::play(&Processes::with_small_disks(&bin, PEERS, &[Host::Tracker, Host::Peer(2)])?)?;
            scene("The README on two machines: over IPv4, IPv6, both, and a second interface");
            left_out.extend(readme::on_machines(&bin)?);
            classroom(&bin)?;
            NO_ENGINE
        } else {
            play(&mut Processes::on_loopback(&bin, PEERS)?)?;
            NO_NAMESPACES
        };
        left_out.extend(args.is_empty().then_some(why));
    }
    for why in &left_out {
        println!("\nSKIPPED: {why}");
    }
    Ok((!left_out.is_empty()).then(|| left_out.join("; ")))
}

/// Plays the classroom with the programs in `bin`.
pub(crate) fn classroom(bin: &Path) -> Result<()> {
    play_class(bin, &CLASS).map(drop)
}

fn in_containers() -> Result<()> {
    scene("Images");
    let mut bases = images::bases()?;
    // The same Dockerfile, compiled in half the time. Speed does not matter here.
    bases.push(("OPT_LEVEL", "1".to_owned()));
    images::build(&bases)?;
    scene("Compose, from clean");
    let mut hosts = Containers::up(bases.clone(), PEERS)?;
    hosts.check_confinement()?;
    play(&mut hosts)?;
    scene("Compose down and up again, in the middle of a download: all is back");
    let file = midway(&hosts, &LAST)?;
    let took = hosts.down()?;
    println!("  down took {:.1} s", took.as_secs_f64());
    hosts.up_again()?;
    all_is_back(&hosts)?;
    arrives(&hosts, 3, &LAST, &file)?;
    drop(hosts);
    scene("The tour of docs/operations.md, word by word");
    readme::tour()?;
    cluster::play(bases.clone())?;
    disks::play(&Containers::with_small_volumes(bases, PEERS)?)
}

fn play(hosts: &mut dyn Hosts) -> Result<()> {
    println!("  {}", hosts.describe());
    if grpcurl::available()? {
        scene("grpcurl: accounts, and who comes and goes in a group");
        let mut grpcurl = Grpcurl::new(|flags, words| hosts.grpcurl(flags, words));
        let (dave, erin) = grpcurl.accounts()?;
        grpcurl.groups(&dave, &erin)?;
    }
    scene("Accounts and a group, by command line");
    scenario::accounts(hosts)?;
    scenario::group(hosts)?;
    scene("What is refused, and how");
    refusals(hosts)?;
    scene("A file is shared, two download it");
    let file = share(hosts, &BIG)?;
    for n in [2, 3] {
        peer(hosts, n, &["download", GROUP, BIG.name, "out/", "--detach"])?;
    }
    faults::while_downloading(hosts)?;
    scene("Both arrive");
    scenario::watch(hosts, &[2, 3], BIG.name, LONG)?;
    for n in [2, 3] {
        arrives(hosts, n, &BIG, &file)?;
        peer(hosts, n, &["verify", GROUP, BIG.name])?;
    }
    peer(hosts, 2, &["download", GROUP, BIG.name, "out/"])?;
    faults::a_volume_moves(hosts)?;
    scene("SIGTERM to each, in the middle of a download: all end well, and start again with all they had");
    let file = midway(hosts, &LATER)?;
    for host in (1..=PEERS).map(Host::Peer).chain([Host::Tracker]) {
        ends_well(hosts, host)?;
    }
    // The peers start first, because a missing tracker must not be an error for them.
    for host in (1..=PEERS).map(Host::Peer).chain([Host::Tracker]) {
        hosts.start(host)?;
    }
    all_is_back(hosts)?;
    arrives(hosts, 3, &LATER, &file)?;
    scene("Logs");
    logs::check(hosts)
}

fn refusals(hosts: &dyn Hosts) -> Result<()> {
    // No daemon has this home, and none may be started.
    peer_exits(hosts, 10, 3, &["status", "--home", "nobody"], "")?;
    peer_exits(hosts, 6, 2, &["create-group", GROUP], "")?;
    peer_exits(hosts, 3, 2, &["download", GROUP, "nothing", "out/"], "")?;
    peer_exits(hosts, 5, 2, &["list-files", "no-such-group"], "")?;
    peer_exits(hosts, 3, 2, &["join-group", "no-such-group"], "")?;
    peer_exits(hosts, 5, 2, &["remove-member", GROUP, "carol"], "")?;
    peer_exits(hosts, 3, 1, &["upload", "nothing", GROUP], "")?;
    peer_exits(hosts, 6, 2, &["login", "alice", "--password-stdin"], USERS[0].password)?;
    peer_exits(hosts, 2, 2, &["no-such-verb"], "").map(drop)
}

/// Checks that sessions, groups, shares and finished downloads have survived.
fn all_is_back(hosts: &dyn Hosts) -> Result<()> {
    for (n, user) in (1..).zip(&USERS) {
        wait_for(&format!("{} is logged in and the tracker is reached", user.name), SOON, || {
            let who = try_peer(hosts, n, &["list-groups", "--json"], "")?;
            Ok((who.code == 0 && who.stdout.contains(GROUP)).then_some(()))
        })?;
        let status = peer_json(hosts, n, &["status"])?;
        if status["user"] != user.name {
            bail!("peer{n} should be {}'s: {status}", user.name);
        }
    }
    wait_for("three seeders again", SOON, || {
        let files = peer_json(hosts, 1, &["list-files", GROUP])?;
        let found = files["files"].as_array().into_iter().flatten().find(|file| file["name"] == BIG.name);
        Ok(found.filter(|file| file["seeders"] == 3).map(drop))
    })?;
    println!("  sessions, groups and shares are back; {} has 3 seeders", BIG.name);
    Ok(())
}
