//! The PostgreSQL store, for any number of trackers that serve one network together.
//!
//! Write transactions that decide something (rights, quotas, names) run one at a time, over all trackers: each
//! takes the same advisory lock first. So any number of trackers decide exactly as the one writer of SQLite
//! does, no serialization failure has to be repeated, and the numbers of changes grow in the order of commits.
//! The lock is held for a few statements and one commit, and such calls are rare. What decides nothing (the
//! audit log, piece hashes, the time of last use) needs no lock.
//!
//! A tracker that stops within a transaction holds the others up for [`ABANDONED`] at most. A statement waits
//! at most [`STATEMENT`], and a whole transaction less than five seconds. Then the caller gets UNAVAILABLE. If
//! that happens during a commit, the change may have been made: the caller repeats it with its request id.
//!
//! Nothing is cached. Each right is read when it is used, so a right that one tracker took away is gone at all
//! others as soon as the call that did it is answered. Running streams hear of it from the log of changes. A
//! notification wakes its readers ([`CHANNEL`]). It may be lost: the readers also poll.

#[path = "sql/accounts.rs"]
mod accounts;
#[path = "sql/files.rs"]
mod files;
#[path = "sql/groups.rs"]
mod groups;
#[path = "sql/invites.rs"]
mod invites;
#[path = "sql/log.rs"]
mod log;
mod logins;
mod lookup;
mod options;
mod pool;
#[path = "sql/rulings.rs"]
mod rulings;
#[path = "sql/tokens.rs"]
mod tokens;

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use parking_lot::Mutex;
use sqlx::{
    PgPool,
    migrate::{MigrateError, Migrator},
    postgres::{PgConnectOptions, PgListener, PgPoolOptions, PgRow},
};
use tokio::{
    sync::Notify,
    time::{Instant, sleep},
};
use tokio_util::sync::{CancellationToken, DropGuard};

pub use self::options::{OptionsError, PostgresOptions};
use self::{
    Postgres as Database,
    lookup::{Key, Row, RowResult},
    pool::{Lease, Pool, Statements, Transaction, in_time, is_late},
    rulings::{SessionColumns, session_columns, session_rows},
};
use super::{
    ManifestId, Result, Shared, Store,
    sql::{before, count, millis, stored, stored_bytes, taken, time},
};
use crate::domain::{
    SessionHash,
    throttle::{Counts, Login, Step, Wait},
};

/// How long the server lets a statement run or wait for a lock.
const STATEMENT: Duration = Duration::from_millis(2_000);
/// How long the server lets a transaction wait for its next statement.
const ABANDONED: Duration = Duration::from_millis(3_000);
/// How long a transaction may take, from its beginning to its commit.
const TRANSACTION: Duration = Duration::from_millis(4_500);
/// How long a rollback may take before the connection is given up instead.
const ROLLBACK: Duration = Duration::from_secs(1);
/// How long the start waits for another tracker that updates the schema.
const MIGRATION: Duration = Duration::from_mins(5);
/// The channel on which a commit with changes is announced.
const CHANNEL: &str = "minitorrent_changes";
/// The advisory lock of the write transactions: `mini` in ASCII. Two keys, so that it is never the lock that
/// sqlx takes for migrations.
const WRITER: (i32, i32) = (0x6d69_6e69, 1);
/// The advisory lock of the transactions that count logins and new accounts.
const LOGINS: (i32, i32) = (0x6d69_6e69, 2);
/// The server's clock, in milliseconds since 1970.
const CLOCK: &str = "SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)";
/// How long a manifest may be staged: far longer than a publication may take, and than clocks may differ.
const STAGED: Duration = Duration::from_hours(2);
/// How long the listener waits before it connects again.
const LISTEN_AGAIN: Duration = Duration::from_secs(1);

static MIGRATIONS: Migrator = sqlx::migrate!("migrations/postgres");

/// The reason why the database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The server cannot be reached, or refuses the tracker.
    #[error("the database {0}: {1}{advice}", advice = options::advice(.1))]
    Connect(String, sqlx::Error),
    /// The schema cannot be updated.
    #[error("the schema of the database {0} can't be migrated: {1}")]
    Schema(String, MigrateError),
    /// The server is set up in a way that a tracker cannot work with.
    #[error("the database {0}: {1}")]
    Unfit(String, &'static str),
    /// There is no schema, and this command does not make one.
    #[error("the database {0} contains no tracker; start `tracker-svc serve` with it first")]
    Missing(String),
}

