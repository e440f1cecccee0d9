//! Backups: one-file copies of a data directory, taken while the tracker serves, and their restoration.
//!
//! The copy is the database, plus a table with the directory's small files (CA, keys). Without these files
//! every peer would have to be given a new CA. The copy is as secret as the directory itself.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use program::durable;
use sqlx::{
    Connection as _, SqliteConnection,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};

use super::{DATABASE, LOCK, OpenError, Sqlite, lock, make_data_dir};

/// Maximum size of a kept file, in bytes. The tracker makes no larger small files.
const MAX_KEPT: u64 = 1 << 20;

/// A restore adds this to every epoch. It is more than the possible number of removals since the backup. So
/// tickets and epochs from after the backup stay void.
const EPOCH_LEAP: i64 = 1 << 32;

/// Writes a consistent copy of a data directory into a new file, also while a tracker serves from it. On
/// return the copy is on disk.
///
/// # Errors
/// Fails if the copy's name exists, or if another user could replace the copy while it is written. Also fails
/// with the errors of opening, reading and writing.
pub async fn backup(data_dir: &Path, copy: &Path) -> Result<(), OpenError> {
    let failed = |error| OpenError::Io(copy.to_owned(), error);
    // The database opens the file by its name.
    durable::check_shared_dir(dir_of(copy)).map_err(failed)?;
    // VACUUM INTO accepts an empty file. Creating it here protects it from other users from the first byte
    // on, and ensures that nothing is overwritten.
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(copy).map_err(failed)?;
    let copied = copy_into(data_dir, copy).await;
    if copied.is_err() {
        // An incomplete backup must not look like a complete one.
        let _ = fs::remove_file(copy);
    }
    copied
}

async fn copy_into(data_dir: &Path, copy: &Path) -> Result<(), OpenError> {
    let failed = |error| OpenError::Io(copy.to_owned(), error);
    let store = Sqlite::open_beside(data_dir).await?;
    // The path is absolute, so that SQLite cannot interpret it as anything else.
    let whole = std::path::absolute(copy).map_err(failed)?;
    let name = whole.to_str().ok_or_else(|| failed(io::Error::other("the name is not UTF-8")))?;
    // This needs a connection with write access, for the copy. The store itself is only read.
    let vacuumed = sqlx::query("VACUUM INTO ?").bind(name).execute(&store.writer).await;
    store.close().await;
    vacuumed?;
    keep_files(data_dir, copy).await?;
    File::open(copy).and_then(|file| file.sync_all()).map_err(failed)?;
    sync_dir_of(copy)
}

async fn keep_files(data_dir: &Path, copy: &Path) -> Result<(), OpenError> {
    let mut database = open_copy(copy).await?;
    sqlx::query("CREATE TABLE kept_files (name TEXT PRIMARY KEY, mode INTEGER NOT NULL, content BLOB NOT NULL) STRICT")
        .execute(&mut database)
        .await?;
    for (name, path) in small_files(data_dir)? {
        let failed = |error| OpenError::Io(path.clone(), error);
        let mode = path.metadata().map_err(failed)?.permissions().mode() & 0o777;
        let content = fs::read(&path).map_err(failed)?;
        sqlx::query("INSERT INTO kept_files VALUES (?, ?, ?)")
            .bind(name)
            .bind(mode)
            .bind(content)
            .execute(&mut database)
            .await?;
    }
    Ok(database.close().await?)
}

/// The regular files of a data directory that are neither the database nor the lock.
fn small_files(data_dir: &Path) -> Result<Vec<(String, PathBuf)>, OpenError> {
    let failed = |error| OpenError::Io(data_dir.to_owned(), error);
    let mut files = Vec::new();
    for entry in fs::read_dir(data_dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let (meta, Ok(name)) = (entry.metadata().map_err(failed)?, entry.file_name().into_string()) else {
            continue;
        };
        if meta.is_file() && meta.len() <= MAX_KEPT && !name.starts_with(DATABASE) && name != LOCK {
            files.push((name, entry.path()));
        }
    }
    Ok(files)
}

async fn open_copy(path: &Path) -> Result<SqliteConnection, OpenError> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .journal_mode(SqliteJournalMode::Delete)
        .synchronous(SqliteSynchronous::Full);
    Ok(SqliteConnection::connect_with(&options).await?)
}

