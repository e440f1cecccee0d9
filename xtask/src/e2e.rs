//! The whole story with real programs on several hosts, with all that goes wrong in a real network: one is cut off and comes
//! back, one is killed, the tracker is restarted, all are stopped and started again.
//!
//! With a Docker engine it is docker-compose.yml that is played; without one it says so, and the same story is played in
//! network namespaces or, without the right to make those, in plain processes.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, bail};

use crate::{
    cmd, demo, images,
    stage::{
        self, Host, Stage, containers::Containers, peer, peer_exits, peer_json, processes::Processes,
        try_peer, wait_for,
    },
    story::{self, GROUP, USERS, mib, scene},
};

const PEERS: usize = 3;
const NAME: &str = "big.bin";
const BYTES: u64 = 96 << 20;
/// A second file, whose download is not finished when all end.
const LATER: &str = "later.bin";
const LATER_BYTES: u64 = 32 << 20;
/// Bytes a second that the seeder may send while things go wrong: some 20 seconds for the file.
const SLOW: u64 = 8 << 20;
const SOON: Duration = Duration::from_secs(30);
const LONG: Duration = Duration::from_secs(180);

pub(crate) fn run(args: &[&str]) -> Result<()> {
    let with_containers = match args {
        [] => images::engine_answers(),
        ["--processes"] => false,
        _ => bail!("e2e knows --processes, not {args:?}"),
    };
    let bases = if with_containers { bases() } else { None };
    if let Some(bases) = bases {
        images::build(&bases)?;
        scene("Compose, from clean");
        let mut stage = Containers::up(bases, PEERS)?;
        play(&mut stage)?;
        scene("Compose down and up again: all is back");
        let took = stage.down()?;
        println!("  down took {:.1} s", took.as_secs_f64());
        stage.up_again(PEERS)?;
        return all_is_back(&stage);
    }
    if args.is_empty() {
        println!(
            "SKIPPED: no Docker engine with base images here, so docker-compose.yml is NOT tested by this run"
        );
    }
    let bin = demo::build(true)?;
    let mut stage = if Processes::namespaces_work() {
        Processes::in_namespaces(&bin, PEERS)?
    } else {
        println!(
            "SKIPPED: no network namespaces can be made here; a host that is cut off is one that is stopped"
        );
        Processes::on_loopback(&bin, PEERS)?
    };
    play(&mut stage)
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
    scene("grpcurl: the services, an account, a group");
    poke(stage)?;
    scene("Accounts and a group, by command line");
    story::accounts(stage)?;
    story::group(stage)?;
    scene("What is refused, and how");
    refusals(stage)?;
    scene("A file is shared, two download it");
    let file = cmd::root().join("target/demo").join(NAME);
    story::make_file(&file, BYTES, 2)?;
    stage::put(stage, Host::Peer(1), &file, NAME)?;
    peer(stage, 1, &["upload", NAME, GROUP])?;
    peer(stage, 1, &["limit", "--up", &SLOW.to_string()])?;
    for n in [2, 3] {
        peer(stage, n, &["download", GROUP, NAME, "out/", "--detach"])?;
    }
    bad_luck(stage)?;
    scene("Both arrive");
    story::watch(stage, &[2, 3], NAME, LONG)?;
    for n in [2, 3] {
        if !stage::same(stage, Host::Peer(n), &format!("out/{NAME}"), &file)? {
            bail!("peer{n}'s copy is not the file");
        }
        peer(stage, n, &["verify", GROUP, NAME])?;
    }
    peer(stage, 2, &["download", GROUP, NAME, "out/"])?;
    println!("  both copies are the file");
    full_disk(stage)?;
    scene("SIGTERM to each, in the middle of a download: all end well, and start again with all they had");
    let file = share_later(stage)?;
    peer(stage, 3, &["download", GROUP, LATER, "out/", "--detach"])?;
    reaches(stage, 3, LATER, 20)?;
    for host in (1..=PEERS).map(Host::Peer).chain([Host::Tracker]) {
        ends_well(stage, host)?;
    }
    // The peers first: a tracker that isn't there yet is no error.
    for host in (1..=PEERS).map(Host::Peer).chain([Host::Tracker]) {
        stage.start(host)?;
    }
    all_is_back(stage)?;
    story::watch(stage, &[3], LATER, LONG)?;
    if !stage::same(stage, Host::Peer(3), &format!("out/{LATER}"), &file)? {
        bail!("peer3's copy of {LATER} is not the file");
    }
    scene("Logs");
    check_logs(stage)
}

