//! A board on Redis 7.0 or later, or Valkey: one server, or a Redis Cluster.
//!
//! - `mt:{NN}:INSTANCE`, a hash: what one tracker says about shard NN of the files. Field `n` is the number of its
//!   last news, the others are facts by their keys. All keys about one file have the same hash tag.
//! - `mt:{live}:until`, a sorted set: the trackers, with the time of the server's clock until which each lives.
//! - `mt:{live}:news`, a hash: the number of news of each tracker.
//! - `mt:{NN}:news`, a channel: the news of a shard.
//!
//! No command and no transaction has keys with different hash tags, so a cluster takes them all. There each server passes
//! on what is published at any of them, so one of them is enough to listen at.
//!
//! What a tracker says about a shard, and its number, change in one transaction. What nobody renews is deleted by
//! the server.

use std::{io, path::Path, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt as _, future::try_join_all};
use redis::{
    AsyncConnectionConfig, Client, ConnectionInfo, ErrorKind, FromRedisValue, IntoConnectionInfo as _,
    Pipeline, RedisError,
    aio::{ConnectionLike, PubSub},
    cluster::{ClusterClient, ClusterClientBuilder},
};
use tokio::time::timeout;
use tonic::async_trait;

use super::{Beat, Board, BoardError, Connection, FORGOTTEN, LIVES, News, Said};
use crate::{domain::others::Instance, hub::SHARDS};

/// How long the server may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(1);
/// How long the server may take to answer.
const ANSWER: Duration = Duration::from_secs(2);
/// The most fields that one command sets.
const FIELDS: usize = 500;
/// The channels of the news of all shards.
const CHANNELS: &str = "mt:{[0-9][0-9]}:news";
/// The field with the number of the last news.
const NUMBER: &[u8] = b"n";
/// Says that a tracker lives. Its first write needs memory, so that a full server refuses the whole.
/// Keys: until, news. Arguments: the tracker, for how many milliseconds, its number of news. Answers the
/// server's clock, what was known of the tracker's news, and each tracker with its news.
const BEAT: &str = r"
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local lived = redis.call('ZSCORE', KEYS[1], ARGV[1])
local known = lived and tonumber(lived) > now and redis.call('HGET', KEYS[2], ARGV[1])
redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
redis.call('HSET', KEYS[2], ARGV[1], ARGV[3])
for _, gone in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now)) do redis.call('HDEL', KEYS[2], gone) end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
redis.call('PEXPIRE', KEYS[1], ARGV[2] * 20)
redis.call('PEXPIRE', KEYS[2], ARGV[2] * 20)
local answer = {tostring(now), known or ''}
for _, id in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  table.insert(answer, id)
  table.insert(answer, redis.call('HGET', KEYS[2], id) or '0')
end
return answer";
const UNTIL: &str = "mt:{live}:until";
const NEWS: &str = "mt:{live}:news";

/// A Redis server, or a Redis Cluster.
pub(crate) struct Redis {
    /// The server, or some servers of the cluster.
    servers: Vec<Client>,
    cluster: Option<ClusterClient>,
    /// Whether the connections are encrypted.
    tls: bool,
}

impl Redis {
    /// The server at this address: `redis://HOST:PORT`, `rediss://` with TLS, or `unix://PATH`. Or the cluster with
    /// these servers: `redis-cluster://HOST:PORT,HOST:PORT`, or `rediss-cluster://` with TLS. The password is in the
    /// first line of a file, if one is given.
    ///
    /// # Errors
    /// Fails if it is no such address, or if the file can't be read.
    pub(crate) fn at(url: &str, password: Option<&Path>) -> Result<Self, BoardError> {
        let password = password.map(read_password).transpose()?;
        let server = |url: &str| -> Result<ConnectionInfo, BoardError> {
            let server = url.into_connection_info()?;
            let settings = server.redis_settings().clone();
            Ok(match &password {
                Some(password) => server.set_redis_settings(settings.set_password(password)),
                None => server,
            })
        };
        let Some((scheme, servers)) = url.split_once("-cluster://") else {
            let tls = url.starts_with("rediss:");
            return Ok(Self { servers: vec![Client::open(server(url)?)?], cluster: None, tls });
        };
        let servers = servers.split(',').map(|address| server(&format!("{scheme}://{address}")));
        let servers: Vec<_> = servers.collect::<Result<_, _>>()?;
        let cluster = ClusterClientBuilder::new(servers.clone())
            .connection_timeout(CONNECT)
            .response_timeout(ANSWER)
            .overall_response_timeout(Some(ANSWER))
            .build()?;
        let servers = servers.into_iter().map(Client::open).collect::<Result<_, _>>()?;
        Ok(Self { servers, cluster: Some(cluster), tls: scheme == "rediss" })
    }