/// Makes a data directory from a copy. The old database is kept under another name, which is returned.
///
/// All sessions end, because sessions that were ended after the copy must not become valid again. All epochs
/// grow by `EPOCH_LEAP`, so that tickets from after the copy stay void.
///
/// # Errors
/// Fails if a tracker serves from the directory, or if the copy is invalid or damaged. Also fails with the
/// errors of reading and writing.
pub async fn restore(data_dir: &Path, copy: &Path) -> Result<Option<PathBuf>, OpenError> {
    make_data_dir(data_dir)?;
    let _lock = lock(data_dir)?;
    let fresh = data_dir.join(format!("{DATABASE}.restoring"));
    let restored = restore_into(data_dir, copy, &fresh).await;
    if restored.is_err() {
        let _ = fs::remove_file(&fresh);
    }
    restored
}

async fn restore_into(data_dir: &Path, copy: &Path, fresh: &Path) -> Result<Option<PathBuf>, OpenError> {
    let failed = |error| OpenError::Io(fresh.to_owned(), error);
    let mut from = File::open(copy).map_err(|error| OpenError::Io(copy.to_owned(), error))?;
    let mut into =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(fresh).map_err(failed)?;
    io::copy(&mut from, &mut into).map_err(failed)?;
    let mut database = open_copy(fresh).await?;
    let (check,): (String,) = sqlx::query_as("PRAGMA integrity_check(1)").fetch_one(&mut database).await?;
    if check != "ok" {
        return Err(OpenError::Damaged(check));
    }
    let kept: Vec<(String, u32, Vec<u8>)> =
        sqlx::query_as("SELECT name, mode, content FROM kept_files").fetch_all(&mut database).await?;
    let mut tx = database.begin().await?;
    for sql in ["DROP TABLE kept_files", "DELETE FROM sessions"] {
        sqlx::query(sql).execute(&mut *tx).await?;
    }
    // What was revoked after the copy was made must not come back. Copies of earlier versions lack these tables.
    for (table, sql) in [
        ("invite_uses", "DELETE FROM invite_uses"),
        ("invites", "DELETE FROM invites"),
        ("tokens", "DELETE FROM tokens"),
    ] {
        let (is_there,): (bool,) =
            sqlx::query_as("SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE name = ?)")
                .bind(table)
                .fetch_one(&mut *tx)
                .await?;
        if is_there {
            sqlx::query(sql).execute(&mut *tx).await?;
        }
    }
    sqlx::query("UPDATE epoch SET value = value + ?").bind(EPOCH_LEAP).execute(&mut *tx).await?;
    sqlx::query("UPDATE groups SET epoch = (SELECT value FROM epoch)").execute(&mut *tx).await?;
    tx.commit().await?;
    database.close().await?;
    into.sync_all().map_err(failed)?;
    let before = set_aside(data_dir)?;
    for (name, mode, content) in kept {
        write_kept(data_dir, &name, mode, &content)?;
    }
    let path = data_dir.join(DATABASE);
    fs::rename(fresh, &path).map_err(failed)?;
    sync_dir_of(&path)?;
    Ok(before)
}

/// Renames the existing database and its log.
fn set_aside(data_dir: &Path) -> Result<Option<PathBuf>, OpenError> {
    let path = data_dir.join(DATABASE);
    if !path.exists() {
        return Ok(None);
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let before = data_dir.join(format!("{DATABASE}.before-restore-{now}"));
    for suffix in ["-wal", "-shm", ""] {
        let named = |path: &Path| PathBuf::from(format!("{}{suffix}", path.display()));
        match fs::rename(named(&path), named(&before)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(OpenError::Io(before, error));
            }
            _ => {}
        }
    }
    Ok(Some(before))
}

fn write_kept(data_dir: &Path, name: &str, mode: u32, content: &[u8]) -> Result<(), OpenError> {
    // The copy may come from anywhere, so a name must not lead out of the directory.
    let is_plain = Path::new(name).file_name().is_some_and(|last| last == name);
    let path = data_dir.join(name);
    let failed = |error| OpenError::Io(path.clone(), error);
    if !is_plain || name.starts_with(DATABASE) || name == LOCK {
        return Err(failed(io::Error::other("the backup contains a file with an unknown name")));
    }
    let half = data_dir.join(format!("{name}.restoring"));
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode & 0o644)
        .open(&half)
        .map_err(failed)?;
    file.write_all(content).and_then(|()| file.sync_all()).map_err(failed)?;
    fs::rename(&half, &path).map_err(failed)
}

fn dir_of(path: &Path) -> &Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn sync_dir_of(path: &Path) -> Result<(), OpenError> {
    let dir = dir_of(path);
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(|error| OpenError::Io(dir.to_owned(), error))
}
