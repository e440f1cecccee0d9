//! Three trackers that share a PostgreSQL database and a Redis server, all on this machine.

use std::{
    fs,
    path::Path,
    process::Command,
    str::FromStr as _,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result};
use serde_json::json;
use sqlx::{ConnectOptions as _, postgres::PgConnectOptions};
use testkit::{
    postgres::Postgres,
    process::{TrackerProcess, binary, rss},
    redis::Redis,
};
use tracker_core::SessionHash;
use transport::raise_open_files;

use super::{load, tracker::Clients, world};

/// The number of trackers.
const TRACKERS: usize = 3;
/// How long nothing is sent, and then heartbeats alone.
const QUIET: Duration = Duration::from_secs(15);

/// Runs all phases with this many peers, each with an announce stream, and prints the result.
pub(super) fn run(peers: u32) -> Result<()> {
    raise_open_files();
    let (postgres, redis) = (Postgres::start(), Redis::start());
    let key = tempfile::NamedTempFile::new()?;
    fs::write(key.path(), rand::random::<[u8; 32]>())?;
    let key = key.path().to_str().context("a path in UTF-8")?;
    let (database, swarm) = (postgres.url(), redis.url());
    let settings =
        [("TRACKER_DATABASE", &*database), ("TRACKER_CLUSTER_KEY", key), ("TRACKER_SWARM", &swarm)];
    let trackers: Vec<_> = (0..TRACKERS).map(|_| TrackerProcess::start(program, &settings)).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(fill(&database, peers))?;

    let empty = memory_of(&redis)?;
    let mut args = vec!["load".to_owned(), peers.to_string(), path(&trackers[0].ca_file())?];
    args.extend(trackers.iter().map(|tracker| tracker.address().to_string()));
    let processes: Vec<u32> = trackers.iter().map(TrackerProcess::pid).collect();
    let cpu = || processes.iter().map(|pid| processor_time(*pid)).sum::<Result<f64>>();
    let before = cpu()?;
    let mut load = Clients::spawn(&args)?;
    let joined = load.done()?;
    let join_us = (cpu()? - before) / joined * 1e6;
    let redis_bytes = (memory_of(&redis)? - empty) / joined;

    // What the trackers do by themselves is measured alone, and taken off what the phases cost.
    let before = cpu()?;
    load.say(&format!("idle {}", QUIET.as_secs()))?;
    let idle = (cpu()? - before) / QUIET.as_secs_f64();

    let mut phase = |name: &str| -> Result<f64> {
        let (before, start) = (cpu()?, Instant::now());
        let done = load.say(name)?;
        Ok((cpu()? - before - idle * start.elapsed().as_secs_f64()) / done * 1e6)
    };
    let heartbeat_us = phase(&format!("heartbeats {}", QUIET.as_secs()))?;
    let announce_us = phase("announces")?;
    phase("heartbeats 5")?;
    let find_us = phase("finds")?;
    phase("heartbeats 10")?;
    let ticket_us = phase("tickets")?;
    phase("heartbeats 10")?;
    let latency = load.ask("paced")?;
    let [median, p99, lost] = latency.split(' ').collect::<Vec<_>>()[..] else {
        anyhow::bail!("the load said {latency:?}");
    };
    let memory: Vec<u64> = processes.iter().map(|pid| rss(pid) >> 20).collect();
    let found = json!({
        "peers": peers, "idle_percent": idle * 100.0, "join_us": join_us, "heartbeat_us": heartbeat_us, "announce_us": announce_us,
        "find_peers_us": find_us, "issue_tickets_us": ticket_us, "find_median_ms": median.parse::<f64>()?,
        "find_p99_ms": p99.parse::<f64>()?, "streams_lost": lost.parse::<u64>()?, "redis_bytes": redis_bytes,
        "tracker_mib": memory,
    });
    println!("{found}");
    Ok(())
}

fn program(args: &[&str]) -> Command {
    binary(env!("CARGO_BIN_EXE_tracker-svc"), args)
}

