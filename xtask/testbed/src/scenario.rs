//! The scenes that the demo and the end-to-end test share.

use std::{
    collections::BTreeMap,
    io::{self, IsTerminal as _},
    sync::LazyLock,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::{Hosts, peer, peer_exits, peer_json};

/// Bytes of a piece.
pub const PIECE: u64 = 524_288;

/// An account. Peer `n` belongs to the `n`th user.
pub struct User {
    /// The account's name.
    pub name: &'static str,
    /// Its password.
    pub password: &'static str,
}

/// The accounts.
pub const USERS: [User; 3] = [
    User { name: "alice", password: "correct-horse-battery-1" },
    User { name: "bob", password: "correct-horse-battery-2" },
    User { name: "carol", password: "correct-horse-battery-3" },
];

/// The group that all of them are in.
pub const GROUP: &str = "g1";

/// Prints a headline with the time since the first one.
pub fn scene(words: &str) {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    println!("\n== {words}  [{:.0} s]", START.elapsed().as_secs_f64());
}

/// Creates an account for each user and logs it in.
pub fn accounts(hosts: &dyn Hosts) -> Result<()> {
    for (n, user) in (1..).zip(&USERS) {
        peer_exits(hosts, 0, n, &["create-user", user.name, "--password-stdin"], user.password)?;
        log_in(hosts, n)?;
    }
    Ok(())
}

/// Logs in the `n`th user on the `n`th peer.
pub fn log_in(hosts: &dyn Hosts, n: usize) -> Result<()> {
    let user = &USERS[n - 1];
    peer_exits(hosts, 0, n, &["login", user.name, "--password-stdin"], user.password).map(drop)
}

/// Creates alice's group. bob and carol ask to join, and alice accepts them.
pub fn group(hosts: &dyn Hosts) -> Result<()> {
    peer(hosts, 1, &["create-group", GROUP])?;
    for (n, user) in (1..).zip(&USERS).skip(1) {
        peer(hosts, n, &["join-group", GROUP])?;
        peer(hosts, 1, &["accept-request", GROUP, user.name])?;
    }
    Ok(())
}

/// The state of a download as its peer reports it.
#[derive(Clone, Debug, Default)]
pub struct Download {
    /// The state, as `show-downloads` names it.
    pub state: String,
    /// Verified bytes.
    pub done: u64,
    /// Bytes of the file.
    pub size: u64,
    /// Bytes a second.
    pub rate: u64,
    /// The reason why it does not go on, or nothing.
    pub cause: String,
    /// Verified bytes from each user.
    pub from: BTreeMap<String, u64>,
}

/// Returns peer `n`'s report on its download of `name`, or `None` if it knows none.
pub fn download(hosts: &dyn Hosts, n: usize, name: &str) -> Result<Option<Download>> {
    let all = peer_json(hosts, n, &["show-downloads"])?;
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

/// Waits until the download of `name` on each of `peers` is complete, and prints a line for each from time to
/// time. Returns the last report of each, with the most bytes from each user that it ever showed.
pub fn watch(hosts: &dyn Hosts, peers: &[usize], name: &str, limit: Duration) -> Result<Vec<Download>> {
    let start = Instant::now();
    let mut last: Vec<Download> = vec![Download::default(); peers.len()];
    let in_place = io::stdout().is_terminal();
    let mut drawn = false;
    loop {
        if in_place && std::mem::replace(&mut drawn, true) {
            // Moves the cursor to the first of the lines, to overwrite them.
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
                download(hosts, n, name)?.with_context(|| format!("peer{n} knows no download of {name}"))?;
            if now.state == "failed" {
                bail!("{user}'s download of {name} failed: {}", now.cause);
            }
            // A source that left is no longer listed. Its bytes still count.
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

/// One progress line that fits a narrow terminal: `bob    [########........]  50 %    12.0 MiB/s  alice 30.0
/// MiB, carol 4.5 MiB`.
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

/// Formats bytes as MiB.
#[allow(clippy::cast_precision_loss, reason = "shown with one decimal")]
pub fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / 1_048_576.0)
}
