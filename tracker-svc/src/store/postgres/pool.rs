//! Connections to one PostgreSQL server, and statements that end in time.
//!
//! sqlx's own pool tests a connection each time that it comes back, which doubles the cost of a lookup, and
//! waits for a server that does not answer. Here a connection comes back only after an answer, and untested.
//! When a statement fails on a connection, or has no answer in time, that connection and all idle ones are
//! given up: the server was probably restarted.
//!
//! The time is limited on this side too. A server that is stopped, or cut off, can't limit it.

use std::{fmt, future::Future, io, sync::Arc, time::Duration};

use futures_util::{
    TryStreamExt as _,
    future::BoxFuture,
    stream::{self, BoxStream},
};
use parking_lot::Mutex;
use sqlx::{
    ConnectOptions as _, Describe, Either, Error, Execute, Executor, PgConnection, SqlStr,
    postgres::{PgArguments, PgConnectOptions, PgQueryResult, PgRow, PgStatement, PgTypeInfo},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout_at},
};

/// Connections of one tracker: more than two cores can keep busy, and a tenth of what PostgreSQL allows.
const CONNECTIONS: usize = 10;
/// How long a caller waits for a connection.
const ACQUIRE: Duration = Duration::from_millis(1_500);
/// How long this side waits for the answer to a statement. The server gives up a little earlier
/// ([`super::connection`]).
const ANSWER: Duration = Duration::from_millis(2_500);

type Steps = Vec<Either<PgQueryResult, PgRow>>;

/// Open connections. Callers share it as an `Arc`.
pub(super) struct Pool {
    options: PgConnectOptions,
    /// The idle connections, and how often connections were given up.
    idle: Mutex<Idle>,
    places: Arc<Semaphore>,
}

#[derive(Default)]
struct Idle {
    connections: Vec<PgConnection>,
    generation: u64,
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").finish_non_exhaustive()
    }
}

impl Pool {
    pub(super) fn new(options: PgConnectOptions) -> Arc<Self> {
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        Arc::new(Self { options, idle: Mutex::default(), places })
    }

    /// Waits for a connection, or opens one.
    ///
    /// # Errors
    /// Fails if the server does not answer in time, or refuses the connection.
    pub(super) async fn lease(self: &Arc<Self>) -> sqlx::Result<Lease> {
        in_time(Instant::now() + ACQUIRE, async {
            let place = Arc::clone(&self.places).acquire_owned().await.map_err(|_| Error::PoolClosed)?;
            let (generation, idle) = {
                let mut idle = self.idle.lock();
                (idle.generation, idle.connections.pop())
            };
            let connection = match idle {
                Some(connection) => connection,
                None => self.options.connect().await?,
            };
            Ok(Lease {
                pool: Arc::clone(self),
                connection: Some(connection),
                generation,
                is_idle: true,
                _place: place,
            })
        })
        .await?
    }

    /// Closes the idle connections, and makes all later calls fail.
    pub(super) fn close(&self) {
        self.places.close();
        self.give_up();
    }

    /// Gives all idle connections up, and those in use when they come back.
    fn give_up(&self) {
        let mut idle = self.idle.lock();
        idle.generation += 1;
        idle.connections.clear();
    }

    async fn run(self: &Arc<Self>, sql: SqlStr, arguments: Option<PgArguments>) -> sqlx::Result<Steps> {
        let mut lease = self.lease().await?;
        match lease.run((sql.clone(), arguments.clone()), Instant::now() + ANSWER).await {
            // The server was restarted since the connection was last used. The statement only reads, or may
            // be repeated.
            Err(error) if is_lost(&error) && !is_late(&error) => {
                drop(lease);
                self.lease().await?.run((sql, arguments), Instant::now() + ANSWER).await
            }
            done => done,
        }
    }
}

/// A connection that is in use. It goes back to the pool if its last statement was answered.
pub(super) struct Lease {
    pool: Arc<Pool>,
    /// `None` after it was given up.
    connection: Option<PgConnection>,
    generation: u64,
    /// Whether it may go back: it waits for no answer, and is in no transaction.
    is_idle: bool,
    _place: OwnedSemaphorePermit,
}

impl Lease {
    /// Keeps the connection out of the pool until it is idle again, because a transaction starts.
    pub(super) fn hold(&mut self) {
        self.is_idle = false;
    }

    /// Lets the connection go back, because the transaction has ended.
    pub(super) fn release(&mut self) {
        self.is_idle = self.connection.is_some();
    }

