//! SQLite: one writer connection, a few readers, one file; and a few more for lookups that every call makes.
//!
//! WAL with `synchronous = FULL`: what was acknowledged survives power loss, readers never wait for the writer. One
//! `serve` a data directory, by an exclusive lock file; the operator's commands work beside it on the same database.
//! Reads outside a transaction see the last commit, so an answer never precedes its durability.

mod accounts;
mod backup;
mod files;
mod groups;
mod log;
mod lookup;

use std::{
    fs::{DirBuilder, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Mutex,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use sqlx::{
    SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use tokio::sync::Notify;

pub use backup::{backup, restore};

use self::lookup::Lookups;
use super::{ManifestId, Result, StoreError};
use crate::domain::{Action, Origin};

/// The database's name in the data directory.
pub const DATABASE: &str = "tracker.db";
/// The lock's name in the data directory.
pub const LOCK: &str = "tracker.lock";
/// Below this, known to lose or corrupt data in WAL mode.
const LEAST_VERSION: (u32, u32, u32) = (3, 51, 3);
/// How long a call waits for the database before it answers UNAVAILABLE.
const PATIENCE: Duration = Duration::from_secs(5);
/// Enough for two cores; more would only queue inside SQLite.
const READERS: u32 = 4;

static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!();

/// Why a database can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another `serve` holds it.
    #[error("another tracker is serving from {0}")]
    Locked(PathBuf),
    /// There is none, and this is not the command that makes it.
    #[error("{0} holds no tracker database: start `tracker-svc serve` there first")]
    Missing(PathBuf),
    /// A file can't be made or read.
    #[error("{0}: {1}")]
    Io(PathBuf, io::Error),
    /// The linked SQLite is too old.
    #[error("SQLite {0} is too old: 3.51.3 or newer is needed")]
    Version(String),
    /// The database is damaged.
    #[error("the database is damaged: {0}")]
    Damaged(String),
    /// The schema can't be brought up to date; it may be of a newer version.
    #[error("the database's schema: {0}")]
    Schema(#[from] sqlx::migrate::MigrateError),
    /// SQLite says no.
    #[error("the database: {0}")]
    Sqlite(#[from] sqlx::Error),
    /// It can't be read.
    #[error("the database: {0}")]
    Unreadable(#[from] StoreError),
}

/// The store in one SQLite file.
pub struct Sqlite {
    writer: SqlitePool,
    readers: SqlitePool,
    lookups: Lookups,
    changed: Notify,
    /// Staged manifests that were given up, for the sweep. Bounded by the publications that run at once.
    abandoned: Mutex<Vec<ManifestId>>,
    sweep: Notify,
    /// Held for as long as the store is open; none for the operator's commands.
    _lock: Option<File>,
}

impl Sqlite {
    /// Opens the database of a data directory to serve from it, making both if need be; locks it, checks it, brings
    /// its schema up to date, and drops what an earlier run left half done.
    ///
    /// # Errors
    /// [`OpenError`]; nothing of the database is changed before the lock is held.
    pub async fn open(data_dir: &Path) -> std::result::Result<Self, OpenError> {
        make_data_dir(data_dir)?;
        let lock = lock(data_dir)?;
        let path = data_dir.join(DATABASE);
        private_file().open(&path).map_err(|error| OpenError::Io(path.clone(), error))?;
        let store = Self::connect(&path, Some(lock)).await?;
        let (check,): (String,) = sqlx::query_as("PRAGMA quick_check(1)").fetch_one(&store.writer).await?;
        if check != "ok" {
            return Err(OpenError::Damaged(check));
        }
        MIGRATIONS.run(&store.writer).await?;
        sqlx::query("UPDATE manifests SET state = 2 WHERE state = 0").execute(&store.writer).await?;
        store.sweep.notify_one();
        Ok(store)
    }

    /// Opens the database of a data directory beside a tracker that serves from it: for the operator's commands.
    ///
    /// # Errors
    /// [`OpenError`]; a schema that is not this version's is refused, never changed.
    pub async fn open_beside(data_dir: &Path) -> std::result::Result<Self, OpenError> {
        let path = data_dir.join(DATABASE);
        if !path.exists() {
            return Err(OpenError::Missing(data_dir.to_owned()));
        }
        let store = Self::connect(&path, None).await?;
        let known = MIGRATIONS.iter().map(|migration| migration.version).max();
        let (found,): (Option<i64>,) =
            sqlx::query_as("SELECT max(version) FROM _sqlx_migrations WHERE success")
                .fetch_one(&store.readers)
                .await?;
        if found != known {
            return Err(OpenError::Damaged(format!("schema {found:?} instead of {known:?}")));
        }
        Ok(store)
    }

    async fn connect(path: &Path, lock: Option<File>) -> std::result::Result<Self, OpenError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(PATIENCE)
            // After a burst the log file shrinks to this again.
            .pragma("journal_size_limit", "67108864");
        let writer = pool(1).connect_with(options.clone()).await?;
        let (version,): (String,) = sqlx::query_as("SELECT sqlite_version()").fetch_one(&writer).await?;
        if !is_recent(&version) {
            return Err(OpenError::Version(version));
        }
        let readers = pool(READERS).connect_with(options.read_only(true)).await?;
        Ok(Self {
            writer,
            readers,
            lookups: Lookups::open(path)?,
            changed: Notify::new(),
            abandoned: Mutex::default(),
            sweep: Notify::new(),
            _lock: lock,
        })
    }

    /// Closes all connections; what was acknowledged is on disk already.
    pub async fn close(&self) {
        self.lookups.close();
        self.readers.close().await;
        self.writer.close().await;
    }

    /// Starts a write: waits its turn for the one writer, then for other processes.
    async fn begin(&self) -> Result<Write<'_>> {
        const BEGIN: &str = "BEGIN IMMEDIATE";
        let mut begun = self.writer.begin_with(BEGIN).await;
        if matches!(begun, Err(sqlx::Error::InvalidSavePointStatement)) {
            // A disk that is full ends a transaction by itself, and its connection would take itself to be within it for
            // ever. The next one knows nothing of that.
            self.writer.acquire().await?.close().await?;
            begun = self.writer.begin_with(BEGIN).await;
        }
        let tx = begun?;
        Ok(Write { tx, store: self, changes: false })
    }
}

/// A running write transaction; rolled back unless [`Write::commit`] is reached.
struct Write<'s> {
    tx: sqlx::Transaction<'static, sqlx::Sqlite>,
    store: &'s Sqlite,
    changes: bool,
}

impl Write<'_> {
    /// Makes it durable, then wakes whoever waits for changes.
    async fn commit(self) -> Result<()> {
        self.tx.commit().await?;
        if self.changes {
            self.store.changed.notify_one();
        }
        Ok(())
    }

    async fn audit(&mut self, action: Action, object: &str, origin: &Origin) -> Result<()> {
        let sql = "INSERT INTO audit (at, actor, ip, action, object, request) VALUES (?, ?, ?, ?, ?, ?)";
        sqlx::query(sql)
            .bind(millis(origin.at))
            .bind(origin.actor.as_ref().map(ToString::to_string))
            .bind(origin.ip.map(|ip| ip.to_string()))
            .bind(action.as_str())
            .bind(object)
            .bind(&*origin.request)
            .execute(&mut *self.tx)
            .await?;
        Ok(())
    }
}

fn pool(connections: u32) -> SqlitePoolOptions {
    SqlitePoolOptions::new()
        .max_connections(connections)
        .min_connections(connections)
        .acquire_timeout(PATIENCE)
        // A connection to a file does not go stale; asking each time would double the cost of a read.
        .test_before_acquire(false)
        .idle_timeout(None)
        .max_lifetime(None)
}

fn make_data_dir(dir: &Path) -> std::result::Result<(), OpenError> {
    let failed = |error| OpenError::Io(dir.to_owned(), error);
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)?;
    let permissions = dir.metadata().map_err(failed)?.permissions();
    if permissions.mode() & 0o077 != 0 {
        // It was there before, and others could list it.
        std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700)).map_err(failed)?;
    }
    Ok(())
}