fn path(path: &Path) -> Result<String> {
    path.to_str().map(str::to_owned).context("a path in UTF-8")
}

/// The seconds of processor time that a process used, in all its threads. To a hundredth.
fn processor_time(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name stands in parentheses and may contain anything. User and system time are the 12th and 13th field after.
    let (_, rest) = stat.rsplit_once(')').context("no name")?;
    let ticks = rest.split_whitespace().skip(11).take(2).map(str::parse::<u64>).sum::<Result<u64, _>>()?;
    Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// Bytes that Redis uses for data.
fn memory_of(redis: &Redis) -> Result<f64> {
    let info = redis.call(&["INFO", "memory"]);
    let line = info.lines().find_map(|line| line.strip_prefix("used_memory_dataset:"));
    line.context("no such line")?.trim().parse().context("a number")
}

/// Inserts the users, their sessions and peers, and the files. All are members of one group, beyond the limit of
/// members.
async fn fill(url: &str, peers: u32) -> Result<()> {
    let mut database = PgConnectOptions::from_str(url)?.connect().await?;
    let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())?;
    let users = 0..=load::user_of(peers - 1);
    let names: Vec<String> =
        users.clone().map(|user| Ok(world::user(user)?.to_string())).collect::<Result<_>>()?;
    let sessions: Vec<Vec<u8>> = users
        .map(|user| Ok(SessionHash::of_token(&world::token(user)).context("a token")?.as_bytes().to_vec()))
        .collect::<Result<_>>()?;
    let all = "INSERT INTO accounts (id, username, password, created_at)
               SELECT number, name, '', $2 FROM unnest($1::TEXT[]) WITH ORDINALITY AS all_of (name, number)";
    sqlx::query(all).bind(&names).bind(now).execute(&mut database).await?;
    let all = "INSERT INTO sessions (hash, account, opened_at, used_at)
               SELECT hash, number, $2, $2 FROM unnest($1::BYTEA[]) WITH ORDINALITY AS all_of (hash, number)";
    sqlx::query(all).bind(&sessions).bind(now).execute(&mut database).await?;
    let ids: Vec<Vec<u8>> = (0..peers).map(|number| world::peer(number).as_bytes().to_vec()).collect();
    let owners: Vec<i64> = (0..peers).map(|number| i64::from(load::user_of(number)) + 1).collect();
    let all = "INSERT INTO peers (peer, account, expires_at)
               SELECT peer, account, $3 FROM unnest($1::BYTEA[], $2::BIGINT[]) AS all_of (peer, account)";
    let expires = now + 7 * 24 * 3_600_000;
    sqlx::query(all).bind(&ids).bind(&owners).bind(expires).execute(&mut database).await?;
    let group =
        "INSERT INTO groups (id, name, folded, owner, epoch, created_at) VALUES (1, $1, $1, 1, 1, $2)";
    sqlx::query(group).bind(world::group()?.as_str()).bind(now).execute(&mut database).await?;
    let members = "INSERT INTO members (group_id, account, since) SELECT 1, id, created_at FROM accounts";
    sqlx::query(members).execute(&mut database).await?;
    for number in 0..world::files(peers) {
        let id = i64::from(number) + 1;
        let manifest =
            "INSERT INTO manifests (id, account, bytes, state, staged_at) VALUES ($1, 1, 0, 1, $2)";
        sqlx::query(manifest).bind(id).bind(now).execute(&mut database).await?;
        let file = "INSERT INTO files (id, group_id, name, folded, length, sha1, blake3, hashes, manifest, publisher,
                    published_at) VALUES ($1, 1, $2, $2, $3, $4, $5, $5, $6, 1, $7)";
        sqlx::query(file)
            .bind(&world::file(number)?.as_bytes()[..])
            .bind(world::name(number))
            .bind(world::layout()?.length().cast_signed())
            .bind(&[0_u8; 20][..])
            .bind(&[0_u8; 32][..])
            .bind(id)
            .bind(now)
            .execute(&mut database)
            .await?;
    }
    sqlx::raw_sql("ANALYZE").execute(&mut database).await?;
    Ok(())
}
