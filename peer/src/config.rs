//! The peer's settings. A flag counts first, then the environment, the configuration file and the default
//! ([`program::settings`]).
//!
//! The settings as typed (text, in layers) are resolved to a [`Config`]. The table [`SETTINGS`] lists every
//! setting, and so serves as the manual of the configuration file.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    str::FromStr as _,
    time::Duration,
};

use program::{
    durable,
    settings::{self, Layers, LogFormat, Origin, Setting, Settings, SettingsError, Shown, Typed},
};
use proto::domain::limits::MAX_ADDRESSES;
use transport::{AuthorityFingerprint, Congestion};

use crate::{home::Home, hooks::HookLines, tracker::list::TrackerList, units};

/// All settings. Each of them except `config` is allowed in the configuration file.
pub(crate) const SETTINGS: &[Setting] = &[
    Setting::path("home", "PEER_HOME"),
    Setting::outside("config", "PEER_CONFIG"),
    Setting::plain("tracker", "PEER_TRACKER", "https://127.0.0.1:7700"),
    Setting::path("ca", "PEER_CA"),
    Setting::plain("ca_sha256", "PEER_CA_SHA256", ""),
    Setting::plain("listen", "PEER_LISTEN", "[::]:0"),
    Setting::list("advertise", "PEER_ADVERTISE"),
    Setting::plain("upload_limit", "PEER_UPLOAD_LIMIT", "0"),
    Setting::plain("download_limit", "PEER_DOWNLOAD_LIMIT", "0"),
    Setting::plain("upload_slots", "PEER_UPLOAD_SLOTS", "2"),
    Setting::plain("congestion", "PEER_CONGESTION", "auto"),
    Setting::plain("picker_seed", "PEER_PICKER_SEED", ""),
    Setting::plain("metrics", "PEER_METRICS", ""),
    Setting::command("hooks.completed", "PEER_HOOK_COMPLETED"),
    Setting::command("hooks.failed", "PEER_HOOK_FAILED"),
    Setting::command("hooks.published", "PEER_HOOK_PUBLISHED"),
    Setting::command("hooks.joined", "PEER_HOOK_JOINED"),
    Setting::plain("reflection", "PEER_REFLECTION", "true"),
    Setting::plain("log", "PEER_LOG", "info"),
    Setting::plain("log_format", "PEER_LOG_FORMAT", "text"),
    Setting::plain("json", "PEER_JSON", "false"),
    Setting::plain("quiet", "PEER_QUIET", "false"),
    Setting::plain("yes", "PEER_YES", "false"),
    Setting::plain("no_autostart", "PEER_NO_AUTOSTART", "false"),
    Setting::plain("timeout", "PEER_TIMEOUT", ""),
];

/// Settings that can't be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// A setting can't be used.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// There is no home.
    #[error("no home directory was found; give --home DIR or set PEER_HOME ({0})")]
    Home(io::Error),
}

/// The settings, resolved.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// The directories and files where the peer keeps its state.
    pub home: Home,
    /// The home's directory, if one was given. Absolute.
    pub home_given: Option<PathBuf>,
    /// The configuration file, if one was given. Absolute.
    pub config_file_given: Option<PathBuf>,
    /// The trackers of the network.
    pub trackers: TrackerList,
    /// Whether flag or environment named the trackers. A daemon that works with others then refuses the verb.
    pub tracker_insisted: bool,
    /// The CA's certificate file.
    pub ca: Option<PathBuf>,
    /// The fingerprint of the CA's certificate.
    pub ca_sha256: Option<AuthorityFingerprint>,
    /// The address at which other peers reach this one.
    pub listen: SocketAddr,
    /// What the tracker hands out as this peer's addresses: hosts, or hosts and ports. Empty: what it sees, and
    /// the addresses of this host.
    pub advertise: Vec<String>,
    /// The limit on uploading, in bytes a second; 0 for no limit.
    pub upload_limit: u64,
    /// The limit on downloading, in bytes a second; 0 for no limit.
    pub download_limit: u64,
    /// The least number of uploads at a time, where the uplink isn't slow.
    pub upload_slots: u32,
    /// The congestion control of uploads.
    pub congestion: Congestion,
    /// The seed of the picker's random generator, which makes its choices repeatable.
    pub picker_seed: Option<u64>,
    /// The address where metrics are served.
    pub metrics: Option<SocketAddr>,
    /// Serve gRPC reflection to peers.
    pub reflection: bool,
    /// The programs that run when something has happened.
    pub hooks: HookLines,
    /// The logs that are written: a `tracing` filter.
    pub log: String,
    /// The format of the logs.
    pub log_format: LogFormat,
    /// Print JSON.
    pub json: bool,
    /// Print nothing but results and errors.
    pub quiet: bool,
    /// Do what takes the last copy from others without asking.
    pub yes: bool,
    /// Never start a daemon.
    pub no_autostart: bool,
    /// The time limit of a verb.
    pub timeout: Option<Duration>,
    /// Every setting with its value and its origin.
    pub shown: Vec<Shown>,
}

