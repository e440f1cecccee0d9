//! Which database a tracker uses: its own file, or one that it shares with other trackers.

use std::sync::Arc;

use anyhow::{Context as _, bail};

use crate::{
    config::Config,
    store::{
        Store,
        postgres::Postgres,
        sqlite::{DATABASE, Sqlite},
    },
};

/// Opens the database to serve from it. Makes it, or updates its schema.
///
/// # Errors
/// Fails if the database cannot be used. Also fails if there are two: the address of a shared one, and a file
/// in the data directory.
pub(crate) async fn open(config: &Config) -> anyhow::Result<Arc<dyn Store>> {
    let Some(options) = &config.database else {
        return Ok(Arc::new(Sqlite::open(&config.data_dir).await?));
    };
    if config.data_dir.join(DATABASE).exists() {
        let dir = config.data_dir.display();
        bail!(
            "{dir} is the data directory of a tracker of its own; take it over with `tracker-svc migrate --from {dir} --to ADDRESS`, and serve with another --data-dir"
        );
    }
    let made = program::durable::private_dir(&config.data_dir);
    made.with_context(|| config.data_dir.display().to_string())?;
    if options.is_readable_on_the_way() {
        tracing::warn!(
            "the connection to the database may be readable on the network; add sslmode=verify-full to its address"
        );
    }
    Ok(Arc::new(Postgres::open(options).await?))
}

/// Opens the database while trackers may serve from it.
///
/// # Errors
/// Fails if the database cannot be used, or is not there.
pub(crate) async fn open_beside(config: &Config) -> anyhow::Result<Arc<dyn Store>> {
    let store: Arc<dyn Store> = match &config.database {
        Some(options) => Arc::new(Postgres::open_beside(options).await?),
        None => Arc::new(Sqlite::open_beside(&config.data_dir).await?),
    };
    Ok(store)
}
