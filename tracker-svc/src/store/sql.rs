//! What the stores on SQL databases share.
//!
//! The statements and the rules around them are in `sql/`. These files are compiled twice: as modules of
//! [`super::sqlite`] and of [`super::postgres`]. `super` names the store and its transaction there:
//!
//! - `Database` is the store, `Write` a write transaction. [`Write::tx`](super::sqlite) runs a statement in it.
//! - `reads` and `writes` run a single statement outside a transaction. `one` looks one row up by its key.
//!
//! So each database has its own driver, types and code, without a layer in between, and each rule is written
//! once. Bounds for code that is generic over sqlx's databases would be longer than the code.
//!
//! Rules for a statement that both databases run:
//!
//! - Parameters are `$1`, `$2` and so on, numbered in the order in which they first appear: the lookups of
//!   SQLite bind them in that order.
//! - Bound integers are `i64`, and a computed integer is `CAST(… AS BIGINT)`: PostgreSQL converts neither.
//! - The key of a new row comes from `RETURNING id`.
//! - A column must exist in both sets of migrations (`migrations/` and `migrations/postgres/`).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use proto::domain::Name;

use super::{Result, StoreError};
use crate::domain::Refusal;

/// A time as it is stored: milliseconds since 1970.
pub(super) fn millis(at: SystemTime) -> i64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// The stored form of the time that is `age` before `now`.
pub(super) fn before(now: SystemTime, age: Duration) -> i64 {
    millis(now).saturating_sub(i64::try_from(age.as_millis()).unwrap_or(i64::MAX))
}

pub(super) fn time(millis: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(u64::try_from(millis).unwrap_or(0))
}

/// Parses a stored name. It was checked before it was stored.
pub(super) fn stored<T: Name>(text: &str) -> Result<T> {
    T::stored(text).map_err(|_| StoreError::Fault(format!("the stored name {text:?} is malformed")))
}

/// Parses a stored digest or id of fixed size.
pub(super) fn stored_bytes<'b, T: TryFrom<&'b [u8]>>(bytes: &'b [u8]) -> Result<T> {
    bytes.try_into().map_err(|_| {
        StoreError::Fault(format!("a stored id or digest has the wrong length: {} bytes", bytes.len()))
    })
}

/// Converts a stored count.
pub(super) fn count(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        if let Some(database) = error.as_database_error() {
            let code = database.code().unwrap_or_default();
            if database.try_downcast_ref::<sqlx::postgres::PgDatabaseError>().is_some() {
                return of_state(&code, error.to_string());
            }
            if let Ok(code) = code.parse() {
                return of_code(code, error.to_string());
            }
        }
        match error {
            sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed
            | sqlx::Error::Protocol(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Io(_) => Self::Unavailable(error.to_string()),
            _ => Self::Fault(error.to_string()),
        }
    }
}

/// Converts an SQLite result code. The low byte is the primary code: <https://sqlite.org/rescode.html>
pub(super) fn of_code(code: i32, text: String) -> StoreError {
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

/// Converts an SQLSTATE: <https://www.postgresql.org/docs/15/errcodes-appendix.html>
fn of_state(state: &str, text: String) -> StoreError {
    match state {
        "53100" => StoreError::Full,
        // Cancelled by a timeout, read-only after a failover, a lost connection in a transaction.
        "25006" | "25P03" | "55P03" => StoreError::Unavailable(text),
        // The classes: connection, authorization, rollback (deadlock), resources, intervention, system.
        state if ["08", "28", "40", "53", "57", "58"].contains(&state.get(..2).unwrap_or_default()) => {
            StoreError::Unavailable(text)
        }
        _ => StoreError::Fault(text),
    }
}

/// Converts the violation of a uniqueness constraint into the given refusal.
pub(super) fn taken<T>(result: std::result::Result<T, sqlx::Error>, refusal: Refusal) -> Result<T> {
    result.map_err(|error| match error.as_database_error() {
        Some(database) if database.is_unique_violation() => refusal.into(),
        _ => error.into(),
    })
}