fn private_file() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options
}

fn lock(data_dir: &Path) -> std::result::Result<File, OpenError> {
    let path = data_dir.join(LOCK);
    let file = private_file().open(&path).map_err(|error| OpenError::Io(path.clone(), error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::Locked(data_dir.to_owned())),
        Err(TryLockError::Error(error)) => Err(OpenError::Io(path, error)),
    }
}

fn is_recent(version: &str) -> bool {
    let mut numbers = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    let mut next = || numbers.next().unwrap_or(0);
    (next(), next(), next()) >= LEAST_VERSION
}

/// Milliseconds since 1970, as times are stored.
fn millis(at: SystemTime) -> i64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

fn time(millis: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(u64::try_from(millis).unwrap_or(0))
}

/// A stored name or id; what is stored was checked on its way in.
fn stored<T: std::str::FromStr>(text: &str) -> Result<T> {
    text.parse().map_err(|_| StoreError::Fault(format!("a malformed name is stored: {text:?}")))
}

/// A stored digest or id of fixed size.
fn stored_bytes<'b, T: TryFrom<&'b [u8]>>(bytes: &'b [u8]) -> Result<T> {
    bytes
        .try_into()
        .map_err(|_| StoreError::Fault(format!("{} bytes are stored for an id or digest", bytes.len())))
}

