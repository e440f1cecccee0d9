//! The demo: a tracker and three peers on this machine transfer a real file between them.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

use testbed::{Host, Hosts as _, cmd, peer, peer_json, processes::Processes, programs};

use testbed::scenario::{self, GROUP, PIECE, USERS, mib, scene};

/// Size of the file that is made if none is given.
const SAMPLE_BYTES: u64 = 128 << 20;

/// The arguments of the command.
#[derive(Default)]
struct Options {
    file: Option<PathBuf>,
    keep: bool,
    /// Use the dev profile, with which the tests are built.
    dev: bool,
}

pub(crate) fn run(args: &[&str]) -> Result<()> {
    let mut options = Options::default();
    for arg in args {
        match *arg {
            "--keep" => options.keep = true,
            "--dev" => options.dev = true,
            flag if flag.starts_with('-') => bail!("demo knows --keep and --dev, not {flag:?}"),
            file if options.file.is_none() => options.file = Some(PathBuf::from(file)),
            more => bail!("demo takes one file; {more:?} is a second one"),
        }
    }
    let file = match &options.file {
        Some(file) => std::path::absolute(file)?,
        None => {
            let sample = cmd::root().join("target/demo/sample.bin");
            programs::make_file(&sample, SAMPLE_BYTES, 1)?;
            sample
        }
    };
    let size = fs::metadata(&file).with_context(|| format!("{} can't be read", file.display()))?.len();
    let bin = programs::build(options.dev)?;
    play(&bin, &file, size, options.keep)
}

fn play(bin: &Path, file: &Path, size: u64, keep: bool) -> Result<()> {
    let name = file.file_name().and_then(|name| name.to_str()).context("the file's name is not UTF-8")?;
    scene("A tracker and three peers");
    let mut hosts = Processes::on_loopback(bin, USERS.len())?;
    println!("  {}", hosts.describe());
    println!("  tracker  {}", hosts.tracker_url());
    for (n, user) in (1..).zip(&USERS) {
        println!("  peer{n}    {}'s, {}", user.name, hosts.home(Host::Peer(n)).display());
    }

    scene("Creating accounts, and a group whose owner accepts two others");
    scenario::accounts(&hosts)?;
    scenario::group(&hosts)?;

    scene(&format!("alice shares {name} ({})", mib(size)));
    let path = file.to_string_lossy();
    peer(&hosts, 1, &["upload", &path, GROUP])?;
    // The limit is low enough that the two leechers have pieces to give each other.
    let limit = (size / 4).max(4 << 20);
    peer(&hosts, 1, &["limit", "--up", &limit.to_string()])?;

    scene("bob and carol download it at the same time, from alice and from each other");
    for n in [2, 3] {
        peer(&hosts, n, &["download", GROUP, name, "out/", "--detach"])?;
    }
    let downloads = scenario::watch(
        &hosts,
        &[2, 3],
        name,
        Duration::from_secs(60) + Duration::from_secs(size / (4 << 20)),
    )?;

    scene("Results");
    check(&hosts, file, name, size, &downloads)?;
    let out = cmd::root().join("target/demo");
    fs::create_dir_all(&out)?;
    let kept = out.join(format!("carols-{name}"));
    let carols = hosts.files(Host::Peer(3)).join("out").join(name);
    if keep {
        by_hand(&mut hosts, bin, name);
        return Ok(());
    }
    if fs::rename(&carols, &kept).is_err() {
        // The rename failed because the target is on another file system.
        fs::copy(&carols, &kept)?;
    }
    println!("\ncarol's copy is {}", kept.display());
    Ok(())
}

/// Checks that both copies equal the file, in bytes and hashes, and that each leecher received pieces from
/// both other peers.
fn check(
    hosts: &Processes,
    file: &Path,
    name: &str,
    size: u64,
    downloads: &[scenario::Download],
) -> Result<()> {
    let hash = |n: usize, path: &str| -> Result<(String, String)> {
        let json = peer_json(hosts, n, &["hash", path])?;
        let text = |key: &str| {
            json[key].as_str().map(str::to_owned).with_context(|| format!("`{key}` is missing in {json}"))
        };
        Ok((text("sha1")?, text("blake3")?))
    };
    let original = hash(1, &file.to_string_lossy())?;
    for (n, download) in (2..).zip(downloads) {
        let user = USERS[n - 1].name;
        let copy = format!("out/{name}");
        cmd::run(cmp(hosts, n, file, &copy))?;
        if hash(n, &copy)? != original {
            bail!("{user}'s copy has another hash");
        }
        let from: Vec<String> =
            download.from.iter().map(|(user, bytes)| format!("{} from {user}", mib(*bytes))).collect();
        println!("  {user}: the same bytes; {}", from.join(", "));
        let givers = download.from.values().filter(|bytes| **bytes > 0).count();
        if size >= 16 * PIECE && givers < 2 {
            bail!("{user} should have received pieces from both of the others");
        }
    }
    println!("  sha1    {}\n  blake3  {}", original.0, original.1);
    Ok(())
}

fn cmp(hosts: &Processes, n: usize, file: &Path, copy: &str) -> std::process::Command {
    let mut command = cmd::command("cmp", &[]);
    command.arg(file).arg(hosts.files(Host::Peer(n)).join(copy));
    command
}

fn by_hand(hosts: &mut Processes, bin: &Path, name: &str) {
    hosts.keep();
    let dir = hosts.dir().display();
    let pids: Vec<String> = hosts.pids().iter().map(ToString::to_string).collect();
    println!("\nAll processes keep running. To try by hand:");
    println!(
        "  export PATH={}:$PATH PEER_TRACKER={} PEER_CA={}",
        bin.display(),
        hosts.tracker_url(),
        hosts.ca().display()
    );
    println!("  export PEER_HOME={}      # you are bob", hosts.home(Host::Peer(2)).display());
    println!("  peer status; peer list-files {GROUP}; peer show-downloads; peer verify {GROUP} {name}");
    println!("  grpcurl -cacert $PEER_CA {} list", hosts.tracker_url().trim_start_matches("https://"));
    println!("To end it:\n  kill {}; rm -r {dir}", pids.join(" "));
}
