//! Moves the content of an SQLite store into an empty PostgreSQL database.
//!
//! Everything is copied in one transaction, so the database contains all of it or nothing. The columns are
//! those of the SQLite tables, so a new column needs no code here. A new table needs a line in [`TABLES`]:
//! an unknown one is refused rather than left behind.
//!
//! Left behind are the log of changes, since no stream is running, and manifests that belong to no file.

use futures_util::TryStreamExt as _;
use sqlx::{
    AssertSqlSafe, Connection as _, PgConnection, Row as _, SqlitePool, postgres::PgArguments, query::Query,
    sqlite::SqliteRow,
};

use super::{
    Result, StoreError,
    postgres::{OpenError, Postgres, PostgresOptions},
    sqlite::{self, Sqlite},
};

/// The tables in an order in which each row finds the rows that it refers to, and which rows are copied.
const TABLES: [(&str, &str); 13] = [
    ("accounts", "TRUE"),
    ("sessions", "TRUE"),
    ("tokens", "TRUE"),
    ("peers", "TRUE"),
    ("groups", "TRUE"),
    ("members", "TRUE"),
    ("requests", "TRUE"),
    ("manifests", "state = 1"),
    ("runs", "manifest IN (SELECT id FROM manifests WHERE state = 1)"),
    ("files", "TRUE"),
    ("invites", "TRUE"),
    ("invite_uses", "TRUE"),
    ("audit", "TRUE"),
];
/// Tables that are not copied row by row.
const OTHERS: [&str; 4] = ["epoch", "changes", "_sqlx_migrations", "sqlite_sequence"];
/// Columns that the triggers of the new database fill while the rows they count come in.
const COUNTED: [(&str, &str); 6] = [
    ("accounts", "manifest_bytes"),
    ("accounts", "files"),
    ("accounts", "bytes"),
    ("groups", "members"),
    ("groups", "files"),
    ("groups", "bytes"),
];

