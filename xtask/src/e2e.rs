//! The whole story with real programs on several hosts, with all that goes wrong in a real network: one is cut off and comes
//! back, one is killed, one moves, the tracker is restarted, disks are full, all are stopped and started again.
//!
//! With a Docker engine it is docker-compose.yml that is played; without one it says so, and the same story is played in
//! network namespaces or, without the right to make those, in plain processes.

mod disks;
mod logs;
mod luck;

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, bail};

use crate::{
    cmd, demo, images,
    poke::{self, Poker},
    readme,
    stage::{
        self, Host, Stage, containers::Containers, peer, peer_exits, peer_json, processes::Processes,
        try_peer, wait_for,
    },
    story::{self, GROUP, USERS, mib, scene},
};

const PEERS: usize = 3;
const SOON: Duration = Duration::from_secs(30);
const LONG: Duration = Duration::from_secs(180);

const NO_ENGINE: &str = "no Docker engine with base images here: docker-compose.yml is NOT tested; the story went through in network namespaces";
const NO_NAMESPACES: &str = "no Docker engine and no network namespaces here: docker-compose.yml is NOT tested, and no line was cut and no disk filled; the story went through in plain processes";

/// A file of the story.
struct Sample {
    name: &'static str,
    bytes: u64,
    seed: u64,
}

/// What is on its way while one thing after the other goes wrong.
const BIG: Sample = Sample { name: "big.bin", bytes: 96 << 20, seed: 2 };
/// What is on its way when its volume moves to another host.
const MOVED: Sample = Sample { name: "moved.bin", bytes: 24 << 20, seed: 5 };
/// What is on its way when each is told to end, and when all are brought down.
const LATER: Sample = Sample { name: "later.bin", bytes: 24 << 20, seed: 6 };
const LAST: Sample = Sample { name: "last.bin", bytes: 24 << 20, seed: 7 };

/// Plays it. What could not be played here, if so; the rest has gone well.
pub(crate) fn run(args: &[&str]) -> Result<Option<&'static str>> {
    let with_containers = match args {
        [] => images::engine_answers(),
        ["--processes"] => false,
        _ => bail!("e2e knows --processes, not {args:?}"),
    };
    let bases = if with_containers { bases() } else { None };
    if let Some(bases) = bases {
        return in_containers(bases).map(|()| None);
    }
    let bin = demo::build(true)?;
    let left_out = if Processes::namespaces_work() {
        play(&mut Processes::in_namespaces(&bin, PEERS)?)?;
        disks::play(&Processes::with_small_disks(&bin, PEERS, &[Host::Tracker, Host::Peer(2)])?)?;
        NO_ENGINE
    } else {
        play(&mut Processes::on_loopback(&bin, PEERS)?)?;
        NO_NAMESPACES
    };
    println!("\nSKIPPED: {left_out}");
    Ok(args.is_empty().then_some(left_out))
}

fn in_containers(mut bases: images::Bases) -> Result<()> {
    // The same Dockerfile, compiled in half the time: nothing here is a matter of speed.
    bases.push(("OPT_LEVEL", "1".to_owned()));
    images::build(&bases)?;
    scene("Compose, from clean");
    let mut stage = Containers::up(bases.clone(), PEERS)?;
    stage.check_confinement()?;
    play(&mut stage)?;
    scene("Compose down and up again, in the middle of a download: all is back");
    let file = midway(&stage, &LAST)?;
    let took = stage.down()?;
    println!("  down took {:.1} s", took.as_secs_f64());
    stage.up_again()?;
    all_is_back(&stage)?;
    arrives(&stage, 3, &LAST, &file)?;
    drop(stage);
    scene("The README's tour, word by word");
    readme::tour()?;
    disks::play(&Containers::with_small_volumes(bases, PEERS)?)
}

/// What to build the images on; `None`, said loudly, where it can't be had.
fn bases() -> Option<images::Bases> {
    scene("Images");
    let bases = images::bases();
    if let Err(error) = &bases {
        println!("SKIPPED: the base images can't be made here: {error:#}");
    }
    bases.ok()
}

fn play(stage: &mut dyn Stage) -> Result<()> {
    println!("  {}", stage.describe());
    scene("grpcurl: accounts, and who comes and goes in a group");
    if poke::available() {
        let mut poker = Poker::new(|flags, words| stage.grpcurl(flags, words));
        let (dave, erin) = poker.accounts()?;
        poker.groups(&dave, &erin)?;
    } else {
        println!("SKIPPED: grpcurl is not installed, so nothing is poked");
    }
    scene("Accounts and a group, by command line");
    story::accounts(stage)?;
    story::group(stage)?;
    scene("What is refused, and how");
    refusals(stage)?;
    scene("A file is shared, two download it");
    let file = share(stage, &BIG)?;
    for n in [2, 3] {
        peer(stage, n, &["download", GROUP, BIG.name, "out/", "--detach"])?;
    }
    luck::while_downloading(stage)?;
    scene("Both arrive");
    story::watch(stage, &[2, 3], BIG.name, LONG)?;
    for n in [2, 3] {
        arrives(stage, n, &BIG, &file)?;
        peer(stage, n, &["verify", GROUP, BIG.name])?;
    }
    peer(stage, 2, &["download", GROUP, BIG.name, "out/"])?;
    luck::a_volume_moves(stage)?;
    scene("SIGTERM to each, in the middle of a download: all end well, and start again with all they had");
    let file = midway(stage, &LATER)?;
    for host in (1..=PEERS).map(Host::Peer).chain([Host::Tracker]) {
        ends_well(stage, host)?;
    }
    // The peers first: a tracker that isn't there yet is no error.
    for host in (1..=PEERS).map(Host::Peer).chain([Host::Tracker]) {
        stage.start(host)?;
    }
    all_is_back(stage)?;
    arrives(stage, 3, &LATER, &file)?;
    scene("Logs");
    logs::check(stage)
}