/// The store, in a PostgreSQL database that other trackers may use too.
pub struct Postgres {
    pool: Arc<Pool>,
    changed: Arc<Notify>,
    /// Staged manifests that were abandoned, for the next sweep. At most one per concurrent publication.
    abandoned: Mutex<Vec<ManifestId>>,
    sweep: Notify,
    /// Ends the listener.
    _listening: DropGuard,
}

impl Postgres {
    /// Opens the database to serve from it, and makes or updates its schema. If several trackers do this at
    /// once, one does it and the others wait.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn open(options: &PostgresOptions) -> std::result::Result<Self, OpenError> {
        let store = Self::connect(options).await?;
        store.migrate().await.map_err(|error| OpenError::Schema(options.to_string(), error))?;
        store.sweep.notify_one();
        Ok(store)
    }

    /// Opens the database while trackers may serve from it, for the operator's commands.
    ///
    /// # Errors
    /// [`OpenError`]. The schema is never changed.
    pub async fn open_beside(options: &PostgresOptions) -> std::result::Result<Self, OpenError> {
        let store = Self::connect(options).await?;
        let there: std::result::Result<(bool,), _> =
            sqlx::query_as("SELECT to_regclass('accounts') IS NOT NULL").fetch_one(store.reads()).await;
        match there {
            Ok((true,)) => Ok(store),
            Ok((false,)) => Err(OpenError::Missing(options.to_string())),
            Err(error) => Err(OpenError::Connect(options.to_string(), error)),
        }
    }

    async fn connect(options: &PostgresOptions) -> std::result::Result<Self, OpenError> {
        let failed = |error| OpenError::Connect(options.to_string(), error);
        let connection = connection(options.connect());
        let pool = Pool::new(connection.clone());
        let settings =
            "SELECT current_setting('server_version_num')::BIGINT, current_setting('server_encoding'),
                        current_setting('fsync') = 'on' AND current_setting('full_page_writes') = 'on'";
        let (version, encoding, is_durable): (i64, String, bool) =
            sqlx::query_as(settings).fetch_one(Statements(&pool)).await.map_err(failed)?;
        let unfit = |what| OpenError::Unfit(options.to_string(), what);
        if version < 130_000 {
            return Err(unfit("PostgreSQL 13 or newer is needed"));
        }
        if encoding != "UTF8" {
            return Err(unfit(
                "its encoding must be UTF8; make it with `createdb --encoding=UTF8 --template=template0`",
            ));
        }
        if !is_durable {
            tracing::warn!(
                "fsync or full_page_writes is off in PostgreSQL: a power cut can lose or damage what was acknowledged"
            );
        }
        let changed = Arc::new(Notify::new());
        let listening = CancellationToken::new();
        tokio::spawn(listening.clone().run_until_cancelled_owned(listen(connection, Arc::clone(&changed))));
        Ok(Self {
            pool,
            changed,
            abandoned: Mutex::default(),
            sweep: Notify::new(),
            _listening: listening.drop_guard(),
        })
    }

    /// Updates the schema. sqlx takes an advisory lock for it. A newer tracker may have updated it further
    /// already: its changes are such that this version goes on working.
    async fn migrate(&self) -> std::result::Result<(), MigrateError> {
        let mut lease = self.pool.lease().await?;
        lease.hold();
        let Some(connection) = lease.connection() else { return Err(sqlx::Error::PoolClosed.into()) };
        // Another tracker's migration may take longer than a statement of ours.
        sqlx::raw_sql("SET statement_timeout = 0; SET lock_timeout = 0").execute(&mut *connection).await?;
        let mut migrator = Migrator { migrations: MIGRATIONS.migrations.clone(), ..Migrator::DEFAULT };
        migrator.set_ignore_missing(true);
        in_time(Instant::now() + MIGRATION, migrator.run(connection)).await?
        // The connection does not go back: its time limits were changed.
    }

    /// Where single statements that only read run. They see the last commit.
    fn reads(&self) -> Statements<'_> {
        Statements(&self.pool)
    }

    /// Where single statements that write run. Each of them may be repeated.
    fn writes(&self) -> Statements<'_> {
        Statements(&self.pool)
    }

    /// Looks one row up by its key.
    async fn one<T>(
        &self,
        sql: &'static str,
        key: impl Key,
        read: impl FnOnce(&Row<'_>) -> RowResult<T>,
    ) -> Result<Option<T>> {
        let arguments = key.arguments().map_err(sqlx::Error::Encode)?;
        let row = sqlx::query_with(sql, arguments).fetch_optional(self.reads()).await?;
        Ok(row.map(|row| read(&Row(&row))).transpose()?)
    }

    /// Reads the sessions with these hashes in one statement.
    async fn sessions_of(&self, hashes: &[SessionHash]) -> Result<Vec<(SessionHash, SessionColumns)>> {
        let sql = concat!("SELECT ", session_columns!(), ", s.hash FROM ", session_rows!("= ANY($1)"));
        let hashes: Vec<_> = hashes.iter().map(|hash| &hash.as_bytes()[..]).collect();
        let rows = sqlx::query(sql).bind(hashes).fetch_all(self.reads()).await?;
        let read = |row: &PgRow| {
            let row = Row(row);
            let hash: Vec<u8> = row.get("hash")?;
            let hash: [u8; 32] = stored_bytes(&hash)?;
            Ok((hash.into(), SessionColumns::read(&row)?))
        };
        rows.iter().map(read).collect()
    }

    /// Starts a write transaction. Waits for those of all trackers.
    async fn begin(&self) -> Result<Write<'_>> {
        let (one, two) = WRITER;
        self.begin_with(format!("BEGIN; SELECT pg_advisory_xact_lock({one}, {two})")).await
    }

    /// Starts a transaction that counts a login or a new account. Waits for those of all trackers, and for no other transaction.
    async fn begin_login(&self) -> Result<Write<'_>> {
        let (one, two) = LOGINS;
        self.begin_with(format!("BEGIN; SELECT pg_advisory_xact_lock({one}, {two})")).await
    }

    /// Starts a transaction that only adds rows on which no rule depends.
    async fn begin_append(&self) -> Result<Write<'_>> {
        self.begin_with("BEGIN".to_owned()).await
    }

    async fn begin_with(&self, sql: String) -> Result<Write<'_>> {
        let deadline = Instant::now() + TRANSACTION;
        let mut lease = self.pool.lease().await?;
        lease.hold();
        let begin = || sqlx::raw_sql(sqlx::AssertSqlSafe(sql.clone()));
        if let Err(error) = lease.run(begin(), deadline).await {
            if lease.connection().is_some() || is_late(&error) {
                return Err(error.into());
            }
            // The server was restarted since the connection was last used.
            lease = self.pool.lease().await?;
            lease.hold();
            lease.run(begin(), deadline).await?;
        }
        Ok(Write { lease: Some(lease), deadline, store: self, changes: false })
    }

    /// Deletes what only this database has. Gives up the manifests that trackers left staged when they ended.
    async fn tidy(&self, now: SystemTime) -> Result<()> {
        self.forget_logins().await?;
        let sql = "UPDATE manifests SET state = 2 WHERE state = 0 AND staged_at < $1";
        sqlx::query(sql).bind(before(now, STAGED)).execute(self.writes()).await?;
        self.sweep.notify_one();
        Ok(())
    }

    /// Fails if the database cannot be written and read now.
    async fn check(&self) -> Result<()> {
        sqlx::query("UPDATE probe SET at = $1")
            .bind(millis(SystemTime::now()))
            .execute(self.writes())
            .await?;
        Ok(())
    }
}

