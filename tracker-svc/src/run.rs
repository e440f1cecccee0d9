//! The program around the library: signals, the one line on standard output, the end in time.

use std::{
    io::{self, Write as _},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use proto::transport::{listen, raise_open_files};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{Tracker, config::Config, store::sqlite::Sqlite};

/// After a signal everything is over by then: the drain takes 8 seconds at most.
const END: Duration = Duration::from_millis(9_300);
/// Closing the store only tidies up: what was acknowledged is on disk.
const CLOSE: Duration = Duration::from_millis(400);

/// Serves what `config` says until SIGTERM or SIGINT.
///
/// # Errors
/// When the data directory can't be used or the address can't be bound.
pub async fn run(config: Config) -> anyhow::Result<()> {
    let open_files = raise_open_files();
    tracing::info!(data_dir = ?config.data_dir, open_files, "starting");
    let shutdown = on_signals()?;
    let store = Arc::new(Sqlite::open(&config.data_dir).await?);
    let tracker = Tracker::prepare(store.clone(), &config).await?;
    let bound = listen(config.listen);
    let listener = bound.with_context(|| format!("can't listen at {}", config.listen))?;
    let scheme = if config.plaintext { "http" } else { "https" };
    let mut out = io::stdout();
    writeln!(out, "listening {scheme}://{}", listener.local_addr()?)?;
    out.flush()?;
    // No service manager is no error.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    let overdue = async {
        shutdown.cancelled().await;
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
        sleep(END).await;
    };
    tokio::select! {
        served = tracker.serve(listener, shutdown.clone()) => served?,
        () = overdue => tracing::warn!("some work did not end in time and was cut"),
    }
    let _ = timeout(CLOSE, store.close()).await;
    tracing::info!("stopped");
    Ok(())
}

fn on_signals() -> io::Result<CancellationToken> {
    let shutdown = CancellationToken::new();
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let token = shutdown.clone();
    tokio::spawn(async move {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        token.cancel();
    });
    Ok(shutdown)
}