impl Config {
    /// Resolves every setting from the flags, the environment, and the configuration file that these name.
    /// The environment is an argument, so that tests need not change their own. Relative paths in the
    /// environment and the flags start from `directory`.
    ///
    /// # Errors
    /// Fails with the first setting that can't be used.
    pub(crate) fn resolve(
        flags: Typed,
        env: &dyn Fn(&str) -> Option<String>,
        directory: PathBuf,
    ) -> Result<Self, ConfigError> {
        let mut layers = Layers { flags, env, file: PathBuf::new(), file_asked: false, directory };
        let typed = Settings::typed(SETTINGS, &layers);
        let config_file_given = typed.optional("config", path)?;
        layers.file_asked = config_file_given.is_some();
        layers.file = match &config_file_given {
            Some(file) => file.clone(),
            None => home(&typed)?.config_file().to_owned(),
        };
        let mut values = Settings::resolve(SETTINGS, &layers)?;
        let home = home(&values)?;
        values.show_default("home", home.directory());
        // The trackers that a login used are better than the general default.
        if let Ok(Some(known)) = durable::read_if_there(&home.tracker_file())
            && let Ok(lines) = String::from_utf8(known)
            && let Ok(list) = TrackerList::of_lines(&lines)
        {
            values.show_default("tracker", Path::new(&list.to_string()));
        }
        values.show_default("config", &layers.file);
        // A list may be in a file, whose path starts from where it was written.
        let written_in = match values.origin("tracker") {
            Origin::File => layers.file.parent().unwrap_or(&layers.directory),
            _ => &layers.directory,
        };
        let insisted = matches!(values.origin("tracker"), Origin::Flag | Origin::Environment);
        Ok(Self {
            home,
            home_given: values.optional("home", path)?.filter(|_| values.origin("home") != Origin::Default),
            config_file_given,
            trackers: values.parse("tracker", |text| TrackerList::read(text, written_in))?,
            tracker_insisted: insisted,
            ca: values.optional("ca", PathBuf::from_str)?,
            ca_sha256: values.optional("ca_sha256", AuthorityFingerprint::from_str)?,
            listen: values.parse("listen", settings::listen_address)?,
            advertise: values.optional("advertise", advertise)?.unwrap_or_default(),
            upload_limit: values.parse("upload_limit", units::parse_rate)?,
            download_limit: values.parse("download_limit", units::parse_rate)?,
            upload_slots: values.parse("upload_slots", slots)?,
            congestion: values.parse("congestion", Congestion::from_str)?,
            picker_seed: values.optional("picker_seed", u64::from_str)?,
            metrics: values.optional("metrics", settings::listen_address)?,
            hooks: HookLines {
                completed: values.parse("hooks.completed", shell_words::split)?,
                failed: values.parse("hooks.failed", shell_words::split)?,
                published: values.parse("hooks.published", shell_words::split)?,
                joined: values.parse("hooks.joined", shell_words::split)?,
            },
            reflection: values.parse("reflection", settings::boolean)?,
            log: values.parse("log", log_filter)?,
            log_format: values.parse("log_format", settings::log_format)?,
            json: values.parse("json", settings::boolean)?,
            quiet: values.parse("quiet", settings::boolean)?,
            yes: values.parse("yes", settings::boolean)?,
            no_autostart: values.parse("no_autostart", settings::boolean)?,
            timeout: values.optional("timeout", units::parse_seconds)?,
            shown: values.shown().to_vec(),
        })
    }
}