#[async_trait]
impl Store for Postgres {
    fn shared(&self) -> Option<&dyn Shared> {
        Some(self)
    }

    async fn close(&self) {
        self.pool.close();
    }
}

#[async_trait]
impl Shared for Postgres {
    async fn clock(&self) -> Result<u64> {
        let (now,): (i64,) = sqlx::query_as(CLOCK).fetch_one(self.reads()).await?;
        Ok(count(now))
    }

    async fn secret(&self, name: &str) -> Result<Option<(i64, Vec<u8>)>> {
        let sql = "SELECT version, sealed FROM secrets WHERE name = $1";
        Ok(sqlx::query_as(sql).bind(name).fetch_optional(self.reads()).await?)
    }

    async fn replace_secret(&self, name: &str, was: Option<i64>, sealed: &[u8]) -> Result<bool> {
        let sql = match was {
            None => {
                "INSERT INTO secrets (name, sealed, version) VALUES ($1, $2, coalesce($3::BIGINT, 0) + 1)
                 ON CONFLICT (name) DO NOTHING"
            }
            Some(_) => {
                "UPDATE secrets SET sealed = $2, version = version + 1 WHERE name = $1 AND version = $3"
            }
        };
        let done = sqlx::query(sql).bind(name).bind(sealed).bind(was).execute(self.writes()).await?;
        Ok(done.rows_affected() > 0)
    }