    /// What to do about an error of connecting, if it is known. By its text, because the driver does not show its type.
    fn advice(&self, error: &RedisError) -> &'static str {
        let text = error.to_string();
        if text.contains("not valid for name") || text.contains("NotValidForName") {
            "; write the server's name into the address as it is in the server's certificate"
        } else if text.contains("invalid peer certificate") {
            "; name a file with the CA that signed the server's certificate in the environment: SSL_CERT_FILE=FILE"
        } else if self.tls && (error.is_timeout() || text.contains("corrupt message")) {
            "; is this a port for TLS? The server has one with `tls-port`"
        } else if !self.tls && (error.is_connection_dropped() || error.kind() == ErrorKind::Parse) {
            "; if the server wants TLS at this port, write rediss:// in the address"
        } else {
            ""
        }
    }

    async fn connect(&self) -> Result<Box<dyn Connection>, RedisError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT))
            .set_response_timeout(Some(ANSWER));
        let mut opened = Err(silent());
        for server in &self.servers {
            opened = listen(server).await.map(|news| (server, news));
            if opened.is_ok() {
                break;
            }
        }
        let (server, news) = opened?;
        Ok(match &self.cluster {
            None => {
                let calls = server.get_multiplexed_async_connection_with_config(&config).await?;
                Box::new(Open { calls, news }) as Box<dyn Connection>
            }
            Some(cluster) => {
                let calls = timeout(ANSWER, cluster.get_async_connection()).await.map_err(|_| silent())??;
                Box::new(Open { calls, news })
            }
        })
    }
}