/// The reason why a tracker cannot be taken over.
#[derive(Debug, thiserror::Error)]
pub enum TakeoverError {
    /// The data directory cannot be used. It may be that a tracker serves from it.
    #[error(transparent)]
    From(#[from] sqlite::OpenError),
    /// The new database cannot be used.
    #[error(transparent)]
    To(#[from] OpenError),
    /// The new database contains a tracker already.
    #[error("the database {0} is not empty; a tracker can be taken over only into a new database")]
    NotEmpty(String),
    /// The old database has a table that this version does not know.
    #[error("the table {0} is not known; use the version of tracker-svc that made it")]
    Unknown(String),
    /// A database failed. Nothing was taken over.
    #[error("nothing was taken over: {0}")]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for TakeoverError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

/// What was taken over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Accounts.
    pub accounts: u64,
    /// Groups.
    pub groups: u64,
    /// Files.
    pub files: u64,
    /// Sessions.
    pub sessions: u64,
}

/// Moves a store with its secrets, which come by name and sealed. The old store keeps what it has.
///
/// # Errors
/// [`TakeoverError`]. The new database is then as empty as before.
pub async fn take_over(
    from: &Sqlite,
    to: &PostgresOptions,
    secrets: &[(&str, Vec<u8>)],
) -> std::result::Result<Taken, TakeoverError> {
    for (table,) in sqlx::query_as::<_, (String,)>("SELECT name FROM sqlite_master WHERE type = 'table'")
        .fetch_all(from.pool())
        .await?
    {
        if !TABLES.iter().any(|(known, _)| *known == table) && !OTHERS.contains(&table.as_str()) {
            return Err(TakeoverError::Unknown(table));
        }
    }
    let store = Postgres::open(to).await?;
    super::Store::close(&store).await;
    // The connection of its own has no limits on time: a large audit log takes a while.
    let failed = |error| OpenError::Connect(to.to_string(), error);
    let mut connection = PgConnection::connect_with(to.connect()).await.map_err(failed)?;
    let mut tx = connection.begin().await?;
    sqlx::query("LOCK TABLE accounts, secrets IN EXCLUSIVE MODE").execute(&mut *tx).await?;
    let used = "SELECT EXISTS (SELECT 1 FROM accounts) OR EXISTS (SELECT 1 FROM secrets)";
    let (is_used,): (bool,) = sqlx::query_as(used).fetch_one(&mut *tx).await?;
    if is_used {
        return Err(TakeoverError::NotEmpty(to.to_string()));
    }
    let mut taken = Taken::default();
    for (table, which) in TABLES {
        let rows = copy(table, which, from.pool(), &mut tx).await?;
        match table {
            "accounts" => taken.accounts = rows,
            "groups" => taken.groups = rows,
            "files" => taken.files = rows,
            "sessions" => taken.sessions = rows,
            _ => {}
        }
    }
    let (epoch,): (i64,) = sqlx::query_as("SELECT value FROM epoch").fetch_one(from.pool()).await?;
    sqlx::query("UPDATE epoch SET value = $1").bind(epoch).execute(&mut *tx).await?;
    continue_numbers(from.pool(), &mut tx).await?;
    for (name, sealed) in secrets {
        sqlx::query("INSERT INTO secrets (name, version, sealed) VALUES ($1, 1, $2)")
            .bind(*name)
            .bind(sealed)
            .execute(&mut *tx)
            .await?;
    }
    tx.commit().await?;
    Ok(taken)
}

/// Copies the rows of a table. Returns their number.
async fn copy(table: &str, which: &str, from: &SqlitePool, to: &mut PgConnection) -> Result<u64> {
    let columns: Vec<(String, String)> =
        sqlx::query_as("SELECT name, type FROM pragma_table_info($1)").bind(table).fetch_all(from).await?;
    let columns: Vec<(&str, &str)> = columns
        .iter()
        .map(|(name, kind)| (name.as_str(), kind.as_str()))
        .filter(|(name, _)| !COUNTED.contains(&(table, *name)))
        .collect();
    let booleans: Vec<(String,)> = sqlx::query_as(
        "SELECT column_name::TEXT FROM information_schema.columns
         WHERE table_schema = current_schema() AND table_name = $1 AND data_type = 'boolean'",
    )
    .bind(table)
    .fetch_all(&mut *to)
    .await?;
    let values: Vec<String> = (1..)
        .zip(&columns)
        .map(|(number, (column, _))| {
            let is_boolean = booleans.iter().any(|(name,)| name == column);
            if is_boolean { format!("${number}::BIGINT <> 0") } else { format!("${number}") }
        })
        .collect();
    let names = columns.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    let select = format!("SELECT {names} FROM {table} WHERE {which} ORDER BY 1");
    let insert = format!("INSERT INTO {table} ({names}) VALUES ({})", values.join(", "));
    let mut rows = 0;
    let mut found = sqlx::query(AssertSqlSafe(select)).fetch(from);
    while let Some(row) = found.try_next().await? {
        let mut query = sqlx::query(AssertSqlSafe(insert.clone()));
        for (at, (_, kind)) in columns.iter().enumerate() {
            query = bind(query, &row, at, kind)?;
        }
        query.execute(&mut *to).await?;
        rows += 1;
    }
    Ok(rows)
}

/// Binds a value of a column's type. SQLite's tables are strict, so a column has one type.
fn bind<'q>(
    query: Query<'q, sqlx::Postgres, PgArguments>,
    row: &SqliteRow,
    at: usize,
    kind: &str,
) -> Result<Query<'q, sqlx::Postgres, PgArguments>> {
    Ok(match kind {
        "INTEGER" => query.bind(row.try_get::<Option<i64>, _>(at)?),
        "TEXT" => query.bind(row.try_get::<Option<String>, _>(at)?),
        "BLOB" => query.bind(row.try_get::<Option<Vec<u8>>, _>(at)?),
        other => return Err(StoreError::Fault(format!("a column has the unknown type {other}"))),
    })
}

/// Lets each key go on after the highest that was ever given, so that none is used again.
async fn continue_numbers(from: &SqlitePool, to: &mut PgConnection) -> Result<()> {
    let numbers: Vec<(String, i64)> =
        sqlx::query_as("SELECT name, seq FROM sqlite_sequence WHERE seq > 0").fetch_all(from).await?;
    for (table, last) in numbers {
        let column = if table == "changes" { "number" } else { "id" };
        sqlx::query("SELECT setval(pg_get_serial_sequence($1, $2), $3)")
            .bind(table)
            .bind(column)
            .bind(last)
            .execute(&mut *to)
            .await?;
    }
    // Its keys come without a counter in SQLite.
    sqlx::query("SELECT setval(pg_get_serial_sequence('runs', 'id'), greatest(max(id), 1)) FROM runs")
        .execute(&mut *to)
        .await?;
    Ok(())
}
