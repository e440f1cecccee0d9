//! Connecting to the daemon of a home, and starting one if there is none.

use std::{
    ffi::{OsStr, OsString},
    fs::OpenOptions,
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use program::settings::Origin;
use proto::{
    pb::{
        auth_service_client::AuthServiceClient, control_service_client::ControlServiceClient,
        file_service_client::FileServiceClient, group_service_client::GroupServiceClient,
    },
    reason::Reason,
};
use rustix::process::Signal;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::Channel,
};
use transport::{ChannelTuning, ClientSecurity, ConnectError, Remote, connect};

use super::exit::Failure;
use crate::{
    config::Config,
    control::TRACKER_METADATA,
    home::{Holder, Home, Phase},
};

/// How long a daemon may take to start and answer.
const START: Duration = Duration::from_secs(10);
/// The time between two checks of a daemon that is starting or ending.
const LOOK: Duration = Duration::from_millis(25);
/// How long a daemon may take to make its socket again after it was deleted. It looks every two seconds.
const REMADE: Duration = Duration::from_secs(4);
/// How long a daemon that is ended by its process id may take.
const TERM: Duration = Duration::from_secs(8);
/// A log that is longer than this, in bytes, is renamed when the next daemon starts.
const LONG_LOG: u64 = 8 << 20;
/// The largest answer that is accepted from the daemon itself, in bytes: many downloads with many sources.
/// Answers that the daemon forwards from the tracker come in pages, and each fits within the default of 4
/// MiB.
const MAX_ANSWER: usize = 64 << 20;

/// A connection to the daemon of a home.
#[derive(Clone, Debug)]
pub(super) struct Daemon {
    channel: InterceptedService<Channel, Stamp>,
}

/// Adds metadata to each call: the tracker that is meant, and the request id of the verb.
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
        let tracker = config.tracker_insisted.then(|| config.trackers.to_string().parse().ok()).flatten();
        let id = format!("{:016x}", rand::random::<u64>());
        let request = id.parse().unwrap_or_else(|_| MetadataValue::from_static("peer"));
        Self { channel: InterceptedService::new(channel, Stamp { tracker, request }) }
    }

    /// The client of the daemon's own operations.
    pub(super) fn control(&self) -> ControlServiceClient<Stamped> {
        ControlServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER)
    }

    /// The client of group operations, which the daemon forwards to the tracker.
    pub(super) fn groups(&self) -> GroupServiceClient<Stamped> {
        GroupServiceClient::new(self.channel.clone())
    }

    /// The client of file operations, which the daemon forwards to the tracker.
    pub(super) fn files(&self) -> FileServiceClient<Stamped> {
        FileServiceClient::new(self.channel.clone())
    }

    /// The client of account operations, which the daemon forwards to the tracker.
    pub(super) fn auth(&self) -> AuthServiceClient<Stamped> {
        AuthServiceClient::new(self.channel.clone())
    }
}

