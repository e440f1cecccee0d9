//! The peer's settings: flag, then environment, then configuration file, then default ([`proto::settings`]).
//!
//! As typed (text, per layer) → resolved ([`Config`]). One table, [`SETTINGS`], names every setting; reading it is
//! reading the manual of the configuration file.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    str::FromStr as _,
    time::Duration,
};

use proto::{
    settings::{self, Layers, LogFormat, Origin, Setting, Settings, SettingsError, Shown, Typed},
    transport::{AuthorityFingerprint, Congestion},
};

use crate::{home::Home, units};

/// Every setting. All but `config` may stand in the configuration file.
pub const SETTINGS: &[Setting] = &[
    Setting::path("home", "PEER_HOME"),
    Setting::outside("config", "PEER_CONFIG"),
    Setting::plain("tracker", "PEER_TRACKER", "https://127.0.0.1:7700"),
    Setting::path("ca", "PEER_CA"),
    Setting::plain("ca_sha256", "PEER_CA_SHA256", ""),
    Setting::plain("listen", "PEER_LISTEN", "0.0.0.0:0"),
    Setting::plain("advertise", "PEER_ADVERTISE", ""),
    Setting::plain("upload_limit", "PEER_UPLOAD_LIMIT", "0"),
    Setting::plain("download_limit", "PEER_DOWNLOAD_LIMIT", "0"),
    Setting::plain("upload_slots", "PEER_UPLOAD_SLOTS", "2"),
    Setting::plain("congestion", "PEER_CONGESTION", "auto"),
    Setting::plain("picker_seed", "PEER_PICKER_SEED", ""),
    Setting::plain("metrics", "PEER_METRICS", ""),
    Setting::plain("reflection", "PEER_REFLECTION", "true"),
    Setting::plain("log", "PEER_LOG", "info"),
    Setting::plain("log_format", "PEER_LOG_FORMAT", "text"),
    Setting::plain("json", "PEER_JSON", "false"),
    Setting::plain("quiet", "PEER_QUIET", "false"),
    Setting::plain("no_autostart", "PEER_NO_AUTOSTART", "false"),
    Setting::plain("timeout", "PEER_TIMEOUT", ""),
];

/// Settings that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// One of them.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// There is no home.
    #[error("no home directory: give --home DIR or set PEER_HOME ({0})")]
    Home(io::Error),
}

/// The settings, resolved.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the peer keeps its state.
    pub home: Home,
    /// The home's directory, if one was given. Absolute.
    pub home_given: Option<PathBuf>,
    /// The configuration file, if one was given. Absolute.
    pub config_file_given: Option<PathBuf>,
    /// The tracker's URL.
    pub tracker: String,
    /// The tracker was named by flag or environment, so a daemon that works with another one is not meant.
    pub tracker_insisted: bool,
    /// The CA's certificate file.
    pub ca: Option<PathBuf>,
    /// The fingerprint of the CA's certificate.
    pub ca_sha256: Option<AuthorityFingerprint>,
    /// Where peers reach this one.
    pub listen: SocketAddr,
    /// What the tracker hands out as this peer's address: a host, or a host and port.
    pub advertise: Option<String>,
    /// Bytes a second, 0 for no limit.
    pub upload_limit: u64,
    /// Bytes a second, 0 for no limit.
    pub download_limit: u64,
    /// Uploads at a time, at least, where the uplink isn't thin.
    pub upload_slots: u32,
    /// Congestion control of what is uploaded.
    pub congestion: Congestion,
    /// Makes what the picker leaves to chance repeatable.
    pub picker_seed: Option<u64>,
    /// Where metrics are served.
    pub metrics: Option<SocketAddr>,
    /// Serve gRPC reflection to peers.
    pub reflection: bool,
    /// Which logs are written: a `tracing` filter.
    pub log: String,
    /// How.
    pub log_format: LogFormat,
    /// Print JSON.
    pub json: bool,
    /// Print nothing but results and errors.
    pub quiet: bool,
    /// Never start a daemon.
    pub no_autostart: bool,
    /// How long a verb may take.
    pub timeout: Option<Duration>,
    /// Every setting as it stands.
    pub shown: Vec<Shown>,
}

