//! The measured tracker.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::SocketAddr,
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, bail};
use rustix::time::{ClockId, clock_gettime};
use serde_json::Value;
use sqlx::{ConnectOptions as _, SqliteConnection, sqlite::SqliteConnectOptions};
use testkit::tracker::Tracker;
use tracker_core::SessionHash;
use tracker_svc::store::sqlite::{DATABASE, Sqlite};
use transport::raise_open_files;

use super::{clients, world};

/// Runs all phases and prints the result.
pub(super) fn run(peers: u32) -> Result<()> {
    let (seeder, leecher) = (memory("seeders", peers)?, memory("leechers", peers)?);
    raise_open_files();
    let runtime = tokio::runtime::Runtime::new()?;
    let dir = tempfile::tempdir()?;
    let tracker = runtime.block_on(start(dir.path(), peers))?;
    // Half of the peers seed. Their leases are renewed before each phase. No phase takes as long as a lease.
    let renew = || world::announce(&tracker.hub, peers, |number| number % 2 == 0);
    renew()?;
    let mut clients = Clients::start(tracker.address, &dir.path().join("ca.pem"))?;
    renew()?;
    let announce = clients.phase("announce")?;
    renew()?;
    let find_peers = clients.phase("find-peers")?;
    renew()?;
    let who_am_i = clients.phase("who-am-i")?;
    drop(clients);
    runtime.block_on(tracker.stop());
    println!(
        "{{\"announce_us\":{announce:.2},\"unary_us\":{find_peers:.2},\"who_am_i_us\":{who_am_i:.2},\
         \"seeder_bytes\":{seeder:.1},\"leecher_bytes\":{leecher:.1}}}"
    );
    Ok(())
}

/// Bytes per peer of this kind, measured in a separate process.
fn memory(kind: &str, peers: u32) -> Result<f64> {
    let output = again().args(["memory", kind, &peers.to_string()]).stderr(Stdio::inherit()).output()?;
    let found: Value = serde_json::from_slice(&output.stdout).context("no answer from the other process")?;
    found["bytes"].as_f64().context("a number is missing")
}

fn again() -> Command {
    // This same program, even if its file is replaced meanwhile.
    Command::new("/proc/self/exe")
}

async fn start(dir: &Path, peers: u32) -> Result<Tracker> {
    // The store makes its tables.
    Sqlite::open(dir).await?.close().await;
    fill(dir, peers).await?;
    Ok(Tracker::start_in(dir, &[]).await)
}

/// Inserts accounts, sessions and peers as if each had registered, and their files. All are members of one
/// group, beyond the limit of members.
async fn fill(dir: &Path, peers: u32) -> Result<()> {
    let mut database = SqliteConnectOptions::new().filename(dir.join(DATABASE)).connect().await?;
    let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())?;
    sqlx::query("BEGIN").execute(&mut database).await?;
    for number in (0..peers).chain(clients::NUMBERS) {
        fill_user(&mut database, number, now).await?;
    }
    let sql = "INSERT INTO groups (id, name, folded, owner, epoch, created_at) VALUES (1, ?1, ?1, 1, 1, ?2)";
    sqlx::query(sql).bind(world::group()?.as_str()).bind(now).execute(&mut database).await?;
    let sql = "INSERT INTO members (group_id, account, since) SELECT 1, id, created_at FROM accounts";
    sqlx::query(sql).execute(&mut database).await?;
    for number in 0..world::files(peers) {
        let id = i64::from(number) + 1;
        let sql = "INSERT INTO manifests (id, account, bytes, state, staged_at) VALUES (?, 1, 0, 1, ?)";
        sqlx::query(sql).bind(id).bind(now).execute(&mut database).await?;
        let sql = "INSERT INTO files (id, group_id, name, folded, length, sha1, blake3, hashes, manifest,
                   publisher, published_at) VALUES (?1, 1, ?2, ?2, ?3, zeroblob(20), zeroblob(32), zeroblob(32), ?4,
                   1, ?5)";
        sqlx::query(sql)
            .bind(&world::file(number)?.as_bytes()[..])
            .bind(world::name(number))
            .bind(world::layout()?.length().cast_signed())
            .bind(id)
            .bind(now)
            .execute(&mut database)
            .await?;
    }
    sqlx::query("COMMIT").execute(&mut database).await?;
    Ok(())
}

async fn fill_user(database: &mut SqliteConnection, number: u32, now: i64) -> Result<()> {
    let account = i64::from(number) + 1;
    let session = SessionHash::of_token(&world::token(number)).context("a token")?;
    let sql = "INSERT INTO accounts (id, username, password, created_at) VALUES (?, ?, '', ?)";
    let user = world::user(number)?;
    sqlx::query(sql).bind(account).bind(user.as_str()).bind(now).execute(&mut *database).await?;
    let sql = "INSERT INTO sessions (hash, account, opened_at, used_at) VALUES (?, ?, ?3, ?3)";
    sqlx::query(sql).bind(&session.as_bytes()[..]).bind(account).bind(now).execute(&mut *database).await?;
    let sql = "INSERT INTO peers (peer, account, expires_at) VALUES (?, ?, ?)";
    let expires = now + 7 * 24 * 3_600_000;
    let peer = world::peer(number);
    sqlx::query(sql).bind(&peer.as_bytes()[..]).bind(account).bind(expires).execute(&mut *database).await?;
    Ok(())
}

/// The process of the clients.
pub(super) struct Clients {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Clients {
    /// Returns when all clients are connected and have announced their pieces.
    fn start(address: SocketAddr, ca: &Path) -> Result<Self> {
        let ca = ca.to_str().context("a path in UTF-8")?.to_owned();
        let mut clients = Self::spawn(&["clients".to_owned(), address.to_string(), ca])?;
        clients.done()?;
        Ok(clients)
    }

    /// Starts this program as a process that runs phases.
    pub(super) fn spawn(args: &[String]) -> Result<Self> {
        let mut child = again().args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let (to, from) = child.stdin.take().zip(child.stdout.take()).context("they are piped")?;
        Ok(Self { child, to, from: BufReader::new(from) })
    }

    /// The processor time of this process per announce or call of a phase, in microseconds.
    fn phase(&mut self, name: &str) -> Result<f64> {
        let before = processor_time();
        let done = self.say(name)?;
        Ok((processor_time() - before).as_secs_f64() * 1e6 / done)
    }

    /// Runs a phase, and returns how much was done.
    pub(super) fn say(&mut self, name: &str) -> Result<f64> {
        writeln!(self.to, "{name}")?;
        self.done()
    }

    /// Runs a phase, and returns what it says at its end.
    pub(super) fn ask(&mut self, name: &str) -> Result<String> {
        writeln!(self.to, "{name}")?;
        self.line()
    }

    /// Waits until the clients report how much was done.
    pub(super) fn done(&mut self) -> Result<f64> {
        let line = self.line()?;
        match line.parse() {
            Ok(done) => Ok(done),
            Err(_) => bail!("the clients said {line:?}"),
        }
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.from.read_line(&mut line)?;
        Ok(line.trim().to_owned())
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The processor time of all threads of this process, in user and in kernel mode.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}
