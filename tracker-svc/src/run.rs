//! The program around the library: signals, the line on standard output, and the time limit for stopping.

use std::{
    io::{self, Write as _},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use transport::{Limits, Listener, raise_open_files};

use crate::{Tracker, config::Config, database};

/// Time limit after a signal. The drain takes at most 8 seconds of it.
const END: Duration = Duration::from_millis(9_300);
/// Time limit for closing the store. This only tidies up: acknowledged changes are already on disk.
const CLOSE: Duration = Duration::from_millis(400);

/// Open files that connections leave for everything else. The database uses up to 3 for each of its 7
/// connections (the file, its log and their shared memory). Backups and temporary files use a few. The
/// runtime, the log and the listeners use 16.
const RESERVED_FILES: u64 = 64;

/// Serves with `config` until SIGTERM or SIGINT.
///
/// # Errors
/// Fails if the data directory cannot be used or the address cannot be bound.
pub async fn run(config: Config) -> anyhow::Result<()> {
    let open_files = raise_open_files();
    let limits = Limits::tracker().within(open_files.saturating_sub(RESERVED_FILES));
    tracing::info!(data_dir = ?config.data_dir, open_files, places = ?limits.places, "starting");
    let shutdown = on_signals()?;
    let store = database::open(&config).await?;
    let tracker = Tracker::prepare(Arc::clone(&store), &config).await?;
    let bound = Listener::bind(config.listen);
    let listener = bound.with_context(|| format!("the tracker can't listen at {}", config.listen))?;
    let scheme = if config.plaintext { "http" } else { "https" };
    let mut out = io::stdout();
    writeln!(out, "listening {scheme}://{}", listener.local_addr()?)?;
    out.flush()?;
    // Running without a service manager is not an error.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    let overdue = async {
        shutdown.cancelled().await;
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
        sleep(END).await;
    };
    tokio::select! {
        served = tracker.serve_within(listener, limits, shutdown.clone()) => served?,
        () = overdue => tracing::warn!("some work did not end in time and was aborted"),
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