/// A stored count.
fn count(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let code =
            error.as_database_error().and_then(|error| error.code()).and_then(|code| code.parse().ok());
        match code {
            Some(code) => of_code(code, error.to_string()),
            None => match error {
                sqlx::Error::PoolTimedOut
                | sqlx::Error::PoolClosed
                | sqlx::Error::WorkerCrashed
                | sqlx::Error::Io(_) => Self::Unavailable(error.to_string()),
                _ => Self::Fault(error.to_string()),
            },
        }
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match &error {
            rusqlite::Error::SqliteFailure(failure, _) => of_code(failure.extended_code, error.to_string()),
            _ => Self::Fault(error.to_string()),
        }
    }
}

/// What one of SQLite's result codes means. The low byte is the primary one: <https://sqlite.org/rescode.html>
fn of_code(code: i32, text: String) -> StoreError {
    match code & 0xff {
        libsqlite3_sys::SQLITE_FULL => StoreError::Full,
        libsqlite3_sys::SQLITE_BUSY
        | libsqlite3_sys::SQLITE_LOCKED
        | libsqlite3_sys::SQLITE_IOERR
        | libsqlite3_sys::SQLITE_READONLY
        | libsqlite3_sys::SQLITE_CANTOPEN => StoreError::Unavailable(text),
        _ => StoreError::Fault(text),
    }
}

/// Turns the violation of a uniqueness constraint into what it means there.
fn taken<T>(result: std::result::Result<T, sqlx::Error>, refusal: crate::domain::Refusal) -> Result<T> {
    result.map_err(|error| match error.as_database_error() {
        Some(database) if database.is_unique_violation() => refusal.into(),
        _ => error.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Log as _;

    #[tokio::test]
    async fn a_full_disk_is_over_when_it_is_over() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Sqlite::open(dir.path()).await.expect("a store");
        let count = sqlx::query_as("PRAGMA page_count").fetch_one(&store.writer);
        let (pages,): (i64,) = count.await.expect("a count");
        let limit = sqlx::AssertSqlSafe(format!("PRAGMA max_page_count = {pages}"));
        sqlx::query(limit).execute(&store.writer).await.expect("a limit");
        let origin = Origin { actor: None, ip: None, request: "x".into(), at: SystemTime::now() };
        let long = "x".repeat(100_000);
        let refused = store.record(Action::Login, &long, &origin).await;
        assert!(matches!(refused, Err(StoreError::Full)), "{refused:?}");
        // The limit is that connection's, and goes with it, as if room had been made.
        store.record(Action::Login, &long, &origin).await.expect("it is written");
        store.probe().await.expect("it can be written");
    }

    #[test]
    fn old_versions_are_told_apart() {
        for (version, recent) in [
            ("3.51.3", true),
            ("3.54.1", true),
            ("4.0.0", true),
            ("3.51.2", false),
            ("3.9.9", false),
            ("", false),
        ] {
            assert_eq!(is_recent(version), recent, "{version}");
        }
    }
}