/// Connects to the daemon. If there is none and `may_start` is set, starts one.
///
/// # Errors
/// Fails with exit code 10 when there is no daemon and none may be started, or when the one that there is does
/// not answer; else with what went wrong.
pub(super) async fn reach(config: &Config, may_start: bool) -> Result<Daemon, Failure> {
    let start = Instant::now();
    loop {
        // The kernel takes connections to a suspended process, which then answers nothing.
        if let Some(holder) = holder(config)?.filter(Holder::is_stopped) {
            return Err(silent(config, &holder));
        }
        let missed = match try_connect(config, &config.home).await? {
            Ok(daemon) => return Ok(daemon),
            Err(missed) => missed,
        };
        match holder(config)? {
            // Two verbs may both find no daemon. Then one of their daemons gives way.
            None => {
                if !may_start || config.no_autostart {
                    return Err(Failure::no_daemon());
                }
                self::start(config).await?;
            }
            Some(holder) => {
                if let Some(daemon) = try_elsewhere(config, &holder).await? {
                    return Ok(daemon);
                }
                if start.elapsed() >= patience(holder.phase, missed) {
                    return Err(silent(config, &holder));
                }
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// How a connection failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Missed {
    /// There is no socket.
    Absent,
    /// There is one, and nobody serves it.
    Refused,
}

/// How long to wait for a daemon that is there and can't be reached. One that is starting or ending gets time
/// to do so. A socket that was deleted is made again. Nothing else gets better by waiting.
fn patience(phase: Phase, missed: Missed) -> Duration {
    match (phase, missed) {
        (Phase::Starting | Phase::Ending, _) => START,
        (Phase::Serving, Missed::Absent) => REMADE,
        (Phase::Serving, Missed::Refused) => Duration::ZERO,
    }
}

/// The failure of a verb whose daemon is there and does not answer.
fn silent(config: &Config, holder: &Holder) -> Failure {
    let home = config.home.directory().display();
    let socket = holder.socket.as_deref().unwrap_or(config.home.socket()).display();
    let Some(pid) = holder.pid else {
        return Failure::silent(format!(
            "a daemon in another container holds {home} and can't be reached at {socket}"
        ));
    };
    if holder.is_stopped() {
        return Failure::silent(format!(
            "the daemon of {home} (pid {pid}) is suspended; `kill -CONT {pid}` continues it"
        ));
    }
    Failure::silent(format!(
        "the daemon of {home} (pid {pid}) does not answer at {socket}; see {}, or end it with `peer --home {home} daemon \
         stop`",
        config.home.log_file().display()
    ))
}

/// Connects to the daemon by the socket of this home. The inner error says how that failed.
///
/// # Errors
/// Fails when the other end could be another user, who must not see a password. Nothing was sent then.
async fn try_connect(config: &Config, home: &Home) -> Result<Result<Daemon, Missed>, Failure> {
    let private = home.check_socket_dir().map_err(|error| Failure::io("the daemon's socket", &error))?;
    if !private {
        return Ok(Err(Missed::Absent));
    }
    let remote = Remote::Unix(home.socket().to_owned());
    match connect(remote, ClientSecurity::Plaintext, &ChannelTuning::control()).await {
        Ok(channel) => Ok(Ok(Daemon::new(channel, config))),
        Err(error) => match ConnectError::of(&error) {
            Some(foreign @ ConnectError::AnotherUser { .. }) => Err(Failure::of(
                Reason::NotPermitted,
                format!("the daemon's socket: {foreign}; stop that process and remove the socket"),
            )),
            Some(ConnectError::Dial(error)) if error.kind() == io::ErrorKind::NotFound => {
                Ok(Err(Missed::Absent))
            }
            _ => Ok(Err(Missed::Refused)),
        },
    }
}

/// Connects by the socket that the daemon's lock file names, if that is another one than expected. This
/// happens when the daemon was started with another runtime directory.
async fn try_elsewhere(config: &Config, holder: &Holder) -> Result<Option<Daemon>, Failure> {
    match &holder.socket {
        Some(socket) if socket != config.home.socket() => {
            Ok(try_connect(config, &config.home.with_socket(socket.clone())).await?.ok())
        }
        _ => Ok(None),
    }
}

/// The process that holds the home, if any does.
pub(super) fn holder(config: &Config) -> Result<Option<Holder>, Failure> {
    config.home.holder().map_err(|error| Failure::io(config.home.directory().display(), &error))
}

/// Waits until the daemon has ended. Returns false if it has not within `limit`.
pub(super) async fn wait_for_end(config: &Config, limit: Duration) -> Result<bool, Failure> {
    let deadline = Instant::now() + limit;
    while holder(config)?.is_some() {
        if Instant::now() >= deadline {
            return Ok(false);
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(true)
}

/// Ends the daemon by its process id: first it is asked to end, then it is killed. The kernel names the
/// process that holds the home's lock, so no other process is ever hit.
///
/// # Errors
/// Fails when there is no such process to be seen, or when it may not be signalled.
pub(super) async fn end_by_pid(config: &Config) -> Result<(), Failure> {
    let send = |signal| {
        let sent = config.home.signal_holder(signal);
        sent.map_err(|error| Failure::io("ending the daemon by its process id", &error))
    };
    let Some(before) = holder(config)? else { return Ok(()) };
    send(Signal::TERM)?;
    // A suspended process takes no other signal.
    send(Signal::CONT)?;
    if wait_for_end(config, TERM).await? {
        return Ok(());
    }
    send(Signal::KILL)?;
    if wait_for_end(config, TERM).await? { Ok(()) } else { Err(silent(config, &before)) }
}

/// Starts a daemon that outlives this verb. Waits until it takes calls, or until it gives way to another one.
async fn start(config: &Config) -> Result<(), Failure> {
    config.home.create().map_err(|error| Failure::io(config.home.directory().display(), &error))?;
    let log = config.home.log_file();
    let (log_file, log_start) = open_log(&log).map_err(|error| Failure::io(log.display(), &error))?;
    let program = std::env::current_exe().map_err(|error| Failure::io("this program", &error))?;
    let mut child = tokio::process::Command::new(program)
        .args(daemon_arguments(config))
        .env_clear()
        .envs(std::env::vars_os().filter(|(name, _)| is_inherited(name)))
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
        // The result does not matter: the checks below find out what happened.
        let _ = tokio::time::timeout(START, stdout.read_line(&mut line)).await;
    }
    if line.starts_with("listening ") {
        if !config.quiet && !config.json {
            super::render::note(&format!("started a peer daemon (pid {pid}, log {})", log.display()));
        }
        return Ok(());
    }
    if holder(config)?.is_none() {
        return Err(Failure::daemon(format!("the daemon did not start: {}", last_words(&log, log_start))));
    }
    Ok(())
}

/// Whether the daemon needs this variable of the environment. The rest stays with the verb: it can hold
/// secrets, and anybody who may see the daemon's environment would see them for as long as it runs.
fn is_inherited(name: &OsStr) -> bool {
    const NAMES: [&str; 9] =
        ["HOME", "PATH", "LANG", "TZ", "TMPDIR", "USER", "LOGNAME", "RUST_BACKTRACE", "TOKIO_WORKER_THREADS"];
    // LD_ and FAKETIME are there so that a library put around a verb is put around its daemon, too.
    const BEGINNINGS: [&str; 5] = ["PEER_", "XDG_", "LC_", "LD_", "FAKETIME"];
    let name = name.to_string_lossy();
    let secret = ["PASSWORD", "TOKEN", "SECRET"].iter().any(|word| name.contains(word));
    !secret && (NAMES.contains(&&*name) || BEGINNINGS.iter().any(|beginning| name.starts_with(beginning)))
}

/// Opens the log for appending, and returns its length so far.
fn open_log(path: &Path) -> io::Result<(std::fs::File, u64)> {
    if std::fs::metadata(path).is_ok_and(|found| found.len() > LONG_LOG) {
        std::fs::rename(path, path.with_extension("log.1"))?;
    }
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
    let length = file.metadata()?.len();
    Ok((file, length))
}

/// The last line that the daemon has logged since `start`.
fn last_words(log: &Path, start: u64) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let new = text.get(usize::try_from(start).unwrap_or_default()..).unwrap_or_default();
    let new = String::from_utf8_lossy(new);
    let last = new.lines().rev().find(|line| !line.trim().is_empty());
    last.map_or_else(|| format!("see {}", log.display()), |line| line.trim_start_matches("peer: ").to_owned())
}

/// The settings that the verb was given, spelled so that they mean the same in the daemon's own working
/// directory. Other settings are in the environment.
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
            // A list that is in a file is passed on as it was read.
            let value = if name == "tracker" { config.trackers.to_string() } else { shown.value.clone() };
            arguments.extend([format!("--{}", name.replace('_', "-")).into(), value.into()]);
        }
    }
    arguments
}