/// alice shares a file, slowly: some seconds' worth.
fn share(stage: &dyn Stage, sample: &Sample) -> Result<PathBuf> {
    let file = cmd::root().join("target/demo").join(sample.name);
    story::make_file(&file, sample.bytes, sample.seed)?;
    stage::put(stage, Host::Peer(1), &file, sample.name)?;
    peer(stage, 1, &["upload", sample.name, GROUP])?;
    peer(stage, 1, &["limit", "--up", &(sample.bytes / 10).to_string()])?;
    Ok(file)
}

/// alice shares a file, and carol's download of it has begun.
fn midway(stage: &dyn Stage, sample: &Sample) -> Result<PathBuf> {
    let file = share(stage, sample)?;
    peer(stage, 3, &["download", GROUP, sample.name, "out/", "--detach"])?;
    reaches(stage, 3, sample.name, 20)?;
    Ok(file)
}

/// The download of peer `n` completes, and is the file.
fn arrives(stage: &dyn Stage, n: usize, sample: &Sample, file: &std::path::Path) -> Result<()> {
    wait_for(&format!("peer{n} has all of {}", sample.name), LONG, || {
        let download = story::download(stage, n, sample.name)?.context("the download is gone")?;
        Ok((download.state == "complete").then_some(()))
    })?;
    if !stage::same(stage, Host::Peer(n), &format!("out/{}", sample.name), file)? {
        bail!("peer{n}'s copy of {} is not the file", sample.name);
    }
    println!("  peer{n} has {}, byte for byte", sample.name);
    Ok(())
}

fn refusals(stage: &dyn Stage) -> Result<()> {
    // No daemon has that home, and none may be started.
    peer_exits(stage, 10, 3, &["status", "--home", "nobody"], "")?;
    peer_exits(stage, 6, 2, &["create-group", GROUP], "")?;
    peer_exits(stage, 3, 2, &["download", GROUP, "nothing", "out/"], "")?;
    peer_exits(stage, 5, 2, &["list-files", "no-such-group"], "")?;
    peer_exits(stage, 3, 2, &["join-group", "no-such-group"], "")?;
    peer_exits(stage, 5, 2, &["remove-member", GROUP, "carol"], "")?;
    peer_exits(stage, 3, 1, &["upload", "nothing", GROUP], "")?;
    peer_exits(stage, 6, 2, &["login", "alice", "--password-stdin"], USERS[0].password)?;
    peer_exits(stage, 2, 2, &["no-such-verb"], "").map(drop)
}

/// Waits until peer `n` has so many percent of the file.
fn reaches(stage: &dyn Stage, n: usize, name: &str, wanted: u64) -> Result<()> {
    let done = wait_for(&format!("peer{n} has {wanted} % of {name}"), LONG, || {
        let download = story::download(stage, n, name)?.context("the download is gone")?;
        let percent = (download.done * 100).checked_div(download.size).unwrap_or(0);
        Ok((percent >= wanted.min(100)).then_some(download.done))
    })?;
    println!("  peer{n} has {}", mib(done));
    Ok(())
}

fn ends_well(stage: &mut dyn Stage, host: Host) -> Result<()> {
    let ended = stage.stop(host)?;
    println!("  {host}: exit {:?} after {:.1} s", ended.code, ended.took.as_secs_f64());
    if ended.code != Some(0) {
        bail!("{host} should end with 0 on SIGTERM");
    }
    if ended.took > Duration::from_secs(12) {
        bail!("{host} should end within 10 s on SIGTERM");
    }
    Ok(())
}

/// Sessions, groups, shares and finished downloads survive.
fn all_is_back(stage: &dyn Stage) -> Result<()> {
    for (n, user) in (1..).zip(&USERS) {
        wait_for(&format!("{} is logged in and the tracker is reached", user.name), SOON, || {
            let who = try_peer(stage, n, &["list-groups", "--json"], "")?;
            Ok((who.code == 0 && who.stdout.contains(GROUP)).then_some(()))
        })?;
        let status = peer_json(stage, n, &["status"])?;
        if status["user"] != user.name {
            bail!("peer{n} should be {}'s: {status}", user.name);
        }
    }
    wait_for("three seeders again", SOON, || {
        let files = peer_json(stage, 1, &["list-files", GROUP])?;
        let found = files["files"].as_array().into_iter().flatten().find(|file| file["name"] == BIG.name);
        Ok(found.filter(|file| file["seeders"] == 3).map(drop))
    })?;
    println!("  sessions, groups and shares are back; {} has 3 seeders", BIG.name);
    Ok(())
}