fn home(settings: &Settings) -> Result<Home, ConfigError> {
    Home::resolve(settings.optional("home", path)?).map_err(ConfigError::Home)
}

/// Normalizes a path: removes `.` and repeated slashes.
fn path(text: &str) -> Result<PathBuf, Infallible> {
    Ok(Path::new(text).components().collect())
}

fn advertise(text: &str) -> Result<Vec<String>, String> {
    let all = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    let all: Vec<_> = all.map(one_advertised).collect::<Result<_, _>>()?;
    if all.len() > MAX_ADDRESSES {
        return Err(format!(
            "{text:?} has {} addresses; at most {MAX_ADDRESSES} can be advertised",
            all.len()
        ));
    }
    Ok(all)
}

fn one_advertised(text: &str) -> Result<String, String> {
    let bad = || format!("{text:?} is not a host, or a host and port, like peer1.example.org:7801");
    let bare_ip = text.parse::<std::net::IpAddr>().is_ok();
    let authority: Option<http::uri::Authority> =
        if bare_ip { None } else { Some(text.parse().map_err(|_| bad())?) };
    if authority.is_some_and(|a| a.as_str().contains('@') || a.port_u16() == Some(0)) {
        Err(bad())
    } else {
        Ok(text.to_owned())
    }
}

fn slots(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(slots @ 1..=64) => Ok(slots),
        _ => Err(format!("{text:?} is not a number of upload slots from 1 to 64")),
    }
}