fn read_password(path: &Path) -> Result<String, BoardError> {
    let text = std::fs::read_to_string(path);
    let text = text.map_err(|error| BoardError(format!("{}: {error}", path.display())))?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

struct Open<C> {
    calls: C,
    news: PubSub,
}

impl<C: ConnectionLike + Clone + Send + Sync> Open<C> {
    /// Runs pipelines side by side. In a cluster each goes to the server that has its keys.
    async fn run<T: FromRedisValue + Send>(
        &self,
        all: impl IntoIterator<Item = Pipeline>,
    ) -> Result<Vec<T>, BoardError> {
        let run = |one: Pipeline| {
            let mut calls = self.calls.clone();
            async move { one.query_async(&mut calls).await }
        };
        Ok(try_join_all(all.into_iter().map(run)).await?)
    }

    /// As [`Self::run`], with one command for each shard.
    async fn of_each_shard(&self, command: impl Fn(usize) -> redis::Cmd) -> Result<(), BoardError> {
        let one = |shard| {
            let mut one = redis::pipe();
            one.add_command(command(shard)).ignore();
            one
        };
        self.run::<()>((0..SHARDS).map(one)).await.map(drop)
    }
}

impl From<RedisError> for BoardError {
    fn from(error: RedisError) -> Self {
        Self(error.to_string())
    }
}

#[async_trait]
impl Board for Redis {
    async fn open(&self) -> Result<Box<dyn Connection>, BoardError> {
        let failed = |error: RedisError| BoardError(format!("{error}{}", self.advice(&error)));
        self.connect().await.map_err(failed)
    }
}

fn silent() -> RedisError {
    io::Error::new(io::ErrorKind::TimedOut, "the server does not answer").into()
}

/// Listens for news at a server.
async fn listen(server: &Client) -> Result<PubSub, RedisError> {
    let news = async {
        let mut news = server.get_async_pubsub().await?;
        news.psubscribe(CHANNELS).await?;
        Ok::<_, RedisError>(news)
    };
    timeout(ANSWER, news).await.map_err(|_| silent())?
}

/// The key of what a tracker says about a shard.
fn key(of: &Instance, shard: usize) -> Vec<u8> {
    [format!("mt:{{{shard:02}}}:").as_bytes(), of].concat()
}

/// The channel of the news of a shard.
fn channel(shard: usize) -> String {
    format!("mt:{{{shard:02}}}:news")
}

#[async_trait]
#[allow(private_interfaces, reason = "as the trait")]
impl<C: ConnectionLike + Clone + Send + Sync> Connection for Open<C> {
    async fn beat(&mut self, me: Instance, news: u64) -> Result<Beat, BoardError> {
        let (lives, forgotten) = (LIVES.as_millis() as u64, FORGOTTEN.as_millis() as u64);
        let mut beat = redis::cmd("EVAL");
        beat.arg(BEAT).arg(2).arg(UNTIL).arg(NEWS).arg(&me[..]).arg(lives).arg(news);
        let answer: Vec<Vec<u8>> = beat.query_async(&mut self.calls).await?;
        self.of_each_shard(|shard| redis::cmd("PEXPIRE").arg(key(&me, shard)).arg(forgotten).to_owned())
            .await?;
        let number = |bytes: &[u8]| std::str::from_utf8(bytes).ok().and_then(|text| text.parse::<u64>().ok());
        let [clock, known, live @ ..] = &answer[..] else {
            return Err(BoardError("the server's answer is too short".to_owned()));
        };
        let each = live.chunks_exact(2).filter_map(|pair| match pair {
            [id, news] => Some((id[..].try_into().ok()?, number(news)?)),
            _ => None,
        });
        Ok(Beat { clock: number(clock).unwrap_or_default(), known: number(known), live: each.collect() })
    }

    async fn post(&mut self, news: &[News], total: u64) -> Result<(), BoardError> {
        let write = |said: &News| {
            let key = key(&said.instance, said.shard);
            let mut all = redis::pipe();
            all.atomic();
            write_facts(&mut all, said, &key);
            // A message that says that the whole was written anew repeats nothing of it.
            let told = if said.whole { News { changes: Vec::new(), ..said.clone() } } else { said.clone() };
            all.cmd("HSET").arg(&key).arg(NUMBER).arg(said.number).ignore();
            all.cmd("PEXPIRE").arg(&key).arg(FORGOTTEN.as_millis() as u64).ignore();
            all.cmd("PUBLISH").arg(channel(said.shard)).arg(told.encode()).ignore();
            all
        };
        self.run::<()>(news.iter().map(write)).await?;
        if let Some(News { instance, .. }) = news.first() {
            let mut known = redis::cmd("HSET");
            known.arg(NEWS).arg(&instance[..]).arg(total);
            known.exec_async(&mut self.calls).await?;
        }
        Ok(())
    }

    async fn read(&mut self, of: Instance, shards: &[usize]) -> Result<Vec<Said>, BoardError> {
        let read = |&shard: &usize| {
            let mut one = redis::pipe();
            one.cmd("HGETALL").arg(key(&of, shard));
            one
        };
        let answers: Vec<(Vec<(Vec<u8>, Vec<u8>)>,)> = self.run(shards.iter().map(read)).await?;
        let said = |(fields,): (Vec<(Vec<u8>, Vec<u8>)>,)| {
            let mut said = Said { number: 0, facts: Vec::with_capacity(fields.len()) };
            for (field, value) in fields {
                if field == NUMBER {
                    let number = std::str::from_utf8(&value).ok().and_then(|text| text.parse().ok());
                    said.number = number.unwrap_or_default();
                } else {
                    said.facts.push((field.into(), value.into()));
                }
            }
            said
        };
        Ok(answers.into_iter().map(said).collect())
    }

    async fn news(&mut self) -> Option<Bytes> {
        let message = self.news.on_message().next().await?;
        Some(Bytes::copy_from_slice(message.get_payload_bytes()))
    }

    async fn leave(&mut self, me: Instance) -> Result<(), BoardError> {
        let mut all = redis::pipe();
        all.cmd("ZREM").arg(UNTIL).arg(&me[..]).ignore();
        all.cmd("HDEL").arg(NEWS).arg(&me[..]).ignore();
        all.exec_async(&mut self.calls).await?;
        self.of_each_shard(|shard| redis::cmd("DEL").arg(key(&me, shard)).to_owned()).await
    }
}

/// Adds the commands that write facts.
fn write_facts(all: &mut Pipeline, said: &News, key: &[u8]) {
    if said.whole {
        all.cmd("DEL").arg(key).ignore();
    }
    let set: Vec<_> =
        said.changes.iter().filter_map(|change| Some((&change.key, change.fact.as_ref()?))).collect();
    for some in set.chunks(FIELDS) {
        let command = all.cmd("HSET").arg(key);
        for (field, fact) in some {
            command.arg(&field[..]).arg(&fact[..]);
        }
        command.ignore();
    }
    let over: Vec<_> = said.changes.iter().filter(|change| change.fact.is_none()).collect();
    for some in over.chunks(FIELDS) {
        let command = all.cmd("HDEL").arg(key);
        for change in some {
            command.arg(&change.key[..]);
        }
        command.ignore();
    }
}
