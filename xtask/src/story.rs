//! The scenes that the demo and the end-to-end run share.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, BufWriter, IsTerminal as _, Write as _},
    path::Path,
    sync::LazyLock,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::stage::{Stage, peer, peer_exits, peer_json};

/// Bytes of a piece.
pub(crate) const PIECE: u64 = 524_288;

/// An account of the story. Peer `n` belongs to the `n`th user.
pub(crate) struct User {
    pub(crate) name: &'static str,
    pub(crate) password: &'static str,
}

pub(crate) const USERS: [User; 3] = [
    User { name: "alice", password: "correct-horse-battery-1" },
    User { name: "bob", password: "correct-horse-battery-2" },
    User { name: "carol", password: "correct-horse-battery-3" },
];

pub(crate) const GROUP: &str = "g1";

/// A headline, with the time since the first.
pub(crate) fn scene(words: &str) {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    println!("\n== {words}  [{:.0} s]", START.elapsed().as_secs_f64());
}

/// Makes a file of bytes that don't repeat and don't compress; the same ones for the same seed.
pub(crate) fn make_file(path: &Path, bytes: u64, seed: u64) -> Result<()> {
    if fs::metadata(path).is_ok_and(|found| found.len() == bytes) {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let mut out =
        BufWriter::new(fs::File::create(path).with_context(|| format!("{} can't be made", path.display()))?);
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut left = bytes;
    while left > 0 {
        // xorshift64*
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        let word = state.wrapping_mul(0x2545_F491_4F6C_DD1D).to_le_bytes();
        let take = left.min(8);
        out.write_all(&word[..usize::try_from(take).unwrap_or(8)])?;
        left -= take;
    }
    out.flush()?;
    Ok(())
}

/// Everybody gets an account and logs in.
pub(crate) fn accounts(stage: &dyn Stage) -> Result<()> {
    for (n, user) in (1..).zip(&USERS) {
        peer_exits(stage, 0, n, &["create-user", user.name, "--password-stdin"], user.password)?;
        log_in(stage, n)?;
    }
    Ok(())
}

/// The `n`th user logs in on the `n`th peer.
pub(crate) fn log_in(stage: &dyn Stage, n: usize) -> Result<()> {
    let user = &USERS[n - 1];
    peer_exits(stage, 0, n, &["login", user.name, "--password-stdin"], user.password).map(drop)
}

/// alice's group; bob and carol ask to be let in, and are.
pub(crate) fn group(stage: &dyn Stage) -> Result<()> {
    peer(stage, 1, &["create-group", GROUP])?;
    for (n, user) in (1..).zip(&USERS).skip(1) {
        peer(stage, n, &["join-group", GROUP])?;
        peer(stage, 1, &["accept-request", GROUP, user.name])?;
    }
    Ok(())
}

/// A download as its peer tells it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Download {
    pub(crate) state: String,
    pub(crate) done: u64,
    pub(crate) size: u64,
    pub(crate) rate: u64,
    pub(crate) cause: String,
    /// Verified bytes from each user.
    pub(crate) from: BTreeMap<String, u64>,
}

/// What peer `n` says of its download of `name`; `None` if it knows none.
pub(crate) fn download(stage: &dyn Stage, n: usize, name: &str) -> Result<Option<Download>> {
    let all = peer_json(stage, n, &["show-downloads"])?;
    let downloads = all["downloads"].as_array().context("`downloads` is missing")?;
    let Some(found) = downloads.iter().find(|download| download["name"] == name) else { return Ok(None) };
    let number = |value: &Value, key: &str| value[key].as_u64().unwrap_or(0);
    let text = |value: &Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
    let mut from = BTreeMap::new();
    for source in found["sources"].as_array().into_iter().flatten() {
        *from.entry(text(source, "user")).or_default() += number(source, "bytes");
    }
    Ok(Some(Download {
        state: text(found, "state"),
        done: number(found, "done_bytes"),
        size: number(found, "size"),
        rate: number(found, "rate"),
        cause: text(found, "cause"),
        from,
    }))
}

/// Waits until the download of `name` on each of `peers` is complete, showing a line for each now and then. What each got
/// from whom, at most.
pub(crate) fn watch(
    stage: &dyn Stage,
    peers: &[usize],
    name: &str,
    limit: Duration,
) -> Result<Vec<Download>> {
    let start = Instant::now();
    let mut last: Vec<Download> = vec![Download::default(); peers.len()];
    let in_place = io::stdout().is_terminal();
    let mut drawn = false;
    loop {
        if in_place && std::mem::replace(&mut drawn, true) {
            // Back up to the first of the lines, to draw over them.
            print!("\u{1b}[{}A", peers.len());
        }
        for (seen, &n) in last.iter_mut().zip(peers) {
            let user = USERS[n - 1].name;
            if seen.state == "complete" {
                if in_place {
                    println!("\u{1b}[2K  {}", line(user, seen));
                }
                continue;
            }
            let now =
                download(stage, n, name)?.with_context(|| format!("peer{n} knows no download of {name}"))?;
            if now.state == "failed" {
                bail!("{user}'s download of {name} failed: {}", now.cause);
            }
            // A source that left is no longer listed; what it gave still counts.
            let mut from = seen.from.clone();
            for (user, bytes) in &now.from {
                let most = from.entry(user.clone()).or_default();
                *most = (*most).max(*bytes);
            }
            *seen = Download { from, ..now };
            println!("{}  {}", if in_place { "\u{1b}[2K" } else { "" }, line(user, seen));
        }
        if last.iter().all(|seen| seen.state == "complete") {
            return Ok(last);
        }
        if start.elapsed() > limit {
            bail!("{name} did not arrive within {} s", limit.as_secs());
        }
        thread::sleep(Duration::from_millis(500));
    }
}

/// `bob    [########........]  50 %    12.0 MiB/s  alice 30.0 MiB, carol 4.5 MiB`: a line of a narrow terminal.
fn line(user: &str, download: &Download) -> String {
    const CELLS: u64 = 16;
    let cells = (download.done * CELLS).checked_div(download.size).unwrap_or(CELLS).min(CELLS);
    let cells = usize::try_from(cells).unwrap_or_default();
    let percent = (download.done * 100).checked_div(download.size).unwrap_or(100);
    let from: Vec<String> = download
        .from
        .iter()
        .filter(|(_, bytes)| **bytes > 0)
        .map(|(user, bytes)| format!("{user} {}", mib(*bytes)))
        .collect();
    let pace = match download.state.as_str() {
        "downloading" => format!("{}/s", mib(download.rate)),
        state => state.to_owned(),
    };
    let cause = if download.cause.is_empty() { String::new() } else { format!("  ({})", download.cause) };
    format!(
        "{user:<6} [{:.<width$}] {percent:>3} %  {pace:>12}  {}{cause}",
        "#".repeat(cells),
        from.join(", "),
        width = usize::try_from(CELLS).unwrap_or_default(),
    )
}

/// Bytes as MiB, for people.
#[allow(clippy::cast_precision_loss, reason = "shown with one decimal")]
pub(crate) fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / 1_048_576.0)
}
