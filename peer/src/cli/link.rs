//! Reaching the daemon of a home, and starting one where there is none.

use std::{
    ffi::OsString,
    fs::OpenOptions,
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use proto::{
    pb::{
        auth_service_client::AuthServiceClient, control_service_client::ControlServiceClient,
        file_service_client::FileServiceClient, group_service_client::GroupServiceClient,
    },
    settings::Origin,
    transport::{ChannelTuning, ClientSecurity, Remote, connect},
};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::Channel,
};

use super::exit::Failure;
use crate::{config::Config, control::TRACKER_METADATA};

/// How long a daemon may take until it answers.
const START: Duration = Duration::from_secs(10);
/// Between two looks at a daemon that is starting or ending.
const LOOK: Duration = Duration::from_millis(25);
/// A log this long, in bytes, is put aside when the next daemon starts.
const LONG_LOG: u64 = 8 << 20;
/// Largest answer that is taken from the daemon itself, in bytes: many downloads with many sources. What it passes on from
/// the tracker comes in pages, and 4 MiB, the default, is more than any of them.
const MAX_ANSWER: usize = 64 << 20;

/// The daemon of a home, connected.
#[derive(Clone, Debug)]
pub(super) struct Daemon {
    channel: InterceptedService<Channel, Stamp>,
}

/// Says in each call which tracker is meant, and which verb it is part of.
#[derive(Clone, Debug)]
pub(super) struct Stamp {
    tracker: Option<MetadataValue<Ascii>>,
    request: MetadataValue<Ascii>,
}

impl Interceptor for Stamp {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(tracker) = &self.tracker {
            request.metadata_mut().insert(TRACKER_METADATA, tracker.clone());
        }
        request.metadata_mut().insert("x-request-id", self.request.clone());
        Ok(request)
    }
}

type Stamped = InterceptedService<Channel, Stamp>;

impl Daemon {
    fn new(channel: Channel, config: &Config) -> Self {
        let tracker = config.tracker_insisted.then(|| config.tracker.parse().ok()).flatten();
        let id = format!("{:016x}", rand::random::<u64>());
        let request = id.parse().unwrap_or_else(|_| MetadataValue::from_static("peer"));
        Self { channel: InterceptedService::new(channel, Stamp { tracker, request }) }
    }

    /// What the daemon itself does.
    pub(super) fn control(&self) -> ControlServiceClient<Stamped> {
        ControlServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER)
    }

    /// Groups, passed on to the tracker.
    pub(super) fn groups(&self) -> GroupServiceClient<Stamped> {
        GroupServiceClient::new(self.channel.clone())
    }

    /// Files, passed on to the tracker.
    pub(super) fn files(&self) -> FileServiceClient<Stamped> {
        FileServiceClient::new(self.channel.clone())
    }

    /// Accounts, passed on to the tracker.
    pub(super) fn auth(&self) -> AuthServiceClient<Stamped> {
        AuthServiceClient::new(self.channel.clone())
    }
}

/// Connects to the daemon; where there is none, starts one if it may.
///
/// # Errors
/// Exit 10 when there is none and none may be started, else what went wrong.
pub(super) async fn reach(config: &Config, may_start: bool) -> Result<Daemon, Failure> {
    let deadline = Instant::now() + START;
    loop {
        if let Some(daemon) = try_connect(config).await {
            return Ok(daemon);
        }
        // Held: a daemon is starting or ending. Two verbs may both find it free; then one of their daemons gives way.
        if is_free(config)? {
            if !may_start || config.no_autostart {
                return Err(Failure::no_daemon());
            }
            start(config).await?;
        }
        if Instant::now() >= deadline {
            let home = config.home.directory().display();
            return Err(Failure::daemon(format!(
                "a daemon holds {home} but does not answer; see {}",
                config.home.log_file().display()
            )));
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn try_connect(config: &Config) -> Option<Daemon> {
    let remote = Remote::Unix(config.home.socket().to_owned());
    let channel = connect(remote, ClientSecurity::Plaintext, &ChannelTuning::control()).await.ok()?;
    Some(Daemon::new(channel, config))
}

/// No daemon has the home.
fn is_free(config: &Config) -> Result<bool, Failure> {
    let home = config.home.directory();
    if !home.exists() {
        return Ok(true);
    }
    match config.home.lock() {
        Ok(lock) => Ok(lock.is_some()),
        Err(error) => Err(Failure::io(home.display(), &error)),
    }
}

/// Waits until the daemon has ended.
///
/// # Errors
/// When it has not within `limit`.
pub(super) async fn wait_for_end(config: &Config, limit: Duration) -> Result<(), Failure> {
    let deadline = Instant::now() + limit;
    while !is_free(config)? {
        if Instant::now() >= deadline {
            return Err(Failure::timed_out("the daemon has not ended yet"));
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

/// Starts a daemon that outlives this verb, and waits until it takes calls or gives way to another.
async fn start(config: &Config) -> Result<(), Failure> {
    config.home.create().map_err(|error| Failure::io(config.home.directory().display(), &error))?;
    let log = config.home.log_file();
    let (log_file, log_start) = open_log(&log).map_err(|error| Failure::io(log.display(), &error))?;
    let program = std::env::current_exe().map_err(|error| Failure::io("this program", &error))?;
    let mut child = tokio::process::Command::new(program)
        .args(daemon_arguments(config))
        .current_dir(config.home.directory())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log_file)
        .spawn()
        .map_err(|error| Failure::io("starting a daemon", &error))?;
    let pid = child.id().unwrap_or_default();
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        let mut stdout = BufReader::new(stdout);
        // Whatever happened, what counts is found out below.
        let _ = tokio::time::timeout(START, stdout.read_line(&mut line)).await;
    }
    if line.starts_with("listening ") {
        if !config.quiet && !config.json {
            super::render::note(&format!("started a peer daemon (pid {pid}, log {})", log.display()));
        }
        return Ok(());
    }
    if is_free(config)? {
        return Err(Failure::daemon(format!("the daemon did not start: {}", last_words(&log, log_start))));
    }
    Ok(())
}

/// The log to append to, and how long it was.
fn open_log(path: &Path) -> io::Result<(std::fs::File, u64)> {
    if std::fs::metadata(path).is_ok_and(|found| found.len() > LONG_LOG) {
        std::fs::rename(path, path.with_extension("log.1"))?;
    }
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
    let length = file.metadata()?.len();
    Ok((file, length))
}

/// What the daemon said last.
fn last_words(log: &Path, start: u64) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let new = text.get(usize::try_from(start).unwrap_or_default()..).unwrap_or_default();
    let new = String::from_utf8_lossy(new);
    let last = new.lines().rev().find(|line| !line.trim().is_empty());
    last.map_or_else(|| format!("see {}", log.display()), |line| line.trim_start_matches("peer: ").to_owned())
}

/// What was given to the verb, spelled so that it means the same from the daemon's own directory. The rest of the
/// environment is inherited.
fn daemon_arguments(config: &Config) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = vec!["daemon".into(), "--detached".into()];
    if let Some(home) = &config.home_given {
        arguments.extend(["--home".into(), home.into()]);
    }
    if let Some(file) = &config.config_file_given {
        arguments.extend(["--config".into(), file.into()]);
    }
    for name in ["tracker", "ca", "ca_sha256", "log", "log_format"] {
        let given = config.shown.iter().find(|shown| shown.name == name);
        if let Some(shown) = given.filter(|shown| matches!(shown.origin, Origin::Flag | Origin::Environment))
        {
            arguments.extend([format!("--{}", name.replace('_', "-")).into(), shown.value.clone().into()]);
        }
    }
    arguments
}
