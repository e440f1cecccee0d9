//! Lookups of one row by its key, on the thread of the caller.
//!
//! Each call looks up its session, and most calls look up a place in a group and a file. sqlx passes every
//! query to a thread and back. rusqlite runs it on the calling thread, which is why the store has this second
//! driver. Both link the same SQLite. The lookups read a few pages that are in memory, and in WAL mode they
//! wait for no writer.
//!
//! A lookup of one of 10,000 sessions took 2.5 µs with rusqlite, and 36 to 46 µs with a pool of sqlx (five
//! rounds of 10,000 lookups each, release build, two busy cores, 2026-11-28). The limit for the processor
//! time of a whole call is 60 µs, and the aim is 30 µs (`cargo xtask bench tracker`).

use std::{path::Path, time::Duration};

use parking_lot::Mutex;
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, Params};
pub(super) use rusqlite::{Result as RowResult, Row};

use crate::store::{Result, StoreError};

/// Separate read-only connections. `None` after closing.
pub(super) struct Lookups(Vec<Mutex<Option<Connection>>>);

impl Lookups {
    /// Opens an existing database in WAL mode. A lookup waits for a lock for at most `patience`.
    ///
    /// # Errors
    /// Errors of SQLite.
    pub(super) fn open(path: &Path, connections: u32, patience: Duration) -> Result<Self> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = |_| -> rusqlite::Result<_> {
            let connection = Connection::open_with_flags(path, flags)?;
            connection.busy_timeout(patience)?;
            Ok(Mutex::new(Some(connection)))
        };
        Ok(Self((0..connections).map(connection).collect::<rusqlite::Result<_>>()?))
    }

    /// Closes all connections. Lookups fail from then on.
    pub(super) fn close(&self) {
        for connection in &self.0 {
            connection.lock().take();
        }
    }

    /// Returns the row, if there is one. Sees the last commit.
    ///
    /// # Errors
    /// Errors of SQLite.
    pub(super) fn one<T>(
        &self,
        sql: &str,
        key: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>> {
        let free = self.0.iter().find_map(Mutex::try_lock);
        // If there are at least as many connections as processors, one becomes free almost at once.
        let connection = free.unwrap_or_else(|| self.0[0].lock());
        let closed = || StoreError::Unavailable("the store is closed".into());
        let connection = connection.as_ref().ok_or_else(closed)?;
        Ok(connection.prepare_cached(sql)?.query_row(key, read).optional()?)
    }
}
