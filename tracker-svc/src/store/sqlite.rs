//! The SQLite store: one file, one writer connection, and a few readers. Some more connections serve the
//! lookups that every call makes.
//!
//! The database uses WAL with `synchronous = FULL`. Acknowledged changes survive power loss, and readers
//! never wait for the writer. An exclusive lock file allows one `serve` per data directory. The operator's
//! commands work on the same database at the same time. Reads outside a transaction see the last commit, so a
//! response never comes before its data is durable.

#[path = "sql/accounts.rs"]
mod accounts;
mod backup;
#[path = "sql/files.rs"]
mod files;
#[path = "sql/groups.rs"]
mod groups;
#[path = "sql/invites.rs"]
mod invites;
#[path = "sql/log.rs"]
mod log;
mod lookup;
#[path = "sql/rulings.rs"]
mod rulings;
#[path = "sql/tokens.rs"]
mod tokens;

use std::{
    fs::{File, OpenOptions, TryLockError},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use parking_lot::Mutex;
use program::durable;
use proto::domain::look_alike::skeleton;
use sqlx::{
    SqliteConnection, SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use tokio::sync::Notify;

pub use backup::{backup, restore};

use self::{
    Sqlite as Database,
    lookup::{Lookups, Row},
    rulings::{SessionColumns, session_columns, session_rows},
};
use super::{
    ManifestId, Result, Store, StoreError,
    sql::{before, count, millis, of_code, stored, stored_bytes, taken, time},
};
use crate::domain::SessionHash;

/// The database's name in the data directory.
pub const DATABASE: &str = "tracker.db";
/// The lock's name in the data directory.
pub const LOCK: &str = "tracker.lock";
/// Older versions are known to lose or corrupt data in WAL mode.
const LEAST_VERSION: (u32, u32, u32) = (3, 51, 3);
/// How long a call waits for the database before it fails with UNAVAILABLE.
const PATIENCE: Duration = Duration::from_secs(5);
/// Enough for two cores. More connections would only queue inside SQLite.
const READERS: u32 = 4;

static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!();

/// The reason why a database cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another `serve` has locked it.
    #[error("another tracker process is serving from {0}; stop it first")]
    Locked(PathBuf),
    /// There is no database, and this command does not make one.
    #[error("{0} contains no tracker database; start `tracker-svc serve` with that data directory first")]
    Missing(PathBuf),
    /// A file cannot be made or read.
    #[error("{0}: {1}")]
    Io(PathBuf, io::Error),
    /// The linked SQLite is too old.
    #[error("SQLite {0} is too old; version 3.51.3 or newer is needed")]
    Version(String),
    /// The database is damaged.
    #[error("the database is damaged: {0}")]
    Damaged(String),
    /// The schema cannot be updated. It may belong to a newer version.
    #[error("the database's schema can't be migrated: {0}")]
    Schema(#[from] sqlx::migrate::MigrateError),
    /// SQLite returned an error.
    #[error("the database: {0}")]
    Sqlite(#[from] sqlx::Error),
    /// The database cannot be read.
    #[error("the database: {0}")]
    Unreadable(#[from] StoreError),
}

/// The store, in one SQLite file.
pub struct Sqlite {
    writer: SqlitePool,
    readers: SqlitePool,
    lookups: Lookups,
    changed: Notify,
    /// Staged manifests that were abandoned, for the next sweep. At most one per concurrent publication.
    abandoned: Mutex<Vec<ManifestId>>,
    sweep: Notify,
    /// Held as long as the store is open. `None` for the operator's commands.
    _lock: Option<File>,
}

impl Sqlite {
    /// Opens the database of a data directory to serve from it. Makes both if needed, locks and checks the
    /// database, updates its schema, and gives up manifests that an earlier run left staged.
    ///
    /// # Errors
    /// [`OpenError`]. The database is not changed before the lock is held.
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
        store.fill_skeletons().await?;
        sqlx::query("UPDATE manifests SET state = 2 WHERE state = 0").execute(&store.writer).await?;
        store.sweep.notify_one();
        Ok(store)
    }

    /// Opens the database of a data directory while a tracker may serve from it, for the operator's commands.
    ///
    /// # Errors
    /// [`OpenError`]. A schema of another version is refused, never changed.
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
            // After a burst the log file is truncated to this size.
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
            lookups: Lookups::open(path, READERS, PATIENCE)?,
            changed: Notify::new(),
            abandoned: Mutex::default(),
            sweep: Notify::new(),
            _lock: lock,
        })
    }

    /// Closes all connections. Acknowledged changes are already on disk.
    pub async fn close(&self) {
        self.lookups.close();
        self.readers.close().await;
        self.writer.close().await;
    }

    /// Starts a write transaction. Waits for the writer connection, then for other processes.
    async fn begin(&self) -> Result<Write<'_>> {
        const BEGIN: &str = "BEGIN IMMEDIATE";
        let mut begun = self.writer.begin_with(BEGIN).await;
        if matches!(begun, Err(sqlx::Error::InvalidSavePointStatement)) {
            // A full disk makes SQLite end a transaction by itself. The connection would then believe forever
            // that it is within one, so it is replaced.
            self.writer.acquire().await?.close().await?;
            begun = self.writer.begin_with(BEGIN).await;
        }
        let tx = begun?;
        Ok(Write { tx, store: self, changes: false })
    }

    /// Fills in the skeletons of groups that an earlier version made. If another group already has the same
    /// skeleton, the group stays without one: both existed before the rule.
    async fn fill_skeletons(&self) -> Result<()> {
        let mut write = self.begin().await?;
        let rows: Vec<(i64, String)> =
            sqlx::query_as("SELECT id, name FROM groups WHERE skeleton IS NULL ORDER BY id")
                .fetch_all(write.tx())
                .await?;
        for (id, name) in rows {
            let sql = "UPDATE OR IGNORE groups SET skeleton = ? WHERE id = ?";
            sqlx::query(sql).bind(skeleton(&name)).bind(id).execute(write.tx()).await?;
        }
        write.commit().await
    }

    /// The database, for reading.
    pub(super) fn pool(&self) -> &SqlitePool {
        &self.readers
    }

    /// Where single statements that only read run. They see the last commit.
    fn reads(&self) -> &SqlitePool {
        &self.readers
    }

    /// Where single statements that write run.
    fn writes(&self) -> &SqlitePool {
        &self.writer
    }

    /// Looks one row up by its key.
    async fn one<T>(
        &self,
        sql: &str,
        key: impl rusqlite::Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>> {
        self.lookups.one(sql, key, read)
    }

    /// Reads the sessions with these hashes.
    async fn sessions_of(&self, hashes: &[SessionHash]) -> Result<Vec<(SessionHash, SessionColumns)>> {
        let sql = concat!("SELECT ", session_columns!(), " FROM ", session_rows!());
        let mut found = Vec::with_capacity(hashes.len());
        for hash in hashes {
            let columns = self.one(sql, (&hash.as_bytes()[..],), SessionColumns::read).await?;
            found.extend(columns.map(|columns| (*hash, columns)));
        }
        Ok(found)
    }

    /// Starts a transaction that only adds rows on which no rule depends.
    async fn begin_append(&self) -> Result<Write<'_>> {
        self.begin().await
    }

    /// Gives up the manifests that trackers left staged. Opening the database did it: there is one tracker.
    async fn tidy(&self, _: SystemTime) -> Result<()> {
        Ok(())
    }

    /// Fails if the database cannot be written and read now.
    async fn check(&self) -> Result<()> {
        // A number in the file's header that nothing else uses. It must change: a transaction without changes
        // succeeds on a full disk.
        let mut write = self.begin().await?;
        let now = millis(SystemTime::now()) / 1000 % i64::from(i32::MAX);
        sqlx::query(sqlx::AssertSqlSafe(format!("PRAGMA user_version = {now}"))).execute(write.tx()).await?;
        write.commit().await?;
        // Logins and lists use these connections.
        sqlx::query("SELECT 1").execute(&self.readers).await?;
        Ok(())
    }
}