    /// Runs a statement. Without an answer until `deadline` the connection is given up.
    pub(super) async fn run<'q>(
        &mut self,
        query: impl Execute<'q, sqlx::Postgres> + 'q,
        deadline: Instant,
    ) -> sqlx::Result<Steps> {
        let was_idle = std::mem::replace(&mut self.is_idle, false);
        let Some(connection) = self.connection.as_mut() else { return Err(lost()) };
        let deadline = deadline.min(Instant::now() + ANSWER);
        let done = in_time(deadline, connection.fetch_many(query).try_collect()).await;
        let done = done.and_then(|done| done);
        if done.as_ref().is_err_and(is_lost) {
            self.connection = None;
            self.pool.give_up();
        } else {
            self.is_idle = was_idle;
        }
        done
    }

    /// The connection, for what is no single statement.
    pub(super) fn connection(&mut self) -> Option<&mut PgConnection> {
        self.connection.as_mut()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some(connection) = self.connection.take().filter(|_| self.is_idle) else { return };
        let mut idle = self.pool.idle.lock();
        if idle.generation == self.generation && !self.pool.places.is_closed() {
            idle.connections.push(connection);
        }
    }
}

/// Runs single statements, each on any connection. All of them may be repeated.
#[derive(Clone, Copy, Debug)]
pub(super) struct Statements<'p>(pub(super) &'p Arc<Pool>);

/// Runs the statements of a transaction until its deadline.
pub(super) struct Transaction<'l>(pub(super) &'l mut Lease, pub(super) Instant);

impl fmt::Debug for Transaction<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transaction").finish_non_exhaustive()
    }
}

/// The parts of `Executor` that are the same for both: everything follows from the steps of a statement.
macro_rules! executor {
    ($name:ident, ($self:ident, $query:ident) => $steps:expr) => {
        impl<'c> Executor<'c> for $name<'c> {
            type Database = sqlx::Postgres;

            fn fetch_many<'e, 'q: 'e, E>($self, mut $query: E) -> BoxStream<'e, sqlx::Result<Either<PgQueryResult, PgRow>>>
            where
                'c: 'e,
                E: Execute<'q, sqlx::Postgres> + 'q,
            {
                Box::pin(
                    stream::once(async move { $steps })
                        .map_ok(|steps| stream::iter(steps.into_iter().map(Ok)))
                        .try_flatten(),
                )
            }

            fn fetch_optional<'e, 'q: 'e, E>($self, mut $query: E) -> BoxFuture<'e, sqlx::Result<Option<PgRow>>>
            where
                'c: 'e,
                E: Execute<'q, sqlx::Postgres> + 'q,
            {
                Box::pin(async move { Ok($steps?.into_iter().find_map(Either::right)) })
            }

            fn prepare_with<'e>($self, _: SqlStr, _: &'e [PgTypeInfo]) -> BoxFuture<'e, sqlx::Result<PgStatement>>
            where
                'c: 'e,
            {
                Box::pin(async { Err(Error::Protocol("statements are prepared when they run".into())) })
            }

            fn describe<'e>($self, _: SqlStr) -> BoxFuture<'e, sqlx::Result<Describe<sqlx::Postgres>>>
            where
                'c: 'e,
            {
                Box::pin(async { Err(Error::Protocol("statements are described when they run".into())) })
            }
        }
    };
}

executor!(Statements, (self, query) => {
    match query.take_arguments() {
        Ok(arguments) => self.0.run(query.sql(), arguments).await,
        Err(error) => Err(Error::Encode(error)),
    }
});
executor!(Transaction, (self, query) => {
    match query.take_arguments() {
        Ok(arguments) => self.0.run((query.sql(), arguments), self.1).await,
        Err(error) => Err(Error::Encode(error)),
    }
});

/// Waits for `work` until `deadline`.
pub(super) async fn in_time<T>(deadline: Instant, work: impl Future<Output = T>) -> sqlx::Result<T> {
    timeout_at(deadline, work).await.map_err(|_| {
        Error::Io(io::Error::new(io::ErrorKind::TimedOut, "the database did not answer in time"))
    })
}

fn lost() -> Error {
    Error::Io(io::Error::new(io::ErrorKind::NotConnected, "the connection to the database was lost"))
}

/// Whether the connection is unusable after this error.
fn is_lost(error: &Error) -> bool {
    let state = error.as_database_error().and_then(|error| error.code());
    match error {
        Error::Io(_) | Error::Protocol(_) | Error::Tls(_) | Error::WorkerCrashed => true,
        // The server ends the connection: a shutdown, a crash, or a transaction that was idle for too long.
        _ => {
            state.is_some_and(|state| state.starts_with("57P") || state.starts_with("08") || state == "25P03")
        }
    }
}

/// Whether there was no answer in time.
pub(super) fn is_late(error: &Error) -> bool {
    matches!(error, Error::Io(error) if error.kind() == io::ErrorKind::TimedOut)
}
