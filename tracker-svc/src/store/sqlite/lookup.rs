//! Lookups of one row by its key, where they are asked for.
//!
//! Each call looks its session up, and most calls a place in a group and a file. The pools hand every query to a thread
//! and back, and the connection after it: measured, twenty times what such a lookup takes by itself. These touch a few
//! pages that are in memory, and in WAL mode they wait for no writer, so the thread that asks does them.

use std::{
    path::Path,
    sync::{Mutex, PoisonError, TryLockError},
};

use rusqlite::{Connection, OpenFlags, OptionalExtension as _, Params, Row};

use super::{PATIENCE, READERS};
use crate::store::{Result, StoreError};

/// Read-only connections of its own; none once it is closed.
pub(super) struct Lookups(Vec<Mutex<Option<Connection>>>);

impl Lookups {
    /// Opens a database that is there, in WAL mode.
    ///
    /// # Errors
    /// What SQLite says.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = |_| -> rusqlite::Result<_> {
            let connection = Connection::open_with_flags(path, flags)?;
            connection.busy_timeout(PATIENCE)?;
            Ok(Mutex::new(Some(connection)))
        };
        Ok(Self((0..READERS).map(connection).collect::<rusqlite::Result<_>>()?))
    }

    /// Closes all connections; lookups fail from then on.
    pub(super) fn close(&self) {
        for connection in &self.0 {
            connection.lock().unwrap_or_else(PoisonError::into_inner).take();
        }
    }

    /// The one row that there is, if any. Sees the last commit.
    ///
    /// # Errors
    /// What SQLite says.
    pub(super) fn one<T>(
        &self,
        sql: &str,
        key: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>> {
        let free = self.0.iter().find_map(|connection| match connection.try_lock() {
            Ok(free) => Some(free),
            Err(TryLockError::Poisoned(free)) => Some(free.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        });
        // With as many as there are processors or more, one is free again in no time.
        let connection = free.unwrap_or_else(|| self.0[0].lock().unwrap_or_else(PoisonError::into_inner));
        let closed = || StoreError::Unavailable("the store is closed".into());
        let connection = connection.as_ref().ok_or_else(closed)?;
        Ok(connection.prepare_cached(sql)?.query_row(key, read).optional()?)
    }
}