fn log_filter(text: &str) -> Result<String, tracing_subscriber::filter::ParseError> {
    tracing_subscriber::EnvFilter::builder().parse(text).map(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(
        home: &Path,
        env: &dyn Fn(&str) -> Option<String>,
        flags: &[(&'static str, &str)],
    ) -> Result<Config, ConfigError> {
        let mut typed: Typed = flags.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        typed.insert("home", home.display().to_string());
        Config::resolve(typed, env, "/there".into())
    }

    #[test]
    fn flag_beats_environment_beats_file_beats_default() {
        let home = tempfile::tempdir().expect("a directory");
        std::fs::write(
            home.path().join("config.toml"),
            "listen = '127.0.0.1:1'\nmetrics = '127.0.0.1:1'\nlog = 'warn'\nca = 'ca.pem'\nupload_limit = 7",
        )
        .expect("written");
        let env = |name: &str| match name {
            "PEER_LISTEN" | "PEER_METRICS" => Some("127.0.0.1:2".to_owned()),
            "PEER_TRACKER" => Some(String::new()),
            _ => None,
        };
        let config = resolve(home.path(), &env, &[("listen", "127.0.0.1:3")]).expect("good settings");
        assert_eq!(config.listen.port(), 3);
        assert_eq!(config.metrics.map(|address| address.port()), Some(2));
        assert_eq!(config.log, "warn");
        assert_eq!(config.upload_limit, 7);
        assert_eq!(config.ca, Some(home.path().join("ca.pem")), "from where the file is");
        assert_eq!(config.trackers.to_string(), "https://127.0.0.1:7700");
        let origin = |name| config.shown.iter().find(|shown| shown.name == name).map(|shown| shown.origin);
        assert_eq!(origin("listen"), Some(Origin::Flag));
        assert_eq!(origin("metrics"), Some(Origin::Environment));
        assert_eq!(origin("log"), Some(Origin::File));
        assert_eq!(origin("tracker"), Some(Origin::Default), "an empty variable is no value");
        assert!(!config.tracker_insisted);
    }

    #[test]
    fn the_tracker_of_the_last_login_is_the_default() {
        let home = tempfile::tempdir().expect("a directory");
        std::fs::write(home.path().join("tracker"), "https://files.example:7700\n").expect("written");
        let config = resolve(home.path(), &|_: &str| None, &[]).expect("good settings");
        assert_eq!(config.trackers.to_string(), "https://files.example:7700");
        assert!(!config.tracker_insisted);
        let config =
            resolve(home.path(), &|_: &str| None, &[("tracker", "https://a:1")]).expect("good settings");
        assert_eq!(config.trackers.to_string(), "https://a:1", "a flag counts first");
        std::fs::write(home.path().join("tracker"), "https://a:1\nhttps://b:2\n").expect("written");
        let config = resolve(home.path(), &|_: &str| None, &[]).expect("good settings");
        assert_eq!(config.trackers.to_string(), "https://a:1,https://b:2");
    }

    #[test]
    fn a_file_of_trackers_is_meant_from_where_it_is_written() {
        let home = tempfile::tempdir().expect("a directory");
        std::fs::write(home.path().join("config.toml"), "tracker = 'tracker_info.txt'").expect("written");
        std::fs::write(home.path().join("tracker_info.txt"), "10.0.0.1:7700\n").expect("written");
        let config = resolve(home.path(), &|_: &str| None, &[]).expect("good settings");
        assert_eq!(config.trackers.to_string(), "https://10.0.0.1:7700");
        assert!(!config.tracker_insisted);
        let missing = resolve(home.path(), &|_: &str| None, &[("tracker", "there.txt")]);
        assert!(missing.expect_err("no such file").to_string().contains("there.txt"));
    }

    #[test]
    fn paths_are_meant_from_where_they_are_written() {
        let home = tempfile::tempdir().expect("a directory");
        let env = |name: &str| (name == "PEER_CA").then(|| "data/ca.pem".to_owned());
        let config = resolve(home.path(), &env, &[]).expect("good settings");
        assert_eq!(config.ca, Some("/there/data/ca.pem".into()));
    }

    #[test]
    fn a_file_that_is_named_may_say_where_the_home_is() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("peer.toml");
        std::fs::write(&file, "home = 'h'\nlog = 'warn'").expect("written");
        let env = |name: &str| (name == "PEER_CONFIG").then(|| file.display().to_string());
        let config = Config::resolve(Typed::new(), &env, "/there".into()).expect("good settings");
        assert_eq!(config.home_given, Some(directory.path().join("h")));
        assert_eq!(config.home.directory(), directory.path().join("h"));
        assert_eq!((config.config_file_given.as_ref(), config.log.as_str()), (Some(&file), "warn"));
        // A flag still takes precedence.
        let config = resolve(Path::new("/other"), &env, &[]).expect("good settings");
        assert_eq!(config.home.directory(), Path::new("/other"));
    }

    #[test]
    fn bad_files_and_values_are_named() {
        let none = |_: &str| None;
        for (text, part) in [
            ("listen = ", "config.toml"),
            ("colour = 'red'", "colour"),
            ("listen = [1]", "listen"),
            ("listen = 'here'", "listen"),
            ("upload_limit = -5", "upload_limit"),
            ("upload_slots = 0", "upload_slots"),
            ("picker_seed = 'x'", "picker_seed"),
            ("timeout = 'soon'", "timeout"),
            ("json = 'perhaps'", "json"),
            ("log_format = 'xml'", "log_format"),
            ("ca_sha256 = 'ab'", "ca_sha256"),
            ("advertise = 'a b'", "advertise"),
            ("advertise = ['a', 'b', 'c', 'd', 'e']", "at most 4"),
        ] {
            let home = tempfile::tempdir().expect("a directory");
            std::fs::write(home.path().join("config.toml"), text).expect("written");
            let error = resolve(home.path(), &none, &[]).expect_err(text).to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
        let home = tempfile::tempdir().expect("a directory");
        let asked = resolve(home.path(), &none, &[("config", "absent.toml")]);
        assert!(matches!(asked, Err(ConfigError::Settings(SettingsError::Read { .. }))));
    }
}