/// alice shares the second file, slowly.
fn share_later(stage: &dyn Stage) -> Result<PathBuf> {
    let file = cmd::root().join("target/demo").join(LATER);
    story::make_file(&file, LATER_BYTES, 5)?;
    if try_peer(stage, 1, &["verify", GROUP, LATER], "")?.code != 0 {
        stage::put(stage, Host::Peer(1), &file, LATER)?;
        peer(stage, 1, &["upload", LATER, GROUP])?;
    }
    peer(stage, 1, &["limit", "--up", &SLOW.to_string()])?;
    Ok(file)
}

/// A disk too small for the file: the download is refused and makes nothing, and nothing else suffers.
fn full_disk(stage: &dyn Stage) -> Result<()> {
    let Some(disk) = stage.small_disk() else {
        println!("SKIPPED: there is no small disk on this stage to fill");
        return Ok(());
    };
    scene("A disk that is too small");
    share_later(stage)?;
    let refused = peer_exits(stage, 9, 3, &["download", GROUP, LATER, &format!("{disk}/"), "--detach"], "")?;
    println!("  {}", refused.stderr.trim());
    if story::download(stage, 3, LATER)?.is_some() {
        bail!("a download that was refused should not be listed");
    }
    peer(stage, 3, &["verify", GROUP, NAME]).map(drop)
}

