//! The whole story on this machine: a tracker, three peers, and a real file that moves between them.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

use crate::{
    cmd,
    stage::{Host, Stage as _, peer, peer_json, processes::Processes},
    story::{self, GROUP, PIECE, USERS, mib, scene},
};

/// The file that is made when none is given.
const SAMPLE_BYTES: u64 = 128 << 20;

/// What was asked for.
#[derive(Default)]
struct Options {
    file: Option<PathBuf>,
    keep: bool,
    /// Use the binaries that the tests are built with.
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
            story::make_file(&sample, SAMPLE_BYTES, 1)?;
            sample
        }
    };
    let size = fs::metadata(&file).with_context(|| format!("{} can't be read", file.display()))?.len();
    let bin = build(options.dev)?;
    play(&bin, &file, size, options.keep)
}

/// Builds the two binaries; the folder that they are in.
pub(crate) fn build(dev: bool) -> Result<PathBuf> {
    let mut args = vec!["build", "--locked", "-p", "tracker-svc", "-p", "peer", "--bins"];
    if dev {
        println!("with the binaries that the tests are built with: slower, and nothing more to build");
    } else {
        args.push("--release");
    }
    cmd::run(cmd::command(&cmd::cargo(), &args))?;
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| cmd::root().join("target"), |dir| cmd::root().join(dir));
    Ok(target.join(if dev { "debug" } else { "release" }))
}

fn play(bin: &Path, file: &Path, size: u64, keep: bool) -> Result<()> {
    let name = file.file_name().and_then(|name| name.to_str()).context("the file's name is not UTF-8")?;
    scene("A tracker and three peers");
    let mut stage = Processes::on_loopback(bin, USERS.len())?;
    println!("  {}", stage.describe());
    println!("  tracker  {}", stage.tracker_url());
    for (n, user) in (1..).zip(&USERS) {
        println!("  peer{n}    {}'s, {}", user.name, stage.home(Host::Peer(n)).display());
    }

    scene("Accounts, and a group whose owner lets two others in");
    story::accounts(&stage)?;
    story::group(&stage)?;

    scene(&format!("alice shares {name} ({})", mib(size)));
    let path = file.to_string_lossy();
    peer(&stage, 1, &["upload", &path, GROUP])?;
    // Slow enough that the two who download have something to give each other.
    let limit = (size / 4).max(4 << 20);
    peer(&stage, 1, &["limit", "--up", &limit.to_string()])?;

    scene("bob and carol download it at once, from her and from each other");
    for n in [2, 3] {
        peer(&stage, n, &["download", GROUP, name, "out/", "--detach"])?;
    }
    let downloads =
        story::watch(&stage, &[2, 3], name, Duration::from_secs(60) + Duration::from_secs(size / (4 << 20)))?;

    scene("What arrived");
    check(&stage, file, name, size, &downloads)?;
    let out = cmd::root().join("target/demo");
    fs::create_dir_all(&out)?;
    let kept = out.join(format!("carols-{name}"));
    let carols = stage.files(Host::Peer(3)).join("out").join(name);
    if keep {
        by_hand(&mut stage, bin, name);
        return Ok(());
    }
    if fs::rename(&carols, &kept).is_err() {
        // Another file system.
        fs::copy(&carols, &kept)?;
    }
    println!("\ncarol's copy is {}", kept.display());
    Ok(())
}

/// Both copies are the file, byte for byte and hash for hash, and each came from both of the others.
fn check(stage: &Processes, file: &Path, name: &str, size: u64, downloads: &[story::Download]) -> Result<()> {
    let hash = |n: usize, path: &str| -> Result<(String, String)> {
        let json = peer_json(stage, n, &["hash", path])?;
        let text = |key: &str| {
            json[key].as_str().map(str::to_owned).with_context(|| format!("`{key}` is missing in {json}"))
        };
        Ok((text("sha1")?, text("blake3")?))
    };
    let original = hash(1, &file.to_string_lossy())?;
    for (n, download) in (2..).zip(downloads) {
        let user = USERS[n - 1].name;
        let copy = format!("out/{name}");
        cmd::run(stage_cmp(stage, n, file, &copy))?;
        if hash(n, &copy)? != original {
            bail!("{user}'s copy hashes to something else");
        }
        let from: Vec<String> =
            download.from.iter().map(|(user, bytes)| format!("{} from {user}", mib(*bytes))).collect();
        println!("  {user}: the same bytes; {}", from.join(", "));
        let givers = download.from.values().filter(|bytes| **bytes > 0).count();
        if size >= 16 * PIECE && givers < 2 {
            bail!("{user} should have got pieces from both of the others");
        }
    }
    println!("  sha1    {}\n  blake3  {}", original.0, original.1);
    Ok(())
}

fn stage_cmp(stage: &Processes, n: usize, file: &Path, copy: &str) -> std::process::Command {
    let mut command = cmd::command("cmp", &[]);
    command.arg(file).arg(stage.files(Host::Peer(n)).join(copy));
    command
}

fn by_hand(stage: &mut Processes, bin: &Path, name: &str) {
    stage.keep();
    let dir = stage.dir().display();
    let pids: Vec<String> = stage.pids().iter().map(ToString::to_string).collect();
    println!("\nAll of it goes on running. To try by hand:");
    println!(
        "  export PATH={}:$PATH PEER_TRACKER={} PEER_CA={}",
        bin.display(),
        stage.tracker_url(),
        stage.ca().display()
    );
    println!("  export PEER_HOME={}      # you are bob", stage.home(Host::Peer(2)).display());
    println!("  peer status; peer list-files {GROUP}; peer show-downloads; peer verify {GROUP} {name}");
    println!("  grpcurl -cacert $PEER_CA {} list", stage.tracker_url().trim_start_matches("https://"));
    println!("To end it:\n  kill {}; rm -r {dir}", pids.join(" "));
}