#[async_trait]
impl Store for Sqlite {
    async fn close(&self) {
        self.close().await;
    }
}

/// A running write transaction. It is rolled back unless [`Write::commit`] is reached.
struct Write<'s> {
    tx: sqlx::Transaction<'static, sqlx::Sqlite>,
    store: &'s Sqlite,
    changes: bool,
}

impl Write<'_> {
    /// Where the statements of the transaction run.
    fn tx(&mut self) -> &mut SqliteConnection {
        &mut self.tx
    }

    /// Makes the transaction durable, then wakes the tasks that wait for changes.
    async fn commit(self) -> Result<()> {
        self.tx.commit().await?;
        if self.changes {
            self.store.changed.notify_one();
        }
        Ok(())
    }
}

fn pool(connections: u32) -> SqlitePoolOptions {
    SqlitePoolOptions::new()
        .max_connections(connections)
        .min_connections(connections)
        .acquire_timeout(PATIENCE)
        // A connection to a file does not go stale. A test for each use would double the cost of a read.
        .test_before_acquire(false)
        .idle_timeout(None)
        .max_lifetime(None)
}

fn make_data_dir(dir: &Path) -> std::result::Result<(), OpenError> {
    durable::private_dir(dir).map_err(|error| OpenError::Io(dir.to_owned(), error))
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

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match &error {
            rusqlite::Error::SqliteFailure(failure, _) => of_code(failure.extended_code, error.to_string()),
            _ => Self::Fault(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::{Action, Origin},
        store::Log as _,
    };

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
        // The limit belongs to the connection and ends with it, as if space had been freed.
        store.record(Action::Login, &long, &origin).await.expect("it is written");
        store.probe().await.expect("it can be written");
    }

    #[tokio::test]
    async fn every_commit_is_synced_to_the_log() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Sqlite::open(dir.path()).await.expect("a store");
        let (mode,): (String,) =
            sqlx::query_as("PRAGMA journal_mode").fetch_one(&store.writer).await.expect("a mode");
        let (synchronous,): (i64,) =
            sqlx::query_as("PRAGMA synchronous").fetch_one(&store.writer).await.expect("a level");
        // 2 is FULL. With NORMAL, which is 1, a power cut can lose the last commits.
        assert_eq!((mode.as_str(), synchronous), ("wal", 2));
    }

    #[tokio::test]
    async fn groups_of_an_earlier_version_get_their_skeletons() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Sqlite::open(dir.path()).await.expect("a store");
        let sql = "INSERT INTO accounts (username, password, created_at) VALUES ('ann', '', 0)";
        sqlx::query(sql).execute(&store.writer).await.expect("an account");
        for name in ["cop", "сор", "Größe", "a\u{3164}b"] {
            let sql = "INSERT INTO groups (name, folded, owner, epoch, created_at) SELECT ?1, ?1, id, 1, 0 FROM accounts";
            sqlx::query(sql).bind(name).execute(&store.writer).await.expect("a group");
        }
        store.fill_skeletons().await.expect("they are filled in");
        let rows: Vec<(String, Option<String>)> =
            sqlx::query_as("SELECT name, skeleton FROM groups ORDER BY id")
                .fetch_all(&store.readers)
                .await
                .expect("rows");
        let skeletons: Vec<_> = rows.iter().map(|(_, skeleton)| skeleton.as_deref()).collect();
        // The second name looks like the first.
        assert_eq!(skeletons, [Some("cop"), None, Some("grösse"), Some("ab")]);
        // A name that today's rules refuse can still be read.
        for (name, _) in &rows {
            assert_eq!(stored::<proto::domain::GroupId>(name).expect("a stored name").as_str(), name);
        }
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
