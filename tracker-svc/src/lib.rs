//! The Mini Torrent tracker, as a library.

pub mod ca;
pub mod cli;
pub mod config;
pub mod domain;
mod durable;
pub mod error;
pub mod events;
pub mod grpc;
pub mod hub;
pub mod keys;
pub mod password;
pub mod store;

/// Serves what `config` says until SIGTERM or SIGINT.
///
/// # Errors
/// When the data directory can't be used or the address can't be bound.
pub async fn run(config: config::Config) -> anyhow::Result<()> {
    let _store = store::sqlite::Sqlite::open(&config.data_dir).await?;
    anyhow::bail!("the services are not put together yet")
}