    async fn count_newcomer(&self, network: IpAddr) -> Result<std::result::Result<(), Duration>> {
        self.count_account(network).await
    }

    async fn count_login(&self, login: &Login, step: Step) -> Result<std::result::Result<Counts, Wait>> {
        self.count(login, step).await
    }
}

/// A running write transaction. It is rolled back unless [`Write::commit`] is reached.
struct Write<'s> {
    /// `None` at the end.
    lease: Option<Lease>,
    deadline: Instant,
    store: &'s Postgres,
    changes: bool,
}

impl Write<'_> {
    /// Where the statements of the transaction run.
    fn tx(&mut self) -> Transaction<'_> {
        Transaction(self.lease.as_mut().expect("a transaction that is running"), self.deadline)
    }

    /// Makes the transaction durable, and wakes the tasks of all trackers that wait for changes.
    async fn commit(mut self) -> Result<()> {
        let notify = format!("NOTIFY {CHANNEL}; COMMIT");
        let sql = if self.changes { notify } else { "COMMIT".to_owned() };
        let Some(mut lease) = self.lease.take() else { return Ok(()) };
        let end = sqlx::raw_sql(sqlx::AssertSqlSafe(sql));
        lease.run(end, self.deadline).await?;
        lease.release();
        if self.changes {
            self.store.changed.notify_one();
        }
        Ok(())
    }
}

impl Drop for Write<'_> {
    fn drop(&mut self) {
        let Some(mut lease) = self.lease.take() else { return };
        let rollback = async move {
            if lease.run(sqlx::raw_sql("ROLLBACK"), Instant::now() + ROLLBACK).await.is_ok() {
                lease.release();
            }
        };
        // Outside a runtime the connection is closed instead.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(rollback);
        }
    }
}

/// What the server is asked to do for every connection. `on` is the least that makes an acknowledged change
/// durable; a server that waits for its replicas too goes on doing so.
fn connection(options: &PgConnectOptions) -> PgConnectOptions {
    let limit = |time: Duration| time.as_millis().to_string();
    options.clone().application_name("tracker-svc").options([
        ("statement_timeout", limit(STATEMENT)),
        ("lock_timeout", limit(STATEMENT)),
        ("idle_in_transaction_session_timeout", limit(ABANDONED)),
    ])
}

/// Wakes the tasks that wait for changes whenever a tracker commits some. Also wakes them after each new
/// connection, because notifications may have been missed.
async fn listen(options: PgConnectOptions, changed: Arc<Notify>) {
    let pool: PgPool = PgPoolOptions::new().max_connections(1).connect_lazy_with(options);
    loop {
        if let Err(error) = hear(&pool, &changed).await {
            tracing::debug!(%error, "the notifications of the database can't be heard; polling");
        }
        sleep(LISTEN_AGAIN).await;
    }
}

async fn hear(pool: &PgPool, changed: &Notify) -> sqlx::Result<()> {
    let mut listener = PgListener::connect_with(pool).await?;
    listener.listen(CHANNEL).await?;
    loop {
        changed.notify_one();
        // `None` stands for a lost connection, which was made again.
        listener.try_recv().await?;
    }
}