/// The account-and-group part with a real grpcurl, by reflection alone.
fn poke(stage: &dyn Stage) -> Result<()> {
    if !cmd::works("grpcurl", &["-version"]) {
        println!("SKIPPED: grpcurl is not installed, so nothing is poked");
        return Ok(());
    }
    let services = grpcurl(stage, &[], &["list"])?;
    for service in ["AuthService", "GroupService", "FileService", "SwarmService"] {
        if !services.contains(&format!("minitorrent.v1.{service}")) {
            bail!("reflection does not list {service}: {services}");
        }
    }
    let call = |token: &str, method: &str, body: &str| {
        let header = format!("authorization: Bearer {token}");
        grpcurl(stage, &["-H", &header, "-d", body], &[&format!("minitorrent.v1.{method}")])
    };
    let mut tokens = Vec::new();
    for name in ["dave", "erin"] {
        let body = format!(r#"{{"username":"{name}","password":"a-long-one-for-{name}"}}"#);
        call("", "AuthService/CreateUser", &body)?;
        let login: serde_json::Value = serde_json::from_str(&call("", "AuthService/Login", &body)?)?;
        tokens.push(login["sessionToken"].as_str().context("no sessionToken")?.to_owned());
    }
    let [dave, erin] = &tokens[..] else { bail!("two tokens") };
    call(dave, "AuthService/WhoAmI", "{}")?;
    call(dave, "GroupService/CreateGroup", r#"{"group_id":"pokes"}"#)?;
    call(erin, "GroupService/JoinGroup", r#"{"group_id":"pokes"}"#)?;
    call(dave, "GroupService/ListJoinRequests", r#"{"group_id":"pokes"}"#)?;
    call(dave, "GroupService/AcceptJoinRequest", r#"{"group_id":"pokes","username":"erin"}"#)?;
    let members = call(erin, "GroupService/ListMembers", r#"{"group_id":"pokes"}"#)?;
    if !(members.contains("dave") && members.contains("erin")) {
        bail!("both should be members: {members}");
    }
    call(erin, "FileService/ListFiles", r#"{"group_id":"pokes"}"#)?;
    call(dave, "AuthService/Logout", "{}")?;
    if call(dave, "AuthService/WhoAmI", "{}").is_ok() {
        bail!("the token should be void after Logout");
    }
    Ok(())
}

fn grpcurl(stage: &dyn Stage, flags: &[&str], words: &[&str]) -> Result<String> {
    println!("  grpcurl {}", words.join(" "));
    cmd::capture(stage.grpcurl(&[flags, &["-max-time", "10"]].concat(), words))
}

fn refusals(stage: &dyn Stage) -> Result<()> {
    // No daemon has that home, and none may be started.
    peer_exits(stage, 10, 3, &["status", "--home", "nobody"], "")?;
    // One daemon a home, so that two never share a volume.
    peer_exits(stage, 6, 2, &["daemon"], "")?;
    peer_exits(stage, 6, 2, &["create-group", GROUP], "")?;
    peer_exits(stage, 3, 2, &["download", GROUP, "nothing", "out/"], "")?;
    peer_exits(stage, 5, 2, &["list-files", "no-such-group"], "")?;
    peer_exits(stage, 3, 2, &["join-group", "no-such-group"], "")?;
    peer_exits(stage, 5, 2, &["remove-member", GROUP, "carol"], "")?;
    peer_exits(stage, 3, 1, &["upload", "nothing", GROUP], "")?;
    peer_exits(stage, 6, 2, &["login", "alice", "--password-stdin"], USERS[0].password)?;
    peer_exits(stage, 2, 2, &["no-such-verb"], "").map(drop)
}

/// One is cut off, the tracker goes, one is killed: the others go on, and they all come back.
fn bad_luck(stage: &mut dyn Stage) -> Result<()> {
    reaches(stage, 2, NAME, 10)?;
    scene("peer2 is cut off: peer3 goes on");
    stage.cut(Host::Peer(2))?;
    let before = done(stage, 3)?;
    reaches(stage, 3, NAME, percent(before) + 10)?;
    stage.heal(Host::Peer(2))?;
    scene("peer2 is back");
    let before = done(stage, 2)?;
    reaches(stage, 2, NAME, percent(before) + 5)?;

    scene("The tracker ends; the peers go on without it");
    ends_well(stage, Host::Tracker)?;
    let before = done(stage, 3)?;
    reaches(stage, 3, NAME, (percent(before) + 5).min(100))?;
    peer_exits(stage, 7, 2, &["list-groups"], "")?;
    stage.start(Host::Tracker)?;
    wait_for("peer2 reaches the tracker again", SOON, || {
        Ok((try_peer(stage, 2, &["list-groups"], "")?.code == 0).then_some(()))
    })?;

    scene("peer3 is killed, and goes on from where it was");
    let before = done(stage, 3)?;
    stage.kill(Host::Peer(3))?;
    stage.start(Host::Peer(3))?;
    let after = wait_for("peer3 has its download again", SOON, || {
        Ok(story::download(stage, 3, NAME)?
            .filter(|download| download.done > 0 || download.state == "complete"))
    })?;
    println!("  before {}, after {}", mib(before), mib(after.done));
    if after.done + (48 << 20) < before {
        bail!("more than 48 MiB of verified pieces were lost");
    }
    Ok(())
}

fn done(stage: &dyn Stage, n: usize) -> Result<u64> {
    Ok(story::download(stage, n, NAME)?.context("the download is gone")?.done)
}

/// Of [`NAME`].
fn percent(done: u64) -> u64 {
    done * 100 / BYTES
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
        let found = files["files"].as_array().into_iter().flatten().find(|file| file["name"] == NAME);
        Ok(found.filter(|file| file["seeders"] == 3).map(drop))
    })?;
    println!("  sessions, groups and shares are back; {NAME} has 3 seeders");
    Ok(())
}

/// Nothing panicked, and no secret was written.
fn check_logs(stage: &dyn Stage) -> Result<()> {
    let logs = stage.logs()?;
    let secrets = USERS.iter().map(|user| user.password).chain([
        "mts_",
        "a-long-one-for-",
        "PRIVATE KEY",
        "v4.public.",
    ]);
    for word in secrets.chain(["panicked at"]) {
        if let Some(line) = logs.lines().find(|line| line.contains(word)) {
            bail!("{word:?} should not be in the logs: {line}");
        }
    }
    println!("  {} lines, no panic, no secret", logs.lines().count());
    Ok(())
}