impl Config {
    /// Resolves every setting, from what was typed and from the file that this names. The environment is an argument, so
    /// that tests need not change their own; relative paths in it and in flags start from `directory`.
    ///
    /// # Errors
    /// The first one that can't be used.
    pub fn resolve(
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
        values.show_default("config", &layers.file);
        let insisted = matches!(values.origin("tracker"), Origin::Flag | Origin::Environment);
        Ok(Self {
            home,
            home_given: values.optional("home", path)?.filter(|_| values.origin("home") != Origin::Default),
            config_file_given,
            tracker: values.parse("tracker", tracker_url)?,
            tracker_insisted: insisted,
            ca: values.optional("ca", PathBuf::from_str)?,
            ca_sha256: values.optional("ca_sha256", AuthorityFingerprint::from_str)?,
            listen: values.parse("listen", settings::listen_address)?,
            advertise: values.optional("advertise", advertise)?,
            upload_limit: values.parse("upload_limit", units::parse_rate)?,
            download_limit: values.parse("download_limit", units::parse_rate)?,
            upload_slots: values.parse("upload_slots", slots)?,
            congestion: values.parse("congestion", Congestion::from_str)?,
            picker_seed: values.optional("picker_seed", u64::from_str)?,
            metrics: values.optional("metrics", settings::listen_address)?,
            reflection: values.parse("reflection", settings::boolean)?,
            log: values.parse("log", log_filter)?,
            log_format: values.parse("log_format", settings::log_format)?,
            json: values.parse("json", settings::boolean)?,
            quiet: values.parse("quiet", settings::boolean)?,
            no_autostart: values.parse("no_autostart", settings::boolean)?,
            timeout: values.optional("timeout", units::parse_seconds)?,
            shown: values.shown().to_vec(),
        })
    }
}

fn home(settings: &Settings) -> Result<Home, ConfigError> {
    Home::resolve(settings.optional("home", path)?).map_err(ConfigError::Home)
}

/// A path spelled one way, without `.` and doubled slashes.
fn path(text: &str) -> Result<PathBuf, Infallible> {
    Ok(Path::new(text).components().collect())
}

/// A tracker's URL, spelled one way: scheme, host and port, no slash at the end.
///
/// # Errors
/// When it is not one, or would send passwords in the clear to another machine.
pub fn tracker_url(text: &str) -> Result<String, String> {
    let form = "write a tracker as https://HOST:PORT";
    let uri: http::Uri = text.parse().map_err(|error| format!("{text:?}: {error}; {form}"))?;
    let (Some(scheme), Some(host)) = (uri.scheme_str(), uri.host()) else {
        return Err(format!("{text:?} is not a URL; {form}"));
    };
    if uri.path() != "/" || uri.query().is_some() || uri.authority().is_some_and(|a| a.as_str().contains('@'))
    {
        return Err(format!("{text:?} holds more than a host and a port; {form}"));
    }
    let local = host == "localhost"
        || host.trim_matches(['[', ']']).parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
    match scheme {
        "https" => {}
        "http" if local => {}
        "http" => {
            return Err(format!("{text:?}: http:// is for a tracker on this machine only; use https://"));
        }
        _ => return Err(format!("{text:?}: unknown scheme {scheme:?}; {form}")),
    }
    let port = uri.port_u16().unwrap_or(7700);
    Ok(format!("{scheme}://{}:{port}", host.to_ascii_lowercase()))
}

fn advertise(text: &str) -> Result<String, String> {
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
        _ => Err(format!("{text:?} is not a number of upload slots: 1 to 64")),
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
        assert_eq!(config.tracker, "https://127.0.0.1:7700");
        let origin = |name| config.shown.iter().find(|shown| shown.name == name).map(|shown| shown.origin);
        assert_eq!(origin("listen"), Some(Origin::Flag));
        assert_eq!(origin("metrics"), Some(Origin::Environment));
        assert_eq!(origin("log"), Some(Origin::File));
        assert_eq!(origin("tracker"), Some(Origin::Default), "an empty variable is no value");
        assert!(!config.tracker_insisted);
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
        // A flag still beats it.
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

    #[test]
    fn trackers_are_spelled_one_way() {
        for (typed, url) in [
            ("https://127.0.0.1:7700", "https://127.0.0.1:7700"),
            ("https://Tracker:7700/", "https://tracker:7700"),
            ("https://tracker", "https://tracker:7700"),
            ("http://localhost:1", "http://localhost:1"),
            ("https://[::1]:2", "https://[::1]:2"),
        ] {
            assert_eq!(tracker_url(typed).as_deref(), Ok(url));
        }
        for typed in [
            "",
            "tracker",
            "tracker:7700",
            "ftp://t:1",
            "http://example.org:1",
            "https://t/x",
            "https://u:p@t:1",
        ] {
            assert!(tracker_url(typed).is_err(), "{typed}");
        }
    }
}
